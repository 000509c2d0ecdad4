//! What a disk and its cache hold, as a value: every file and folder as it is now and as it was when last
//! synced. No kernel, no thread: the mount is in `serve`.
//!
//! What POSIX promises and no more: a file's bytes and size last after its fsync, a name after the fsync of
//! its folder. Common file systems promise more (ext4 makes a new file's name last with its fsync); a
//! program that needs that is wrong on the next one.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::sync::Arc;

/// Bytes are kept, shared and lost in blocks of a page.
const BLOCK_BYTES: usize = 4096;
/// A disk writes sectors whole: the unit of a torn write.
const SECTOR_BYTES: usize = 512;
/// The root folder's inode number.
pub const ROOT: u64 = 1;

/// How a power cut treats what was not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// All of it is lost.
    Everything,
    /// Each sector, size and folder on its own is lost or kept, by chance from this seed: a cache is written
    /// back in any order.
    AnySubset(u64),
}

/// Why an operation failed, as errno says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// ENOENT.
    Missing,
    /// EEXIST.
    Exists,
    /// ENOTEMPTY.
    NotEmpty,
    /// ENOTDIR.
    NotFolder,
    /// EISDIR.
    IsFolder,
    /// ENOSPC.
    Full,
    /// EIO.
    Broken,
}

/// What an inode is besides a file or a folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Bytes.
    File,
    /// Names.
    Folder,
    /// A unix socket: a name only.
    Socket,
    /// A named pipe: a name only.
    Pipe,
    /// A symbolic link.
    Link(OsString),
}

type Block = [u8; BLOCK_BYTES];

/// A file's bytes: absent blocks read as zeros and take no space.
#[derive(Clone, Default)]
struct Content {
    size: u64,
    blocks: BTreeMap<u64, Arc<Block>>,
}

/// One inode.
pub struct Inode {
    /// What it is.
    pub kind: Kind,
    /// Its permission bits.
    pub mode: u16,
    /// Counts its changes.
    pub changed: u64,
    /// How often it is open.
    open: u64,
    now: Content,
    synced: Content,
    unsynced: BTreeSet<u64>,
    names: BTreeMap<OsString, u64>,
    synced_names: BTreeMap<OsString, u64>,
}

impl Inode {
    fn new(kind: Kind, mode: u16) -> Inode {
        Inode {
            kind,
            mode,
            changed: 0,
            open: 0,
            now: Content::default(),
            synced: Content::default(),
            unsynced: BTreeSet::new(),
            names: BTreeMap::new(),
            synced_names: BTreeMap::new(),
        }
    }

    /// A file's length in bytes; a link's target's.
    pub fn size(&self) -> u64 {
        if let Kind::Link(target) = &self.kind { target.len() as u64 } else { self.now.size }
    }

    /// The bytes it takes on the disk.
    pub fn used_bytes(&self) -> u64 {
        (self.now.blocks.len() * BLOCK_BYTES) as u64
    }
}

/// A disk with its cache.
pub struct Disk {
    inodes: BTreeMap<u64, Inode>,
    next: u64,
    /// How much fits.
    pub capacity_bytes: u64,
    /// Every sync fails.
    pub fail_syncs: bool,
    /// Syncs done.
    pub syncs: u64,
}

impl Disk {
    /// An empty disk.
    pub fn new(capacity_bytes: u64) -> Disk {
        let root = Inode::new(Kind::Folder, 0o755);
        Disk { inodes: BTreeMap::from([(ROOT, root)]), next: ROOT + 1, capacity_bytes, fail_syncs: false, syncs: 0 }
    }

    /// One inode.
    ///
    /// # Errors
    /// [`Fault::Missing`].
    pub fn get(&self, ino: u64) -> Result<&Inode, Fault> {
        self.inodes.get(&ino).ok_or(Fault::Missing)
    }

    /// One inode, to change its mode or count its openings.
    ///
    /// # Errors
    /// [`Fault::Missing`].
    pub fn get_mut(&mut self, ino: u64) -> Result<&mut Inode, Fault> {
        self.inodes.get_mut(&ino).ok_or(Fault::Missing)
    }

    /// The inode a name in a folder stands for.
    ///
    /// # Errors
    /// [`Fault::Missing`], [`Fault::NotFolder`].
    pub fn lookup(&self, folder: u64, name: &OsStr) -> Result<u64, Fault> {
        self.folder(folder)?.names.get(name).copied().ok_or(Fault::Missing)
    }

    /// A folder's names, in order, with their inodes.
    ///
    /// # Errors
    /// [`Fault::Missing`], [`Fault::NotFolder`].
    pub fn list(&self, folder: u64) -> Result<&BTreeMap<OsString, u64>, Fault> {
        Ok(&self.folder(folder)?.names)
    }

    /// Makes something new under a free name.
    ///
    /// # Errors
    /// [`Fault::Exists`], [`Fault::Missing`], [`Fault::NotFolder`].
    pub fn make(&mut self, folder: u64, name: &OsStr, kind: Kind, mode: u16) -> Result<u64, Fault> {
        if self.folder(folder)?.names.contains_key(name) {
            return Err(Fault::Exists);
        }
        let ino = self.next;
        self.next += 1;
        self.inodes.insert(ino, Inode::new(kind, mode));
        self.names(folder)?.insert(name.to_owned(), ino);
        Ok(ino)
    }

    /// Takes a name away: a folder's if it is empty, or anything else's.
    ///
    /// # Errors
    /// [`Fault::NotEmpty`], [`Fault::IsFolder`], [`Fault::NotFolder`], [`Fault::Missing`].
    pub fn remove(&mut self, folder: u64, name: &OsStr, as_folder: bool) -> Result<(), Fault> {
        let inode = self.get(self.lookup(folder, name)?)?;
        match (&inode.kind, as_folder) {
            (Kind::Folder, false) => return Err(Fault::IsFolder),
            (Kind::Folder, true) if !inode.names.is_empty() => return Err(Fault::NotEmpty),
            (Kind::Folder, true) | (_, false) => {}
            (_, true) => return Err(Fault::NotFolder),
        }
        self.names(folder)?.remove(name);
        self.collect();
        Ok(())
    }

    /// Moves a name, over what is there unless `keep`.
    ///
    /// # Errors
    /// [`Fault::Exists`], [`Fault::NotEmpty`], [`Fault::Missing`], [`Fault::NotFolder`].
    pub fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr), keep: bool) -> Result<(), Fault> {
        let ino = self.lookup(from.0, from.1)?;
        if let Ok(there) = self.lookup(to.0, to.1) {
            if keep {
                return Err(Fault::Exists);
            }
            if !self.get(there)?.names.is_empty() {
                return Err(Fault::NotEmpty);
            }
        }
        self.folder(to.0)?;
        self.names(from.0)?.remove(from.1);
        self.names(to.0)?.insert(to.1.to_owned(), ino);
        self.collect();
        Ok(())
    }

    /// Reads at most `length` bytes.
    ///
    /// # Errors
    /// [`Fault::Missing`], [`Fault::IsFolder`].
    pub fn read(&self, ino: u64, offset: u64, length: usize) -> Result<Vec<u8>, Fault> {
        let content = &self.file(ino)?.now;
        let end = content.size.min(offset.saturating_add(length as u64));
        let mut out = vec![0; usize::try_from(end.saturating_sub(offset)).unwrap_or(0)];
        for_blocks(offset, out.len(), |index, within, at| {
            if let Some(block) = content.blocks.get(&index) {
                out[at.clone()].copy_from_slice(&block[within..within + at.len()]);
            }
        });
        Ok(out)
    }

    /// Writes bytes, into the cache.
    ///
    /// # Errors
    /// [`Fault::Full`], [`Fault::Missing`], [`Fault::IsFolder`].
    pub fn write(&mut self, ino: u64, offset: u64, data: &[u8]) -> Result<(), Fault> {
        self.allocate(ino, offset, data.len())?;
        let inode = self.file_mut(ino)?;
        for_blocks(offset, data.len(), |index, within, at| {
            let block = inode.now.blocks.entry(index).or_insert_with(|| Arc::new([0; BLOCK_BYTES]));
            Arc::make_mut(block)[within..within + at.len()].copy_from_slice(&data[at]);
            inode.unsynced.insert(index);
        });
        inode.now.size = inode.now.size.max(offset + data.len() as u64);
        inode.changed += 1;
        Ok(())
    }

    /// Takes space for bytes to come; they read as zeros. The size grows only if `grow`.
    ///
    /// # Errors
    /// [`Fault::Full`], [`Fault::Missing`], [`Fault::IsFolder`].
    pub fn preallocate(&mut self, ino: u64, offset: u64, length: u64, grow: bool) -> Result<(), Fault> {
        let bytes = usize::try_from(length).map_err(|_| Fault::Full)?;
        self.allocate(ino, offset, bytes)?;
        let inode = self.file_mut(ino)?;
        let zeros = Arc::new([0; BLOCK_BYTES]);
        for_blocks(offset, bytes, |index, _, _| {
            if let Entry::Vacant(free) = inode.now.blocks.entry(index) {
                free.insert(zeros.clone());
                inode.unsynced.insert(index);
            }
        });
        if grow {
            inode.now.size = inode.now.size.max(offset + length);
        }
        Ok(())
    }

    /// Gives a file another size: bytes beyond it are gone, new ones are zero.
    ///
    /// # Errors
    /// [`Fault::Missing`], [`Fault::IsFolder`].
    pub fn truncate(&mut self, ino: u64, size: u64) -> Result<(), Fault> {
        let inode = self.file_mut(ino)?;
        let first_gone = size.div_ceil(BLOCK_BYTES as u64);
        let gone = inode.now.blocks.split_off(&first_gone);
        inode.unsynced.extend(gone.into_keys());
        let within = (size % BLOCK_BYTES as u64) as usize;
        if let Some(last) = inode.now.blocks.get_mut(&(size / BLOCK_BYTES as u64)).filter(|_| within > 0) {
            Arc::make_mut(last)[within..].fill(0);
            inode.unsynced.insert(size / BLOCK_BYTES as u64);
        }
        inode.now.size = size;
        inode.changed += 1;
        Ok(())
    }

    /// Makes a file's bytes and size last, or a folder's names.
    ///
    /// # Errors
    /// [`Fault::Broken`] if told so; nothing lasts then. [`Fault::Missing`].
    pub fn sync(&mut self, ino: u64) -> Result<(), Fault> {
        if self.fail_syncs {
            return Err(Fault::Broken);
        }
        let inode = self.get_mut(ino)?;
        for index in std::mem::take(&mut inode.unsynced) {
            match inode.now.blocks.get(&index) {
                Some(block) => drop(inode.synced.blocks.insert(index, block.clone())),
                None => drop(inode.synced.blocks.remove(&index)),
            }
        }
        inode.synced.size = inode.now.size;
        inode.synced_names.clone_from(&inode.names);
        self.syncs += 1;
        self.collect();
        Ok(())
    }

    /// The power goes and comes back.
    pub fn cut(&mut self, loss: Loss) {
        let mut chance = match loss {
            Loss::Everything => Chance(None),
            Loss::AnySubset(seed) => Chance(Some(seed)),
        };
        for inode in self.inodes.values_mut() {
            inode.open = 0;
            let mut after = inode.synced.clone();
            if chance.keeps() {
                after.size = inode.now.size;
            }
            for index in std::mem::take(&mut inode.unsynced) {
                let zeros = || Arc::new([0; BLOCK_BYTES]);
                let new = inode.now.blocks.get(&index).cloned().unwrap_or_else(zeros);
                let mut block = after.blocks.get(&index).cloned().unwrap_or_else(zeros);
                let mut kept = false;
                for at in (0..BLOCK_BYTES).step_by(SECTOR_BYTES) {
                    if chance.keeps() {
                        let sector = at..at + SECTOR_BYTES;
                        Arc::make_mut(&mut block)[sector.clone()].copy_from_slice(&new[sector]);
                        kept = true;
                    }
                }
                if kept {
                    after.blocks.insert(index, block);
                }
            }
            let first_gone = after.size.div_ceil(BLOCK_BYTES as u64);
            after.blocks.split_off(&first_gone);
            inode.now = after.clone();
            inode.synced = after;
            if chance.keeps() {
                inode.synced_names.clone_from(&inode.names);
            } else {
                inode.names.clone_from(&inode.synced_names);
            }
        }
        // A name may outlast what it stood for being made: whoever recovers the disk drops it.
        let known: BTreeSet<u64> = self.inodes.keys().copied().collect();
        for inode in self.inodes.values_mut() {
            inode.names.retain(|_, ino| known.contains(ino));
            inode.synced_names.clone_from(&inode.names);
        }
        self.collect();
    }

    /// Counts an opening (`by` 1) or a closing (`by` -1).
    ///
    /// # Errors
    /// [`Fault::Missing`].
    pub fn opened(&mut self, ino: u64, by: i64) -> Result<(), Fault> {
        let inode = self.get_mut(ino)?;
        inode.open = inode.open.saturating_add_signed(by);
        if inode.open == 0 {
            self.collect();
        }
        Ok(())
    }

    /// The bytes taken by what has a name now or is open.
    pub fn used_bytes(&self) -> u64 {
        let named: BTreeSet<u64> = self.inodes.values().flat_map(|i| i.names.values().copied()).collect();
        self.inodes.iter().filter(|(ino, i)| named.contains(ino) || i.open > 0).map(|(_, i)| i.used_bytes()).sum()
    }

    fn allocate(&self, ino: u64, offset: u64, length: usize) -> Result<(), Fault> {
        let content = &self.file(ino)?.now;
        let mut wanted = 0;
        for_blocks(offset, length, |index, _, _| wanted += u64::from(!content.blocks.contains_key(&index)));
        let fits = wanted == 0 || self.used_bytes() + wanted * BLOCK_BYTES as u64 <= self.capacity_bytes;
        if fits { Ok(()) } else { Err(Fault::Full) }
    }

    /// Forgets inodes that have no name, now or synced, and are not open.
    fn collect(&mut self) {
        let mut kept = BTreeSet::from([ROOT]);
        for inode in self.inodes.values() {
            kept.extend(inode.names.values().chain(inode.synced_names.values()));
        }
        self.inodes.retain(|ino, inode| kept.contains(ino) || inode.open > 0);
    }

    fn folder(&self, ino: u64) -> Result<&Inode, Fault> {
        let inode = self.get(ino)?;
        if inode.kind == Kind::Folder { Ok(inode) } else { Err(Fault::NotFolder) }
    }

    fn names(&mut self, ino: u64) -> Result<&mut BTreeMap<OsString, u64>, Fault> {
        let inode = self.get_mut(ino)?;
        inode.changed += 1;
        if inode.kind == Kind::Folder { Ok(&mut inode.names) } else { Err(Fault::NotFolder) }
    }

    fn file(&self, ino: u64) -> Result<&Inode, Fault> {
        let inode = self.get(ino)?;
        if inode.kind == Kind::Folder { Err(Fault::IsFolder) } else { Ok(inode) }
    }

    fn file_mut(&mut self, ino: u64) -> Result<&mut Inode, Fault> {
        let inode = self.get_mut(ino)?;
        if inode.kind == Kind::Folder { Err(Fault::IsFolder) } else { Ok(inode) }
    }
}

/// Calls with each block a range touches: its index, where in it the range begins, which part of the range
/// lies in it.
fn for_blocks(offset: u64, length: usize, mut each: impl FnMut(u64, usize, std::ops::Range<usize>)) {
    let mut at = 0;
    while at < length {
        let position = offset + at as u64;
        let within = (position % BLOCK_BYTES as u64) as usize;
        let end = length.min(at + BLOCK_BYTES - within);
        each(position / BLOCK_BYTES as u64, within, at..end);
        at = end;
    }
}

/// Chance from a seed (SplitMix64); without one nothing is kept.
struct Chance(Option<u64>);

impl Chance {
    fn keeps(&mut self) -> bool {
        let Some(state) = &mut self.0 else { return false };
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn named(name: &str) -> &OsStr {
        OsStr::new(name)
    }

    fn file(disk: &mut Disk, name: &str) -> u64 {
        disk.make(ROOT, named(name), Kind::File, 0o600).unwrap()
    }

    fn content(disk: &Disk, name: &str) -> Option<Vec<u8>> {
        let ino = disk.lookup(ROOT, named(name)).ok()?;
        disk.read(ino, 0, 1 << 20).ok()
    }

    #[test]
    fn a_cut_takes_what_was_not_synced_and_nothing_else() {
        let mut disk = Disk::new(MIB);
        let log = file(&mut disk, "log");
        disk.write(log, 0, b"acknowledged").unwrap();
        disk.sync(log).unwrap();
        disk.sync(ROOT).unwrap();
        disk.write(log, 0, b"ACK").unwrap();
        disk.write(log, 12, b" and more").unwrap();
        assert_eq!(content(&disk, "log").unwrap(), b"ACKnowledged and more");
        disk.cut(Loss::Everything);
        assert_eq!(content(&disk, "log").unwrap(), b"acknowledged");
    }

    #[test]
    fn a_name_lasts_with_its_folders_sync_only() {
        let mut disk = Disk::new(MIB);
        let log = file(&mut disk, "log");
        disk.write(log, 0, b"x").unwrap();
        disk.sync(log).unwrap();
        disk.cut(Loss::Everything);
        assert_eq!(content(&disk, "log"), None);

        let old = file(&mut disk, "key");
        disk.write(old, 0, b"old").unwrap();
        disk.sync(old).unwrap();
        disk.sync(ROOT).unwrap();
        let new = file(&mut disk, "key.tmp");
        disk.write(new, 0, b"new").unwrap();
        disk.sync(new).unwrap();
        disk.rename((ROOT, named("key.tmp")), (ROOT, named("key")), false).unwrap();
        assert_eq!(content(&disk, "key").unwrap(), b"new");
        disk.cut(Loss::Everything);
        assert_eq!(content(&disk, "key").unwrap(), b"old", "the rename was not synced");
        assert_eq!(content(&disk, "key.tmp"), None);
    }

    #[test]
    fn a_removed_file_comes_back_if_its_folder_was_not_synced() {
        let mut disk = Disk::new(MIB);
        let log = file(&mut disk, "log");
        disk.write(log, 0, b"x").unwrap();
        disk.sync(log).unwrap();
        disk.sync(ROOT).unwrap();
        disk.remove(ROOT, named("log"), false).unwrap();
        assert_eq!(disk.used_bytes(), 0);
        disk.cut(Loss::Everything);
        assert_eq!(content(&disk, "log").unwrap(), b"x");
    }

    #[test]
    fn any_subset_tears_between_sectors_and_never_inside_one() {
        let mut torn = 0;
        for seed in 0..64 {
            let mut disk = Disk::new(MIB);
            let log = file(&mut disk, "log");
            disk.write(log, 0, &[1; 8192]).unwrap();
            disk.sync(log).unwrap();
            disk.sync(ROOT).unwrap();
            disk.write(log, 0, &[2; 8192]).unwrap();
            disk.cut(Loss::AnySubset(seed));
            let after = content(&disk, "log").unwrap();
            for sector in after.chunks(SECTOR_BYTES) {
                assert!(sector.iter().all(|b| *b == sector[0]), "seed {seed}");
            }
            torn += usize::from(after.contains(&1) && after.contains(&2));
            let mut again = Disk::new(MIB);
            let log = file(&mut again, "log");
            again.write(log, 0, &[1; 8192]).unwrap();
            again.sync(log).unwrap();
            again.sync(ROOT).unwrap();
            again.write(log, 0, &[2; 8192]).unwrap();
            again.cut(Loss::AnySubset(seed));
            assert_eq!(content(&again, "log").unwrap(), after, "a seed is one outcome");
        }
        assert!(torn > 32, "{torn}");
    }

    #[test]
    fn a_failed_sync_makes_nothing_last() {
        let mut disk = Disk::new(MIB);
        let log = file(&mut disk, "log");
        disk.sync(ROOT).unwrap();
        disk.write(log, 0, b"x").unwrap();
        disk.fail_syncs = true;
        assert_eq!(disk.sync(log), Err(Fault::Broken));
        disk.cut(Loss::Everything);
        assert_eq!(content(&disk, "log").unwrap(), b"");
    }

    #[test]
    fn a_full_disk_still_takes_what_was_reserved() {
        let mut disk = Disk::new(64 * 1024);
        let reserve = file(&mut disk, "reserve");
        disk.preallocate(reserve, 0, 32 * 1024, true).unwrap();
        let log = file(&mut disk, "log");
        disk.write(log, 0, &[7; 32 * 1024]).unwrap();
        assert_eq!(disk.write(log, 32 * 1024, b"x"), Err(Fault::Full));
        disk.write(reserve, 100, &[8; 1000]).unwrap();
        disk.remove(ROOT, named("reserve"), false).unwrap();
        disk.write(log, 32 * 1024, b"x").unwrap();
    }

    #[test]
    fn truncation_leaves_zeros_behind() {
        let mut disk = Disk::new(MIB);
        let log = file(&mut disk, "log");
        disk.write(log, 0, &[7; 5000]).unwrap();
        disk.truncate(log, 10).unwrap();
        disk.truncate(log, 5000).unwrap();
        let after = content(&disk, "log").unwrap();
        assert_eq!((after[9], after[10], after.len()), (7, 0, 5000));
        disk.sync(log).unwrap();
        disk.sync(ROOT).unwrap();
        disk.truncate(log, 0).unwrap();
        disk.cut(Loss::Everything);
        assert_eq!(content(&disk, "log").unwrap(), after, "a truncation needs its sync too");
    }

    #[test]
    fn an_open_file_without_a_name_lives_until_it_is_closed() {
        let mut disk = Disk::new(MIB);
        let log = file(&mut disk, "log");
        disk.opened(log, 1).unwrap();
        disk.remove(ROOT, named("log"), false).unwrap();
        disk.write(log, 0, b"x").unwrap();
        assert_eq!(disk.read(log, 0, 9).unwrap(), b"x");
        disk.opened(log, -1).unwrap();
        assert_eq!(disk.read(log, 0, 9), Err(Fault::Missing));
    }
}
