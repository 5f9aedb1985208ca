#!/usr/bin/env bash
# The checks of this project, one verb each; .ci/run installs what they need and calls `all`.
#
#   ./ci.sh fmt        formatting
#   ./ci.sh floors     house rules: imports, unsafe, lengths (tests/floors.rs)
#   ./ci.sh lint       clippy and the documentation, warnings denied
#   ./ci.sh features   the library alone with every set of features
#   ./ci.sh test       the README's test command
#   ./ci.sh hostile    hostile files and faults, with their numbers (part of `test` as well)
#   ./ci.sh debug      (not part of `all`) the library's own tests and `hostile` in a build with debug assertions
#   ./ci.sh cross      targets without an operating system, with nothing but `core`; tests of the kernels for WebAssembly
#   ./ci.sh foreign    tests on i686, a big-endian and an AArch64 machine, the bits of a story among them
#   ./ci.sh foreign-whole [MACHINE]...  (not part of `all`) all tests there: i686, s390x, aarch64
#   ./ci.sh c          the law of the C API with every compiler there is: header, exported symbols, wrong calls
#   ./ci.sh abi        the C header against what it promised before (include/locutor.abi)
#   ./ci.sh memory     the C programs under valgrind
#   ./ci.sh sanitize   the same with AddressSanitizer and ThreadSanitizer, library and all
#   ./ci.sh panic      no panic can be reached: a proof by the linker (tools/no_panic)
#   ./ci.sh python     the Python binding, against the tool on this machine
#   ./ci.sh csharp     the C# binding, by Mono, against the tool on this machine
#   ./ci.sh desktops   (not part of `all`) the library compiles for Windows and macOS, headers and programs for Windows with
#                      MinGW; nothing is run
#   ./ci.sh sizes      (not part of `all`) the shared library for embedders is as small as SIZES.md promises
#   ./ci.sh nostd      the bare-metal program on an emulated Cortex-M4F, against the tool on this machine
#   ./ci.sh wasm       the page for browsers in Chromium, against the tool on this machine
#   ./ci.sh models     real models against other software (downloads some GB the first time; see tools/reference.sh)
#   ./ci.sh fuzz [S]   every fuzz target for S seconds (default 10)
#   ./ci.sh all        all of them, cheap ones first
#
# A gate whose tools are missing fails and names the Debian package. Only fuzzing, which needs a nightly compiler, and
# abi, whose tool not every system has, are skipped without it, and the last line says so.
set -euo pipefail
cd "$(dirname "$0")"

gates=(
    fmt floors lint features test hostile c abi panic memory python csharp nostd wasm cross sanitize models foreign fuzz
)
# Verbs that `all` leaves out: they take long, or are for releases.
extra=(debug desktops foreign-whole sizes)
report=() skipped=() current=
built=${CARGO_TARGET_DIR:-target}

fmt() {
    cargo fmt --all --check
    local crate
    for crate in examples/no_std examples/wasm fuzz tools/no_panic; do
        cargo fmt --check --manifest-path "$crate/Cargo.toml"
    done
}

# With the profile of the tests, which need all that this builds.
floors() { cargo test --quiet --release --test floors; }

lint() {
    cargo clippy --quiet --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS='-D warnings' cargo doc --quiet --workspace --no-deps
}

features() {
    local set
    for set in '' alloc std avx2 std,avx2 avx512 avxvnni avx512,avxvnni neon,simd128; do
        cargo clippy --quiet --lib --no-default-features --features "$set" -- -D warnings
    done
}

# Keep in step with README.md.
test_command() { cargo test --release --workspace; }

hostile() { cargo test --quiet --release --test hostile -- --nocapture; }

# The library's own tests and the hostile files with debug assertions: what overflows panics, and errors name their layer.
debug() { cargo test --quiet --lib --test hostile; }

# Debian's compiler, because it comes with the sources of the standard library. RUSTC_BOOTSTRAP lets it build them.
debian_rust() {
    need /usr/bin/rustc rustc-web
    need /usr/lib/rustlib/src/rust/library/core/src/lib.rs rust-web-src
    RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$built/debian cargo "$@"
}

# Checked, not built: machine code for these is made by `foreign`, `nostd` and the tests for WebAssembly.
cross() {
    local target
    for target in x86_64-unknown-none aarch64-unknown-none thumbv7em-none-eabihf wasm32-unknown-unknown; do
        echo "cross: $target, core alone"
        debian_rust check --quiet --release -p locutor --no-default-features --features neon --target "$target" \
            -Zbuild-std=core
    done
    echo "cross: wasm32-unknown-unknown with simd128, core and alloc"
    RUSTFLAGS='-C target-feature=+simd128' debian_rust check --quiet --release -p locutor \
        --no-default-features --features alloc,simd128 --target wasm32-unknown-unknown -Zbuild-std=core,alloc
    echo "cross: wasm32-wasip1 with simd128, tests of the kernels"
    wasi_tests
}

# The kernels' tests as a program for Node.js. Debian's compiler has no C library for this target of its own.
wasi_tests() {
    local libc=/usr/lib/wasm32-wasi told
    need wasm-ld lld
    need node nodejs
    need "$libc/libc.a" wasi-libc
    local -x CARGO_TARGET_WASM32_WASIP1_LINKER=wasm-ld
    local -x CARGO_TARGET_WASM32_WASIP1_RUNNER="timeout 900 node --no-warnings $PWD/tools/wasi.mjs"
    local -x RUSTFLAGS="-Ctarget-feature=+simd128 -Clink-self-contained=no -Clink-arg=$libc/crt1-command.o -Lnative=$libc"
    RUSTFLAGS+=" -Clink-arg=--allow-undefined"
    told=$(debian_rust test --quiet --release -p locutor --lib --target wasm32-wasip1 -Zbuild-std=std,panic_abort \
        -- kernels:: --nocapture)
    echo "$told"
    same "the tables of WebAssembly" "$(sed -n 's/.*\(tables: .*\)/\1/p' <<< "$told")" "tables: scalar simd128"
}

# Tests on other machines: 32 bits, big-endian, 64-bit Arm. Two of them are emulated, and emulators are slow, so only the
# library's own tests run there, saved states, and the models of tests/golden with a story whose every logit must have
# the bits it has here. No program of these takes 15 minutes; one that does hangs.
foreign() {
    local machine
    for machine in i686 s390x aarch64; do
        echo "foreign: $machine, tests"
        on "$machine" test --quiet --release -p locutor --lib --test golden --test states
    done
    # Beside the one with everything, AArch64 machines with less: other tables are the best there.
    arm_tables max "scalar neon dotprod i8mm" kernels::aarch64
    arm_tables cortex-a76 "scalar neon dotprod" kernels::
    arm_tables cortex-a53 "scalar neon" kernels::
}

# arm_tables CPU TABLES TESTS: such a CPU has these tables, as one test tells, and the tests pass on it.
arm_tables() {
    local told cpu=$1
    echo "foreign: aarch64, $1"
    told=$(on aarch64 test --quiet --release -p locutor --lib \
        -- tables_are_found_by_name "$3" --nocapture)
    same "the tables of $1" "$(sed -n 's/.*\(tables: .*\)/\1/p' <<< "$told")" "tables: $2"
}

# All tests of the library there but those that CONTRIBUTING.md names. foreign-whole [MACHINE]...
foreign-whole() {
    local machine machines=("$@") longest=7200 file tests=()
    [ $# -gt 0 ] || machines=(i686 s390x aarch64)
    for file in tests/*.rs tests/*/main.rs; do
        file=${file#tests/} file=${file%.rs}
        case $file in cli | floors) ;; *) tests+=(--test "${file%/main}") ;; esac
    done
    for machine in "${machines[@]}"; do
        echo "foreign-whole: $machine"
        on "$machine" test --quiet --release -p locutor --lib "${tests[@]}" --no-fail-fast
    done
}

# on MACHINE COMMAND [ARGUMENT]...: cargo's COMMAND for another machine, whose programs then run here. An emulator has
# its own idea of the processor unless the variable `cpu` names one, and `longest` seconds for each program.
on() {
    local machine=$1 command=$2 root=/usr/$1-linux-gnu runner
    shift 2
    need "$machine-linux-gnu-gcc" "gcc-$machine-linux-gnu"
    if [ "$machine" = i686 ]; then
        # This processor, with a C library of its own.
        runner="$root/lib/ld-linux.so.2 --library-path $root/lib"
        need "$root/lib/ld-linux.so.2" libc6-i386-cross
    else
        runner="qemu-$machine ${cpu:+-cpu $cpu} -L $root"
        need "qemu-$machine" qemu-user
    fi
    local variable=CARGO_TARGET_${machine^^}_UNKNOWN_LINUX_GNU
    export "${variable}_LINKER=$machine-linux-gnu-gcc" "${variable}_RUNNER=timeout ${longest:-900} $runner"
    # Without debugging information a build takes an eighth less time and half the space; panics still tell their line.
    CARGO_PROFILE_RELEASE_DEBUG=0 debian_rust "$command" --target "$machine-unknown-linux-gnu" -Zbuild-std "$@"
}

c() {
    need clang clang
    need pkg-config pkg-config
    need cmake cmake
    # `test` runs the rest.
    cargo test --quiet --release -p locutor-ffi --test law
}

abi() {
    if ! command -v abidiff > /dev/null; then
        skip "no abidiff (Debian: apt-get install abigail-tools)"
        return
    fi
    tools/abi.py
}

memory() {
    need valgrind valgrind
    tools/check_memory.sh valgrind
}

sanitize() {
    need clang "clang libclang-rt-dev"
    need /usr/bin/rustc rustc-web
    need /usr/lib/rustlib/src/rust/library/core/src/lib.rs rust-web-src
    tools/check_memory.sh address
    tools/check_memory.sh thread
}

panic() { tools/no_panic/prove.sh; }

# Python's standard library, and the shared library.
python() {
    cargo build --quiet --release -p locutor-ffi
    cargo build --quiet --release --example locutor
    LOCUTOR_LIBRARY=$(realpath "$built/release/liblocutor.so") \
        LOCUTOR_TOOL=$(realpath "$built/release/examples/locutor") \
        python3 examples/python/test_locutor.py
}

# C#: compiled and run by Mono, text and ids beside the tool's.
csharp() {
    need mcs mono-mcs
    need mono mono-runtime
    cargo build --quiet --release -p locutor-ffi
    cargo build --quiet --release --example locutor
    local program=$built/generate.exe options form told
    mcs -warnaserror -out:"$program" examples/csharp/Locutor.cs
    export LD_LIBRARY_PATH=$built/release
    for options in '--greedy -n 40' '--seed 42 -n 60' '--seed 7 -n 60 --threads 3'; do
        for form in '' --ids; do
            # shellcheck disable=SC2086
            told=$(mono "$program" -m examples/model/story.gguf $options $form 'Once upon a time')
            # shellcheck disable=SC2086
            same "generate $options $form in C#" "$told" \
                "$("$built/release/examples/locutor" generate $options $form 'Once upon a time' 2> /dev/null)"
        done
    done
    if mono "$program" -m Cargo.toml text 2> "$program.log"; then
        echo "ci.sh: a program in C# takes a file that is no model" >&2
        exit 1
    fi
    grep -q GGUF "$program.log"
    unset LD_LIBRARY_PATH
}

desktops() {
    local target
    for target in x86_64-pc-windows-gnu x86_64-apple-darwin aarch64-apple-darwin; do
        echo "desktops: $target"
        debian_rust check --quiet --release -p locutor-ffi --target "$target" -Zbuild-std
    done
    local cc=x86_64-w64-mingw32-gcc cxx=x86_64-w64-mingw32-g++-posix strict=(-Wall -Wextra -pedantic -Werror -Iinclude) file
    need "$cc" gcc-mingw-w64-x86-64
    need "$cxx" g++-mingw-w64-x86-64-posix
    for file in examples/generate.c examples/stream.c; do
        "$cc" -std=c99 "${strict[@]}" -fsyntax-only "$file"
    done
    "$cxx" -std=c++17 "${strict[@]}" -fsyntax-only examples/frame_loop.cpp
}

sizes() { python3 tools/size_report.py --quick; }

# The page in a browser without a window tells the stories that the tool tells.
wasm() {
    need wasm-ld lld
    need chromium chromium
    need /usr/bin/rustc rustc-web
    need /usr/lib/rustlib/src/rust/library/core/src/lib.rs rust-web-src
    local site
    cargo build --quiet --release --example locutor
    site=$(examples/wasm/run.sh build)
    python3 examples/wasm/test_page.py --site "$site" --tool "$built/release/examples/locutor" \
        --screenshot "$built/wasm/page.png"
}

# The bare-metal program tells the story that the tool tells.
nostd() {
    need qemu-system-arm qemu-system-arm
    need ld.lld lld
    local told
    told=$(timeout 600 examples/no_std/run.sh)
    echo "$told"
    same "the token ids of the Cortex-M4F" "$(sed -n 's/^ids: //p' <<< "$told")" \
        "$(cargo run --quiet --release --example locutor -- generate --greedy --ids -n 48 'Once upon a time' 2> /dev/null)"
}

# same WHAT GOT EXPECTED
same() {
    if [ -z "$2" ] || [ "$2" != "$3" ]; then
        echo "ci.sh: $1: got '$2', expected '$3'" >&2
        exit 1
    fi
    echo "$1: as here"
}

# Real models against other software, in short: tools/README.md has the long runs. The truth of a window is kept.
models() {
    local root=${LOCUTOR_REFERENCE:-${XDG_CACHE_HOME:-$HOME/.cache}/locutor} python tool=$built/release/examples/locutor
    export LOCUTOR_REFERENCE=$root
    tools/reference.sh models
    tools/reference.sh vocabs
    python=$(tools/reference.sh venv | tail -n 1)
    cargo build --quiet --release --example locutor
    [ -f "$root/tokenizers/gemma3.jsonl" ] || "$python" tools/tokenizer_reference.py
    "$python" tools/check_tokenizers.py --tool "$tool"
    cargo test --quiet --release --test tokenizers
    "$python" tools/compare_kl.py "$root/models/SmolLM2-135M-Instruct.Q4_1.gguf" --positions 1024 --tool "$tool"
    "$python" tools/compare_kl.py "$root/models/gemma-3-270m-Q4_K_M.gguf" --positions 512 --tool "$tool"
    "$python" tools/check_engine.py "$root/models/SmolLM2-135M-Instruct.Q4_1.gguf" --generated 4000 --tool "$tool"
    tools/install.sh "$(realpath -m "$built/prefix")"
    "$python" tools/check_neighbours.py "$root/models/SmolLM2-135M-Instruct.Q4_1.gguf" "$built/prefix/lib/liblocutor.so"
    local floats=$root/models/SmolLM2-135M-Instruct.F32.gguf
    [ -f "$floats" ] || "$python" tools/dequantize_gguf.py "$root/models/SmolLM2-135M-Instruct.Q4_1.gguf" "$floats" --type f32
    "$python" tools/compare_kl.py "$floats" --positions 512 --max-kl 1e-6 --tool "$tool"
}

fuzz() {
    local seconds=${1:-10} target
    if ! cargo +nightly --version > /dev/null 2>&1; then
        skip "no nightly toolchain"
        return
    fi
    if ! cargo fuzz --version > /dev/null 2>&1; then
        skip "no cargo-fuzz (cargo install cargo-fuzz)"
        return
    fi
    for target in $(cargo +nightly fuzz list); do
        echo "fuzz: $target, $seconds s"
        # New inputs go to the first folder; the other one is where they begin.
        local folders=("fuzz/corpus/$target") longest=4096 options=()
        [ ! -d "fuzz/seeds/$target" ] || folders+=("fuzz/seeds/$target")
        case $target in
            gguf) options=(-dict=fuzz/dict/gguf.dict) ;;
            model) folders+=(tests/golden) longest=300000 options=(-dict=fuzz/dict/gguf.dict) ;;
            text) folders+=(src/text) options=(-dict=fuzz/dict/text.dict) ;;
            vocab | patched | session) longest=512 ;;
        esac
        mkdir -p "${folders[0]}"
        cargo +nightly fuzz run "$target" "${folders[@]}" -- -max_total_time="$seconds" -max_len="$longest" \
            -timeout=20 -verbosity=0 -print_final_stats=1 "${options[@]}"
    done
}

# need TOOL PACKAGE: stops the gate when the tool (a command or a file) is missing.
need() {
    if [ -e "$1" ] || command -v "$1" > /dev/null; then return; fi
    echo "ci.sh: $1 is missing (Debian: apt-get install $2)" >&2
    exit 3
}

skip() {
    echo "$current: skipped, $1"
    skipped+=("$current ($1)")
}

# gate NAME [ARGUMENT]: runs one verb and notes its time.
gate() {
    local started=$SECONDS
    current=$1
    echo "== $1"
    case $1 in
        test) test_command ;;
        *) "$@" ;;
    esac
    report+=("$(printf '%-9s %5d s' "$1" $((SECONDS - started)))")
    current=
}

finish() {
    local status=$?
    if [ ${#report[@]} -gt 0 ]; then
        echo "== time"
        printf '%s\n' "${report[@]}"
    fi
    if [ "$status" != 0 ] || [ -n "$current" ]; then
        echo "ci: FAILED in ${current:-the script itself} (status $status)"
    elif [ ${#skipped[@]} -gt 0 ]; then
        echo "ci: passed, but skipped: ${skipped[*]}"
    elif [ ${#report[@]} = ${#gates[@]} ]; then
        echo "ci: all gates passed"
    else
        echo "ci: passed: $verb"
    fi
}

usage() {
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0" >&2
    exit 2
}

verb=${1:-}
case " ${gates[*]} ${extra[*]} all " in *" $verb "*) ;; *) usage ;; esac
[ -n "$verb" ] || usage
trap finish EXIT
# Without these an ended script would leave with the status of its last command, which may well be 0.
trap 'exit 130' INT
trap 'exit 143' TERM
if [ "$verb" = all ]; then
    for name in "${gates[@]}"; do gate "$name"; done
else
    gate "$@"
fi
