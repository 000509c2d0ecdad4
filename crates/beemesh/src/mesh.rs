//! What a data directory says of the mesh it belongs to, besides who this node is: the cells that are
//! known by themselves.

use crate::driver::Founding;
use crate::files;
use anyhow::{Context, Result, bail};
use base::CellId;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Version 1 of `mesh.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    root: String,
    registry: String,
    /// The first commit of root is durable: from then on a log without it has been lost.
    complete: bool,
}

/// Reads the founding cells; `None` if none are named yet.
///
/// # Errors
/// A file that cannot be read, is damaged, or was written by a newer release.
pub(crate) fn load(data: &Path) -> Result<Option<(Founding, bool)>> {
    let path = data.join("mesh.json");
    let bytes = match std::fs::read(&path) {
        Ok(b) => b,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("reading {}", path.display())),
    };
    let stored: Stored = serde_json::from_slice(&bytes).with_context(|| {
        format!("{} is damaged, or a newer release wrote it: nothing was changed. Restore it from a copy, or start that release", path.display())
    })?;
    if stored.version != 1 {
        bail!(
            "{} has version {}, which a newer release of beemesh wrote: start that release",
            path.display(),
            stored.version
        );
    }
    let id = |s: &str| s.parse::<CellId>().with_context(|| format!("{} is damaged", path.display()));
    Ok(Some((Founding { root: id(&stored.root)?, registry: id(&stored.registry)? }, stored.complete)))
}

/// Names the founding cells, durably; `complete` once root's first commit is durable.
///
/// # Errors
/// The operation that failed; nothing was changed.
pub(crate) fn store(data: &Path, f: Founding, complete: bool) -> Result<()> {
    let stored = Stored { version: 1, root: f.root.to_string(), registry: f.registry.to_string(), complete };
    files::replace(&data.join("mesh.json"), &serde_json::to_vec_pretty(&stored)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use base::Uid;

    #[test]
    fn the_founding_cells_read_back_and_damage_is_told() {
        let dir = std::env::temp_dir().join(format!("beemesh-mesh-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        assert!(load(&dir).unwrap().is_none());
        let f = Founding { root: CellId(Uid(1)), registry: CellId(Uid(2)) };
        store(&dir, f, true).unwrap();
        let (read, complete) = load(&dir).unwrap().unwrap();
        assert_eq!((read.root, read.registry, complete), (f.root, f.registry, true));
        std::fs::write(dir.join("mesh.json"), "{").unwrap();
        assert!(load(&dir).unwrap_err().to_string().contains("damaged"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
