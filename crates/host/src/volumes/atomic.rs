//! Files that change all at once.
//!
//! As the kubelet lays them out, since programs watch for it: the files are in a folder named by the
//! time, `..data` is a link to that folder, and what users see are links into `..data`. A new set is
//! written beside the old one, and one rename of `..data` puts it in place.

use base::runtime::VolumeFile;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Uid, fchown, getegid, geteuid};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::path::{Component, Path, PathBuf};

/// The link to the present folder.
const DATA: &str = "..data";
/// The same while it is made.
const NEXT: &str = "..data_tmp";
/// What the group may do with files that are only read, and with folders.
const GROUP_READS: u32 = 0o440;
const GROUP_ENTERS: u32 = 0o2550;
/// All may look and only the node may write.
const OPEN: u32 = 0o755;

/// Whether a path leads to a file below where it is used, and is no name of ours.
pub(super) fn is_inside(path: &str) -> bool {
    let whole = Path::new(path);
    !path.is_empty()
        && !path.starts_with("..")
        && !path.ends_with('/')
        && whole.components().all(|c| matches!(c, Component::Normal(_)))
}

/// A folder that is open: what is in it is reached through it, whatever becomes of the names above. Nobody
/// but the node is to write there, and a container that once could must not have the node write elsewhere.
struct Folder {
    open: File,
    at: PathBuf,
}

impl Folder {
    /// Opens a folder, not a link to one.
    fn open(path: &Path) -> io::Result<Folder> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        let open = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
        let at = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
        Ok(Folder { open, at })
    }

    /// What has this name in it.
    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.at.join(name)
    }

    fn folder(&self, name: impl AsRef<Path>) -> io::Result<Folder> {
        Folder::open(&self.path(name))
    }

    /// Sets its mode, and gives it to the group with all that will be made in it.
    fn own(&self, mode: u32, group: Option<u32>) -> io::Result<()> {
        let mode = match group {
            Some(group) => {
                fchown(&self.open, None, Some(Gid::from_raw(group)))?;
                mode | GROUP_ENTERS
            }
            None => mode,
        };
        Ok(fchmod(&self.open, Mode::from_bits_truncate(mode))?)
    }
}

/// Puts these files in place of those that are there; does nothing if they are the same.
pub(super) fn write(dir: &Path, files: &[VolumeFile], group: Option<u32>) -> io::Result<()> {
    let dir = Folder::open(dir)?;
    // The last of two by the same path counts.
    let files: BTreeMap<&Path, &VolumeFile> = files.iter().map(|f| (Path::new(&f.path), f)).collect();
    dir.own(OPEN, group)?;
    let old = fs::read_link(dir.path(DATA)).ok().filter(|name| name.components().count() == 1);
    if let Some(old) = old.and_then(|name| dir.folder(name).ok())
        && is_same(&old, &files, group)
    {
        return Ok(());
    }
    let name = new_folder(&dir)?;
    let filled = dir.folder(&name).and_then(|folder| {
        files.iter().try_for_each(|(path, file)| put(&folder, path, file, group))?;
        folder.own(OPEN, group)
    });
    if let Err(e) = filled {
        let _ = fs::remove_dir_all(dir.path(&name));
        return Err(e);
    }
    let next = dir.path(NEXT);
    let _ = fs::remove_file(&next);
    symlink(&name, &next)?;
    fs::rename(&next, dir.path(DATA))?;
    link_what_is_there(&dir, &files)?;
    for entry in fs::read_dir(&dir.at)? {
        let entry = entry?;
        // The old folder, and those that an earlier process did not get to put in place.
        if entry.file_type()?.is_dir() && entry.file_name() != name {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Makes the links that users see, and removes those that lead nowhere any more.
fn link_what_is_there(dir: &Folder, files: &BTreeMap<&Path, &VolumeFile>) -> io::Result<()> {
    let tops: BTreeSet<_> = files.keys().filter_map(|path| path.components().next()).collect();
    for top in &tops {
        match symlink(Path::new(DATA).join(top), dir.path(top)) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            result => result?,
        }
    }
    for entry in fs::read_dir(&dir.at)? {
        let name = entry?.file_name();
        let ours = name.as_encoded_bytes().starts_with(b"..");
        if !ours && !tops.contains(&Component::Normal(&name)) {
            fs::remove_file(dir.path(name))?;
        }
    }
    Ok(())
}

/// A new folder, by a name that nothing has: `..2026_01_31_08_00_00.123`.
fn new_folder(dir: &Folder) -> io::Result<PathBuf> {
    let now = crate::wall();
    let stamp: String = now.rfc3339().chars().map(|c| if c.is_ascii_digit() { c } else { '_' }).collect();
    let stamp = stamp.trim_end_matches('_');
    for number in now.0 % 1000.. {
        let name = PathBuf::from(format!("..{stamp}.{number:03}"));
        match fs::create_dir(dir.path(&name)) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            result => return result.map(|()| name),
        }
    }
    Err(Errno::EEXIST.into())
}

fn put(folder: &Folder, path: &Path, file: &VolumeFile, group: Option<u32>) -> io::Result<()> {
    let mut parents = path.components();
    let Some(name) = parents.next_back() else { return Err(Errno::EINVAL.into()) };
    let mut inner: Option<Folder> = None;
    for part in parents {
        let above = inner.as_ref().unwrap_or(folder);
        let made = match fs::create_dir(above.path(part)) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => above.folder(part)?,
            result => {
                result?;
                let made = above.folder(part)?;
                made.own(OPEN, group)?;
                made
            }
        };
        inner = Some(made);
    }
    let at = inner.as_ref().unwrap_or(folder).path(name);
    let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(at)?;
    to.write_all(&file.bytes)?;
    fchown(&to, file.owner.map(Uid::from_raw), group.map(Gid::from_raw))?;
    fchmod(&to, Mode::from_bits_truncate(mode(file, group)))?;
    Ok(())
}

fn mode(file: &VolumeFile, group: Option<u32>) -> u32 {
    let mode = file.mode & 0o777;
    if group.is_some() { mode | GROUP_READS } else { mode }
}

/// Opens a file, nothing else, and follows no link on the way.
fn file_in(folder: &Folder, path: &Path) -> io::Result<File> {
    let mut parents = path.components();
    let Some(name) = parents.next_back() else { return Err(Errno::EINVAL.into()) };
    let mut inner: Option<Folder> = None;
    for part in parents {
        inner = Some(inner.as_ref().unwrap_or(folder).folder(part)?);
    }
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits()).open(inner.as_ref().unwrap_or(folder).path(name))
}

/// Whether a folder holds exactly these files.
fn is_same(folder: &Folder, files: &BTreeMap<&Path, &VolumeFile>, group: Option<u32>) -> bool {
    let same = |(path, file): (&&Path, &&VolumeFile)| -> io::Result<bool> {
        let mut at = file_in(folder, path)?;
        let is = at.metadata()?;
        if !(is.is_file()
            && is.mode() & 0o777 == mode(file, group)
            && is.uid() == file.owner.unwrap_or_else(|| geteuid().as_raw())
            && is.gid() == group.unwrap_or_else(|| getegid().as_raw())
            && is.len() == file.bytes.len() as u64)
        {
            return Ok(false);
        }
        let mut bytes = Vec::new();
        at.read_to_end(&mut bytes)?;
        Ok(bytes.as_slice() == &*file.bytes)
    };
    count(&folder.at).is_ok_and(|n| n == files.len()) && files.iter().all(|f| same(f).unwrap_or(false))
}

fn count(folder: &Path) -> io::Result<usize> {
    let mut files = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        files += if entry.file_type()?.is_dir() { count(&entry.path())? } else { 1 };
    }
    Ok(files)
}
