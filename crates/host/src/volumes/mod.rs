//! A pod's directory on this machine: its volumes, the files its containers are mounted as their own, and
//! its logs.
//!
//! ```text
//! DATA/pods/<uid>/volumes/<volume>    empty directories, and tmpfs for memory and for files
//! DATA/pods/<uid>/subpaths/<container>/<number>    parts of volumes, mounted there for the runtime
//! DATA/pods/<uid>/...                 files by the path asked for
//! DATA/pods/<uid>/cgroup              which control group is removed with it
//! DATA/logs/pods/<namespace>_<name>_<uid>/<container>/<attempt>.log
//! ```
//!
//! All of it blocks, and is called on threads that may.

mod atomic;
mod host_path;
mod mounts;
mod removal;
mod usage;
mod within;

use crate::{cgroup, logs};
use base::runtime::{Failure, Mount, PodName, Sandbox, Volume, VolumeKind, Why};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, chown};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// Where pods' directories and logs are.
#[derive(Clone, Debug)]
pub struct Pods {
    dirs: PathBuf,
    logs: PathBuf,
}

impl Pods {
    /// Those of a data directory, which is there and named by its canonical path.
    pub fn of(data: &Path) -> Pods {
        Pods { dirs: data.join("pods"), logs: data.join("logs/pods") }
    }

    /// Below which every pod has a directory for its logs.
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// Where a pod's logs are (the kubelet's names, so that log collectors know them).
    pub fn log_directory(&self, pod: &PodName) -> PathBuf {
        self.logs.join(format!("{}_{}_{}", pod.namespace, pod.name, pod.uid))
    }

    /// Makes what all pods' directories are in, its owner's only: they hold secrets and other people's data.
    ///
    /// # Errors
    /// What could not be made or closed to others.
    pub(crate) fn lay_out(&self) -> io::Result<()> {
        fs::create_dir_all(&self.logs)?;
        fs::create_dir_all(&self.dirs)?;
        for dir in [Some(&*self.dirs), self.logs.parent()].into_iter().flatten() {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
        }
        Ok(())
    }

    /// Makes volumes, or brings them up to date; says where each is. What is in an empty directory stays. One
    /// that cannot be made keeps no other from being made: [`Why::Invalid`] for a name or a file's path that
    /// leads elsewhere, [`Why::Failed`] for the rest, with the kubelet's words where it has some.
    pub fn volumes(&self, pod: &str, volumes: &[Volume]) -> BTreeMap<String, Result<String, Failure>> {
        let make = |v: &Volume| self.make(pod, v).map(|at| at.to_string_lossy().into_owned());
        volumes.iter().map(|v| (v.name.clone(), make(v))).collect()
    }

    fn make(&self, pod: &str, volume: &Volume) -> Result<PathBuf, Failure> {
        if let VolumeKind::Host { path, kind } = &volume.kind {
            return host_path::check(path, kind);
        }
        let dir = self.volume(pod, &volume.name)?;
        let made = match &volume.kind {
            VolumeKind::Empty { memory, bytes_max } => empty(&dir, memory.then_some(*bytes_max), volume.group),
            VolumeKind::Files(files) => {
                if let Some(path) = files.iter().map(|f| &f.path).find(|p| !atomic::is_inside(p)) {
                    return Err(invalid(format!("{path:?} is no path inside the volume {}", volume.name)));
                }
                make_dir(&dir, 0o755)
                    .and_then(|()| mounts::memory(&dir, None))
                    .and_then(|_| atomic::write(&dir, files, volume.group))
            }
            VolumeKind::Host { .. } => Ok(()),
        };
        made.map_err(|e| failed("make the volume", &dir, &e))?;
        Ok(dir)
    }

    /// Writes a file into the pod's directory; says where it is. One that is there is written over, not
    /// replaced: a container it is mounted into sees what changed.
    ///
    /// # Errors
    /// [`Why::Invalid`] for a path that leads elsewhere, or [`Why::Failed`].
    pub fn file(&self, pod: &str, path: &str, bytes: &[u8], mode: u32) -> Result<PathBuf, Failure> {
        if !atomic::is_inside(path) || path.starts_with("volumes/") || path.starts_with("subpaths/") {
            return Err(invalid(format!("{path:?} is no path for a file in a pod's directory")));
        }
        let file = self.dir(pod)?.join(path);
        let write = || -> io::Result<()> {
            make_dir(file.parent().unwrap_or(&self.dirs), 0o750)?;
            let mut open = OpenOptions::new();
            open.write(true).create(true).truncate(true).mode(mode & 0o777).custom_flags(nix::libc::O_NOFOLLOW);
            let mut to = open.open(&file)?;
            fchmod(&to, Mode::from_bits_truncate(mode & 0o7777))?;
            to.write_all(bytes)
        };
        write().map_err(|e| failed("write", &file, &e))?;
        Ok(file)
    }

    /// Makes the directories that logs go to, and the control group, which is remembered.
    pub(crate) fn before_sandbox(&self, sandbox: &Sandbox) -> Result<(), Failure> {
        let (logs, group) = (Path::new(&sandbox.log_directory), &sandbox.cgroup_parent);
        if !sandbox.log_directory.is_empty() {
            make_dir(logs, 0o755).map_err(|e| failed("make", logs, &e))?;
        }
        if group.is_empty() {
            return Ok(());
        }
        self.file(&sandbox.pod.uid, "cgroup", group.as_bytes(), 0o600)?;
        cgroup::limit(group, &sandbox.resources).map_err(|e| failed("limit", Path::new(group), &e))
    }

    /// Mounts parts of volumes where the runtime can be given them; what is mounted whole stays as it is.
    ///
    /// # Errors
    /// [`Why::Invalid`] for a part that leads out of its volume, or [`Why::Failed`].
    pub(crate) fn settled(&self, pod: &str, container: &str, mounts: Vec<Mount>) -> Result<Vec<Mount>, Failure> {
        if !is_name(container) {
            return Err(invalid(format!("{container:?} is no name of a container")));
        }
        let dir = self.dir(pod)?.join("subpaths").join(container);
        let settle = |(number, mount): (usize, Mount)| match mount.within.is_empty() {
            true => Ok(mount),
            false => within::settle(mount, &dir.join(number.to_string())),
        };
        mounts.into_iter().enumerate().map(settle).collect()
    }

    /// Unmounts what of a pod's volumes is memory, and parts of volumes, which would keep it.
    ///
    /// # Errors
    /// [`Why::Invalid`] for a name that leads elsewhere, [`Why::Failed`] if something cannot be unmounted.
    pub(crate) fn empty_memory(&self, pod: &str) -> Result<(), Failure> {
        let dir = self.dir(pod)?;
        for part in ["subpaths", "volumes"] {
            let below = dir.join(part);
            mounts::unmount_below(&below).map_err(|e| failed("unmount", &below, &e))?;
        }
        Ok(())
    }

    /// Removes files that belonged to a container, a log with what was put aside of it. Such as are not in a
    /// pod's directory or among its logs are not ours.
    pub(crate) fn remove_files(&self, files: &[String]) {
        for file in files.iter().map(Path::new) {
            let plain = file.components().all(|c| matches!(c, Component::Normal(_) | Component::RootDir));
            let is_log = file.starts_with(&self.logs);
            if !plain || !(is_log || file.starts_with(&self.dirs)) {
                continue;
            }
            let aside = if is_log { logs::put_aside_before(file) } else { Vec::new() };
            for path in aside.iter().map(PathBuf::as_path).chain([file]) {
                if let Err(e) = fs::remove_file(path)
                    && e.kind() != io::ErrorKind::NotFound
                {
                    tracing::warn!("the file {} of a container that is gone cannot be removed: {e}", path.display());
                }
            }
        }
    }

    /// Makes the directory that a container's log goes to.
    pub(crate) fn before_container(&self, log_directory: &str, log_path: &str) -> Result<(), Failure> {
        if log_directory.is_empty() || log_path.is_empty() {
            return Ok(());
        }
        let log = Path::new(log_directory).join(log_path);
        let dir = log.parent().unwrap_or(Path::new(log_directory));
        make_dir(dir, 0o755).map_err(|e| failed("make", dir, &e))
    }

    /// Removes all there is of a pod. What containers mounted inside is unmounted and not entered, no link
    /// is followed. Done also if there is nothing.
    ///
    /// # Errors
    /// [`Why::Invalid`] for a name that leads elsewhere; [`Why::Failed`] if something cannot be unmounted or
    /// removed: what is left can be removed by asking again.
    pub fn remove(&self, pod: &PodName) -> Result<(), Failure> {
        let dir = self.dir(&pod.uid)?;
        let cgroup = fs::read_to_string(dir.join("cgroup")).unwrap_or_default();
        let logs = self.log_directory(pod);
        if logs.parent() != Some(&self.logs) {
            return Err(invalid(format!("{pod:?} is no name of a pod")));
        }
        for dir in [dir, logs] {
            let remove = || {
                mounts::unmount_below(&dir)?;
                removal::remove(&dir)
            };
            remove().map_err(|e| failed("remove", &dir, &e))?;
        }
        removal::cgroup(&cgroup);
        Ok(())
    }

    /// How many bytes of the disk volumes of a pod take; what takes more than its number is counted no further.
    ///
    /// # Errors
    /// [`Why::Invalid`] for a name that leads elsewhere, [`Why::Failed`] if a volume is not there.
    pub fn measure(&self, pod: &str, limits: &BTreeMap<String, u64>) -> Result<BTreeMap<String, u64>, Failure> {
        let one = |(name, enough): (&String, &u64)| {
            let dir = self.volume(pod, name)?;
            let bytes = usage::of(&dir, *enough).map_err(|e| failed("measure the volume", &dir, &e))?;
            Ok((name.clone(), bytes))
        };
        limits.iter().map(one).collect()
    }

    /// The pods of which there is anything here. One without logs is known by its uid alone.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub fn list(&self) -> io::Result<Vec<PodName>> {
        let names = |dir: &Path| -> io::Result<Vec<String>> {
            match fs::read_dir(dir) {
                Ok(entries) => entries.map(|e| Ok(e?.file_name().to_string_lossy().into_owned())).collect(),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
                Err(e) => Err(e),
            }
        };
        let mut all = BTreeMap::new();
        for uid in names(&self.dirs)? {
            all.insert(uid.clone(), PodName { uid, ..PodName::default() });
        }
        // Neither a namespace nor a name can hold the sign between them.
        for logs in names(&self.logs)? {
            if let [namespace, name, uid] = logs.split('_').collect::<Vec<_>>()[..] {
                let pod = PodName { namespace: namespace.into(), name: name.into(), uid: uid.into() };
                all.insert(uid.to_owned(), pod);
            }
        }
        Ok(all.into_values().collect())
    }

    fn dir(&self, pod: &str) -> Result<PathBuf, Failure> {
        if !is_name(pod) {
            return Err(invalid(format!("{pod:?} is no uid of a pod")));
        }
        Ok(self.dirs.join(pod))
    }

    fn volume(&self, pod: &str, name: &str) -> Result<PathBuf, Failure> {
        if !is_name(name) {
            return Err(invalid(format!("{name:?} is no name of a volume")));
        }
        Ok(self.dir(pod)?.join("volumes").join(name))
    }
}

/// An empty directory that anybody may use, in memory if a most number of bytes is given (0: as many as
/// the system lets it have). What is there stays.
fn empty(dir: &Path, memory: Option<u64>, group: Option<u32>) -> io::Result<()> {
    if !dir.exists() {
        // It comes to be as a whole: half of it, after a power cut, would be taken for what was made of it since.
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let making = dir.with_file_name(format!(".{name}"));
        make_dir(&making, 0o777)?;
        fs::set_permissions(&making, fs::Permissions::from_mode(0o777))?;
        if let Some(group) = group {
            give(&making, group)?;
        }
        fs::rename(&making, dir)?;
    }
    let mounted = match memory {
        Some(bytes_max) => mounts::memory(dir, Some(bytes_max))?,
        None => false,
    };
    if let Some(group) = group
        && mounted
    {
        give(dir, group)?;
    }
    Ok(())
}

/// What is made inside belongs to the group, too.
fn give(dir: &Path, group: u32) -> io::Result<()> {
    chown(dir, None, Some(Gid::from_raw(group)))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o2777))
}

/// Makes a directory and those above it; its mode is set whatever the umask says.
fn make_dir(dir: &Path, mode: u32) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(mode))
}

/// One plain name, not a path.
fn is_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!(parts.next(), Some(Component::Normal(n)) if n == name) && parts.next().is_none()
}

fn failed(what: &str, path: &Path, cause: &io::Error) -> Failure {
    Failure { why: Why::Failed, message: format!("cannot {what} {}: {cause}", path.display()) }
}

fn invalid(message: String) -> Failure {
    Failure { why: Why::Invalid, message }
}

#[cfg(test)]
mod tests;
