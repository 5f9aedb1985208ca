#!/usr/bin/env bash
# Proves that no panic can be reached: see src/lib.rs. Ends with status 1, and says where the panics are, if one can.
#
#   tools/no_panic/prove.sh
#
# Holds for the compiler, the options and the machine that it runs with. The last of the three builds has a panic on
# purpose: a proof that cannot fail proves nothing.
set -euo pipefail
cd "$(dirname "$0")"

target=${CARGO_TARGET_DIR:-../../target}/no_panic
work=$target/link
mkdir -p "$work"

build() { CARGO_TARGET_DIR=$target cargo build --quiet --release --locked "$@"; }

# link OUTPUT [OPTION]: throws away what the calls cannot reach.
link() {
    "${CC:-cc}" -shared -nostartfiles -o "$1" -Wl,--whole-archive "$target/release/liblocutor_no_panic.a" \
        -Wl,--no-whole-archive -Wl,--gc-sections "${@:2}" -lm
}

# With `defs`, everything that is left must exist, in the archive or in libc.
prove() { link "$work/proof.so" -Wl,-z,defs 2> "$work/log"; }

for features in "" alloc; do
    build --no-default-features --features "$features"
    if ! prove; then
        echo "no_panic: a panic can be reached (features: ${features:-none})" >&2
        tail -n 5 "$work/log" >&2
        link "$work/open.so"
        python3 where.py "$work/open.so" >&2
        exit 1
    fi
    calls=$(nm -D --defined-only "$work/proof.so" | grep -c ' proof_')
    echo "no_panic: $calls calls, features ${features:-none}: no panic can be reached"
done

build --features control
if prove || ! grep -q locutor_panic_reached "$work/log"; then
    echo "no_panic: the panic that is there on purpose was not found" >&2
    exit 1
fi
