//! Tells the program where the model is, whatever directory the build runs in.

fn main() {
    let directory = std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo");
    let story = std::env::var("LOCUTOR_STORY").unwrap_or(format!("{directory}/../model/story.gguf"));
    println!("cargo::rustc-env=LOCUTOR_STORY={story}");
    println!("cargo::rerun-if-env-changed=LOCUTOR_STORY");
}
