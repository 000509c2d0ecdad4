//! A cell's descriptors in a row, so that whoever trusts the first can trust the last (section 5.1 of the architecture).
//!
//! The first link is signed by root, each later one by a quorum of the voters of the one before. Root may sign a later
//! link as well, as one of no replica ([`ROOT`]): an *anchor*. What lies before the newest anchor is dropped, and a cell
//! that was recovered (section 5.8) goes on from one, at an epoch above all that its lost members could have begun.
//!
//! What replaces what, of two chains that are good in themselves:
//!
//! - a lower epoch never replaces a higher one;
//! - a higher epoch replaces a lower one if it descends from it, or from root's word of later than the held one's anchor;
//! - of one epoch the later anchor is kept; two that differ under the same anchor are a **fork**: a quorum of keepers has
//!   signed twice, the one held stays, and only root's word ends it.
//!
//! Whoever holds nothing of a cell believes the first chain that root's signature begins: if a quorum of keepers of long
//! ago were to sign another future for it, such a one could not tell. Anchors keep that past short.

use super::{Key, Keys, Version};
use crate::codec::{DecodeError, Reader, Writer};
use crate::descriptor::{ChainError, Descriptor};
use alloc::vec::Vec;
use base::{CellId, ReplicaId};
use bytes::Bytes;
use core::cell::Cell;

/// Under this name root signs a link; no replica has it.
pub const ROOT: ReplicaId = ReplicaId(0);
/// Links of one chain, at most. The oldest are dropped; what is left convinces those who held the cell, and others once
/// root has signed a link of it.
pub const LINKS_MAX: usize = 16;
/// From this many links on root is to be asked for an anchor.
pub const LINKS_LONG: usize = 8;
/// Members of one link, at most.
pub const KEEPERS_MAX: usize = 64;
/// Voters of one link, at most.
pub const VOTERS_MAX: usize = 9;
/// Bytes of one chain, at most; the oldest links are dropped.
pub const CHAIN_BYTES_MAX: usize = 32 << 10;

/// Descriptors of one cell with rising epochs, one after the other. Version 1: `version u8`, then the links (a `u32` count;
/// each the bytes of a [`Descriptor`], its signatures sorted by replica, each once).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chain {
    links: Vec<Descriptor>,
}

/// Why a chain was not believed. The one held stays.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Doubt {
    /// Its epoch is below the held one's.
    #[error("epoch {found} of the cell is older than epoch {present}, which is held and stays")]
    Old {
        /// The epoch held.
        present: u64,
        /// The epoch offered.
        found: u64,
    },
    /// It neither begins with root's word nor goes on from what is held.
    #[error(
        "epoch {found} of the cell is not proven from epoch {present}, which stays: the links between are missing; \
         ask a node that keeps the cell, or have root sign the present epoch"
    )]
    Gap {
        /// The epoch held, 0 if none is.
        present: u64,
        /// The first epoch offered.
        found: u64,
    },
    /// A signature in it is not by whom it says.
    #[error("epoch {epoch} of the cell carries a false signature; what is held stays")]
    Signature {
        /// The link's epoch.
        epoch: u64,
    },
    /// A link is not signed by enough of the voters before it.
    #[error("{0}")]
    Quorum(ChainError),
    /// It differs from what is held at the same epoch, and root has said nothing since.
    #[error(
        "epoch {epoch} of the cell has two versions, each signed by a quorum; the one held stays. Keepers have signed \
         twice: expel them, and recover the cell"
    )]
    Fork {
        /// The epoch at which they differ.
        epoch: u64,
    },
}

impl Chain {
    /// A chain of one link.
    pub fn new(first: Descriptor) -> Chain {
        let mut chain = Chain { links: alloc::vec![first] };
        chain.tidy();
        chain
    }

    /// Appends a link; what is too old is dropped. The caller has made sure, or whoever reads it will, that it follows.
    pub fn push(&mut self, next: Descriptor) {
        self.links.push(next);
        self.tidy();
    }

    /// The cell.
    pub fn cell(&self) -> CellId {
        self.last().cell
    }

    /// The newest link: who keeps the cell.
    pub fn last(&self) -> &Descriptor {
        // Never empty: construction and reading see to it.
        &self.links[self.links.len() - 1]
    }

    /// All links, the oldest first.
    pub fn links(&self) -> &[Descriptor] {
        &self.links
    }

    /// The epoch of the newest link that carries root's signature; 0 without one.
    pub fn anchor(&self) -> u64 {
        self.links.iter().rev().find(|d| is_anchor(d)).map_or(0, |d| d.epoch)
    }

    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::with_capacity(512);
        w.u8(1).count(self.links.len());
        for link in &self.links {
            w.bytes(&link.encode());
        }
        w.finish()
    }

    /// Reads a chain that fills `bytes`, sharing none of their memory.
    ///
    /// # Errors
    /// [`DecodeError`]: also if a bound is passed, epochs do not follow each other, or somebody signs twice.
    pub fn decode(bytes: &Bytes) -> Result<Chain, DecodeError> {
        let (mut r, _) = Reader::versioned("a cell's chain of descriptors", bytes, 1)?;
        let n = r.count(37)?;
        if n == 0 || n > LINKS_MAX || bytes.len() > CHAIN_BYTES_MAX {
            return Err(r.malformed());
        }
        let mut links: Vec<Descriptor> = Vec::with_capacity(n);
        for _ in 0..n {
            let mut link = Descriptor::decode(&r.bytes()?)?;
            let follows = |b: &Descriptor| b.cell == link.cell && b.epoch.checked_add(1) == Some(link.epoch);
            if !is_bounded(&link) || link.epoch == 0 || !links.last().is_none_or(follows) {
                return Err(r.malformed());
            }
            link.signatures.iter_mut().for_each(|(_, s)| *s = Bytes::copy_from_slice(s));
            links.push(link);
        }
        r.end()?;
        Ok(Chain { links })
    }

    /// Its version.
    pub fn version(&self) -> Version {
        Version(self.last().epoch, self.anchor(), 0)
    }

    /// What is to be held when `self` is offered beside `held`: `None` if that is `held` as it is.
    ///
    /// Signatures that are not needed are left out of it, so that nothing false is passed on. Each link is verified at most
    /// once, with as many signatures as its predecessor has voters, and the first false one ends it.
    ///
    /// # Errors
    /// [`Doubt`].
    pub fn judge(self, held: Option<&Chain>, keys: &impl Keys) -> Result<Option<Chain>, Doubt> {
        let (offered, anchor) = (self.last().epoch, self.anchor());
        let Some(held) = held else {
            if anchor == 0 {
                return Err(Doubt::Gap { present: 0, found: self.links[0].epoch });
            }
            return self.since_anchor(keys).map(Some);
        };
        let present = held.last();
        if offered < present.epoch {
            return Err(Doubt::Old { present: present.epoch, found: offered });
        }
        let root_said_more = anchor > held.anchor();
        match self.links.iter().position(|d| d.epoch == present.epoch) {
            // It goes through what is held.
            Some(at) if is_same(&self.links[at], present) => {
                if root_said_more {
                    // Root's word about the past of what is held is about that past.
                    let theirs = |d: &Descriptor| self.links.iter().find(|l| l.epoch == d.epoch);
                    if let Some(d) = held.links.iter().find(|d| theirs(d).is_some_and(|l| !is_same(l, d))) {
                        return Err(Doubt::Fork { epoch: d.epoch });
                    }
                    return self.since_anchor(keys).map(Some);
                }
                if offered == present.epoch { Ok(None) } else { held.extended(&self.links[at + 1..], keys).map(Some) }
            }
            _ if root_said_more => self.since_anchor(keys).map(Some),
            Some(_) => Err(Doubt::Fork { epoch: present.epoch }),
            None if self.links[0].epoch == present.epoch + 1 => held.extended(&self.links, keys).map(Some),
            None => Err(Doubt::Gap { present: present.epoch, found: self.links[0].epoch }),
        }
    }

    /// The part from root's last word on, if that is good and so is all that follows it.
    fn since_anchor(mut self, keys: &impl Keys) -> Result<Chain, Doubt> {
        let at = self.links.iter().rposition(is_anchor).unwrap_or_default();
        let rest = self.links.split_off(at + 1);
        let mut anchor = self.links.swap_remove(at);
        let subject = Key::Cell(anchor.cell);
        anchor.signatures.retain(|(r, _)| *r == ROOT);
        let bytes = anchor.signed_bytes();
        if !anchor.signatures.iter().any(|(_, s)| keys.by_root(subject, &bytes, s)) {
            return Err(Doubt::Signature { epoch: anchor.epoch });
        }
        Chain::new(anchor).extended(&rest, keys)
    }

    /// This and `more`, each link verified.
    fn extended(&self, more: &[Descriptor], keys: &impl Keys) -> Result<Chain, Doubt> {
        let mut chain = self.clone();
        for link in more {
            let mut link = link.clone();
            // An anchor was looked at before.
            link.signatures.retain(|(r, _)| *r != ROOT);
            let (before, key) = (chain.last(), Key::Cell(link.cell));
            let lied = Cell::new(false);
            let is_good = |node: &_, bytes: &[u8], signature: &[u8]| {
                let good = !lied.get() && keys.by_node(node, key, bytes, signature);
                lied.set(!good);
                good
            };
            if let Err(why) = link.follows(before, is_good) {
                return Err(if lied.get() { Doubt::Signature { epoch: link.epoch } } else { Doubt::Quorum(why) });
            }
            if lied.get() {
                return Err(Doubt::Signature { epoch: link.epoch });
            }
            let votes = |r: ReplicaId| before.keepers.iter().any(|k| k.votes && k.replica == r);
            link.signatures.retain(|(r, _)| votes(*r));
            chain.links.push(link);
        }
        chain.tidy();
        Ok(chain)
    }

    /// In order, within the bounds, and without what lies before the newest anchor.
    fn tidy(&mut self) {
        for link in &mut self.links {
            link.signatures.sort_by_key(|(r, _)| *r);
            link.signatures.dedup_by_key(|(r, _)| *r);
        }
        let anchor = self.links.iter().rposition(is_anchor).unwrap_or_default();
        let first = anchor.max(self.links.len().saturating_sub(LINKS_MAX));
        self.links.drain(..first);
        while self.links.len() > 1 && self.encode().len() > CHAIN_BYTES_MAX {
            self.links.remove(0);
        }
    }
}

fn is_anchor(d: &Descriptor) -> bool {
    d.signatures.iter().any(|(r, _)| *r == ROOT)
}

/// Whether both say the same, whoever signed it.
fn is_same(a: &Descriptor, b: &Descriptor) -> bool {
    (a.cell, a.epoch, &a.keepers) == (b.cell, b.epoch, &b.keepers)
}

/// Whether a link keeps the bounds.
pub(crate) fn is_bounded(d: &Descriptor) -> bool {
    let short = |(_, s): &(ReplicaId, Bytes)| s.len() <= super::record::SIGNATURE_BYTES_MAX;
    d.keepers.len() <= KEEPERS_MAX
        && d.keepers.iter().filter(|k| k.votes).count() <= VOTERS_MAX
        && d.signatures.len() <= VOTERS_MAX + 1
        && d.signatures.is_sorted_by(|a, b| a.0 < b.0)
        && d.signatures.iter().all(short)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::test_keys::{TestKeys, node};
    use super::*;
    use crate::descriptor::Keeper;
    use alloc::format;
    use alloc::string::String;
    use base::Uid;

    const CELL: CellId = CellId(Uid(7));

    fn descriptor(epoch: u64, voters: &[u64]) -> Descriptor {
        let keeper = |n: &u64| Keeper { replica: ReplicaId(*n), node: node(*n), votes: true };
        Descriptor { cell: CELL, epoch, keepers: voters.iter().map(keeper).collect(), signatures: Vec::new() }
    }

    fn signed(mut d: Descriptor, by: &[u64]) -> Descriptor {
        let bytes = d.signed_bytes();
        let sign = |n: &u64| (ReplicaId(*n), TestKeys::signature(*n, Key::Cell(CELL), &bytes));
        d.signatures = by.iter().map(sign).collect();
        d
    }

    /// Epochs 1 to `to`, all kept by the voters 1, 2, 3 and signed by two of them.
    fn chain(to: u64) -> Chain {
        let mut chain = Chain::new(signed(descriptor(1, &[1, 2, 3]), &[0]));
        (2..=to).for_each(|epoch| chain.push(signed(descriptor(epoch, &[1, 2, 3]), &[1, 2])));
        chain
    }

    fn of(links: &[Descriptor]) -> Chain {
        Chain { links: links.to_vec() }
    }

    #[test]
    fn whoever_knows_nothing_believes_what_begins_with_root() {
        assert_eq!(chain(3).judge(None, &TestKeys(1)), Ok(Some(chain(3))));
        let headless = of(&chain(3).links[1..]);
        assert_eq!(headless.judge(None, &TestKeys(1)), Err(Doubt::Gap { present: 0, found: 2 }));
        let false_root = Chain::new(signed(descriptor(1, &[4]), &[4]));
        let mut pretends = false_root.clone();
        pretends.links[0].signatures[0].0 = ROOT;
        assert_eq!(pretends.judge(None, &TestKeys(1)), Err(Doubt::Signature { epoch: 1 }));
    }

    #[test]
    fn what_is_held_is_replaced_by_what_descends_from_it_only() {
        let held = chain(3);
        let judge = |offered: Chain| offered.judge(Some(&held), &TestKeys(1));
        assert_eq!(judge(chain(5)), Ok(Some(chain(5))));
        assert_eq!(judge(chain(3)), Ok(None));
        assert_eq!(judge(chain(2)), Err(Doubt::Old { present: 3, found: 2 }));
        assert_eq!(judge(of(&chain(5).links[3..])), Ok(Some(chain(5))), "the links that are missing are enough");
        assert_eq!(judge(of(&chain(6).links[4..])), Err(Doubt::Gap { present: 3, found: 5 }));
        let mut fork = chain(2);
        fork.push(signed(descriptor(3, &[1, 2, 4]), &[1, 2]));
        assert_eq!(judge(fork.clone()), Err(Doubt::Fork { epoch: 3 }));
        fork.push(signed(descriptor(4, &[1, 2, 4]), &[1, 2]));
        assert_eq!(judge(fork), Err(Doubt::Fork { epoch: 3 }), "however long it is");
    }

    #[test]
    fn a_link_needs_a_quorum_and_no_false_signature() {
        let held = chain(3);
        let next = |d| of(&[d]).judge(Some(&held), &TestKeys(1));
        let few = ChainError::Signatures { signed: 1, voters: 3 };
        assert_eq!(next(signed(descriptor(4, &[9]), &[1])), Err(Doubt::Quorum(few.clone())));
        assert_eq!(next(signed(descriptor(4, &[9]), &[1, 9])), Err(Doubt::Quorum(few)), "who is new has no say");
        let mut lie = signed(descriptor(4, &[9]), &[1, 2, 3]);
        lie.signatures[2].1 = Bytes::from_static(b"no");
        assert_eq!(next(lie), Err(Doubt::Signature { epoch: 4 }));
        let mut other = signed(descriptor(4, &[1, 2, 3]), &[1, 2]);
        other.keepers = descriptor(4, &[9]).keepers;
        assert_eq!(next(other), Err(Doubt::Signature { epoch: 4 }), "signed for something else");
    }

    #[test]
    fn what_is_false_is_not_passed_on_with_what_is_good() {
        let mut offered = chain(2);
        offered.links[1].signatures.push((ReplicaId(77), Bytes::from_static(b"who?")));
        assert_eq!(offered.judge(None, &TestKeys(1)), Ok(Some(chain(2))));
    }

    #[test]
    fn roots_word_shortens_the_past_and_ends_a_fork() {
        let anchored = || {
            let mut c = chain(3);
            c.push(signed(descriptor(4, &[4]), &[0, 1, 2]));
            c
        };
        assert_eq!((anchored().links.len(), anchored().anchor()), (1, 4));
        let only_root = Chain::new(signed(descriptor(4, &[4]), &[0]));
        assert_eq!(anchored().judge(Some(&chain(3)), &TestKeys(1)), Ok(Some(only_root.clone())));
        assert_eq!(only_root.clone().judge(Some(&chain(1)), &TestKeys(1)), Ok(Some(only_root.clone())), "over a gap");
        assert_eq!(chain(3).judge(Some(&only_root), &TestKeys(1)), Err(Doubt::Old { present: 4, found: 3 }));
        // The same epoch, differently: root's later word is kept, and the other does not come back.
        let fork = chain(4);
        assert_eq!(only_root.clone().judge(Some(&fork), &TestKeys(1)), Ok(Some(only_root.clone())));
        assert_eq!(fork.judge(Some(&only_root), &TestKeys(1)), Err(Doubt::Fork { epoch: 4 }));
        // What root signs later of what is held.
        let mut later = chain(3);
        later.links[2] = signed(descriptor(3, &[1, 2, 3]), &[0]);
        let short = Chain::new(later.links[2].clone());
        assert_eq!(later.judge(Some(&chain(3)), &TestKeys(1)), Ok(Some(short)));
    }

    #[test]
    fn the_oldest_links_are_dropped_at_the_bound() {
        let long = chain(40);
        assert_eq!((long.links.len(), long.links[0].epoch, long.anchor()), (LINKS_MAX, 25, 0));
        assert_eq!(long.clone().judge(Some(&chain(30)), &TestKeys(1)).unwrap().unwrap().last().epoch, 40);
        assert!(matches!(long.judge(None, &TestKeys(1)), Err(Doubt::Gap { .. })));
    }

    #[test]
    fn a_chain_has_the_bytes_it_always_had() {
        let mut c = Chain::new(signed(descriptor(1, &[1]), &[0]));
        c.links[0].signatures[0].1 = Bytes::from_static(b"root");
        c.push(descriptor(2, &[1, 2]));
        let bytes = c.encode();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, include_str!("../../tests/golden/directory-chain-v1.hex").trim_end());
        assert_eq!(Chain::decode(&bytes), Ok(c));
        assert!((0..bytes.len()).all(|cut| Chain::decode(&bytes.slice(..cut)).is_err()));
    }

    #[test]
    fn what_is_not_a_chain_is_refused() {
        let d = |epoch| descriptor(epoch, &[1]);
        let is_refused = |links: &[Descriptor]| Chain::decode(&of(links).encode()).is_err();
        assert!(!is_refused(&[d(1), d(2)]));
        let other = Descriptor { cell: CellId(Uid(8)), ..d(2) };
        let many: Vec<_> = (1..=LINKS_MAX as u64 + 1).map(d).collect();
        let voters: Vec<u64> = (1..=VOTERS_MAX as u64 + 1).collect();
        let twice = signed(d(1), &[1, 1]);
        for links in [&[][..], &[d(0)], &[d(1), d(3)], &[d(2), d(1)], &[d(1), other], &many, &[twice]] {
            assert!(is_refused(links), "{links:?}");
        }
        assert!(is_refused(&[descriptor(1, &voters)]));
    }
}
