//! The directory: a lock, and the system calls behind each [`Op`].

use super::OpenError;
use base::disk::{self, Done, Failure, Found, Op};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, Flock, FlockArg, PosixFadviseAdvice};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The system calls that can fail for want of space or a sound disk; tests put failures here.
pub(super) trait Edge: Send + 'static {
    /// pwrite(2).
    fn pwrite(&mut self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        file.write_at(bytes, offset)
    }

    /// fdatasync(2).
    fn fdatasync(&mut self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    /// fallocate(2) from byte 0 on, extending the file.
    fn fallocate(&mut self, file: &File, bytes: u64) -> io::Result<()> {
        let bytes = i64::try_from(bytes).map_err(|_| Errno::EFBIG)?;
        nix::fcntl::fallocate(file, FallocateFlags::empty(), 0, bytes).map_err(io::Error::from)
    }
}

/// The kernel's own.
pub(super) struct Kernel;

impl Edge for Kernel {}

/// A directory held by this process alone: no other that asks is let in while this lives.
///
/// The lock is the kernel's (flock(2)), so it ends with the process however that ends; the file's
/// content, the process's id, is for people.
pub struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Takes the directory, making it if it is not there (readable by its owner only: the log holds
    /// Secrets).
    ///
    /// # Errors
    /// [`OpenError::InUse`] if another process holds it; [`OpenError::Io`] if it cannot be made.
    pub fn take<E>(dir: &Path) -> Result<Lock, OpenError<E>> {
        let io = |operation, path: &Path| {
            let path = path.to_owned();
            move |cause| OpenError::Io { operation, path, cause }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io("create", dir))?;
        let path = dir.join("lock");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(io("open", &path))?;
        let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                return Err(OpenError::InUse { dir: dir.to_owned(), pid: pid.trim().parse().ok() });
            }
            Err((_, errno)) => return Err(io("lock", &path)(errno.into())),
        };
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        // What is written here is for people only: a full disk must not keep a node from starting.
        let _ = write(&mut file);
        Ok(Lock { _file: file })
    }
}

/// The files of a log, in a directory that is locked.
pub(super) struct Files {
    dir: PathBuf,
    handle: File,
    open: BTreeMap<disk::File, File>,
    /// Names changed since the directory was last synced.
    renamed: bool,
    edge: Box<dyn Edge>,
    _lock: Lock,
}

/// Blocks that cannot be read are told apart at this grain.
const BLOCK: u64 = 4096;
/// As many first bytes of a spare are zeros, whatever it was before.
const BLANK: usize = 8192;

impl Files {
    /// Takes the directory and opens what is in it. What is then read is what the disk holds: everything
    /// is synced first, since a process that died leaves writes that no power cut would, and dropped from
    /// the page cache, which may hold what could not be written.
    pub(super) fn open<E>(dir: &Path, edge: Box<dyn Edge>) -> Result<(Files, Vec<Found>), OpenError<E>> {
        let lock = Lock::take(dir)?;
        let io = |operation, path: PathBuf| move |cause| OpenError::Io { operation, path, cause };
        let handle = File::open(dir).map_err(io("open", dir.to_owned()))?;
        let mut files = Files { dir: dir.to_owned(), handle, open: BTreeMap::new(), renamed: false, edge, _lock: lock };
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).map_err(io("list", dir.to_owned()))? {
            let entry = entry.map_err(io("list", dir.to_owned()))?;
            let Some(name) = entry.file_name().to_str().and_then(disk::File::parse) else { continue };
            let path = entry.path();
            let file = OpenOptions::new().read(true).write(true).open(&path).map_err(io("open", path.clone()))?;
            files.edge.fdatasync(&file).map_err(io("sync", path.clone()))?;
            // Only advice: where it is not taken, the page cache is what there is.
            let _ = nix::fcntl::posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
            let bytes = file.metadata().map_err(io("look at", path))?.len();
            found.push(Found { file: name, bytes });
            files.open.insert(name, file);
        }
        files.handle.sync_all().map_err(io("sync", dir.to_owned()))?;
        found.sort_by_key(|f| f.file);
        Ok((files, found))
    }

    /// Does what is asked and answers.
    pub(super) fn perform(&mut self, op: Op) -> Done {
        match op {
            Op::Prepare { spare, bytes } => {
                let result = self.prepare(disk::File::Spare(spare), bytes);
                if result.is_err() {
                    // What was allocated of it would only be in the way.
                    let _ = self.remove(disk::File::Spare(spare));
                }
                Done::Prepared(spare, result.map_err(failure))
            }
            Op::Adopt { spare, segment } => Done::Adopted(segment, self.adopt(spare, segment).map_err(failure)),
            Op::Write { segment, offset, bytes } => {
                let result = self.write(segment, offset, &bytes).map_err(failure);
                Done::Written { segment, offset, bytes, result }
            }
            // Whatever keeps a sync from its end, want of space too, leaves unknown what the disk holds.
            Op::Sync { segment } => {
                Done::Synced(segment, self.sync(segment).map_err(|e| Failure::Broken(e.to_string())))
            }
            Op::Truncate { segment, bytes } => {
                let result = self.get(disk::File::Segment(segment)).and_then(|file| file.set_len(bytes));
                Done::Truncated(segment, result.map_err(failure))
            }
            Op::Remove { file } => Done::Removed(file, self.remove(file).map_err(failure)),
            Op::Read { segment, offset, bytes } => {
                Done::Read { segment, offset, bytes: self.read(segment, offset, bytes) }
            }
        }
    }

    fn get(&self, file: disk::File) -> io::Result<&File> {
        self.open.get(&file).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, file.name()))
    }

    fn prepare(&mut self, spare: disk::File, bytes: u64) -> io::Result<()> {
        let path = self.dir.join(spare.name());
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match self.edge.fallocate(&file, bytes) {
            Ok(()) => {
                file.set_len(bytes)?;
                self.fill(&file, &vec![0; BLANK.min(bytes as usize)], 0)?;
            }
            // A file system that cannot allocate ahead is made to by writing.
            Err(e) if matches!(e.raw_os_error().map(Errno::from_raw), Some(Errno::EOPNOTSUPP | Errno::ENOSYS)) => {
                file.set_len(bytes)?;
                let zeros = vec![0; 1 << 20];
                let mut at = 0;
                while at < bytes {
                    let length = (bytes - at).min(zeros.len() as u64);
                    self.fill(&file, &zeros[..length as usize], at)?;
                    at += length;
                }
            }
            Err(e) => return Err(e),
        }
        file.sync_all()?;
        self.open.insert(spare, file);
        self.handle.sync_all()
    }

    fn adopt(&mut self, spare: u64, segment: u64) -> io::Result<()> {
        let (from, to) = (disk::File::Spare(spare), disk::File::Segment(segment));
        fs::rename(self.dir.join(from.name()), self.dir.join(to.name()))?;
        self.renamed = true;
        if let Some(file) = self.open.remove(&from) {
            self.open.insert(to, file);
        }
        Ok(())
    }

    fn write(&mut self, segment: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let name = disk::File::Segment(segment);
        let file = self.open.remove(&name).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, name.name()))?;
        let result = self.fill(&file, bytes, offset);
        self.open.insert(name, file);
        result
    }

    fn fill(&mut self, file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.edge.pwrite(file, bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => (bytes, offset) = (&bytes[n..], offset + n as u64),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn sync(&mut self, segment: u64) -> io::Result<()> {
        // A segment that could not be begun has no file; its sync has nothing to do.
        if let Some(file) = self.open.get(&disk::File::Segment(segment)) {
            self.edge.fdatasync(file)?;
        }
        if std::mem::take(&mut self.renamed) {
            self.handle.sync_all()?;
        }
        Ok(())
    }

    fn remove(&mut self, file: disk::File) -> io::Result<()> {
        self.open.remove(&file);
        match fs::remove_file(self.dir.join(file.name())) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => self.handle.sync_all(),
        }
    }

    /// Reads what can be read; the rest reads as zeros, which the reader takes for damage.
    pub(super) fn read(&self, segment: u64, offset: u64, bytes: u64) -> Vec<u8> {
        let Ok(file) = self.get(disk::File::Segment(segment)) else { return Vec::new() };
        let length = file.metadata().map_or(0, |m| m.len()).saturating_sub(offset).min(bytes);
        let mut out = vec![0; length as usize];
        if file.read_exact_at(&mut out, offset).is_err() {
            for (i, block) in out.chunks_mut(BLOCK as usize).enumerate() {
                if file.read_exact_at(block, offset + i as u64 * BLOCK).is_err() {
                    block.fill(0);
                }
            }
        }
        out
    }
}

fn failure(error: io::Error) -> Failure {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG) => Failure::Full(error.to_string()),
        _ => Failure::Broken(error.to_string()),
    }
}
