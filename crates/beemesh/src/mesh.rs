//! What a data directory says of the mesh it belongs to, besides who this node is: the cells that are
//! known by themselves.

use crate::cli::exit::{Coded, Exit};
use crate::driver::Founding;
use crate::files;
use anyhow::{Context, Result, bail};
use base::CellId;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Version 3 of `mesh.json`. Version 1 had no name, and before version 3 nobody joined.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    root: String,
    registry: String,
    /// The first commit of root is durable: from then on a log without it has been lost.
    complete: bool,
    /// The node's name. Its Node object and its pods are found by it, so it stays.
    #[serde(default)]
    node: Option<String>,
    /// Of a mesh that this machine joined, or has begun to: not of one it founded.
    #[serde(default)]
    joined: bool,
}

/// What a data directory says of its mesh.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// The cells that are known by themselves.
    pub(crate) founding: Founding,
    /// Root's first commit is durable: of a founder, here.
    pub(crate) complete: bool,
    /// Whether the machine joined it, or has begun to.
    pub(crate) joined: bool,
}

/// The name that the node of a data directory was founded with; `None` if it has none yet.
///
/// # Errors
/// As [`load`].
pub(crate) fn name(data: &Path) -> Result<Option<String>> {
    Ok(read(data)?.and_then(|stored| stored.node))
}

/// Reads what is known of the mesh; `None` if there is nothing yet.
///
/// # Errors
/// A file that cannot be read, is damaged, or was written by a newer release.
pub(crate) fn load(data: &Path) -> Result<Option<Known>> {
    let Some(stored) = read(data)? else { return Ok(None) };
    let id = |s: &str| s.parse::<CellId>().map_err(|_| damaged(&data.join("mesh.json")));
    let founding = Founding { root: id(&stored.root)?, registry: id(&stored.registry)? };
    Ok(Some(Known { founding, complete: stored.complete, joined: stored.joined }))
}

fn read(data: &Path) -> Result<Option<Stored>> {
    let path = data.join("mesh.json");
    let bytes = match std::fs::read(&path) {
        Ok(b) => b,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("reading {}", path.display())),
    };
    let stored: Stored = serde_json::from_slice(&bytes).map_err(|_| damaged(&path))?;
    if !matches!(stored.version, 1..=3) {
        bail!(
            "{} has version {}, which a newer release of beemesh wrote: start that release",
            path.display(),
            stored.version
        );
    }
    Ok(Some(stored))
}

fn damaged(path: &Path) -> Coded {
    let source = anyhow::anyhow!(
        "{} is damaged, or a newer release wrote it: nothing was changed. Restore it from a copy, or start that release",
        path.display()
    );
    Coded { exit: Exit::Corrupt, source }
}

/// Writes what is known of the mesh, and the node's name, durably.
///
/// # Errors
/// The operation that failed; nothing was changed.
pub(crate) fn store(data: &Path, known: &Known, node: &str) -> Result<()> {
    let Known { founding: f, complete, joined } = *known;
    let (root, registry, node) = (f.root.to_string(), f.registry.to_string(), Some(node.to_owned()));
    let stored = Stored { version: 3, root, registry, complete, node, joined };
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
        assert!(name(&dir).unwrap().is_none());
        let known = Known { founding: f, complete: true, joined: true };
        store(&dir, &known, "node-1").unwrap();
        assert_eq!(name(&dir).unwrap().as_deref(), Some("node-1"));
        let read = load(&dir).unwrap().unwrap();
        assert_eq!((read.founding.root, read.founding.registry), (f.root, f.registry));
        assert!(read.complete && read.joined);
        let old = format!(r#"{{"version":1,"root":"{}","registry":"{}","complete":true}}"#, f.root, f.registry);
        std::fs::write(dir.join("mesh.json"), old).unwrap();
        assert!(load(&dir).unwrap().is_some_and(|k| k.complete && !k.joined) && name(&dir).unwrap().is_none());
        std::fs::write(dir.join("mesh.json"), "{").unwrap();
        assert!(load(&dir).unwrap_err().to_string().contains("damaged"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
