//! Memory as a file system, and what is mounted below a directory.

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Mounts a tmpfs here, unless one is: for files that are never to reach a disk (`None`), or for anybody's
/// use with at most so many bytes (0: half of the machine's memory, as the kernel has it). Says whether it
/// was mounted now.
pub(super) fn memory(dir: &Path, for_use: Option<u64>) -> io::Result<bool> {
    if is_mounted(dir)? {
        return Ok(false);
    }
    let (flags, options) = match for_use {
        Some(0) => (MsFlags::empty(), "mode=0777".to_owned()),
        Some(bytes_max) => (MsFlags::empty(), format!("mode=0777,size={bytes_max}")),
        None => (MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=0755".to_owned()),
    };
    let tmpfs = |options: &str| mount(Some("tmpfs"), dir, Some("tmpfs"), flags, Some(options));
    // Kernels before 6.4 cannot keep a tmpfs from being swapped out.
    match tmpfs(&format!("{options},noswap")) {
        Err(Errno::EINVAL) => tmpfs(&options)?,
        result => result?,
    }
    Ok(true)
}

/// Something is mounted on it.
fn is_mounted(dir: &Path) -> io::Result<bool> {
    let above = dir.parent().unwrap_or(Path::new("/"));
    Ok(fs::metadata(dir)?.dev() != fs::metadata(above)?.dev())
}

/// Unmounts all that is mounted at or below a directory, what is in use too: it goes when its last user
/// has gone.
///
/// # Errors
/// If something is still mounted afterwards.
pub(super) fn unmount_below(dir: &Path) -> io::Result<()> {
    // One mount may hide another at the same place, and one that goes may uncover one.
    for _ in 0..16 {
        let mounted = below(&fs::read("/proc/thread-self/mountinfo")?, dir);
        if mounted.is_empty() {
            return Ok(());
        }
        for at in mounted.iter().rev() {
            let unmounted = match umount2(at, MntFlags::UMOUNT_NOFOLLOW) {
                Err(Errno::EBUSY) => umount2(at, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH),
                result => result,
            };
            if let Err(e) = unmounted
                && e != Errno::EINVAL
            {
                return Err(io::Error::other(format!("{} cannot be unmounted: {e}", at.display())));
            }
        }
    }
    Err(io::Error::other("something is mounted there again and again"))
}

/// Mount points at or below a directory, in the order in which they were mounted (proc(5), mountinfo: the
/// fifth field, with blanks as octal escapes).
fn below(mountinfo: &[u8], dir: &Path) -> Vec<PathBuf> {
    let lines = mountinfo.split(|b| *b == b'\n');
    let points = lines.filter_map(|line| line.split(|b| *b == b' ').nth(4));
    points.map(unescaped).filter(|at| at.starts_with(dir)).collect()
}

fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_a_directory_are_told_from_its_neighbours() {
        let info = b"22 1 254:0 / / rw - ext4 /dev/vda rw\n\
            40 22 0:40 / /d/pods/u1/volumes/a rw - tmpfs tmpfs rw\n\
            41 22 0:41 / /d/pods/u10/volumes/a rw - tmpfs tmpfs rw\n\
            42 40 0:42 / /d/pods/u1/volumes/a/with\\040blank\\134 rw - tmpfs tmpfs rw\n";
        assert_eq!(
            below(info, Path::new("/d/pods/u1")),
            [Path::new("/d/pods/u1/volumes/a"), Path::new("/d/pods/u1/volumes/a/with blank\\")]
        );
    }
}
