//! Tells the linker where the script of the board is, and the program where the model is, whatever directory the build
//! runs in.

fn main() {
    let directory = std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo");
    println!("cargo::rustc-link-arg-bins=-T{directory}/mps2.ld");
    println!("cargo::rustc-link-arg-bins=--nmagic");
    println!("cargo::rerun-if-changed=mps2.ld");
    let story = std::env::var("LOCUTOR_STORY").unwrap_or(format!("{directory}/../model/story.gguf"));
    println!("cargo::rustc-env=LOCUTOR_STORY={story}");
    println!("cargo::rerun-if-env-changed=LOCUTOR_STORY");
}
