//! Telling news, and finding what was missed.

use super::machine::{Directory, Heard, How, Work};
use super::message::{BUCKETS, ITEM_BYTES, Message};
use super::table::bucket;
use super::{Effect, Key, Keys, Record, Version};
use alloc::vec::Vec;
use base::{NodeId, Time};

/// Bytes of a listing, and of news told at once, at most.
const LISTING_BYTES: usize = 16 << 10;
/// Bytes of records sent at once, at most, unless one alone has more; a message stays below its bound.
const RECORDS_BYTES: usize = 48 << 10;
/// Nodes that are answered in one interval, at most.
const ANSWERED_MAX: usize = 256;

impl<K: Keys> Directory<K> {
    /// One interval's gossip: to `first`, if it is being written to anyway, and to some others.
    pub(super) fn gossip(&mut self, now: Time, first: Option<NodeId>, fx: &mut Vec<Effect>) {
        let interval = self.config.interval;
        let ns = interval.as_nanos() as u64;
        self.gossiped = Some(now);
        self.next_gossip = now + interval * 3 / 4 + core::time::Duration::from_nanos(self.chance.below(ns / 2 + 1));
        self.spent.clear();
        self.spent_all = 0;
        let mut to = self.some_peers(now, self.config.fanout.max(1));
        if let Some(first) = first {
            to.retain(|n| *n != first);
            to.insert(0, first);
            to.truncate(self.config.fanout.max(1));
        }
        // Those who were known at the beginning bring sides together that know nothing of each other.
        if (to.is_empty() || self.chance.below(8) == 0)
            && let Some(seed) = self.chance.pick(&self.seeds).copied()
        {
            to.insert(0, seed);
        }
        let Some(one) = to.first().copied() else { return };
        if !self.hot.is_empty() {
            let records = self.news();
            let say = |to: &NodeId| {
                let message = Message::Records { records: records.clone(), news: true, more: false };
                Effect::Send { to: *to, message }
            };
            fx.extend(to.iter().map(say));
        }
        let message = match self.chance.below(16) {
            0 => {
                let mut wanted = [false; BUCKETS];
                wanted[self.chance.below(BUCKETS as u64) as usize] = true;
                self.listing(&wanted)
            }
            _ => Message::Digest { whole: self.table.whole() },
        };
        fx.push(Effect::Send { to: one, message });
    }

    /// What is to be told on; each is told so many times.
    fn news(&mut self) -> Vec<Record> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        let mut rest = alloc::collections::VecDeque::new();
        while let Some((key, left)) = self.hot.pop_front() {
            let Some(entry) = self.table.get(&key) else { continue };
            if bytes + entry.bytes.len() > LISTING_BYTES && !records.is_empty() {
                rest.push_back((key, left));
                break;
            }
            bytes += entry.bytes.len();
            records.push(Record::of(&key, entry.bytes.clone()));
            if left > 1 {
                rest.push_back((key, left - 1));
            }
        }
        self.hot.append(&mut rest);
        records
    }

    pub(super) fn note_news(&mut self, key: Key) {
        self.hot.retain(|(k, _)| *k != key);
        // At the bound what was told most is told no more: it will be found missing.
        if self.hot.len() >= self.config.hot_max {
            self.hot.pop_back();
        }
        self.hot.push_front((key, self.config.rounds));
    }

    /// Some nodes of the hive, at chance; liars only if there is nobody else.
    pub(super) fn some_peers(&mut self, now: Time, n: usize) -> Vec<NodeId> {
        // Twice as many are drawn, for those that are passed over.
        let mut drawn = Vec::new();
        for _ in 0..(2 * n).min(4 * self.peers.len()) {
            let one = self.chance.pick(&self.peers).copied();
            drawn.extend(one.filter(|o| !drawn.contains(o)));
        }
        if drawn.len() < n && self.peers.len() <= 2 * n {
            let others: Vec<_> = self.peers.iter().filter(|p| !drawn.contains(p)).copied().collect();
            drawn.extend(others);
        }
        let lies = |node: &NodeId| self.refusals.lied_within(now, self.config.shun, node);
        let (liars, mut some): (Vec<_>, Vec<_>) = drawn.into_iter().partition(lies);
        if some.is_empty() {
            some = liars;
        }
        if some.is_empty() {
            some.extend(self.seeds.iter().copied());
        }
        some.truncate(n);
        some
    }

    /// Sends an answer, unless too much was sent in this interval: whoever asks will ask again.
    pub(super) fn reply(&mut self, to: NodeId, message: Message, fx: &mut Vec<Effect>) {
        let size = match &message {
            Message::Records { records, .. } => 64 + records.iter().map(|r| r.bytes().len()).sum::<usize>(),
            Message::Answer { record, .. } => 64 + record.as_ref().map_or(0, |r| r.bytes().len()),
            Message::Listing { items, .. } | Message::Want { items, .. } => 64 + ITEM_BYTES * items.len(),
            Message::Buckets { .. } => 8 * BUCKETS,
            Message::Digest { .. } | Message::Ask { .. } => 64,
        };
        let used = self.spent.get(&to).copied();
        let all = self.config.answer_bytes;
        if self.spent_all + size > all
            || used.unwrap_or_default() + size > all / 4
            || (used.is_none() && self.spent.len() >= ANSWERED_MAX)
        {
            return;
        }
        self.spent_all += size;
        self.spent.insert(to, used.unwrap_or_default() + size);
        fx.push(Effect::Send { to, message });
    }

    /// Compares with a node whose table may differ.
    pub(super) fn on_digest(&mut self, from: NodeId, whole: u64, fx: &mut Vec<Effect>) {
        if whole != self.table.whole() {
            let hashes = self.table.hashes().to_vec();
            self.reply(from, Message::Buckets { hashes }, fx);
        }
    }

    pub(super) fn on_buckets(&mut self, from: NodeId, hashes: &[u64], fx: &mut Vec<Effect>) {
        let mut differs = [false; BUCKETS];
        for (n, (own, their)) in self.table.hashes().iter().zip(hashes).enumerate() {
            differs[n] = own != their;
        }
        if differs.contains(&true) {
            let message = self.listing(&differs);
            self.reply(from, message, fx);
        }
    }

    /// What is held in those buckets, from one of them on, as many whole ones as fit.
    fn listing(&mut self, wanted: &[bool; BUCKETS]) -> Message {
        let mut by_bucket: Vec<Vec<(Key, Version)>> = alloc::vec![Vec::new(); BUCKETS];
        self.table.listing(wanted).into_iter().for_each(|item| by_bucket[bucket(&item.0)].push(item));
        let first = self.chance.below(BUCKETS as u64) as usize;
        let order = (first..BUCKETS).chain(0..first).filter(|n| wanted[*n]);
        let (mut buckets, mut items, mut more) = (Vec::new(), Vec::new(), false);
        for n in order {
            let fits = (items.len() + by_bucket[n].len()) * ITEM_BYTES <= LISTING_BYTES;
            if !fits && !buckets.is_empty() {
                more = true;
                break;
            }
            buckets.push(n as u8);
            items.append(&mut by_bucket[n]);
        }
        // A bucket that fits nowhere is told in part: what the rest lacks is given, and asked for another time.
        items.truncate(super::MESSAGE_BYTES_MAX / ITEM_BYTES - 16);
        buckets.sort_unstable();
        Message::Listing { buckets, items, more }
    }

    pub(super) fn on_listing(
        &mut self,
        now: Time,
        from: NodeId,
        buckets: &[u8],
        items: &[(Key, Version)],
        more: bool,
        fx: &mut Vec<Effect>,
    ) {
        if self.refusals.lied_within(now, self.config.shun, &from) {
            return;
        }
        let mut wanted = [false; BUCKETS];
        buckets.iter().for_each(|n| wanted[usize::from(*n)] = true);
        let theirs: alloc::collections::BTreeMap<Key, Version> = items.iter().copied().collect();
        let newer = |(key, version): &(Key, Version)| theirs.get(key).is_none_or(|t| t < version);
        let give: Vec<(Key, Version)> = self.table.listing(&wanted).into_iter().filter(newer).collect();
        let mut want: Vec<(Key, Version)> = Vec::new();
        for (key, version) in theirs {
            let floor = self.table.floor(now, &key);
            if version > floor && (floor != Version::default() || self.has_room(&key)) {
                want.push((key, floor));
            }
        }
        let has_wants = !want.is_empty();
        let (records, cut) = self.some_records(give.into_iter().map(|g| g.0));
        let fits = LISTING_BYTES / ITEM_BYTES;
        let more = more || cut || want.len() > fits;
        want.truncate(fits);
        // Just one of the two goes on, or each round would beget two.
        if !records.is_empty() {
            self.reply(from, Message::Records { records, news: false, more: more && !has_wants }, fx);
        }
        if has_wants {
            self.reply(from, Message::Want { items: want, more }, fx);
        }
    }

    pub(super) fn on_want(&mut self, from: NodeId, items: &[(Key, Version)], more: bool, fx: &mut Vec<Effect>) {
        let newer = |(key, have): &&(Key, Version)| self.table.get(key).is_some_and(|e| e.version > *have);
        let keys: Vec<Key> = items.iter().filter(newer).map(|(k, _)| *k).collect();
        let (records, cut) = self.some_records(keys.into_iter());
        if !records.is_empty() {
            self.reply(from, Message::Records { records, news: false, more: more || cut }, fx);
        }
    }

    /// The records of these keys, as many as fit, and whether some did not.
    fn some_records(&self, keys: impl Iterator<Item = Key>) -> (Vec<Record>, bool) {
        let (mut records, mut bytes) = (Vec::new(), 0);
        for key in keys {
            let Some(entry) = self.table.get(&key) else { continue };
            bytes += entry.bytes.len() + 8;
            if bytes > RECORDS_BYTES && !records.is_empty() {
                return (records, true);
            }
            records.push(Record::of(&key, entry.bytes.clone()));
        }
        (records, false)
    }

    pub(super) fn on_records(
        &mut self,
        now: Time,
        from: NodeId,
        records: Vec<Record>,
        news: bool,
        more: bool,
        fx: &mut Vec<Effect>,
    ) {
        let how = if news { How::News } else { How::Missed };
        for record in records {
            self.enqueue(now, Work::Record(Heard { from, record, how }), fx);
        }
        if more && !self.refusals.lied_within(now, self.config.shun, &from) {
            self.enqueue(now, Work::Again(from), fx);
        }
    }
}
