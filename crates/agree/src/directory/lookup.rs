//! Looking up what is not in the table, and remembering who leads.

use super::machine::{Directory, Heard, How, Work};
use super::table::Entry;
use super::{Chain, Effect, HiveRecord, Key, Keys, Message, NodeRecord, Record, Refusal, Version};
use crate::descriptor::Descriptor;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use base::{CellId, NodeId, Time};

/// What a lookup found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// A node.
    Node(NodeRecord),
    /// A cell: who keeps it, and who probably leads it.
    Cell {
        /// The newest descriptor known here.
        descriptor: Descriptor,
        /// A keeper that probably leads.
        leader: Option<NodeId>,
    },
    /// A hive.
    Hive(HiveRecord),
}

/// Why a lookup found nothing. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LookupError {
    /// Nobody who was asked knew.
    #[error(
        "{key:?} was not found: it is not in the table, and none of {asked} nodes that were asked knew it; try again later"
    )]
    Unknown {
        /// What was looked for.
        key: Key,
        /// How many nodes were asked.
        asked: usize,
    },
    /// Too much is being looked for.
    #[error("{key:?} was not looked for: the directory is busy looking for other things; try again shortly")]
    Busy {
        /// What was to be looked for.
        key: Key,
    },
}

/// Something that is being looked for.
pub(super) struct Pending {
    /// Who waits for it.
    waiting: Vec<u64>,
    /// The number of the question; the same to all.
    id: u64,
    /// Who was asked, and who of them has answered.
    asked: BTreeMap<NodeId, bool>,
    /// When others are asked.
    until: Time,
    rounds: usize,
}

/// Who probably leads a cell.
pub(super) struct Hint {
    node: NodeId,
    term: u64,
    /// Said by a replica here, or by the leader itself.
    first_hand: bool,
    until: Time,
}

impl<K: Keys> Directory<K> {
    /// What is known of a node, without asking anybody.
    pub fn node(&self, node: &NodeId) -> Option<NodeRecord> {
        self.entry(&Key::Node(*node)).and_then(|e| NodeRecord::decode(&e.bytes).ok())
    }

    /// The chain of a cell, without asking anybody.
    pub fn chain(&self, cell: CellId) -> Option<Chain> {
        self.entry(&Key::Cell(cell)).and_then(|e| Chain::decode(&e.bytes).ok())
    }

    /// The keeper that probably leads a cell.
    pub fn leader(&self, now: Time, cell: CellId) -> Option<NodeId> {
        self.hints.get(&cell).filter(|h| now < h.until).map(|h| h.node)
    }

    /// What is known of a subject, without asking anybody.
    pub fn find(&self, now: Time, key: Key) -> Option<Found> {
        let bytes = &self.entry(&key).filter(|_| self.is_fresh(now, &key))?.bytes;
        match key {
            Key::Node(_) => NodeRecord::decode(bytes).ok().map(Found::Node),
            Key::Cell(cell) => {
                let descriptor = Chain::decode(bytes).ok()?.last().clone();
                Some(Found::Cell { descriptor, leader: self.leader(now, cell) })
            }
            Key::Hive(_) => HiveRecord::decode(bytes).ok().map(Found::Hive),
        }
    }

    pub(super) fn entry(&self, key: &Key) -> Option<&Entry> {
        self.table.get(key).or_else(|| self.cache.get(key))
    }

    fn is_fresh(&self, now: Time, key: &Key) -> bool {
        let cached = self.cache.get(key);
        self.table.get(key).is_some() || cached.is_some_and(|e| now < e.since + self.config.cache_for)
    }

    pub(super) fn on_find(&mut self, now: Time, id: u64, key: Key, fx: &mut Vec<Effect>) {
        if let Some(found) = self.find(now, key) {
            fx.push(Effect::Found { id, found });
            return;
        }
        let is_full = self.pending.len() >= self.config.lookups_max;
        let waiting = match self.pending.get_mut(&key) {
            Some(p) => &mut p.waiting,
            None if is_full => {
                fx.push(Effect::Missing { id, why: LookupError::Busy { key } });
                return;
            }
            None => {
                self.ask(now, key, None, fx);
                match self.pending.get_mut(&key) {
                    Some(p) => &mut p.waiting,
                    None => {
                        fx.push(Effect::Missing { id, why: LookupError::Unknown { key, asked: 0 } });
                        return;
                    }
                }
            }
        };
        if waiting.len() >= self.config.lookups_max {
            fx.push(Effect::Missing { id, why: LookupError::Busy { key } });
        } else {
            waiting.push(id);
        }
    }

    /// Asks `of`, or some nodes that were not asked yet; if there is nobody left the search is over.
    pub(super) fn ask(&mut self, now: Time, key: Key, of: Option<NodeId>, fx: &mut Vec<Effect>) {
        // What has come to its end here is to be said again, were it the same.
        let held = self.entry(&key).filter(|_| self.is_fresh(now, &key));
        let have = held.map(|e| e.version).unwrap_or_default();
        let fresh = self.chance.u64();
        let mut p = self.pending.remove(&key).unwrap_or_else(|| Pending {
            waiting: Vec::new(),
            id: fresh,
            asked: BTreeMap::new(),
            until: now,
            rounds: 0,
        });
        let to = match of {
            Some(node) => alloc::vec![node],
            None if p.rounds >= self.config.ask_rounds => Vec::new(),
            None => {
                let wanted = self.config.alpha + p.asked.len();
                let some = self.some_peers(now, wanted);
                some.into_iter().filter(|n| !p.asked.contains_key(n)).take(self.config.alpha).collect()
            }
        };
        if to.is_empty() {
            self.give_up(key, &p, fx);
            return;
        }
        p.rounds += 1;
        p.until = now + self.config.ask_for;
        for node in to {
            p.asked.insert(node, false);
            fx.push(Effect::Send { to: node, message: Message::Ask { id: p.id, key, have } });
        }
        self.pending.insert(key, p);
    }

    fn give_up(&self, key: Key, p: &Pending, fx: &mut Vec<Effect>) {
        let why = LookupError::Unknown { key, asked: p.asked.len() };
        fx.extend(p.waiting.iter().map(|id| Effect::Missing { id: *id, why }));
    }

    pub(super) fn next_lookup(&self) -> Option<Time> {
        self.pending.values().map(|p| p.until).min()
    }

    pub(super) fn ask_others(&mut self, now: Time, fx: &mut Vec<Effect>) {
        let late: Vec<Key> = self.pending.iter().filter(|(_, p)| now >= p.until).map(|(k, _)| *k).collect();
        late.into_iter().for_each(|key| self.ask(now, key, None, fx));
    }

    pub(super) fn on_ask(&mut self, now: Time, from: NodeId, id: u64, key: Key, have: Version, fx: &mut Vec<Effect>) {
        let held = self.entry(&key).filter(|e| e.version > have && self.is_fresh(now, &key));
        let record = held.map(|e| Record::of(&key, e.bytes.clone()));
        let leader = match key {
            Key::Cell(cell) => self.hints.get(&cell).filter(|h| now < h.until).map(|h| (h.node, h.term)),
            _ => None,
        };
        self.reply(from, Message::Answer { id, record, leader }, fx);
    }

    pub(super) fn on_answer(
        &mut self,
        now: Time,
        from: NodeId,
        id: u64,
        record: Option<Record>,
        leader: Option<(NodeId, u64)>,
        fx: &mut Vec<Effect>,
    ) {
        let asked = |(_, p): &(&Key, &Pending)| p.id == id && p.asked.get(&from) == Some(&false);
        let Some(key) = self.pending.iter().find(asked).map(|(k, _)| *k) else {
            self.refuse(now, from, None, Refusal::Unasked, fx);
            return;
        };
        match record {
            Some(record) => {
                let how = How::Answer { key, leader };
                self.enqueue(now, Work::Record(Heard { from, record, how }), fx);
            }
            None => {
                if let (Key::Cell(cell), Some((node, term))) = (key, leader) {
                    self.hint(now, cell, node, term, node == from);
                }
                self.answered(now, key, from, fx);
            }
        }
    }

    /// What `from` answered was of no use.
    pub(super) fn answered(&mut self, now: Time, key: Key, from: NodeId, fx: &mut Vec<Effect>) {
        let Some(p) = self.pending.get_mut(&key) else { return };
        p.asked.insert(from, true);
        if p.asked.values().all(|done| *done) {
            self.ask(now, key, None, fx);
        }
    }

    /// Something is known now: whoever waits for it is told.
    pub(super) fn resolve(&mut self, now: Time, key: Key, fx: &mut Vec<Effect>) {
        if let (Some(found), Some(p)) = (self.find(now, key), self.pending.remove(&key)) {
            fx.extend(p.waiting.into_iter().map(|id| Effect::Found { id, found: found.clone() }));
        }
    }

    /// `node` probably leads a cell. Only a voter can; hearsay does not replace what was seen.
    pub(super) fn hint(&mut self, now: Time, cell: CellId, node: NodeId, term: u64, first_hand: bool) {
        let votes = |c: &Chain| c.last().keepers.iter().any(|k| k.votes && k.node == node);
        if !self.chain(cell).is_some_and(|c| votes(&c)) {
            return;
        }
        if let Some(held) = self.hints.get(&cell).filter(|h| now < h.until)
            && held.first_hand
            && (!first_hand || held.term > term)
        {
            return;
        }
        if self.hints.len() >= self.config.hints_max && !self.hints.contains_key(&cell) {
            let first = self.hints.iter().min_by_key(|(_, h)| h.until).map(|(c, _)| *c);
            first.map(|c| self.hints.remove(&c));
        }
        self.hints.insert(cell, Hint { node, term, first_hand, until: now + self.config.hint_for });
    }

    pub(super) fn forget_stale(&mut self, now: Time) {
        self.hints.retain(|_, h| now < h.until);
        let cache_for = self.config.cache_for;
        let stale: Vec<Key> = self.cache.iter().filter(|(_, e)| now >= e.since + cache_for).map(|(k, _)| *k).collect();
        stale.iter().for_each(|key| self.uncache(key));
    }

    /// Caches an entry; what came first makes room.
    pub(super) fn cache(&mut self, key: Key, entry: Entry) {
        self.uncache(&key);
        self.cache_bytes += entry.bytes.len();
        self.cache.insert(key, entry);
        while self.cache.len() > self.config.cache_max || self.cache_bytes > self.config.bytes_max / 8 {
            let Some(first) = self.cache.iter().min_by_key(|(_, e)| e.since).map(|(k, _)| *k) else { break };
            self.uncache(&first);
        }
    }

    pub(super) fn uncache(&mut self, key: &Key) {
        if let Some(e) = self.cache.remove(key) {
            self.cache_bytes -= e.bytes.len();
        }
    }
}
