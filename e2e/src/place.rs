//! A place for one story: a folder, and loopback addresses nobody else uses.

use anyhow::{Context, Result, bail};
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder of a story's own. It goes when the story ends; a failed story's logs are printed before.
#[derive(Debug)]
pub struct Place {
    folder: PathBuf,
}

impl Place {
    /// Makes a place named after the story.
    ///
    /// # Errors
    /// Without root: the stories mount and, later, make network namespaces. They fail rather than pass
    /// without having been told.
    pub fn new(story: &str) -> Result<Place> {
        if !nix::unistd::geteuid().is_root() {
            bail!("end-to-end tests need root: sudo make e2e");
        }
        let folder = std::env::temp_dir().join(format!("beemesh-e2e-{story}-{}-{}", std::process::id(), next()));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Place { folder })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// A path in the folder.
    pub fn join(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A loopback address for one node. Its ports are its own, across restarts too: a port that was merely
    /// free when asked for could be anybody's by the time the node comes back.
    pub fn address() -> Ipv4Addr {
        let [_, _, high, low] = std::process::id().to_be_bytes();
        Ipv4Addr::new(127, (64 + next() % 128) as u8, high, low.max(1))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What is still mounted inside is not ours to delete; the mount's own handle says so first.
        if let Err(e) = fs::remove_dir_all(&self.folder) {
            eprintln!("{} stays behind: {e}", self.folder.display());
        }
    }
}

fn next() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
