#!/usr/bin/env bash
# Which lines of what meets bytes from outside the tests run: the parsers, loading of tokenizers, saved states, the C ABI.
#
#   tools/coverage.sh [report|show] [FILE]...
#
# `report` (the default) is a table of files, `show` the lines that no test runs. FILEs and folders take the place of
# src/format src/num.rs src/text src/session/state ffi/src. Unit tests within files do not count as lines of theirs.
#
# Needs llvm-profdata and llvm-cov of the compiler's own LLVM (Debian's llvm-22 where `rustc -vV` says 22, or rustup's
# component llvm-tools).
set -euo pipefail
cd "$(dirname "$0")/.."

what=${1:-report}
case $what in
    report | show) ;;
    *)
        sed -n '2,10s/^# \{0,1\}//p' "$0"
        exit 2
        ;;
esac
shift || true
(($#)) || set -- src/format src/num.rs src/text src/session/state ffi/src

version=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
own=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin
tool() {
    local found
    for found in "$own/$1" "$1-$version"; do
        if command -v "$found" > /dev/null; then
            echo "$found"
            return
        fi
    done
    echo "coverage.sh: no $1 of LLVM $version (Debian: llvm-$version)" >&2
    exit 1
}
profdata=$(tool llvm-profdata)
cov=$(tool llvm-cov)

work=$PWD/${CARGO_TARGET_DIR:-target}/coverage
case ${CARGO_TARGET_DIR:-} in /*) work=$CARGO_TARGET_DIR/coverage ;; esac
mkdir -p "$work"
rm -f "$work"/*.profraw
export RUSTFLAGS="-Cinstrument-coverage" CARGO_TARGET_DIR=$work LLVM_PROFILE_FILE="$work/%p-%m.profraw"
cargo test --quiet --workspace --lib --tests > "$work/tests.log" 2>&1 || {
    tail -40 "$work/tests.log"
    exit 1
}
"$profdata" merge -sparse "$work"/*.profraw -o "$work/all.profdata"

objects=()
while read -r program; do
    objects+=(-object "$program")
done < <(cargo test --quiet --workspace --lib --tests --no-run --message-format=json 2> /dev/null |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p')
[[ ! -e $work/debug/liblocutor.so ]] || objects+=(-object "$work/debug/liblocutor.so")

options=(-instr-profile "$work/all.profdata" --ignore-filename-regex '/(tests|testkit[^/]*)\.rs$')
case $what in
    report) "$cov" report "${objects[@]:1}" "${options[@]}" --sources "$@" ;;
    show) "$cov" show "${objects[@]:1}" "${options[@]}" --sources "$@" | grep -E '^ *[0-9]+\| *0\||^/' ;;
esac
