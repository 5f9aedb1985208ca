#!/usr/bin/env bash
# Builds the page, a folder of four files that any static file server serves.
#
#   examples/wasm/run.sh          builds, and serves it at http://localhost:8000
#   examples/wasm/run.sh build    builds only, prints the path of the folder
#
# With rustup: `rustup target add wasm32-unknown-unknown`, and nothing else. If the compiler does not have that target,
# Debian's builds `core` for it from its sources, and wasm-ld links (rustc-web, rust-web-src, lld).
set -euo pipefail
cd "$(dirname "$0")"

target=wasm32-unknown-unknown std=
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-../../target}/wasm
if [ ! -d "$("${RUSTC:-rustc}" --print sysroot)/lib/rustlib/$target" ]; then
    export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld
    std=-Zbuild-std=core
fi
cargo build --quiet --release --locked --target "$target" $std
site=$CARGO_TARGET_DIR/page
mkdir -p "$site"
cp page/* "$site"
cp "$CARGO_TARGET_DIR/$target/release/locutor_wasm.wasm" "$site/locutor.wasm"
if [ "${1:-run}" = build ]; then
    realpath "$site"
    exit
fi
exec python3 -m http.server --directory "$site" 8000
