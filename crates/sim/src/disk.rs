//! A keeper's disk: files that are seen whole, and of which a power cut leaves what was synced and, of what
//! was not, any sectors.

use base::Chance;
use base::disk::{Done, Failure, File, Found, Op};
use std::collections::BTreeMap;

/// What a device writes whole or not at all.
const SECTOR: usize = 512;
/// Of a spare, these bytes are made zeros again (see [`Op::Prepare`]).
const BLANK: usize = 8192;

/// The bytes of a file, and how to undo what was not synced.
#[derive(Default)]
struct Inode {
    bytes: Vec<u8>,
    /// Newest last: where, and what stood there.
    undo: Vec<(usize, Vec<u8>)>,
    /// The length and the end of it that a truncation took away.
    cut: Option<Vec<u8>>,
    /// Where each synced write begins and ends.
    synced: Vec<(usize, usize)>,
    fresh: Vec<(usize, usize)>,
}

/// The disk.
#[derive(Default)]
pub struct Disk {
    inodes: Vec<Inode>,
    /// The directory as it is seen, and as it survives.
    seen: BTreeMap<File, usize>,
    stable: BTreeMap<File, usize>,
    /// There is no room for another file.
    pub full: bool,
}

impl Disk {
    /// The files there are.
    pub fn found(&self) -> Vec<Found> {
        self.seen.iter().map(|(file, i)| Found { file: *file, bytes: self.inodes[*i].bytes.len() as u64 }).collect()
    }

    /// Does what a log asks for, at once: how long it takes is the world's affair.
    pub fn perform(&mut self, op: Op) -> Done {
        match op {
            Op::Prepare { spare, bytes } => {
                let known = self.seen.get(&File::Spare(spare)).copied();
                if known.is_none() && self.full {
                    return Done::Prepared(spare, Err(Failure::Full("no space left on device".into())));
                }
                let inode = known.unwrap_or(self.inodes.len());
                if known.is_none() {
                    self.inodes.push(Inode::default());
                    self.seen.insert(File::Spare(spare), inode);
                }
                self.stable.insert(File::Spare(spare), inode);
                let all = &mut self.inodes[inode].bytes;
                all.resize(bytes as usize, 0);
                all[..BLANK].fill(0);
                Done::Prepared(spare, Ok(()))
            }
            Op::Adopt { spare, segment } => {
                if let Some(inode) = self.seen.remove(&File::Spare(spare)) {
                    self.seen.insert(File::Segment(segment), inode);
                }
                Done::Adopted(segment, Ok(()))
            }
            Op::Write { segment, offset, bytes } => {
                if let Some(inode) = self.inode(segment) {
                    let (from, to) = (offset as usize, offset as usize + bytes.len());
                    let old = inode.bytes[from..to].to_vec();
                    inode.bytes[from..to].copy_from_slice(&bytes);
                    inode.undo.push((from, old));
                    inode.fresh.push((from, to));
                }
                Done::Written { segment, offset, bytes, result: Ok(()) }
            }
            Op::Sync { segment } => {
                if let Some(inode) = self.inode(segment) {
                    inode.undo.clear();
                    inode.cut = None;
                    let fresh = std::mem::take(&mut inode.fresh);
                    inode.synced.extend(fresh);
                }
                self.stable = self.seen.clone();
                Done::Synced(segment, Ok(()))
            }
            Op::Truncate { segment, bytes } => {
                if let Some(inode) = self.inode(segment) {
                    inode.cut = Some(inode.bytes.split_off(bytes as usize));
                }
                Done::Truncated(segment, Ok(()))
            }
            Op::Remove { file } => {
                self.seen.remove(&file);
                self.stable = self.seen.clone();
                Done::Removed(file, Ok(()))
            }
            Op::Read { segment, offset, bytes } => {
                let bytes = self.read(segment, offset, bytes);
                Done::Read { segment, offset, bytes }
            }
        }
    }

    /// As many of these bytes as there are.
    pub fn read(&self, segment: u64, offset: u64, bytes: u64) -> Vec<u8> {
        let Some(inode) = self.seen.get(&File::Segment(segment)).map(|i| &self.inodes[*i]) else { return Vec::new() };
        let from = inode.bytes.len().min(offset as usize);
        let to = inode.bytes.len().min((offset + bytes) as usize);
        inode.bytes[from..to].to_vec()
    }

    fn inode(&mut self, segment: u64) -> Option<&mut Inode> {
        let inode = *self.seen.get(&File::Segment(segment))?;
        self.inodes.get_mut(inode)
    }

    /// The power goes: of what was not synced any sectors survive, so that writes are torn.
    pub fn cut(&mut self, chance: &mut Chance) {
        if chance.happens(500_000) {
            self.seen = self.stable.clone();
        } else {
            self.stable = self.seen.clone();
        }
        for inode in &mut self.inodes {
            if let Some(end) = inode.cut.take()
                && chance.happens(500_000)
            {
                inode.bytes.extend(end);
            }
            // All, nothing, or any part of it: each is as likely.
            let survives = [0, 500_000, 1_000_000][chance.below(3) as usize];
            for (at, old) in std::mem::take(&mut inode.undo).into_iter().rev() {
                for (n, sector) in old.chunks(SECTOR).enumerate() {
                    let from = at + n * SECTOR;
                    if from + sector.len() <= inode.bytes.len() && !chance.happens(survives) {
                        inode.bytes[from..from + sector.len()].copy_from_slice(sector);
                    }
                }
            }
            inode.fresh.clear();
        }
        for n in 0..self.inodes.len() {
            if !self.seen.values().any(|used| *used == n) {
                self.inodes[n] = Inode::default();
            }
        }
    }

    /// Bits rot in something that was synced, and is not the last of the file: damage to the very last write
    /// cannot be told from one that was torn. Whether there was anything.
    pub fn rot(&mut self, chance: &mut Chance) -> bool {
        let all: Vec<(usize, usize, usize)> = self
            .seen
            .iter()
            .filter(|(f, _)| matches!(f, File::Segment(_)))
            .flat_map(|(_, i)| {
                let writes = &self.inodes[*i].synced;
                let but_last = writes.get(..writes.len().saturating_sub(1)).unwrap_or_default();
                // The header of a file is not one of its writes.
                but_last.iter().filter(|w| w.0 > 0).map(|w| (*i, w.0, w.1))
            })
            .collect();
        let Some((inode, from, to)) = chance.pick(&all).copied() else { return false };
        let at = from + chance.below((to - from) as u64) as usize;
        match self.inodes[inode].bytes.get_mut(at) {
            Some(byte) => *byte ^= 1 << chance.below(8),
            None => return false,
        }
        true
    }
}
