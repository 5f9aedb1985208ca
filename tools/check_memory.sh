#!/usr/bin/env bash
# Runs the C and C++ test programs, and the tests in Rust, under tools that see every access to memory.
#
#   tools/check_memory.sh valgrind    the release library as it is: accesses, leaks
#   tools/check_memory.sh address     library, its standard library and programs with AddressSanitizer
#   tools/check_memory.sh thread      the same with ThreadSanitizer: races
#   tools/check_memory.sh address-tests [ARGUMENT]...   the tests in Rust with AddressSanitizer, leaks included
#   tools/check_memory.sh thread-tests [ARGUMENT]...    the same with ThreadSanitizer
#
# ARGUMENTs go to `cargo test` in place of `-p locutor -p locutor-ffi --lib --tests`.
#
# Needs valgrind; for the sanitizers a compiler that comes with the sources of the standard library: Debian's rustc-web
# and rust-web-src (RUSTC names another one), and clang with its runtime, best of the same LLVM (clang-22 and
# libclang-rt-22-dev where `rustc -vV` says 22): what that makes, an older runtime may not know.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
work=$target/memory
mkdir -p "$work"
triple=$(uname -m)-unknown-linux-gnu
story=examples/model/story.gguf
small=tests/golden/llama-gqa-tied.gguf

compiler=${RUSTC:-/usr/bin/rustc}
version=$("$compiler" -vV 2> /dev/null | sed -n 's/^LLVM version: \([0-9]*\).*/-\1/p')
command -v "clang$version" > /dev/null || version=

# sanitized SANITIZER COMMAND [ARGUMENT]...: cargo's COMMAND with the sanitizer in all that Rust compiles. Programs get the
# runtime of clang: Debian's compiler comes without one.
sanitized() {
    local flags="-Zsanitizer=$1 -Zexternal-clangrt -Clinker=clang$version -Clink-arg=-fsanitize=$1"
    RUSTC=$compiler RUSTC_BOOTSTRAP=1 RUSTFLAGS=$flags CARGO_TARGET_DIR=$work/$1 \
        cargo "$2" --quiet --release --target "$triple" -Zbuild-std "${@:3}"
}

# library SANITIZER: a static library with it. Prints where it is.
library() {
    sanitized "$1" rustc -p locutor-ffi --lib --crate-type staticlib
    echo "$work/$1/$triple/release/liblocutor.a"
}

# tests SANITIZER [ARGUMENT]...
tests() {
    # Tests of the tool run it.
    sanitized "$1" build -p locutor --example locutor
    if [ $# -gt 1 ]; then
        sanitized "$1" test "${@:2}"
    else
        # The C programs have verbs of their own.
        sanitized "$1" test --no-fail-fast -p locutor --lib --tests
        sanitized "$1" test --no-fail-fast -p locutor-ffi --lib
    fi
}

# programs ARCHIVE CC CXX [OPTION]...: compiles the test programs.
programs() {
    local archive=$1 cc=$2 cxx=$3 name calls=$target/tmp/c_abi
    # The calls of misuse.c are made by a test.
    cargo test --quiet --release -p locutor-ffi --test law wrong_calls > "$work/log" 2>&1 ||
        { cat "$work/log" >&2; return 1; }
    for name in misuse contract engine; do
        "$cc" -std=gnu99 -O1 -g "${@:4}" -Iinclude -I"$calls" "ffi/tests/$name.c" "$archive" \
            -lpthread -ldl -lm -lgcc_s -o "$work/$name"
    done
    "$cxx" -std=c++17 -O1 -g "${@:4}" -Iinclude ffi/tests/raii.cpp "$archive" -lpthread -ldl -lm -lgcc_s -o "$work/raii"
    "$cxx" -std=c++17 -O1 -g "${@:4}" -Iinclude examples/frame_loop.cpp "$archive" -lpthread -ldl -lm -lgcc_s -o "$work/loop"
}

# runs TOOL...: every program, by a tool that ends with an error where it finds one.
runs() {
    local model
    # See ffi/tests/check.h.
    export STACK_UNWATCHED=1
    # What a model in a pack with other files around it looks like.
    { head -c 1234 /dev/zero; cat "$small"; head -c 999 /dev/zero; } > "$work/pack"
    for model in "$small" tests/golden/gemma3.gguf; do
        "$@" "$work/misuse" "$model"
        "$@" "$work/raii" "$model"
    done
    "$@" "$work/engine" "$small"
    "$@" "$work/loop" -m "$story" --no-sleep --endless --frames 5 --budget-us 500000 --threads 3 > /dev/null 2> "$work/log" ||
        { cat "$work/log" >&2; return 1; }
}

case ${1:-} in
    valgrind)
        cargo build --quiet --release -p locutor-ffi
        programs "$target/release/liblocutor.a" cc c++
        runs valgrind -q --error-exitcode=9 --leak-check=full --fair-sched=yes
        ;;
    address)
        programs "$(library address)" "clang$version" "clang++$version" -fsanitize=address
        ASAN_OPTIONS=allocator_may_return_null=1:detect_stack_use_after_return=1 runs env
        "$work/contract" "$small" "$work/pack" 1234
        ;;
    thread)
        programs "$(library thread)" "clang$version" "clang++$version" -fsanitize=thread
        TSAN_OPTIONS=halt_on_error=1 runs env
        TSAN_OPTIONS=halt_on_error=1 "$work/contract" "$small" "$work/pack" 1234
        ;;
    address-tests) ASAN_OPTIONS=allocator_may_return_null=1 tests address "${@:2}" ;;
    thread-tests) TSAN_OPTIONS=halt_on_error=1:allocator_may_return_null=1 tests thread "${@:2}" ;;
    *)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0" >&2
        exit 2
        ;;
esac
echo "check_memory.sh: $1: nothing found"
