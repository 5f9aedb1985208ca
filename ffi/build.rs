//! Links the unwinder of the standard library into the shared library, so that it needs the system's C library alone.

use std::{env, fs, path::PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let target = |name: &str| env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    if target("OS") != "linux" || target("ENV") != "gnu" {
        return;
    }
    // The standard library asks for `-lgcc_s`. This folder is searched first, and what it has by that name leads on to
    // the static libraries of the same functions, wherever the request stands on the command line.
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::write(folder.join("libgcc_s.so"), "INPUT(-lgcc_eh -lgcc)\n")
        .expect("the build folder can be written");
    println!("cargo:rustc-link-search=native={}", folder.display());
}
