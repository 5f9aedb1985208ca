//! Options that several subcommands share.

use crate::{Failure, Usage};
use clap::Args;
use locutor::model::Model;
use locutor::session::{Error, Limits, Session};
use locutor::text::{Specials, Tokenizer};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Which model, and how it is opened.
#[derive(Args)]
pub struct ModelOptions {
    /// GGUF file of the model [default: the embedded story model].
    #[arg(short, long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Map the file instead of reading it. Nobody may change or truncate it while the tool runs.
    #[arg(long)]
    pub map: bool,
}

impl ModelOptions {
    /// Opens the model.
    pub fn open(&self) -> Result<Model<'static>, Failure> {
        crate::open::model(self.model.as_deref(), self.map)
    }
}

/// Where a continuation ends.
#[derive(Args)]
pub struct EndOptions {
    /// Go on after a token that ends a text.
    #[arg(long)]
    pub ignore_eos: bool,
    /// Stop before this text; may be given several times.
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub stop: Vec<String>,
}

/// Stop strings, and bytes of the longest, for which there is room in a session that is saved or loaded: a state needs
/// as much as the session had that it is from.
const STOPS: (usize, usize) = (16, 256);

impl EndOptions {
    /// Limits with room for the stop strings.
    pub fn limits(&self, limits: Limits) -> Limits {
        let (count, bytes) = self.room();
        limits.stops(count, bytes)
    }

    /// Limits with room for the stop strings, and for those of any state.
    pub fn limits_of_states(&self, limits: Limits, saves: bool) -> Result<Limits, Failure> {
        let (count, bytes) = self.room();
        if saves && (count > STOPS.0 || bytes > STOPS.1) {
            let (count, bytes) = STOPS;
            return Err(Usage(format!("--save allows {count} --stop texts of {bytes} bytes")).into());
        }
        Ok(limits.stops(count.max(STOPS.0), bytes.max(STOPS.1)))
    }

    fn room(&self) -> (usize, usize) {
        (self.stop.len(), self.stop.iter().map(String::len).max().unwrap_or(0))
    }

    /// Sets a session up. What is not given stays as it is.
    pub fn apply(&self, session: &mut Session<'_>) -> Result<(), Failure> {
        if !self.stop.is_empty() {
            let stops: Vec<&str> = self.stop.iter().map(String::as_str).collect();
            session.set_stops(&stops)?;
        }
        if self.ignore_eos {
            session.set_ignore_end(true);
        }
        Ok(())
    }
}

/// The tokens of a prompt, in which texts of control tokens become these tokens. At the beginning of a text there is the
/// token for that, if the model asks for it and the prompt has none.
pub fn prompt_ids(tokenizer: &Tokenizer<'_>, prompt: &str, begins: bool) -> Result<Vec<u32>, Failure> {
    let mut ids = tokenizer.encode_vec(prompt, Specials::Parse)?;
    let bos = tokenizer.ids().bos.filter(|bos| begins && tokenizer.add_bos() && ids.first() != Some(bos));
    ids.splice(0..0, bos);
    if begins && ids.is_empty() { Err(Error::EmptyPrompt.into()) } else { Ok(ids) }
}

/// A text given as an argument, as a file, or on stdin (`-`).
#[derive(Args)]
pub struct TextOptions {
    /// The text; `-` reads it from stdin.
    #[arg(value_name = "TEXT", required_unless_present = "file")]
    text: Option<String>,
    /// Read the text from a file.
    #[arg(short, long, value_name = "FILE", conflicts_with = "text")]
    file: Option<PathBuf>,
}

impl TextOptions {
    /// The text, which must be UTF-8.
    pub fn read(&self) -> Result<String, Failure> {
        match (&self.text, &self.file) {
            (_, Some(file)) => read_text(file),
            (Some(text), None) if text == "-" => read_stdin(),
            (text, None) => Ok(text.clone().unwrap_or_default()),
        }
    }
}

/// Standard input's text.
pub fn read_stdin() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes)?;
    utf8("standard input", bytes)
}

/// A file's text.
pub fn read_text(path: &Path) -> Result<String, Failure> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    utf8(&path.display().to_string(), bytes)
}

/// Bytes that must be UTF-8; `name` says where they come from.
pub fn utf8(name: &str, bytes: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        format!("{name}: not UTF-8 text: bad byte at offset {at}").into()
    })
}
