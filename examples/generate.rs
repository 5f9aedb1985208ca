//! Continues a prompt with the embedded story model: the library in one page.
//!
//! `cargo run --release --example generate`

use locutor::model::Model;
use locutor::sample::Sampler;
use locutor::session::Limits;
use std::io::Write;

static STORY: &[u8] = include_bytes!("model/story.gguf");
const PROMPT: &str = "Once upon a time";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let model = Model::from_slice(STORY)?;
    let mut session = model.session(Limits::new())?;
    let mut sampler = Sampler::greedy().temperature(0.7)?.top_k(40).seed(1);
    session.feed(PROMPT)?;
    session.set_max_tokens(Some(120));
    print!("{PROMPT}");
    while let Some(piece) = session.next_piece(&mut sampler)? {
        print!("{piece}");
        std::io::stdout().flush()?;
    }
    println!();
    Ok(())
}
