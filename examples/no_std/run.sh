#!/usr/bin/env bash
# Builds the program for a Cortex-M4F and runs it on QEMU's mps2-an386.
#
#   examples/no_std/run.sh           builds and runs
#   examples/no_std/run.sh build     builds only, prints the path of the ELF file
#
# Needs qemu-system-arm and lld, and a compiler with the sources of `core`: Debian's rustc-web and rust-web-src
# (RUSTC names another one). Stable rustup toolchains with `rustup target add thumbv7em-none-eabihf` also work: then set
# LOCUTOR_BUILD_STD= (empty) and RUSTC=rustc.
set -euo pipefail
cd "$(dirname "$0")"

target=thumbv7em-none-eabihf
export RUSTC=${RUSTC:-/usr/bin/rustc} RUSTC_BOOTSTRAP=1
export CARGO_TARGET_THUMBV7EM_NONE_EABIHF_LINKER=${LLD:-ld.lld}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-../../target}/no_std
cargo build --quiet --release --locked --target "$target" ${LOCUTOR_BUILD_STD--Zbuild-std=core}
elf=$CARGO_TARGET_DIR/$target/release/locutor-no-std
if [ "${1:-run}" = build ]; then
    realpath "$elf"
    exit
fi
exec qemu-system-arm -M mps2-an386 -nographic -monitor none -serial none \
    -semihosting-config enable=on,target=native -kernel "$elf" < /dev/null
