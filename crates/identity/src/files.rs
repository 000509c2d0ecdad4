//! Files that hold keys: one JSON object each, named with its format, replaced whole or not at all.

use crate::IdentityError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// No file of ours comes near this; more is not ours and not read.
const MAX_BYTES: u64 = 4 << 20;

/// Makes the folder, open to its owner alone, and the folders above it.
pub(crate) fn make_folder(path: &Path) -> Result<(), IdentityError> {
    let made: Vec<&Path> = path.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("make the folder", path))?;
    // A folder's own name lasts with the folder above it: every one that was made must outlive a power cut.
    for folder in made.into_iter().rev() {
        folder.parent().map_or(Ok(()), sync_folder)?;
    }
    Ok(())
}

/// Writes `content` under `format`: a temporary file is synced and renamed over the old one, then the
/// folder is synced. Whatever happens, the old content or the new one is there, whole.
pub(crate) fn store<T: Serialize>(path: &Path, format: &'static str, content: &T) -> Result<(), IdentityError> {
    let corrupt = |e: serde_json::Error| IdentityError::Corrupt { path: path.to_owned(), what: e.to_string() };
    let mut value = serde_json::to_value(content).map_err(corrupt)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("format".to_owned(), format.into());
    }
    let mut bytes = serde_json::to_vec_pretty(&value).map_err(corrupt)?;
    bytes.push(b'\n');

    let temporary = path.with_extension("tmp");
    // One left over from a crash may have been made by anybody: never write into what is there.
    match fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &temporary)(e)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed("write", &temporary))?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed("write", &temporary))?;
    fs::rename(&temporary, path).map_err(failed("replace", path))?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Reads what [`store`] wrote; `None` if there is no such file.
pub(crate) fn load<T: DeserializeOwned>(path: &Path, format: &'static str) -> Result<Option<T>, IdentityError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed("read", path)(e)),
    };
    let metadata = file.metadata().map_err(failed("read", path))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::TooPermissive { path: path.to_owned(), mode });
    }
    let corrupt = |what: String| IdentityError::Corrupt { path: path.to_owned(), what };
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return Err(corrupt("not a file of beemesh's".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed("read", path))?;
    let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| corrupt(e.to_string()))?;
    match value["format"].as_str() {
        Some(found) if found == format => {}
        Some(found) => {
            let found = found.to_owned();
            return Err(IdentityError::UnknownFormat { path: path.to_owned(), found, known: format });
        }
        None => return Err(corrupt("it does not name its format".to_owned())),
    }
    serde_json::from_value(value).map(Some).map_err(|e| corrupt(e.to_string()))
}

/// Removes the file if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), IdentityError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(failed("remove", path)),
    }
}

fn sync_folder(path: &Path) -> Result<(), IdentityError> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path).and_then(|folder| folder.sync_all()).map_err(failed("sync the folder", path))
}

fn failed<'a>(operation: &'static str, path: &'a Path) -> impl Fn(io::Error) -> IdentityError + 'a {
    move |source| IdentityError::File { operation, path: path.to_owned(), source }
}
