//! Many directories in one loop: a lossy network that reorders and repeats, machines that come and go, and liars.
//! One seed is one history.

#![allow(clippy::unwrap_used)]

use agree::descriptor::{Descriptor, Keeper};
use agree::directory::{
    Address, Chain, Config, Directory, Durable, Effect, Input, Key, Keys, LookupError, Message, NodeRecord, Record,
    Refusal, Roles, chain,
};
use base::{CellId, Chance, NodeId, ReplicaId, Time, Uid};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

const HIVE: CellId = CellId(Uid(1));
const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

/// Node `n` has the key `n + 1`; root has 0. A signature is a hash of the key and what is signed.
#[derive(Clone)]
struct HashKeys(u64);

fn node_id(n: usize) -> NodeId {
    let mut id = [0xee; 32];
    // Spread, as keys are.
    id[..8].copy_from_slice(&(n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    id[24..].copy_from_slice(&(n as u64 + 1).to_be_bytes());
    NodeId(id)
}

fn key_of(node: &NodeId) -> u64 {
    u64::from_be_bytes(node.0[24..].try_into().unwrap())
}

fn sign(key: u64, about: Key, bytes: &[u8]) -> Bytes {
    let all = [&key.to_le_bytes()[..], about.context(), bytes];
    let hash = all.concat().iter().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| {
        let h = (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
        h ^ (h >> 29)
    });
    Bytes::copy_from_slice(&hash.to_le_bytes())
}

impl Keys for HashKeys {
    fn sign(&self, about: Key, bytes: &[u8]) -> Bytes {
        sign(self.0, about, bytes)
    }
    fn by_node(&self, node: &NodeId, about: Key, bytes: &[u8], signature: &[u8]) -> bool {
        sign(key_of(node), about, bytes) == signature
    }
    fn by_root(&self, about: Key, bytes: &[u8], signature: &[u8]) -> bool {
        sign(0, about, bytes) == signature
    }
    fn admits(&self, record: &NodeRecord) -> bool {
        // The mesh took in whom it has given a low number.
        key_of(&record.node) < 100_000
    }
}

struct World {
    dice: Chance,
    now: u64,
    nodes: Vec<Option<Directory<HashKeys>>>,
    boots: Vec<u64>,
    liars: BTreeSet<usize>,
    seeds: Vec<NodeId>,
    /// When, a number that makes it unique, to, from, what.
    wire: BTreeMap<(u64, u64), (usize, usize, Bytes)>,
    wakes: BTreeMap<(u64, usize), ()>,
    sent: u64,
    bytes: u64,
    lost_per_million: u32,
    /// What is true.
    addresses: BTreeMap<usize, u16>,
    chains: BTreeMap<CellId, Chain>,
    /// All that travelled lately, for liars to make lies of.
    overheard: Vec<Bytes>,
    answers: BTreeMap<u64, Result<(), LookupError>>,
    refused: u64,
}

impl World {
    fn new(seed: u64, n: usize, liars: usize, lost_per_million: u32) -> World {
        let mut dice = Chance::from_u64(seed).stream("world");
        let seeds = (0..3.min(n)).map(node_id).collect();
        let liars = dice.sample(n, liars).into_iter().collect();
        let mut w = World {
            dice,
            now: SECOND,
            nodes: (0..n).map(|_| None).collect(),
            boots: vec![0; n],
            liars,
            seeds,
            wire: BTreeMap::new(),
            wakes: BTreeMap::new(),
            sent: 0,
            bytes: 0,
            lost_per_million,
            addresses: BTreeMap::new(),
            chains: BTreeMap::new(),
            overheard: Vec::new(),
            answers: BTreeMap::new(),
            refused: 0,
        };
        (0..n).for_each(|n| w.start(n));
        w
    }

    fn start(&mut self, n: usize) {
        self.boots[n] += 1;
        let config = Config::new(node_id(n), HIVE, self.boots[n]);
        let durable = Durable { records: Vec::new(), seeds: self.seeds.clone() };
        let chance = Chance::from_u64(self.dice.u64());
        self.nodes[n] = Some(Directory::new(config, HashKeys(n as u64 + 1), durable, &chance, Time(self.now)));
        let port = self.addresses.get(&n).copied().unwrap_or(1);
        self.address(n, port);
    }

    fn address(&mut self, n: usize, port: u16) {
        self.addresses.insert(n, port);
        let addresses = vec![Address::Public(([192, 0, 2, 1], port).into())];
        self.tell(n, Input::Node { roles: Roles::KEEPER, addresses, proof: Bytes::new() });
    }

    fn tell(&mut self, n: usize, input: Input) {
        let Some(d) = self.nodes[n].as_mut() else { return };
        let mut fx = Vec::new();
        d.step(Time(self.now), input, &mut fx);
        d.check();
        let wake = d.next_deadline().map_or(u64::MAX, |t| t.0).max(self.now + MS / 10);
        self.wakes.insert((wake, n), ());
        for effect in fx {
            match effect {
                Effect::Send { to, message } => self.send(n, key_of(&to) as usize - 1, &message),
                Effect::Found { id, .. } => assert!(self.answers.insert(id, Ok(())).is_none(), "answered twice"),
                Effect::Missing { id, why } => {
                    assert!(self.answers.insert(id, Err(why)).is_none(), "answered twice");
                }
                Effect::Refused { from, why, .. } => {
                    let from = key_of(&from) as usize - 1;
                    assert!(
                        !why.is_lie() || self.liars.contains(&from),
                        "{from} is honest, and was told to lie: {why:?}"
                    );
                    self.refused += u64::from(why.is_lie());
                }
                Effect::Changed { .. } | Effect::Boot { .. } | Effect::Anchor { .. } => {}
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, message: &Message) {
        let bytes = message.encode();
        assert!(bytes.len() <= agree::directory::MESSAGE_BYTES_MAX, "{} bytes", bytes.len());
        (self.sent, self.bytes) = (self.sent + 1, self.bytes + bytes.len() as u64);
        if self.overheard.len() < 4_096 {
            self.overheard.push(bytes.clone());
        } else {
            let at = self.dice.below(4_096) as usize;
            self.overheard[at] = bytes.clone();
        }
        self.post(from, to, bytes);
    }

    fn post(&mut self, from: usize, to: usize, bytes: Bytes) {
        let copies = 1 + u64::from(self.dice.happens(10_000));
        for _ in 0..copies {
            if !self.dice.happens(self.lost_per_million) && to < self.nodes.len() {
                let at = self.now + self.dice.range(MS, 80 * MS);
                let unique = self.dice.u64();
                self.wire.insert((at, unique), (to, from, bytes.clone()));
            }
        }
    }

    /// Lets time pass.
    fn run(&mut self, until: u64) {
        loop {
            let (wire, wake) = (self.wire.keys().next().copied(), self.wakes.keys().next().copied());
            let next = wire.map_or(u64::MAX, |w| w.0).min(wake.map_or(u64::MAX, |w| w.0));
            if next > until {
                self.now = until;
                return;
            }
            self.now = next;
            match wire.filter(|w| w.0 == next) {
                Some(at) => {
                    let (to, from, bytes) = self.wire.remove(&at).unwrap();
                    self.tell(to, Input::Message { from: node_id(from), bytes });
                }
                None => {
                    let (at, n) = wake.unwrap();
                    self.wakes.remove(&(at, n));
                    let is_due = |d: &Directory<HashKeys>| d.next_deadline().is_some_and(|t| t.0 <= next);
                    if self.nodes[n].as_ref().is_some_and(is_due) {
                        self.tell(n, Input::Tick);
                    }
                }
            }
        }
    }

    fn link(&mut self, cell: CellId, epoch: u64, voters: &[usize]) -> Descriptor {
        let keeper = |n: &usize| Keeper { replica: ReplicaId(*n as u64 + 1), node: node_id(*n), votes: true };
        let mut keepers: Vec<Keeper> = voters.iter().map(keeper).collect();
        keepers.sort_unstable();
        Descriptor { cell, epoch, keepers, signatures: Vec::new() }
    }

    /// Root founds a cell.
    fn found(&mut self, cell: CellId, voters: &[usize]) {
        let mut d = self.link(cell, 1, voters);
        d.signatures = vec![(chain::ROOT, sign(0, Key::Cell(cell), &d.signed_bytes()))];
        let chain = Chain::new(d);
        self.chains.insert(cell, chain.clone());
        voters.iter().for_each(|v| self.tell(*v, Input::Kept { chain: chain.clone() }));
    }

    /// A quorum of those who keep a cell has others keep it.
    fn change(&mut self, cell: CellId, voters: &[usize]) {
        let before = self.chains[&cell].last().clone();
        let mut d = self.link(cell, before.epoch + 1, voters);
        let bytes = d.signed_bytes();
        let quorum = before.keepers.len() / 2 + 1;
        let sign = |k: &Keeper| (k.replica, sign(key_of(&k.node), Key::Cell(cell), &bytes));
        d.signatures = before.keepers.iter().take(quorum).map(sign).collect();
        self.chains.get_mut(&cell).unwrap().push(d);
        let chain = self.chains[&cell].clone();
        voters.iter().for_each(|v| self.tell(*v, Input::Kept { chain: chain.clone() }));
    }

    fn cells(&mut self, n: usize) {
        for c in 0..n {
            let voters = self.dice.sample(self.nodes.len(), 3);
            self.found(CellId(Uid(1_000 + c as u128)), &voters);
        }
    }

    /// Whether each node that is up holds the truth, and nothing else.
    fn is_settled(&self) -> bool {
        let mut up = self.nodes.iter().enumerate().filter_map(|(n, d)| Some((n, d.as_ref()?)));
        let mut digests = up.clone().map(|(_, d)| d.digest()).collect::<BTreeSet<_>>();
        digests.len() == 1 && digests.pop_first().is_some() && up.all(|(_, d)| self.holds_the_truth(d))
    }

    fn holds_the_truth(&self, d: &Directory<HashKeys>) -> bool {
        let knows =
            |(cell, chain): (&CellId, &Chain)| d.chain(*cell).is_some_and(|c| c.last().keepers == chain.last().keepers);
        let reaches = |(n, port): (&usize, &u16)| {
            let addresses = d.node(&node_id(*n)).map(|r| r.addresses);
            addresses == Some(vec![Address::Public(([192, 0, 2, 1], *port).into())])
        };
        self.chains.iter().all(knows) && self.addresses.iter().all(reaches)
    }

    /// Lets time pass until all is settled; how long that took, in seconds.
    fn settle(&mut self, most: u64) -> u64 {
        let began = self.now;
        while !self.is_settled() {
            assert!(self.now - began < most * SECOND, "not settled after {most} s");
            self.run(self.now + SECOND);
        }
        (self.now - began) / SECOND
    }

    /// Each liar tells some nodes something.
    fn lie(&mut self) {
        let liars: Vec<usize> = self.liars.iter().copied().collect();
        for liar in liars {
            let to = self.dice.below(self.nodes.len() as u64) as usize;
            let bytes = self.a_lie(liar);
            self.post(liar, to, bytes);
        }
    }

    fn a_lie(&mut self, liar: usize) -> Bytes {
        let victim = self.dice.below(self.nodes.len() as u64) as usize;
        let cells: Vec<CellId> = self.chains.keys().copied().collect();
        let cell = *self.dice.pick(&cells).unwrap();
        let own = liar as u64 + 1;
        let records = |record| Message::Records { records: vec![record], news: true, more: true }.encode();
        match self.dice.below(9) {
            // Another's record, signed with its own key.
            0 => {
                let (node, roles, hive) = (node_id(victim), Roles::KEEPER, HIVE);
                let addresses = vec![Address::Public(([6, 6, 6, 6], 666).into())];
                let (proof, signature) = (Bytes::new(), Bytes::new());
                let mut r = NodeRecord { node, boot: 1 << 40, serial: 1, hive, roles, addresses, proof, signature };
                r.signature = sign(own, Key::Node(node), &r.signed_bytes());
                records(Record::Node(r.encode()))
            }
            // A cell's next epoch, kept and signed by itself.
            1 => {
                let mut chain = self.chains[&cell].clone();
                let mut d = self.link(cell, chain.last().epoch + 1, &[liar]);
                let bytes = d.signed_bytes();
                let by = chain.last().keepers.iter().map(|k| (k.replica, sign(own, Key::Cell(cell), &bytes)));
                d.signatures = by.collect();
                chain.push(d);
                records(Record::Cell(chain.encode()))
            }
            // An epoch far ahead, as from root.
            2 => {
                let mut d = self.link(cell, 1 << 30, &[liar]);
                d.signatures = vec![(chain::ROOT, sign(own, Key::Cell(cell), &d.signed_bytes()))];
                records(Record::Cell(Chain::new(d).encode()))
            }
            // An epoch far ahead, as a member.
            3 => {
                let mut d = self.link(cell, 1 << 30, &[liar]);
                let replica = ReplicaId(own);
                d.signatures = vec![(replica, sign(own, Key::Cell(cell), &d.signed_bytes()))];
                records(Record::Cell(Chain::new(d).encode()))
            }
            // A fork at the present epoch.
            4 => {
                let chain = &self.chains[&cell];
                let mut d = chain.last().clone();
                d.keepers =
                    self.chains[&cell].last().keepers.iter().map(|k| Keeper { node: node_id(liar), ..*k }).collect();
                d.signatures = vec![(chain::ROOT, sign(own, Key::Cell(cell), &d.signed_bytes()))];
                records(Record::Cell(Chain::new(d).encode()))
            }
            // A table full of what is not.
            5 => {
                let key = Key::Node(node_id(200_000 + victim));
                let items = vec![(key, agree::directory::Version(9, 9, 9))];
                Message::Listing { buckets: (0..=255).collect(), items, more: true }.encode()
            }
            // Nodes that the mesh never took in.
            6 => {
                let n = 150_000 + victim;
                let (node, roles, hive, addresses) = (node_id(n), Roles::AUTHORITY, HIVE, vec![]);
                let (proof, signature) = (Bytes::new(), Bytes::new());
                let mut r = NodeRecord { node, boot: 1, serial: 1, hive, roles, addresses, proof, signature };
                r.signature = sign(n as u64 + 1, Key::Node(node), &r.signed_bytes());
                records(Record::Node(r.encode()))
            }
            // Something old.
            7 => self.dice.pick(&self.overheard).unwrap().clone(),
            // Something that was damaged on purpose.
            _ => {
                let mut bytes = self.dice.pick(&self.overheard).unwrap().to_vec();
                for _ in 0..=self.dice.below(3) {
                    let at = self.dice.below(bytes.len() as u64) as usize;
                    bytes[at] = self.dice.u64() as u8;
                }
                bytes.into()
            }
        }
    }
}

#[test]
fn all_come_to_know_the_same() {
    for seed in 0..6 {
        let mut w = World::new(seed, 48, 0, 100_000);
        w.cells(200);
        let first = w.settle(60);
        w.address(5, 77);
        let cell = CellId(Uid(1_000));
        w.change(cell, &[7, 8, 9]);
        let news = w.settle(30);
        // Once all is the same, a second costs each node a hash and now and then a bucket.
        let sent = (w.sent, w.bytes);
        w.run(w.now + 60 * SECOND);
        let idle = ((w.sent - sent.0) / 60 / 48, (w.bytes - sent.1) / 60 / 48);
        println!(
            "seed {seed}: all known after {first} s, news after {news} s, idle {idle:?} messages and bytes a node and second"
        );
        assert!(idle.0 <= 2 && idle.1 < 400, "{idle:?}");
        w.nodes.iter().flatten().for_each(Directory::audit);
    }
}

#[test]
fn they_do_while_nodes_come_and_go_and_liars_are_never_believed() {
    for seed in 0..8 {
        let mut w = World::new(100 + seed, 40, 8, 200_000);
        w.cells(60);
        w.run(w.now + 5 * SECOND);
        for _ in 0..150 {
            let n = w.dice.below(40) as usize;
            let cells: Vec<CellId> = w.chains.keys().copied().collect();
            match w.dice.below(6) {
                0 if w.nodes.iter().flatten().count() > 20 => w.nodes[n] = None,
                1 | 2 if w.nodes[n].is_none() => w.start(n),
                3 if w.nodes[n].is_some() => {
                    let port = w.dice.range(2, 60_000) as u16;
                    w.address(n, port);
                }
                4 => {
                    let cell = *w.dice.pick(&cells).unwrap();
                    let voters = w.dice.sample(40, 3);
                    if voters.iter().any(|v| w.nodes[*v].is_some()) {
                        w.change(cell, &voters);
                    }
                }
                _ => {}
            }
            w.lie();
            let pause = w.dice.range(50, 800) * MS;
            w.run(w.now + pause);
        }
        for n in 0..40 {
            if w.nodes[n].is_none() {
                w.start(n);
            }
        }
        // Those who kept a cell and started anew read it from their logs.
        let chains: Vec<Chain> = w.chains.values().cloned().collect();
        for chain in chains {
            let keepers: Vec<usize> = chain.last().keepers.iter().map(|k| key_of(&k.node) as usize - 1).collect();
            keepers.iter().for_each(|n| w.tell(*n, Input::Kept { chain: chain.clone() }));
        }
        let took = w.settle(120);
        println!("seed {seed}: settled after {took} s, {} lies refused", w.refused);
        assert!(w.refused > 100, "only {} lies", w.refused);
        let none_made_up = |d: &Directory<HashKeys>| d.peers().iter().all(|p| key_of(p) <= 40);
        assert!(w.nodes.iter().flatten().all(none_made_up));
        let liars: BTreeSet<NodeId> = w.liars.iter().map(|n| node_id(*n)).collect();
        let named: BTreeSet<NodeId> = w
            .nodes
            .iter()
            .flatten()
            .flat_map(|d| d.refused().iter())
            .filter(|(_, r)| r.lied().is_some())
            .map(|(n, _)| *n)
            .collect();
        assert_eq!(named, liars, "each liar is known by name, and nobody else is");
        w.nodes.iter().flatten().for_each(Directory::audit);
    }
}

#[test]
fn two_sides_that_knew_nothing_of_each_other_become_one() {
    let mut w = World::new(300, 30, 0, 0);
    let side = |n: usize| n % 2;
    w.cells(30);
    for _ in 0..15_000 {
        let between = |(to, from, _): &(usize, usize, Bytes)| side(*to) != side(*from);
        w.run(w.now + MS);
        w.wire.retain(|_, m| !between(m));
    }
    let up: Vec<_> = w.nodes.iter().flatten().collect();
    assert_ne!(up[0].digest(), up[1].digest());
    w.settle(60);
}

#[test]
fn whoever_asks_finds_what_others_hold() {
    let mut w = World::new(400, 20, 4, 100_000);
    w.cells(20);
    w.settle(60);
    // One that comes, and asks before it was told anything.
    w.nodes[3] = None;
    w.start(3);
    let cells: Vec<CellId> = w.chains.keys().copied().collect();
    for (id, cell) in cells.iter().enumerate() {
        w.tell(3, Input::Find { id: id as u64, key: Key::Cell(*cell) });
    }
    w.tell(3, Input::Find { id: 999, key: Key::Node(node_id(77_777)) });
    w.run(w.now + 10 * SECOND);
    assert_eq!(w.answers.len(), cells.len() + 1, "each question is answered once");
    assert!(w.answers.remove(&999).unwrap().is_err());
    assert!(w.answers.values().all(Result::is_ok), "{:?}", w.answers);
}

#[test]
fn one_who_comes_late_catches_up_with_a_large_hive() {
    let mut w = World::new(500, 4, 0, 0);
    let n = 1_000;
    for n in 10..n {
        let record = {
            let (node, addresses) = (node_id(n), vec![Address::Relay("https://relay.example/".into()); 3]);
            let proof = Bytes::from(vec![7; 1_000]);
            let (roles, signature) = (Roles::WORKER, Bytes::new());
            let mut r = NodeRecord { node, boot: 1, serial: 1, hive: HIVE, roles, addresses, proof, signature };
            r.signature = sign(n as u64 + 1, Key::Node(node), &r.signed_bytes());
            Record::Node(r.encode())
        };
        let bytes = Message::Records { records: vec![record], news: false, more: false }.encode();
        w.tell(1, Input::Message { from: node_id(1), bytes });
    }
    for c in 0..5_000 {
        let cell = CellId(Uid(1_000_000 + c));
        w.found(cell, &[1, 2, 3]);
        w.chains.remove(&cell);
    }
    w.run(w.now + 40 * SECOND);
    w.nodes[0] = None;
    w.start(0);
    let before = w.bytes;
    let took = w.settle(60);
    let (own, other) = (w.nodes[0].as_ref().unwrap(), w.nodes[1].as_ref().unwrap());
    println!("{} peers, {} bytes held, {} sent, in {took} s", own.peers().len(), own.bytes(), w.bytes - before);
    assert_eq!((own.digest(), own.peers().len()), (other.digest(), n - 10 + 3));
    assert!(own.bytes() < 10 << 20);
    assert_eq!(own.refused().values().map(|r| r.count(Refusal::Flood)).sum::<u32>(), 0);
}
