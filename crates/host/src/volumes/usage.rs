//! How much of the disk a volume takes.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Bytes of the disk that a directory and all below it take, as du(1) counts them: blocks, each file once
/// however many names it has, nothing that is mounted inside. Stops counting beyond `enough`.
///
/// # Errors
/// If there is no such directory. What goes away or cannot be read meanwhile is not counted.
pub(super) fn of(top: &Path, enough: u64) -> io::Result<u64> {
    let device = fs::symlink_metadata(top)?.dev();
    let mut folders = vec![top.to_owned()];
    let mut named_twice = BTreeSet::new();
    let mut bytes = 0u64;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            // Of a link itself, not of what it leads to.
            let Ok(about) = entry.metadata() else { continue };
            if about.dev() != device || (about.nlink() > 1 && !about.is_dir() && !named_twice.insert(about.ino())) {
                continue;
            }
            bytes = bytes.saturating_add(about.blocks().saturating_mul(512));
            if bytes > enough {
                return Ok(bytes);
            }
            if about.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(bytes)
}
