//! A path of the host as a volume: is it what the pod says it is?

use base::runtime::{Failure, Why};
use std::fs::{self, FileType, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The path, once it is of its type; made, for the two types that say so. Worded as by the kubelet.
pub(super) fn check(path: &str, kind: &str) -> Result<PathBuf, Failure> {
    let at = Path::new(path);
    let failed = |message: String| Failure { why: Why::Failed, message };
    let made = match kind {
        "DirectoryOrCreate" => made(fs::DirBuilder::new().recursive(true).mode(0o755).create(at)),
        "FileOrCreate" => {
            let open = OpenOptions::new().write(true).create_new(true).mode(0o644).open(at);
            made(open.map(drop))
        }
        _ => Ok(()),
    };
    made.map_err(|e| failed(format!("cannot make {path}: {e}")))?;
    let is = |test: fn(&FileType) -> bool| fs::metadata(at).is_ok_and(|m| test(&m.file_type()));
    let (right, what) = match kind {
        "" => (true, ""),
        "Directory" | "DirectoryOrCreate" => (is(FileType::is_dir), "a directory"),
        "File" | "FileOrCreate" => (is(FileType::is_file), "a file"),
        "Socket" => (is(FileTypeExt::is_socket), "a socket file"),
        "CharDevice" => (is(FileTypeExt::is_char_device), "a character device"),
        "BlockDevice" => (is(FileTypeExt::is_block_device), "a block device"),
        _ => return Err(Failure { why: Why::Invalid, message: format!("{kind} is an invalid volume type") }),
    };
    match right {
        true => Ok(at.to_owned()),
        false => Err(failed(format!("hostPath type check failed: {path} is not {what}"))),
    }
}

/// What is there already is looked at afterwards.
fn made(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}
