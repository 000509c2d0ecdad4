//! The kernel's questions, answered from the disk. Nothing is cached on the way: attributes and names
//! live for no time, so that after a cut the kernel asks again.

use super::disk::{Disk, Fault, Inode, Kind};
use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

pub(super) struct Served(pub(super) Arc<Mutex<Disk>>);

/// How long the kernel may remember an answer.
const TTL: Duration = Duration::ZERO;
const GENERATION: Generation = Generation(0);
const NO_HANDLE: FileHandle = FileHandle(0);

impl Served {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn made(&self, parent: INodeNo, name: &OsStr, kind: Kind, mode: u32, reply: ReplyEntry) {
        let mut disk = self.disk();
        let made = disk.make(parent.0, name, kind, (mode & 0o7777) as u16);
        match made.and_then(|ino| Ok(attributes(ino, disk.get(ino)?))) {
            Ok(attr) => reply.entry(&TTL, &attr, GENERATION),
            Err(fault) => reply.error(errno(fault)),
        }
    }
}

fn errno(fault: Fault) -> Errno {
    match fault {
        Fault::Missing => Errno::ENOENT,
        Fault::Exists => Errno::EEXIST,
        Fault::NotEmpty => Errno::ENOTEMPTY,
        Fault::NotFolder => Errno::ENOTDIR,
        Fault::IsFolder => Errno::EISDIR,
        Fault::Full => Errno::ENOSPC,
        Fault::Broken => Errno::EIO,
    }
}

fn file_type(kind: &Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Folder => FileType::Directory,
        Kind::Socket => FileType::Socket,
        Kind::Pipe => FileType::NamedPipe,
        Kind::Link(_) => FileType::Symlink,
    }
}

fn attributes(ino: u64, inode: &Inode) -> FileAttr {
    // Changes are counted, not timed: enough for the kernel and for any reader to see that there was one.
    let changed = SystemTime::UNIX_EPOCH + Duration::from_micros(inode.changed);
    FileAttr {
        ino: INodeNo(ino),
        size: inode.size(),
        blocks: inode.used_bytes() / 512,
        atime: changed,
        mtime: changed,
        ctime: changed,
        crtime: SystemTime::UNIX_EPOCH,
        kind: file_type(&inode.kind),
        perm: inode.mode,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn done(outcome: Result<(), Fault>, reply: ReplyEmpty) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(fault) => reply.error(errno(fault)),
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let disk = self.disk();
        match disk.lookup(parent.0, name).and_then(|ino| Ok(attributes(ino, disk.get(ino)?))) {
            Ok(attr) => reply.entry(&TTL, &attr, GENERATION),
            Err(fault) => reply.error(errno(fault)),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.disk().get(ino.0) {
            Ok(inode) => reply.attr(&TTL, &attributes(ino.0, inode)),
            Err(fault) => reply.error(errno(fault)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut disk = self.disk();
        let outcome = size.map_or(Ok(()), |size| disk.truncate(ino.0, size)).and_then(|()| {
            let inode = disk.get_mut(ino.0)?;
            if let Some(mode) = mode {
                inode.mode = (mode & 0o7777) as u16;
            }
            Ok(attributes(ino.0, inode))
        });
        match outcome {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(fault) => reply.error(errno(fault)),
        }
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.disk().get(ino.0).map(|i| &i.kind) {
            Ok(Kind::Link(target)) => reply.data(target.as_bytes()),
            Ok(_) => reply.error(Errno::EINVAL),
            Err(fault) => reply.error(errno(fault)),
        }
    }

    fn mknod(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, _: u32, reply: ReplyEntry) {
        let kind = match mode & 0o170_000 {
            0o140_000 => Kind::Socket,
            0o010_000 => Kind::Pipe,
            0o100_000 | 0 => Kind::File,
            _ => return reply.error(Errno::EOPNOTSUPP),
        };
        self.made(parent, name, kind, mode, reply);
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        self.made(parent, name, Kind::Folder, mode & !umask, reply);
    }

    fn symlink(&self, _: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        self.made(parent, name, Kind::Link(target.as_os_str().to_owned()), 0o777, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.disk().remove(parent.0, name, false), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.disk().remove(parent.0, name, true), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to_parent: INodeNo,
        to_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        // Exchanging two names is asked by nobody here.
        if !(flags - RenameFlags::RENAME_NOREPLACE).is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let keep = flags.contains(RenameFlags::RENAME_NOREPLACE);
        done(self.disk().rename((parent.0, name), (to_parent.0, to_name), keep), reply);
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Without KEEP_CACHE the kernel drops the pages it has: what a cut changed is read anew.
        match self.disk().opened(ino.0, 1) {
            Ok(()) => reply.opened(NO_HANDLE, FopenFlags::empty()),
            Err(fault) => reply.error(errno(fault)),
        }
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, _: i32, reply: ReplyCreate) {
        let mut disk = self.disk();
        let made = disk.make(parent.0, name, Kind::File, (mode & !umask & 0o7777) as u16);
        let opened = made.and_then(|ino| {
            disk.opened(ino, 1)?;
            Ok(attributes(ino, disk.get(ino)?))
        });
        match opened {
            Ok(attr) => reply.created(&TTL, &attr, GENERATION, NO_HANDLE, FopenFlags::empty()),
            Err(fault) => reply.error(errno(fault)),
        }
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        done(self.disk().opened(ino.0, -1), reply);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.disk().read(ino.0, offset, size as usize) {
            Ok(bytes) => reply.data(&bytes),
            Err(fault) => reply.error(errno(fault)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.disk().write(ino.0, offset, data) {
            Ok(()) => reply.written(data.len() as u32),
            Err(fault) => reply.error(errno(fault)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Closing a file makes nothing last.
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(self.disk().sync(ino.0), reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(self.disk().sync(ino.0), reply);
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        const KEEP_SIZE: i32 = 1;
        match mode {
            0 | KEEP_SIZE => done(self.disk().preallocate(ino.0, offset, length, mode == 0), reply),
            _ => reply.error(Errno::EOPNOTSUPP),
        }
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let disk = self.disk();
        let names = match disk.list(ino.0) {
            Ok(names) => names,
            Err(fault) => return reply.error(errno(fault)),
        };
        let dots = [(OsStr::new("."), ino.0), (OsStr::new(".."), ino.0)];
        let all = dots.into_iter().chain(names.iter().map(|(name, ino)| (name.as_os_str(), *ino)));
        for (at, (name, ino)) in all.enumerate().skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
            let kind = disk.get(ino).map_or(FileType::RegularFile, |i| file_type(&i.kind));
            if reply.add(INodeNo(ino), at as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let disk = self.disk();
        let free = disk.capacity_bytes.saturating_sub(disk.used_bytes()) / 4096;
        reply.statfs(disk.capacity_bytes / 4096, free, free, 1 << 20, 1 << 20, 4096, 255, 4096);
    }
}
