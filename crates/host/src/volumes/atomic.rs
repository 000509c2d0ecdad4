//! Files that change all at once.
//!
//! As the kubelet lays them out, since programs watch for it: the files are in a folder named by the
//! time, `..data` is a link to that folder, and what users see are links into `..data`. A new set is
//! written beside the old one, and one rename of `..data` puts it in place.

use base::runtime::VolumeFile;
use nix::errno::Errno;
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Uid, fchown, getegid, geteuid};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

/// The link to the present folder.
const DATA: &str = "..data";
/// The same while it is made.
const NEXT: &str = "..data_tmp";
/// What the group may do with files that are only read, and with folders.
const GROUP_READS: u32 = 0o440;
const GROUP_ENTERS: u32 = 0o2550;

/// Whether a path leads to a file below where it is used, and is no name of ours.
pub(super) fn is_inside(path: &str) -> bool {
    let whole = Path::new(path);
    !path.is_empty()
        && !path.starts_with("..")
        && !path.ends_with('/')
        && whole.components().all(|c| matches!(c, Component::Normal(_)))
}

/// Puts these files in place of those that are there; does nothing if they are the same.
pub(super) fn write(dir: &Path, files: &[VolumeFile], group: Option<u32>) -> io::Result<()> {
    // The last of two by the same path counts.
    let files: BTreeMap<&Path, &VolumeFile> = files.iter().map(|f| (Path::new(&f.path), f)).collect();
    let old = fs::read_link(dir.join(DATA)).ok().filter(|name| name.components().count() == 1);
    if let Some(old) = &old
        && is_same(&dir.join(old), &files, group)
    {
        return Ok(());
    }
    let name = new_folder(dir)?;
    let folder = dir.join(&name);
    let filled = files.iter().try_for_each(|(path, file)| put(&folder, path, file, group));
    if let Err(e) = filled.and_then(|()| own_folder(&folder, 0o755, group)) {
        let _ = fs::remove_dir_all(&folder);
        return Err(e);
    }
    own_folder(dir, 0o777, group)?;
    let next = dir.join(NEXT);
    let _ = fs::remove_file(&next);
    symlink(&name, &next)?;
    fs::rename(&next, dir.join(DATA))?;
    link_what_is_there(dir, &files)?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // The old folder, and those that an earlier process did not get to put in place.
        if entry.file_type()?.is_dir() && entry.file_name() != name {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Makes the links that users see, and removes those that lead nowhere any more.
fn link_what_is_there(dir: &Path, files: &BTreeMap<&Path, &VolumeFile>) -> io::Result<()> {
    let tops: BTreeSet<_> = files.keys().filter_map(|path| path.components().next()).collect();
    for top in &tops {
        match symlink(Path::new(DATA).join(top), dir.join(top)) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            result => result?,
        }
    }
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let ours = name.as_encoded_bytes().starts_with(b"..");
        if !ours && !tops.contains(&Component::Normal(&name)) {
            fs::remove_file(dir.join(name))?;
        }
    }
    Ok(())
}

/// A new folder, by a name that nothing has: `..2026_01_31_08_00_00.123`.
fn new_folder(dir: &Path) -> io::Result<PathBuf> {
    let now = crate::wall();
    let stamp: String = now.rfc3339().chars().map(|c| if c.is_ascii_digit() { c } else { '_' }).collect();
    let stamp = stamp.trim_end_matches('_');
    for number in now.0 % 1000.. {
        let name = PathBuf::from(format!("..{stamp}.{number:03}"));
        match fs::create_dir(dir.join(&name)) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            result => return result.map(|()| name),
        }
    }
    Err(Errno::EEXIST.into())
}

fn put(folder: &Path, path: &Path, file: &VolumeFile, group: Option<u32>) -> io::Result<()> {
    let mut parent = folder.to_owned();
    for part in path.parent().into_iter().flat_map(Path::components) {
        parent.push(part);
        match fs::create_dir(&parent) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            result => result.and_then(|()| own_folder(&parent, 0o755, group))?,
        }
    }
    let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.join(path))?;
    to.write_all(&file.bytes)?;
    fchown(&to, file.owner.map(Uid::from_raw), group.map(Gid::from_raw))?;
    fchmod(&to, Mode::from_bits_truncate(mode(file, group)))?;
    Ok(())
}

fn mode(file: &VolumeFile, group: Option<u32>) -> u32 {
    let mode = file.mode & 0o777;
    if group.is_some() { mode | GROUP_READS } else { mode }
}

/// Sets a folder's mode, and gives it to the group with all that will be made in it.
fn own_folder(folder: &Path, mode: u32, group: Option<u32>) -> io::Result<()> {
    let mode = match group {
        Some(group) => {
            fchown(File::open(folder)?, None, Some(Gid::from_raw(group)))?;
            mode | GROUP_ENTERS
        }
        None => mode,
    };
    fs::set_permissions(folder, fs::Permissions::from_mode(mode))
}

/// Whether a folder holds exactly these files.
fn is_same(folder: &Path, files: &BTreeMap<&Path, &VolumeFile>, group: Option<u32>) -> bool {
    let same = |(path, file): (&&Path, &&VolumeFile)| -> io::Result<bool> {
        let at = folder.join(path);
        let is = fs::symlink_metadata(&at)?;
        Ok(is.is_file()
            && is.mode() & 0o777 == mode(file, group)
            && is.uid() == file.owner.unwrap_or_else(|| geteuid().as_raw())
            && is.gid() == group.unwrap_or_else(|| getegid().as_raw())
            && is.len() == file.bytes.len() as u64
            && fs::read(&at)?.as_slice() == &*file.bytes)
    };
    count(folder).is_ok_and(|n| n == files.len()) && files.iter().all(|f| same(f).unwrap_or(false))
}

fn count(folder: &Path) -> io::Result<usize> {
    let mut files = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        files += if entry.file_type()?.is_dir() { count(&entry.path())? } else { 1 };
    }
    Ok(files)
}
