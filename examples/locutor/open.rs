//! Opening a model, and the kernel table that the environment asks for.

use crate::Failure;
use locutor::kernels::{self, Kernels};
use locutor::model::Model;
use std::path::Path;

/// The embedded default model.
static STORY: &[u8] = include_bytes!("../model/story.gguf");

/// Name of the model for messages.
pub fn name(path: Option<&Path>) -> String {
    match path {
        Some(path) => path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
        None => "embedded story model".into(),
    }
}

/// Opens a model file, or the embedded model.
pub fn model(path: Option<&Path>, map: bool) -> Result<Model<'static>, Failure> {
    let opened = match path {
        None => Model::from_slice(STORY),
        // SAFETY: `--map` says that nobody changes the file while the tool runs; its help text states the contract.
        Some(path) if map => unsafe { Model::map(path) },
        Some(path) => Model::open(path),
    };
    let named = || path.map_or(name(None), |path| path.display().to_string());
    opened.map_err(|error| format!("{}: {error}", named()).into())
}

/// The table named by `LOCUTOR_ISA`, or the best one.
pub fn kernels() -> Result<&'static Kernels, Failure> {
    let Some(wanted) = std::env::var_os("LOCUTOR_ISA") else { return Ok(kernels::detect()) };
    let wanted = wanted.to_string_lossy();
    kernels::by_name(&wanted).ok_or_else(|| {
        let names: Vec<&str> = kernels::available().map(|table| table.name).collect();
        format!("LOCUTOR_ISA={wanted}: this machine has {}", names.join(", ")).into()
    })
}
