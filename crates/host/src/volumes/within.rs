//! Mounts of a part of a volume (`subPath`). What is inside a volume is the pod's own to write, links too,
//! and it may change them at any moment: also between a look at a path and its use. So the part is found
//! from the volume's own folder, by descriptors that cannot leave it, and what was found is mounted at a
//! place of ours; the runtime is given that place and never a path through the volume.
//!
//! Why: CVE-2017-1002101 and CVE-2021-25741. Source of the way: openat2(2), and the kubelet's
//! `pkg/volume/util/subpath`.

use super::{failed, invalid, mounts};
use base::runtime::{Failure, Mount};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, mkdirat};
use nix::unistd::{Gid, fchown};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// Opens the part of a volume that a mount names, following links inside the volume. Folders missing on the
/// way are made, as open to others as the volume is and its group's.
///
/// # Errors
/// [`base::runtime::Why::Invalid`] if it leads out of `mount.within`; nothing outside was made or opened.
fn open(mount: &Mount) -> Result<OwnedFd, Failure> {
    let (root_path, path) = (Path::new(&mount.within), Path::new(&mount.host_path));
    let outside = || invalid(format!("{} leads out of its volume: nothing was mounted", mount.container_path));
    let told = |what: &str, at: &Path, e: Errno| match e {
        Errno::EXDEV | Errno::ELOOP => outside(),
        e => failed(what, at, &e.into()),
    };
    let rest = path.strip_prefix(root_path).map_err(|_| outside())?;
    // Only to find the way from: a pipe would wait for a writer, and a device may do what it does when opened.
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let root = nix::fcntl::open(root_path, flags, Mode::empty()).map_err(|e| failed("find", root_path, &e.into()))?;
    let like = fstat(&root).map_err(|e| failed("find", root_path, &e.into()))?;
    let mut done = PathBuf::new();
    let mut here: Option<OwnedFd> = None;
    for part in rest.components() {
        let Component::Normal(name) = part else { return Err(outside()) };
        done.push(name);
        let above = here.as_ref().map_or(root.as_fd(), AsFd::as_fd);
        let next = match beneath(root.as_fd(), &done, above) {
            Err(Errno::ENOENT) => {
                make(above, Path::new(name), &like).map_err(|e| told("make", &root_path.join(&done), e))?;
                beneath(root.as_fd(), &done, above)
            }
            result => result,
        };
        here = Some(next.map_err(|e| told("follow", &root_path.join(&done), e))?);
    }
    here.ok_or_else(outside)
}

/// Opens a path below `root`; the kernel lets no part of it lead out. A kernel without openat2 (before 5.6)
/// follows no link at all: the last part is opened in `above`.
fn beneath(root: BorrowedFd<'_>, path: &Path, above: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match openat2(root, path, how) {
        Err(Errno::ENOSYS) => step(above, path),
        result => result,
    }
}

fn step(above: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let name = path.file_name().ok_or(Errno::EXDEV)?;
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let found = openat(above, name, flags, Mode::empty())?;
    if is_a(&fstat(&found)?, SFlag::S_IFLNK) { Err(Errno::ELOOP) } else { Ok(found) }
}

/// Makes a folder with the mode and group of the volume's own, whatever the umask says.
fn make(above: BorrowedFd<'_>, name: &Path, like: &FileStat) -> Result<(), Errno> {
    match mkdirat(above, name, Mode::S_IRWXU) {
        // Somebody else made it, or a link that leads nowhere has its name.
        Err(Errno::EEXIST) => return Ok(()),
        result => result?,
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = openat(above, name, flags, Mode::empty())?;
    fchown(&made, None, Some(Gid::from_raw(like.st_gid)))?;
    fchmod(&made, Mode::from_bits_truncate(like.st_mode & 0o7777))
}

fn is_a(stat: &FileStat, kind: SFlag) -> bool {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == kind
}

/// Mounts the part of a volume that a mount names at `at`, in place of what is mounted there, and says so:
/// what the runtime is to mount.
///
/// # Errors
/// As [`open`], or the kernel's own words.
pub(super) fn settle(mut wanted: Mount, at: &Path) -> Result<Mount, Failure> {
    let part = open(&wanted)?;
    let is_dir = is_a(&fstat(&part).map_err(|e| failed("find", at, &e.into()))?, SFlag::S_IFDIR);
    let lay = || -> io::Result<()> {
        // Who has mounted what was there before keeps it.
        mounts::unmount_below(at)?;
        super::make_dir(at.parent().unwrap_or(at), 0o700)?;
        let there = fs::symlink_metadata(at).ok().map(|m| m.is_dir());
        match (there, is_dir) {
            (Some(true), false) => fs::remove_dir(at)?,
            (Some(false), true) => fs::remove_file(at)?,
            _ => {}
        }
        match (is_dir, there == Some(is_dir)) {
            (_, true) => {}
            (true, false) => fs::create_dir(at)?,
            (false, false) => drop(File::create(at)?),
        }
        let from = PathBuf::from(format!("/proc/self/fd/{}", part.as_raw_fd()));
        Ok(mount(Some(&from), at, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
    };
    lay().map_err(|e| failed("mount a part of a volume at", at, &e))?;
    wanted.host_path = at.to_string_lossy().into_owned();
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nix::unistd::getegid;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn a_part_of_a_volume_is_found_or_made_and_never_lies_outside() {
        let dir = tempfile::tempdir().unwrap();
        let (volume, elsewhere) = (dir.path().join("volume"), dir.path().join("elsewhere"));
        fs::create_dir_all(volume.join("a")).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        symlink("a", volume.join("link")).unwrap();
        symlink(&elsewhere, volume.join("out")).unwrap();
        symlink("../elsewhere", volume.join("up")).unwrap();
        symlink("nowhere", volume.join("dangling")).unwrap();
        symlink("/proc/self/root/etc", volume.join("magic")).unwrap();
        let at = |sub: &str| {
            let part = open(&Mount {
                host_path: volume.join(sub).to_str().unwrap().into(),
                within: volume.to_str().unwrap().into(),
                ..Mount::default()
            })?;
            Ok(fs::read_link(format!("/proc/self/fd/{}", part.as_raw_fd())).unwrap())
        };
        let root = fs::canonicalize(&volume).unwrap();
        let found: Result<PathBuf, Failure> = at("link/new");
        assert_eq!(found.unwrap(), root.join("a/new"));
        assert!(root.join("a/new").is_dir());
        for bad in ["out", "out/made", "up", "up/made", "../elsewhere", "magic"] {
            assert!(at(bad).unwrap_err().message.contains("leads out of its volume"), "{bad}");
        }
        assert!(at("dangling").is_err() && !root.join("nowhere").exists());
        assert!(!elsewhere.join("made").exists());
    }

    #[test]
    fn without_openat2_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("link")).unwrap();
        let root = File::open(dir.path()).unwrap();
        assert!(step(root.as_fd(), Path::new("a")).is_ok());
        assert_eq!(step(root.as_fd(), Path::new("link")).unwrap_err(), Errno::ELOOP);
    }

    #[test]
    fn a_volume_that_is_no_folder_has_no_parts() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        let (host_path, within) = (pipe.join("a").to_str().unwrap().into(), pipe.to_str().unwrap().into());
        // A pipe that is opened to be read waits for a writer.
        assert!(open(&Mount { host_path, within, ..Mount::default() }).is_err());
    }

    #[test]
    fn a_folder_made_on_the_way_is_as_open_as_its_volume() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        fs::create_dir(&volume).unwrap();
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o2777)).unwrap();
        open(&Mount {
            host_path: volume.join("a/b").to_str().unwrap().into(),
            within: volume.to_str().unwrap().into(),
            ..Mount::default()
        })
        .unwrap();
        for made in ["a", "a/b"] {
            let is = fs::metadata(volume.join(made)).unwrap();
            assert_eq!((is.mode() & 0o7777, is.gid()), (0o2777, getegid().as_raw()), "{made}");
        }
    }
}
