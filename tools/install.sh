#!/usr/bin/env bash
# Builds the C library and installs it, on Linux: header, C++ header, static and shared library, pkg-config file and
# CMake package.
#
#   tools/install.sh PREFIX
#
# DESTDIR, if set, stands before PREFIX in paths on this machine, but not in what is written to files. LOCUTOR_ARCHIVE
# names a static library that is already built. CARGO, CC and OBJCOPY are used as usual.
#
# The shared library is linked from the static one, since its symbols have versions (include/locutor.map). Its SONAME
# follows LOCUTOR_ABI alone, not the version of a release: programs that need another number do not start with it.
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# = 1 ] || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0" >&2; exit 2; }
prefix=$1
case $prefix in /*) ;; *) echo "install.sh: PREFIX is not an absolute path" >&2; exit 2 ;; esac
root=${DESTDIR:-}$prefix
header=include/locutor.h
version=$(sed -n 's/^#define LOCUTOR_VERSION "\(.*\)"$/\1/p' "$header")
abi=$(sed -n 's/^#define LOCUTOR_ABI \([0-9]*\)$/\1/p' "$header")
if [ -z "$version" ] || [ -z "$abi" ]; then
    echo "install.sh: the header has no version" >&2
    exit 1
fi

archive=${LOCUTOR_ARCHIVE:-}
if [ -z "$archive" ]; then
    "${CARGO:-cargo}" build --quiet --release -p locutor-ffi
    archive=${CARGO_TARGET_DIR:-target}/release/liblocutor.a
fi

# What Rust's standard library needs of the system (rustc --print native-static-libs), and its unwinder: static in the
# shared library, which then needs the C library alone.
unwinder="-lgcc_s"
system="-lpthread -ldl -lm -lc"

mkdir -p "$root/include" "$root/lib/pkgconfig" "$root/lib/cmake/locutor"
install -m 644 include/locutor.h include/locutor.hpp "$root/include/"
install -m 644 "$archive" "$root/lib/liblocutor.a"
real=$root/lib/liblocutor.so.$version
# shellcheck disable=SC2086
${CC:-cc} -shared -o "$real" -Wl,--whole-archive "$archive" -Wl,--no-whole-archive \
    -Wl,--version-script=include/locutor.map -Wl,-soname,"liblocutor.so.$abi" -Wl,--gc-sections -Wl,-z,defs \
    -Wl,-z,relro -Wl,-z,now -Wl,-z,noexecstack -Wl,--as-needed -static-libgcc $system
ln -sf "liblocutor.so.$version" "$root/lib/liblocutor.so.$abi"
ln -sf "liblocutor.so.$abi" "$root/lib/liblocutor.so"

cat > "$root/lib/pkgconfig/locutor.pc" << END
prefix=$prefix
includedir=\${prefix}/include
libdir=\${prefix}/lib

Name: locutor
Description: GPT inference that lives inside another program
Version: $version
Cflags: -I\${includedir}
Libs: -L\${libdir} -llocutor
Libs.private: $unwinder $system
END

cat > "$root/lib/cmake/locutor/locutor-config.cmake" << 'END'
# locutor::locutor is the shared library, locutor::static the static one. Both bring the headers.
get_filename_component(_locutor_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
if(NOT TARGET locutor::locutor)
    find_package(Threads REQUIRED)
    add_library(locutor::locutor SHARED IMPORTED)
    set_target_properties(locutor::locutor PROPERTIES
        IMPORTED_LOCATION "${_locutor_prefix}/lib/liblocutor.so"
        IMPORTED_SONAME "liblocutor.so.@ABI@"
        INTERFACE_INCLUDE_DIRECTORIES "${_locutor_prefix}/include")
    add_library(locutor::static STATIC IMPORTED)
    set_target_properties(locutor::static PROPERTIES
        IMPORTED_LOCATION "${_locutor_prefix}/lib/liblocutor.a"
        IMPORTED_LINK_INTERFACE_LANGUAGES C
        INTERFACE_LINK_LIBRARIES "gcc_s;Threads::Threads;${CMAKE_DL_LIBS};m"
        INTERFACE_INCLUDE_DIRECTORIES "${_locutor_prefix}/include")
endif()
unset(_locutor_prefix)
END
sed -i "s/@ABI@/$abi/" "$root/lib/cmake/locutor/locutor-config.cmake"

# Before 1.0 a minor release may change the ABI, so another minor version does not satisfy a program.
cat > "$root/lib/cmake/locutor/locutor-config-version.cmake" << END
set(PACKAGE_VERSION "$version")
string(REGEX MATCH "^[0-9]+\\\\.[0-9]+" _locutor_series "\${PACKAGE_VERSION}")
string(REGEX MATCH "^[0-9]+\\\\.?[0-9]*" _locutor_wanted "\${PACKAGE_FIND_VERSION}")
if(PACKAGE_VERSION VERSION_LESS PACKAGE_FIND_VERSION OR NOT _locutor_series VERSION_EQUAL _locutor_wanted)
    set(PACKAGE_VERSION_COMPATIBLE FALSE)
else()
    set(PACKAGE_VERSION_COMPATIBLE TRUE)
    if(PACKAGE_VERSION VERSION_EQUAL PACKAGE_FIND_VERSION)
        set(PACKAGE_VERSION_EXACT TRUE)
    endif()
endif()
END
echo "install.sh: Locutor $version, ABI $abi, in $root"
