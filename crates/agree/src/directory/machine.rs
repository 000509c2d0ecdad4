//! The machine.

use super::chain::{LINKS_LONG, is_bounded};
use super::interface::{Config, Durable, Effect, Input};
use super::lookup::{Hint, Pending};
use super::message::{MESSAGE_BYTES_MAX, Message};
use super::record::{Address, Roles};
use super::refusals::{Refusal, Refusals, Refused};
use super::table::{ENTRY_BYTES, Entry, Table};
use super::{Chain, HiveRecord, Key, Keys, NodeRecord, Record, Version};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use base::{CellId, Chance, NodeId, Time};
use bytes::Bytes;
use core::time::Duration;

/// Nodes known from the beginning, at most.
const SEEDS_MAX: usize = 16;
/// Between two looks at what has come to its end.
const SWEEP: Duration = Duration::from_secs(60);
/// For so long a record of a node that is not known as a member is not asked for again.
const STRANGER: Duration = Duration::from_secs(60);

/// How a record came.
#[derive(Clone, Copy)]
pub(super) enum How {
    /// From here.
    Own,
    /// As news.
    News,
    /// To make up for what was missed.
    Missed,
    /// As the answer to a question about this.
    Answer { key: Key, leader: Option<(NodeId, u64)> },
    /// With a redirect.
    Redirect { cell: CellId, leader: Option<(NodeId, u64)> },
}

/// A record that waits to be judged.
pub(super) struct Heard {
    pub(super) from: NodeId,
    pub(super) record: Record,
    pub(super) how: How,
}

/// What waits in the inbox.
pub(super) enum Work {
    Record(Heard),
    /// All that came before is judged: compare again with this node.
    Again(NodeId),
}

impl Work {
    fn bytes(&self) -> usize {
        match self {
            Work::Record(h) => h.record.bytes().len(),
            Work::Again(_) => 0,
        }
    }
}

impl Record {
    pub(super) fn of(key: &Key, bytes: Bytes) -> Record {
        match key {
            Key::Node(_) => Record::Node(bytes),
            Key::Cell(_) => Record::Cell(bytes),
            Key::Hive(_) => Record::Hive(bytes),
        }
    }

    /// The bytes, of whatever it is.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Record::Node(b) | Record::Cell(b) | Record::Hive(b) => b,
        }
    }
}

/// The directory of one node. See the module's documentation.
pub struct Directory<K> {
    pub(super) config: Config,
    pub(super) keys: K,
    pub(super) chance: Chance,
    pub(super) table: Table,
    /// The other nodes of the hive, sorted.
    pub(super) peers: Vec<NodeId>,
    pub(super) seeds: Vec<NodeId>,
    pub(super) cache: BTreeMap<Key, Entry>,
    pub(super) cache_bytes: usize,
    pub(super) hints: BTreeMap<CellId, Hint>,
    pub(super) pending: BTreeMap<Key, Pending>,
    pub(super) refusals: Refusals,
    /// What is told on, and in how many rounds yet.
    pub(super) hot: VecDeque<(Key, u8)>,
    inbox: VecDeque<Work>,
    inbox_bytes: usize,
    /// Bytes sent in answers in this interval.
    pub(super) spent: BTreeMap<NodeId, usize>,
    pub(super) spent_all: usize,
    boot: u64,
    serial: u64,
    own: Option<(Roles, Vec<Address>, Bytes)>,
    sign_at: Time,
    pub(super) next_gossip: Time,
    pub(super) gossiped: Option<Time>,
    next_sweep: Time,
    /// The present of the last step.
    stepped: Time,
}

/// A record that was judged to be good and new.
struct Judged {
    key: Key,
    version: Version,
    bytes: Bytes,
    /// Whether it is of this hive, or of all.
    is_ours: bool,
}

impl<K: Keys> Directory<K> {
    /// The directory of a process that starts.
    pub fn new(config: Config, keys: K, durable: Durable, chance: &Chance, now: Time) -> Directory<K> {
        let mut seeds = durable.seeds;
        seeds.retain(|n| *n != config.node);
        seeds.truncate(SEEDS_MAX);
        let mut chance = chance.stream("directory");
        let first = now + Duration::from_nanos(chance.below(config.interval.as_nanos() as u64));
        let mut directory = Directory {
            boot: config.boot,
            config,
            keys,
            chance,
            table: Table::new(),
            peers: Vec::new(),
            seeds,
            cache: BTreeMap::new(),
            cache_bytes: 0,
            hints: BTreeMap::new(),
            pending: BTreeMap::new(),
            refusals: Refusals::default(),
            hot: VecDeque::new(),
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            spent: BTreeMap::new(),
            spent_all: 0,
            serial: 0,
            own: None,
            sign_at: Time::NEVER,
            next_gossip: first,
            gossiped: None,
            next_sweep: now + SWEEP,
            stepped: now,
        };
        for record in durable.records {
            directory.restore(now, &record);
        }
        directory
    }

    /// Takes one input and appends what is to be done.
    pub fn step(&mut self, now: Time, input: Input, fx: &mut Vec<Effect>) {
        self.stepped = now;
        match input {
            Input::Tick => {}
            Input::Message { from, bytes } => self.on_message(now, from, &bytes, fx),
            Input::Beat { to } => {
                let is_due = self.gossiped.is_none_or(|at| now >= at + self.config.interval / 2);
                if is_due && self.peers.binary_search(&to).is_ok() {
                    self.gossip(now, Some(to), fx);
                }
            }
            Input::Node { roles, mut addresses, proof } => {
                addresses.truncate(super::record::ADDRESSES_MAX);
                self.own = Some((roles, addresses, proof));
                self.sign_own(now, fx);
            }
            Input::Kept { chain } => self.on_kept(now, &chain, fx),
            Input::Unkept { cell } => self.table.set_own(&Key::Cell(cell), false),
            Input::Hive { record } => {
                let record = Record::Hive(record.encode());
                self.hear(now, Heard { from: self.config.node, record, how: How::Own }, fx);
            }
            Input::Gone { key } => self.on_gone(now, key, fx),
            Input::Redirect { from, cell, epoch, leader, chain } => {
                self.on_redirect(now, from, cell, epoch, leader, chain, fx);
            }
            Input::Leads { cell, node, term } => self.hint(now, cell, node, term, true),
            Input::Astray { cell, node } => {
                if self.leader(now, cell) == Some(node) {
                    self.hints.remove(&cell);
                }
            }
            Input::Find { id, key } => self.on_find(now, id, key, fx),
        }
        self.work(now, fx);
        if now >= self.next_gossip {
            self.gossip(now, None, fx);
        }
        if now >= self.sign_at {
            self.sign_own(now, fx);
        }
        self.ask_others(now, fx);
        if now >= self.next_sweep {
            self.sweep(now, fx);
        }
    }

    /// When a tick is due.
    pub fn next_deadline(&self) -> Option<Time> {
        let now = (!self.inbox.is_empty()).then_some(self.stepped);
        let timers = [self.next_gossip, self.sign_at, self.next_sweep].into_iter().min();
        now.into_iter().chain(timers).chain(self.next_lookup()).min()
    }

    /// Asserts what must hold between steps.
    pub fn check(&self) {
        self.table.check();
        assert!(self.hot.len() <= self.config.hot_max, "more news than the bound");
        assert!(self.inbox_bytes <= self.config.inbox_bytes, "more in the inbox than the bound");
        assert!(self.cache.len() <= self.config.cache_max, "more in the cache than the bound");
        assert!(self.hints.len() <= self.config.hints_max, "more hints than the bound");
        assert!(self.pending.len() <= self.config.lookups_max.saturating_mul(2), "more lookups than the bound");
        assert!(self.spent_all <= self.config.answer_bytes, "more answered than the bound");
    }

    /// Asserts that what is reckoned step by step is what it would be if it were reckoned anew. O(entries).
    pub fn audit(&self) {
        self.table.audit();
        let nodes = self.table.iter().filter_map(|(k, _)| match k {
            Key::Node(n) if *n != self.config.node => Some(*n),
            _ => None,
        });
        assert!(nodes.eq(self.peers.iter().copied()), "the peers are not the nodes in the table");
        let cached: usize = self.cache.values().map(|e| e.bytes.len()).sum();
        assert_eq!(cached, self.cache_bytes, "the cache's bytes counted wrong");
    }

    /// All of the table, to be written down for the next start.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        self.table.iter().map(|(key, e)| Record::of(key, e.bytes.clone()))
    }

    /// The nodes of the hive beside this one, sorted.
    pub fn peers(&self) -> &[NodeId] {
        &self.peers
    }

    /// The version held of a subject, in the table.
    pub fn version(&self, key: &Key) -> Option<Version> {
        self.table.get(key).map(|e| e.version)
    }

    /// A hash of all that the table holds: equal tables have equal ones.
    pub fn digest(&self) -> u64 {
        self.table.whole()
    }

    /// Bytes of the table, [`ENTRY_BYTES`] of each entry counted in.
    pub fn bytes(&self) -> usize {
        self.table.bytes()
    }

    /// What was refused, by who said it.
    pub fn refused(&self) -> &BTreeMap<NodeId, Refused> {
        self.refusals.all()
    }

    fn on_message(&mut self, now: Time, from: NodeId, bytes: &Bytes, fx: &mut Vec<Effect>) {
        match Message::decode(bytes) {
            Err(_) => self.refuse(now, from, None, Refusal::Malformed, fx),
            Ok(Message::Digest { whole }) => self.on_digest(from, whole, fx),
            Ok(Message::Buckets { hashes }) => self.on_buckets(from, &hashes, fx),
            Ok(Message::Listing { buckets, items, more }) => self.on_listing(now, from, &buckets, &items, more, fx),
            Ok(Message::Want { items, more }) => self.on_want(from, &items, more, fx),
            Ok(Message::Records { records, news, more }) => self.on_records(now, from, records, news, more, fx),
            Ok(Message::Ask { id, key, have }) => self.on_ask(now, from, id, key, have, fx),
            Ok(Message::Answer { id, record, leader }) => self.on_answer(now, from, id, record, leader, fx),
        }
    }

    pub(super) fn refuse(&mut self, now: Time, from: NodeId, key: Option<Key>, why: Refusal, fx: &mut Vec<Effect>) {
        self.refusals.note(now, from, why);
        fx.push(Effect::Refused { from, key, why });
    }

    pub(super) fn enqueue(&mut self, now: Time, work: Work, fx: &mut Vec<Effect>) {
        let bytes = work.bytes();
        if self.inbox.len() >= self.config.inbox_max || self.inbox_bytes + bytes > self.config.inbox_bytes {
            if let Work::Record(h) = work {
                self.refuse(now, h.from, None, Refusal::Flood, fx);
            }
            return;
        }
        self.inbox_bytes += bytes;
        self.inbox.push_back(work);
    }

    /// Judges some of what has come.
    fn work(&mut self, now: Time, fx: &mut Vec<Effect>) {
        for _ in 0..self.config.judged_per_step.max(1) {
            let Some(work) = self.inbox.pop_front() else { return };
            self.inbox_bytes -= work.bytes();
            match work {
                Work::Record(heard) => self.hear(now, heard, fx),
                Work::Again(node) => {
                    let whole = self.table.whole();
                    self.reply(node, Message::Digest { whole }, fx);
                }
            }
        }
    }

    fn hear(&mut self, now: Time, heard: Heard, fx: &mut Vec<Effect>) {
        let Heard { from, record, how } = heard;
        let (mut key, mut taken) = (None, false);
        match self.judge(now, &record, how, &mut key) {
            Ok(Some(judged)) => {
                match self.accept(now, from, judged, how, fx) {
                    Ok(()) => taken = true,
                    Err(why) => self.refuse(now, from, key, why, fx),
                };
            }
            Ok(None) => taken = key.is_some_and(|key| self.confirm(now, key, how)),
            Err(why) => self.refuse(now, from, key, why, fx),
        }
        if key == Some(Key::Node(self.config.node)) && !matches!(how, How::Own) {
            self.on_own_record(now, &record, fx);
        }
        let asked = match how {
            How::Answer { key, leader } => Some((key, leader)),
            How::Redirect { cell, leader } => Some((Key::Cell(cell), leader)),
            How::Own | How::News | How::Missed => None,
        };
        // A hint is judged by the descriptor that came with it, and told with it.
        if let Some((Key::Cell(cell), Some((node, term)))) = asked {
            self.hint(now, cell, node, term, node == from);
        }
        match (taken, key, asked) {
            (true, Some(key), _) => self.resolve(now, key, fx),
            (_, _, Some((about, _))) => self.answered(now, about, from, fx),
            _ => {}
        }
    }

    /// Whether a record is good and newer than what is held; `about` is set as soon as it is known.
    fn judge(
        &mut self,
        now: Time,
        record: &Record,
        how: How,
        about: &mut Option<Key>,
    ) -> Result<Option<Judged>, Refusal> {
        let bytes = record.bytes();
        let asked = match how {
            How::Answer { key, .. } => Some(key),
            How::Redirect { cell, .. } => Some(Key::Cell(cell)),
            How::Own | How::News | How::Missed => None,
        };
        let mut expect = |key: Key| {
            *about = Some(key);
            if asked.is_none_or(|a| a == key) { Ok(()) } else { Err(Refusal::WrongKey) }
        };
        match record {
            Record::Node(_) => {
                let r = NodeRecord::decode(bytes).map_err(|_| Refusal::Malformed)?;
                let (key, version) = (Key::Node(r.node), r.version(bytes));
                expect(key)?;
                if !self.is_newer(now, &key, version)? {
                    return Ok(None);
                }
                if !self.keys.by_node(&r.node, key, &r.signed_bytes(), &r.signature) {
                    return Err(Refusal::Signature);
                }
                if r.node == self.config.node && !matches!(how, How::Own) {
                    // Of an earlier life: what this one says is about to be newer.
                    return Ok(None);
                }
                if !self.keys.admits(&r) {
                    self.table.bar(key, version, now + STRANGER);
                    return Err(Refusal::NotMember);
                }
                let is_ours = r.hive == self.config.hive;
                Ok(Some(Judged { key, version, bytes: Bytes::copy_from_slice(bytes), is_ours }))
            }
            Record::Hive(_) => {
                let r = HiveRecord::decode(bytes).map_err(|_| Refusal::Malformed)?;
                let (key, version) = (Key::Hive(r.hive), r.version(bytes));
                expect(key)?;
                if !self.is_newer(now, &key, version)? {
                    return Ok(None);
                }
                if !self.keys.by_root(key, &r.signed_bytes(), &r.signature) {
                    return Err(Refusal::Signature);
                }
                Ok(Some(Judged { key, version, bytes: Bytes::copy_from_slice(bytes), is_ours: true }))
            }
            Record::Cell(_) => {
                let offered = Chain::decode(bytes).map_err(|_| Refusal::Malformed)?;
                let (cell, version) = (offered.cell(), offered.version());
                let key = Key::Cell(cell);
                expect(key)?;
                let held = self.chain(cell);
                if held.is_none() && version <= self.table.floor(now, &key) {
                    return Err(Refusal::Old);
                }
                let Some(chain) = offered.judge(held.as_ref(), &self.keys).map_err(|d| Refusal::from(&d))? else {
                    return Ok(None);
                };
                Ok(Some(Judged { key, version: chain.version(), bytes: chain.encode(), is_ours: true }))
            }
        }
    }

    /// Whether it is newer than what is held or has left; the same again is nothing.
    fn is_newer(&self, now: Time, key: &Key, version: Version) -> Result<bool, Refusal> {
        let cached = self.cache.get(key).map(|e| e.version).unwrap_or_default();
        let floor = self.table.floor(now, key).max(cached);
        if version < floor { Err(Refusal::Old) } else { Ok(version > floor) }
    }

    pub(super) fn has_room(&self, key: &Key) -> bool {
        let most = match key {
            Key::Node(_) => self.config.nodes_max,
            Key::Cell(_) => self.config.cells_max,
            Key::Hive(_) => self.config.hives_max,
        };
        self.table.count(key) < most && self.table.bytes() + 4 * ENTRY_BYTES <= self.config.bytes_max
    }

    fn accept(
        &mut self,
        now: Time,
        from: NodeId,
        judged: Judged,
        how: How,
        fx: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let Judged { key, version, bytes, is_ours } = judged;
        let held = self.table.get(&key);
        let is_asked = matches!(how, How::Answer { .. } | How::Redirect { .. });
        let own = matches!(how, How::Own) || held.is_some_and(|e| e.own);
        let before = held.map_or(0, |e| e.bytes.len() + ENTRY_BYTES);
        let after = self.table.bytes() - before + bytes.len() + ENTRY_BYTES;
        // What was asked for of cells that nobody here keeps, and of other hives, is for now.
        let is_passing = !is_ours || (is_asked && held.is_none() && matches!(key, Key::Cell(_)));
        let has_room = own || ((held.is_some() || self.has_room(&key)) && after <= self.config.bytes_max);
        let entry = Entry { version, bytes, since: now, own };
        if !is_ours && held.is_some() {
            // It has moved to another hive.
            self.drop_entry(key, version, now + self.config.expiry);
        } else if is_passing && !is_asked {
            return Err(Refusal::Foreign);
        }
        if is_passing {
            self.cache(key, entry);
        } else if has_room {
            self.uncache(&key);
            self.table.insert(key, entry);
            if let Key::Node(node) = key
                && node != self.config.node
                && let Err(at) = self.peers.binary_search(&node)
            {
                self.peers.insert(at, node);
            }
            if matches!(how, How::News | How::Own) || from == self.config.node {
                self.note_news(key);
            }
        } else {
            return Err(Refusal::Full);
        }
        fx.push(Effect::Changed { key });
        Ok(())
    }

    /// What is cached was said again: it stays for longer, or, if the hive has it, in the table. Whether that was of use.
    fn confirm(&mut self, now: Time, key: Key, how: How) -> bool {
        let Some(mut entry) = self.cache.get(&key).cloned() else { return false };
        entry.since = now;
        let is_asked = matches!(how, How::Answer { .. } | How::Redirect { .. });
        if !is_asked && matches!(key, Key::Cell(_)) && self.has_room(&key) {
            self.uncache(&key);
            self.table.insert(key, entry);
        } else if is_asked {
            self.cache(key, entry);
        }
        is_asked
    }

    fn drop_entry(&mut self, key: Key, version: Version, until: Time) {
        self.table.bar(key, version, until);
        self.table.remove(&key);
        self.uncache(&key);
        if let Key::Node(node) = key
            && let Ok(at) = self.peers.binary_search(&node)
        {
            self.peers.remove(at);
        }
    }

    fn on_gone(&mut self, now: Time, key: Key, fx: &mut Vec<Effect>) {
        // A node may join again, and says so with a higher number; a cell's id is never used again.
        let version = match key {
            Key::Node(_) => self.table.floor(now, &key),
            Key::Cell(_) | Key::Hive(_) => Version(u64::MAX, u64::MAX, u64::MAX),
        };
        let was_held = self.entry(&key).is_some();
        self.drop_entry(key, version, now + self.config.expiry);
        if let Key::Cell(cell) = key {
            self.hints.remove(&cell);
        }
        if was_held {
            fx.push(Effect::Changed { key });
        }
    }

    fn on_kept(&mut self, now: Time, chain: &Chain, fx: &mut Vec<Effect>) {
        let (cell, node) = (chain.cell(), self.config.node);
        if !chain.links().iter().all(is_bounded) {
            self.refuse(now, node, Some(Key::Cell(cell)), Refusal::Malformed, fx);
            return;
        }
        self.hear(now, Heard { from: node, record: Record::Cell(chain.encode()), how: How::Own }, fx);
        self.table.set_own(&Key::Cell(cell), true);
        if let Some(held) = self.chain(cell).filter(|c| c.links().len() >= LINKS_LONG) {
            fx.push(Effect::Anchor { cell, descriptor: held.last().clone() });
        }
    }

    #[expect(clippy::too_many_arguments)] // The fields of the input.
    fn on_redirect(
        &mut self,
        now: Time,
        from: NodeId,
        cell: CellId,
        epoch: u64,
        leader: Option<(NodeId, u64)>,
        chain: Option<Bytes>,
        fx: &mut Vec<Effect>,
    ) {
        let known = self.chain(cell).map_or(0, |c| c.last().epoch);
        match chain {
            Some(bytes) => {
                let how = How::Redirect { cell, leader };
                self.enqueue(now, Work::Record(Heard { from, record: Record::Cell(bytes), how }), fx);
            }
            // Whoever says so can prove it.
            None if epoch > known => {
                let key = Key::Cell(cell);
                if self.pending.len() < 2 * self.config.lookups_max && !self.pending.contains_key(&key) {
                    self.ask(now, key, Some(from), fx);
                }
            }
            None if epoch < known => {}
            None => {
                if let Some((node, term)) = leader {
                    self.hint(now, cell, node, term, node == from);
                }
            }
        }
    }

    /// A record of this node that this process did not sign.
    fn on_own_record(&mut self, now: Time, record: &Record, fx: &mut Vec<Effect>) {
        let Ok(r) = NodeRecord::decode(record.bytes()) else { return };
        let key = Key::Node(r.node);
        let is_newer = r.version(record.bytes()) > self.table.floor(now, &key);
        if is_newer && r.boot >= self.boot && self.keys.by_node(&r.node, key, &r.signed_bytes(), &r.signature) {
            self.boot = r.boot.saturating_add(1);
            fx.push(Effect::Boot { boot: self.boot });
            self.sign_own(now, fx);
        }
    }

    fn sign_own(&mut self, now: Time, fx: &mut Vec<Effect>) {
        let Some((roles, addresses, proof)) = self.own.clone() else { return };
        self.serial += 1;
        let (node, hive) = (self.config.node, self.config.hive);
        let (boot, serial) = (self.boot, self.serial);
        let mut r = NodeRecord { node, boot, serial, hive, roles, addresses, proof, signature: Bytes::new() };
        r.signature = self.keys.sign(Key::Node(node), &r.signed_bytes());
        self.sign_at = now + self.config.refresh;
        self.hear(now, Heard { from: node, record: Record::Node(r.encode()), how: How::Own }, fx);
    }

    fn restore(&mut self, now: Time, record: &Record) {
        let bytes = Bytes::copy_from_slice(record.bytes());
        let judged = match record {
            Record::Node(_) => NodeRecord::decode(&bytes)
                .ok()
                .map(|r| (Key::Node(r.node), r.version(&bytes), r.hive == self.config.hive)),
            Record::Cell(_) => Chain::decode(&bytes).ok().map(|c| (Key::Cell(c.cell()), c.version(), true)),
            Record::Hive(_) => HiveRecord::decode(&bytes).ok().map(|r| (Key::Hive(r.hive), r.version(&bytes), true)),
        };
        let Some((key, version, is_ours)) = judged.filter(|j| j.2 && self.is_newer(now, &j.0, j.1) == Ok(true)) else {
            return;
        };
        let own = self.config.node;
        let judged = Judged { key, version, bytes, is_ours };
        // What has no room now had some then; it will be found missing.
        let _ = self.accept(now, NodeId([0; 32]), judged, How::Missed, &mut Vec::new());
        if key == Key::Node(own) {
            // The last life's word stands until this one has spoken, with a higher number.
            self.boot = self.boot.max(version.0.saturating_add(1));
        }
    }

    fn sweep(&mut self, now: Time, fx: &mut Vec<Effect>) {
        self.next_sweep = now + SWEEP;
        let expiry = self.config.expiry;
        let is_old = |(k, e): &(&Key, &Entry)| matches!(k, Key::Node(_)) && !e.own && now >= e.since + expiry;
        let old: Vec<(Key, Version)> = self.table.iter().filter(is_old).map(|(k, e)| (*k, e.version)).collect();
        for (key, version) in old {
            // Others may not have dropped it yet.
            self.drop_entry(key, version, now + expiry);
            fx.push(Effect::Changed { key });
        }
        self.table.forget_floors(now);
        self.forget_stale(now);
    }
}

const _: () = assert!(super::record::NODE_BYTES_MAX + super::chain::CHAIN_BYTES_MAX < MESSAGE_BYTES_MAX);
