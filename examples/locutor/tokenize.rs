//! `tokenize` and `detokenize`.

use crate::Failure;
use crate::options::{read_stdin, read_text};
use clap::Args;
use locutor::format::{Gguf, HeaderBytes, gguf};
use locutor::mem::aligned::Block;
use locutor::mem::{Arena, Plan};
use locutor::text::{Specials, Tokenizer};
use std::io::Write;
use std::path::PathBuf;

#[derive(Args)]
pub struct Tokenize {
    /// GGUF file of the model; one with a vocabulary alone is enough.
    #[arg(short, long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// The text; `-` reads it from stdin.
    #[arg(value_name = "TEXT", required_unless_present = "file")]
    text: Option<String>,
    /// Read the text from a file.
    #[arg(short, long, value_name = "FILE", conflicts_with = "text")]
    file: Option<PathBuf>,
    /// Treat texts of control tokens as ordinary text, and add no tokens for begin and end of a text.
    #[arg(long)]
    no_special: bool,
    /// Show the piece of text behind each id.
    #[arg(long)]
    pieces: bool,
    /// Treat every line of the file as one text.
    #[arg(long)]
    lines: bool,
    /// Every line of the file is a text written as a JSON string.
    #[arg(long, conflicts_with = "lines")]
    json_lines: bool,
}

#[derive(Args)]
pub struct Detokenize {
    /// GGUF file of the model; one with a vocabulary alone is enough.
    #[arg(short, long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Token ids.
    #[arg(value_name = "ID", required_unless_present = "file")]
    ids: Vec<u32>,
    /// Read ids from a file, one text a line.
    #[arg(short, long, value_name = "FILE", conflicts_with = "ids")]
    file: Option<PathBuf>,
    /// Print every text as a JSON string on a line of its own.
    #[arg(long)]
    json_lines: bool,
}

/// Calls `work` with the tokenizer of a file, which may hold no weights.
fn with_tokenizer(
    path: Option<&std::path::Path>,
    work: impl FnOnce(&Tokenizer<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let Some(path) = path else {
        let model = crate::open::model(None, false)?;
        return work(model.tokenizer().ok_or("the embedded model has no tokenizer")?);
    };
    let named = |error: &dyn std::error::Error| format!("{}: {error}", path.display());
    let file = HeaderBytes::open(path).map_err(|error| named(&error))?;
    let counts = gguf::scan(file.bytes(), file.file_len()).map_err(|error| named(&error))?;
    let mut plan = Plan::new();
    let (tables, slots) = (Gguf::plan(&counts, &mut plan)?, Tokenizer::plan(&counts, &mut plan)?);
    let mut block = Block::zeroed(plan.bytes())?;
    let mut arena = Arena::new(block.bytes_mut(), &plan)?;
    let header = Gguf::read(file.bytes(), file.file_len(), &mut arena, &tables);
    let tokenizer = Tokenizer::load(&header.map_err(|error| named(&error))?, &mut arena, &slots);
    work(&tokenizer.map_err(|error| named(&error))?)
}

pub fn tokenize(arguments: &Tokenize) -> Result<(), Failure> {
    let text = match (&arguments.file, arguments.text.as_deref()) {
        (Some(file), _) => read_text(file)?,
        (None, Some("-")) => read_stdin()?,
        (None, text) => text.unwrap_or_default().to_string(),
    };
    with_tokenizer(arguments.model.as_deref(), |tokenizer| {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        if arguments.lines || arguments.json_lines {
            for (number, line) in text.lines().enumerate() {
                let parsed: String = match arguments.json_lines {
                    true => serde_json::from_str(line).map_err(|e| format!("line {}: {e}", number + 1))?,
                    false => line.to_string(),
                };
                print_ids(tokenizer, &parsed, arguments, &mut out)?;
            }
        } else {
            print_ids(tokenizer, &text, arguments, &mut out)?;
        }
        Ok(out.flush()?)
    })
}

fn print_ids(
    tokenizer: &Tokenizer<'_>,
    text: &str,
    arguments: &Tokenize,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let specials = if arguments.no_special { Specials::Plain } else { Specials::Parse };
    let mut ids = tokenizer.encode_vec(text, specials)?;
    if !arguments.no_special {
        let special = tokenizer.ids();
        let bos = special.bos.filter(|bos| tokenizer.add_bos() && ids.first() != Some(bos));
        ids.splice(0..0, bos);
        ids.extend(special.eos.filter(|_| tokenizer.add_eos()));
    }
    if arguments.pieces {
        for id in &ids {
            let piece = tokenizer.decode_vec(&[*id])?;
            writeln!(out, "{id}\t{:?}", String::from_utf8_lossy(&piece))?;
        }
        return Ok(());
    }
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    Ok(writeln!(out, "{}", ids.join(" "))?)
}

pub fn detokenize(arguments: &Detokenize) -> Result<(), Failure> {
    let lines: Vec<Vec<u32>> = match &arguments.file {
        None => vec![arguments.ids.clone()],
        Some(file) => read_text(file)?.lines().enumerate().map(parse_ids).collect::<Result<_, _>>()?,
    };
    with_tokenizer(arguments.model.as_deref(), |tokenizer| {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        for ids in &lines {
            let bytes = tokenizer.decode_vec(ids)?;
            match arguments.json_lines {
                true => {
                    writeln!(out, "{}", serde_json::Value::from(String::from_utf8_lossy(&bytes).as_ref()))?
                }
                false => out.write_all(&bytes)?,
            }
        }
        Ok(out.flush()?)
    })
}

fn parse_ids((number, line): (usize, &str)) -> Result<Vec<u32>, Failure> {
    let ids = line.split_whitespace().map(|word| {
        word.parse().map_err(|_| Failure::from(format!("line {}: `{word}` is no token id", number + 1)))
    });
    ids.collect()
}
