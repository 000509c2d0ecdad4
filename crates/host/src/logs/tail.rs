//! The end of a file: of what a container said when it ended, or of its log.

use super::decode::{Decoder, Wanted};
use super::read::beginning_of_last;
use base::runtime::{Failure, Why};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The most that is read of a log to find its end: containers may write lines without end.
const READ_MAX: u64 = 4 << 20;

/// The last bytes of a file, and of those the last lines; none if there is no such file.
pub(crate) fn tail(path: &str, bytes_max: u64, lines_max: u64, log: bool) -> Result<Vec<u8>, Failure> {
    match end_of(Path::new(path), bytes_max, lines_max, log) {
        Ok(bytes) => Ok(bytes),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(Failure { why: Why::Failed, message: format!("cannot read {path}: {e}") }),
    }
}

fn end_of(path: &Path, bytes_max: u64, lines_max: u64, log: bool) -> io::Result<Vec<u8>> {
    // A container may have put anything there: nothing is followed, nothing is waited for.
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let from = if lines_max > 0 { beginning_of_last(&mut file, lines_max)? } else { 0 };
    let most = if log { READ_MAX } else { bytes_max };
    let from = from.max(about.len().saturating_sub(most));
    let mut bytes = read_from(&mut file, from, most)?;
    if log {
        let mut written = Vec::new();
        Decoder::new(Wanted::default()).decode(&bytes, &mut written);
        bytes = written;
    }
    let surplus = bytes.len().saturating_sub(usize::try_from(bytes_max).unwrap_or(usize::MAX));
    bytes.drain(..surplus);
    Ok(bytes)
}

fn read_from(file: &mut File, from: u64, most: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_end_of_a_message_and_of_a_log() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        let path = file.to_str().unwrap();
        fs::write(&file, "one\ntwo\nthree").unwrap();
        assert_eq!(tail(path, 4096, 0, false).unwrap(), b"one\ntwo\nthree");
        assert_eq!(tail(path, 4, 0, false).unwrap(), b"hree");
        assert_eq!(tail(path, 4096, 2, false).unwrap(), b"two\nthree");
        assert_eq!(tail("/nonexistent/file", 4096, 0, false).unwrap(), b"");
        let line = |text: &str| format!("2026-01-31T08:00:00Z stderr F {text}\n");
        fs::write(&file, ["one", "two", "three"].map(line).concat()).unwrap();
        assert_eq!(tail(path, 2048, 2, true).unwrap(), b"two\nthree\n");
        assert_eq!(tail(path, 5, 80, true).unwrap(), b"hree\n");
    }

    #[test]
    fn what_is_no_file_of_its_own_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let (link, pipe) = (dir.path().join("link"), dir.path().join("pipe"));
        std::os::unix::fs::symlink("/etc/hostname", &link).unwrap();
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        for path in [&link, &pipe] {
            assert!(tail(path.to_str().unwrap(), 10, 0, false).is_err(), "{}", path.display());
        }
    }
}
