#!/usr/bin/env bash
# Builds the page, a folder of four files that any static file server serves.
#
#   examples/wasm/run.sh          builds, and serves it at http://localhost:8000
#   examples/wasm/run.sh build    builds only, prints the path of the folder
#
# With rustup: `rustup target add wasm32-unknown-unknown`, and nothing else. A compiler without that target, but with
# the sources of `core`, does it with LOCUTOR_BUILD_STD=-Zbuild-std=core, RUSTC_BOOTSTRAP=1 and wasm-ld (Debian:
# rustc-web, rust-web-src and lld; RUSTC=/usr/bin/rustc).
set -euo pipefail
cd "$(dirname "$0")"

target=wasm32-unknown-unknown
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-../../target}/wasm
if [ -n "${LOCUTOR_BUILD_STD:-}" ]; then
    # rustc brings its own linker only with the target.
    export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=${WASM_LD:-wasm-ld}
fi
cargo build --quiet --release --locked --target "$target" ${LOCUTOR_BUILD_STD:-}
site=$CARGO_TARGET_DIR/page
mkdir -p "$site"
cp page/* "$site"
cp "$CARGO_TARGET_DIR/$target/release/locutor_wasm.wasm" "$site/locutor.wasm"
if [ "${1:-run}" = build ]; then
    realpath "$site"
    exit
fi
exec python3 -m http.server --directory "$site" 8000
