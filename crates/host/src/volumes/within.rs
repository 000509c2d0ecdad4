//! Where a mount of a part of a volume really lies: what is inside the volume is the pod's own to write,
//! links too, and must not lead out of it.

use super::{failed, invalid};
use base::runtime::{Failure, Mount};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

/// The path to mount, every link in it followed. Folders missing on the way are made.
///
/// # Errors
/// [`base::runtime::Why::Invalid`] if it leads out of `mount.within`; nothing outside was made.
pub(crate) fn settle(mount: &Mount) -> Result<PathBuf, Failure> {
    let path = Path::new(&mount.host_path);
    if mount.within.is_empty() {
        return Ok(path.to_owned());
    }
    let root = fs::canonicalize(&mount.within).map_err(|e| failed("find", Path::new(&mount.within), &e))?;
    let outside = || invalid(format!("{} leads out of its volume: nothing was mounted", mount.container_path));
    let rest = path.strip_prefix(&mount.within).map_err(|_| outside())?;
    let mut here = root.clone();
    for part in rest.components() {
        let Component::Normal(name) = part else { return Err(outside()) };
        let next = here.join(name);
        if matches!(fs::symlink_metadata(&next), Err(e) if e.kind() == ErrorKind::NotFound) {
            let made = fs::DirBuilder::new().mode(0o755).create(&next);
            made.map_err(|e| failed("make", &next, &e))?;
        }
        here = fs::canonicalize(&next).map_err(|e| failed("follow", &next, &e))?;
        if !here.starts_with(&root) {
            return Err(outside());
        }
    }
    Ok(here)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_part_of_a_volume_is_found_or_made_and_never_lies_outside() {
        let dir = tempfile::tempdir().unwrap();
        let (volume, elsewhere) = (dir.path().join("volume"), dir.path().join("elsewhere"));
        fs::create_dir_all(volume.join("a")).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        symlink("a", volume.join("link")).unwrap();
        symlink(&elsewhere, volume.join("out")).unwrap();
        let at = |sub: &str| {
            settle(&Mount {
                host_path: volume.join(sub).to_str().unwrap().into(),
                within: volume.to_str().unwrap().into(),
                ..Mount::default()
            })
        };
        let root = fs::canonicalize(&volume).unwrap();
        assert_eq!(at("link/new").unwrap(), root.join("a/new"));
        assert!(root.join("a/new").is_dir());
        for bad in ["out", "out/made", "../elsewhere"] {
            assert!(at(bad).unwrap_err().message.contains("leads out of its volume"), "{bad}");
        }
        assert!(!elsewhere.join("made").exists());
    }
}
