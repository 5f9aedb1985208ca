#!/usr/bin/env bash
# Which lines the tests run of what meets bytes and calls from outside: the parsers, loading of tokenizers, saved states
# and the C ABI.
#
#   tools/coverage.sh [PATH]...
#
# PATHs, files or folders, take the place of src/format src/num.rs src/text src/session/state ffi/src. Builds and runs
# the tests with counters, the command-line tool and the C programs among them, and prints a table of files. The lines
# that nothing ran are in `coverage/uncovered.txt` of the target directory, as PATH:LINE: TEXT. Tests within files do not
# count as lines of theirs. A macro's line has run if one of its uses has.
#
# Left out: tests of kernels, which take minutes without optimisation and run none of this; what limits the size of
# files or allows no system calls, since counters are a file; the stack, which no build with debug assertions measures.
#
# Needs llvm-profdata and llvm-cov of the compiler's own LLVM: rustup's component llvm-tools, or Debian's llvm-22 where
# `rustc -vV` says 22. From nothing it took half an hour on two cores that had other work.
set -euo pipefail
cd "$(dirname "$0")/.."

case ${1:-} in -*) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0" >&2; exit 2 ;; esac
[ $# -gt 0 ] || set -- src/format src/num.rs src/text src/session/state ffi/src
for path in "$@"; do
    [ -e "$path" ] || { echo "coverage.sh: there is no $path" >&2; exit 2; }
done

version=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
own=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin

# tool NAME: where that program of this LLVM is.
tool() {
    local found
    for found in "$own/$1" "$1-$version" "$1"; do
        if "$found" --version 2> /dev/null | grep "LLVM version $version\\." > /dev/null; then
            command -v "$found"
            return
        fi
    done
    echo "coverage.sh: no $1 of LLVM $version (rustup component add llvm-tools; Debian: apt-get install llvm-$version)" >&2
    exit 3
}
profdata=$(tool llvm-profdata)
cov=$(tool llvm-cov)

mkdir -p "${CARGO_TARGET_DIR:-target}/coverage"
work=$(realpath "${CARGO_TARGET_DIR:-target}/coverage")
# Counts and C programs of an earlier run.
rm -rf "$work/counts" "$work/tmp"
export CARGO_TARGET_DIR=$work RUSTFLAGS=-Cinstrument-coverage LLVM_PROFILE_FILE=$work/counts/%m-%p.profraw
tests=(--workspace --lib --tests)
# A C program asks nobody for what writes counters to a file when it ends.
for compiler in "CC cc" "CXX c++"; do
    read -r name usual <<< "$compiler"
    printf '#!/bin/sh\ncase " $* " in *" -fsyntax-only "*) ;; *) set -- "$@" -u__llvm_profile_runtime ;; esac\nexec %s "$@"\n' \
        "${!name:-$usual}" > "$work/$usual"
    chmod +x "$work/$usual"
    export "$name=$work/$usual"
done

echo "coverage.sh: building, then tests; what they say is in $work/log" >&2
# The counts of programs that run while others are built are not wanted.
LLVM_PROFILE_FILE=/dev/null cargo build --quiet --example locutor
LLVM_PROFILE_FILE=/dev/null cargo test --quiet "${tests[@]}" --no-run --message-format=json > "$work/built.json"
cargo test --quiet --no-fail-fast "${tests[@]}" -- --skip kernels:: --skip a_save_that_fails \
    --skip ten_thousand_tokens_without_a_system_call > "$work/log" 2>&1 ||
    { tail -n 40 "$work/log" >&2; echo "coverage.sh: tests failed: $work/log" >&2; exit 1; }

"$profdata" merge -sparse "$work"/counts/*.profraw -o "$work/counts/all.profdata"
programs=()
while read -r program; do
    programs+=(-object "$program")
done < <(
    # The C programs, which hold the static library, and the shared one. First, since of two functions with one name, as
    # those are that C calls, the first one counts, and tests of the crate itself have them too. That is what llvm-cov
    # means by mismatched data.
    find "$work/tmp" -type f -perm -u+x -exec sh -c 'readelf -S -W "$1" | grep -q __llvm_covmap' sh {} \; -print
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' "$work/built.json"
    echo "$work/debug/examples/locutor"
)
"$cov" export -format=lcov -instr-profile "$work/counts/all.profdata" "${programs[@]:1}" --sources "$@" > "$work/lcov.info"

# Lines of each file, but for its tests; a file that no program has is not there at all.
awk -v root="$PWD/" -v uncovered="$work/uncovered.txt" '
    # The lines of a file, and which of them are in a module of tests.
    function load(path,    indent, number, text) {
        split("", source)
        split("", tests)
        while ((getline text < path) > 0) {
            source[++number] = text
            if (indent == "" && text ~ /^ *mod tests \{/) {
                indent = text
                sub(/mod.*/, "}", indent)
            }
            if (indent != "") tests[number]
            if (text == indent) indent = ""
        }
        close(path)
    }
    function row(name, lines, missed) {
        printf "%-34s %6d %6d %8.2f %%\n", name, lines, missed, 100 * (lines - missed) / lines
    }
    BEGIN {
        printf "" > uncovered
        printf "%-34s %6s %6s %10s\n", "file", "lines", "missed", "covered"
    }
    /^SF:/ {
        path = substr($0, 4)
        name = path
        sub(root, "", name)
        lines = missed = 0
        load(path)
    }
    /^DA:/ && name !~ /(^|\/)tests\.rs$/ {
        split(substr($0, 4), part, ",")
        number = part[1]
        if (number in tests) next
        lines++
        if (part[2] > 0) next
        missed++
        text = source[number]
        sub(/^ */, "", text)
        print name ":" number ": " text > uncovered
    }
    /^end_of_record/ && lines {
        row(name, lines, missed)
        all += lines
        all_missed += missed
    }
    END { if (all) row("all", all, all_missed) }
' "$work/lcov.info"
echo "coverage.sh: lines that nothing ran: $work/uncovered.txt" >&2
