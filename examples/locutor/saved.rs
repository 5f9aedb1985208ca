//! Saved states as files.
//!
//! `generate` saves what [`Session::save`] writes, as it is: other programs can restore it. `chat` puts its own part in
//! front, see [`crate::conversation`].

use crate::Failure;
use locutor::sample::Sampler;
use locutor::session::{Error, Saved, Session};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Reads a file of a state.
pub fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    if !fs::metadata(path).map_err(named)?.is_file() {
        return Err(format!("{}: not a regular file", path.display()).into());
    }
    Ok(fs::read(path).map_err(named)?)
}

/// Goes on from a state that stands behind `front` bytes of a file.
pub fn restore(
    session: &mut Session<'_>,
    sampler: &mut Sampler<'static>,
    path: &Path,
    (file, front): (&[u8], usize),
) -> Result<(), Failure> {
    let state = file.get(front..).unwrap_or_default();
    session.restore(state, Some(sampler)).map_err(|error| {
        let name = path.display();
        match error {
            Error::StateDamaged { offset } => {
                format!("{name}: {}", Error::StateDamaged { offset: offset + front })
            }
            Error::StateOfOther { what: "context policy" } => {
                format!(
                    "{name}: {error} (it needs the --policy, --keep and --context with which it was saved)"
                )
            }
            other => format!("{name}: {other}"),
        }
        .into()
    })
}

/// Saves the selected sequence and the sampler behind `front`; returns the bytes of the file.
pub fn save(
    session: &mut Session<'_>,
    sampler: &Sampler<'_>,
    path: &Path,
    front: &[u8],
) -> Result<usize, Failure> {
    let mut state = vec![0; session.save_size(Saved::Sequence, Some(sampler))];
    session.save(Saved::Sequence, Some(sampler), &mut state)?;
    replace(path, &[front, &state])?;
    Ok(front.len() + state.len())
}

/// Whether a file can be saved here, as far as that can be known in advance.
pub fn check_target(path: &Path) -> Result<(), Failure> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(format!("{}: not a regular file", path.display()).into());
    }
    let folder = folder(path);
    match fs::metadata(&folder) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(format!("{}: `{}` is no directory", path.display(), folder.display()).into()),
        Err(error) => Err(format!("{}: {error}", path.display()).into()),
    }
}

fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.into(),
        _ => ".".into(),
    }
}

/// Puts a whole file in the place of an old one, or leaves the old one alone: the bytes go to a temporary file in the
/// same directory and reach the disk before it gets the name.
fn replace(path: &Path, parts: &[&[u8]]) -> Result<(), Failure> {
    check_target(path)?;
    // A link stays a link, and what it points to is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.into());
    let mut name = std::ffi::OsString::from(".");
    name.push(target.file_name().ok_or_else(|| format!("{}: not a file name", path.display()))?);
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = target.with_file_name(name);
    let result = write(&temporary, &target, parts);
    if result.is_err() {
        // Either it is there and of no use, or it never was.
        let _ = fs::remove_file(&temporary);
    }
    result.map_err(|error| format!("{}: not saved: {error}", path.display()).into())
}

fn write(temporary: &Path, target: &Path, parts: &[&[u8]]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(temporary)?;
    if let Ok(old) = fs::metadata(target) {
        file.set_permissions(old.permissions())?;
    }
    parts.iter().try_for_each(|part| file.write_all(part))?;
    file.sync_all()?;
    drop(file);
    fs::rename(temporary, target)?;
    sync_folder(&folder(target))
}

/// Makes a new name in a directory last. Not every file system can; then there is nothing more to be done.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    match fs::File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => Ok(()),
        other => other,
    }
}

#[cfg(not(unix))]
fn sync_folder(_folder: &Path) -> std::io::Result<()> {
    Ok(())
}
