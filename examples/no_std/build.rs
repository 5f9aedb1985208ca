//! Tells the linker where the script of the board is, whatever directory the build runs in.

fn main() {
    let directory = std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo");
    println!("cargo::rustc-link-arg-bins=-T{directory}/mps2.ld");
    println!("cargo::rustc-link-arg-bins=--nmagic");
    println!("cargo::rerun-if-changed=mps2.ld");
}
