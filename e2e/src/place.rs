//! A place for one story: a folder, and loopback addresses nobody else uses.

use crate::machine;
use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, umount2};
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder of a story's own. It goes when the story ends; a failed story's logs are printed before.
#[derive(Debug)]
pub struct Place {
    folder: PathBuf,
    /// Held for as long as this process lives: so others see that the folder is in use.
    _lock: File,
}

const PREFIX: &str = "beemesh-e2e-";

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
        let temporary = std::env::temp_dir();
        // Nobody takes a folder for left behind before it is locked.
        let one_at_a_time = File::open(&temporary)?;
        one_at_a_time.lock()?;
        sweep(&temporary);
        let folder = temporary.join(format!("{PREFIX}{story}-{}-{}", std::process::id(), next()));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let lock = File::open(&folder)?;
        lock.lock()?;
        Ok(Place { folder, _lock: lock })
    }

    /// Its name, which nothing else on this machine has.
    pub(crate) fn name(&self) -> String {
        self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
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

/// Removes what tests that were killed have left: mounts, folders, control groups. Their processes died with
/// them.
fn sweep(temporary: &Path) {
    for entry in fs::read_dir(temporary).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let ours = name.starts_with(PREFIX) && entry.file_type().is_ok_and(|t| t.is_dir());
        let in_use = || File::open(&path).map(|folder| folder.try_lock().is_err()).unwrap_or(true);
        if ours && !in_use() {
            machine::sweep(&format!("{name}-"));
            let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
            for at in mounts.lines().filter_map(|l| l.split(' ').nth(1)).filter(|at| Path::new(at).starts_with(&path)) {
                let _ = umount2(at, MntFlags::MNT_DETACH);
            }
            if let Err(e) = fs::remove_dir_all(&path) {
                eprintln!("{}, left by an earlier test, stays behind: {e}", path.display());
            }
        }
    }
}

fn next() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
