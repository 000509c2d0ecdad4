//! A file system that forgets what was not synced, mounted through FUSE: killing a process keeps what it
//! wrote in the page cache, so only this can act a power cut. [`disk`] is what it remembers; this file
//! is its mount.

pub mod disk;
mod serve;

use anyhow::{Context, Result};
use disk::Disk;
pub use disk::Loss;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A mounted forgetful file system. It is unmounted when the handle goes; end what uses it before.
pub struct Forgetful {
    mountpoint: PathBuf,
    disk: Arc<Mutex<Disk>>,
    session: Option<fuser::BackgroundSession>,
}

impl Forgetful {
    /// Mounts an empty one of that capacity.
    ///
    /// # Errors
    /// Without root or `/dev/fuse`.
    pub fn mount(at: &Path, capacity_bytes: u64) -> Result<Forgetful> {
        std::fs::create_dir_all(at)?;
        let disk = Arc::new(Mutex::new(Disk::new(capacity_bytes)));
        let mut config = fuser::Config::default();
        config.mount_options = vec![fuser::MountOption::FSName("forgetful".into())];
        let session = fuser::spawn_mount(serve::Served(disk.clone()), at, &config)
            .with_context(|| format!("cannot mount at {}: it needs root and /dev/fuse", at.display()))?;
        Ok(Forgetful { mountpoint: at.to_owned(), disk, session: Some(session) })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mountpoint
    }

    /// The power goes: what was not synced is lost as `loss` says. Kill who writes here before.
    pub fn cut(&self, loss: Loss) {
        self.disk().cut(loss);
    }

    /// From now on every sync fails with EIO, or no longer.
    pub fn fail_syncs(&self, fail: bool) {
        self.disk().fail_syncs = fail;
    }

    /// Makes the disk larger or smaller; what is on it stays.
    pub fn resize(&self, capacity_bytes: u64) {
        self.disk().capacity_bytes = capacity_bytes;
    }

    /// How many syncs of files and folders it has done.
    pub fn syncs(&self) -> u64 {
        self.disk().syncs
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Forgetful {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forgetful").field("mountpoint", &self.mountpoint).finish_non_exhaustive()
    }
}

impl Drop for Forgetful {
    fn drop(&mut self) {
        if let Some(Err(e)) = self.session.take().map(fuser::BackgroundSession::umount_and_join) {
            eprintln!("{} stays mounted: {e}", self.mountpoint.display());
        }
    }
}
