//! What the whole mesh shares and root hands out to namespaces: addresses of services, and node ports.
//!
//! Root keeps one [`Allotment`] for every namespace that has asked, named by its uid; it rides in the bundle. It
//! holds two things:
//!
//! - **blocks** of service addresses, from which the namespace's cell gives by itself, asking nobody;
//! - **reservations**: an address somebody chose, and every node port. There are too few ports to hand them out in
//!   blocks. A reservation is asked for when a service needs it.
//!
//! What no service uses is returned. A cell may use what its newest Allotment holds and does not call ending. To return
//! something its leader has root call it ending, binds the cell's log to the bundle that says so (from then on no leader decides by an older
//! one), and only then, if no service uses it, has root remove it. So no clock is needed for two namespaces never to
//! have the same, however late a leader or a request is.

use crate::Tree;
use crate::kinds::tree::Fields;
use base::{Revision, Wall};
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

/// Allotments as records.
pub const STORAGE: &str = "Allotment.beemesh.io";
/// Their `apiVersion`.
pub const API_VERSION: &str = "beemesh.io/v1";

/// How many addresses a block has at most; when few are left they are shared out in smaller ones.
pub const BLOCK: usize = 16;
/// A block is no more than this part of all that are left.
const BLOCKS_LEFT: usize = 1024;
/// The node ports Kubernetes gives when none is chosen: those above are used up before it gives these, which people
/// choose by hand (KEP-3668).
pub const CHOSEN_PORTS: u16 = 86;

/// Something that one service of the mesh has, and no other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Item {
    /// A service address.
    Address(Ipv4Addr),
    /// A node port.
    Port(u16),
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Address(ip) => write!(f, "{ip}"),
            Item::Port(port) => write!(f, "{port}"),
        }
    }
}

impl Item {
    fn of(tree: &Tree) -> Option<Item> {
        match tree.as_str() {
            Some(text) => text.parse().ok().map(Item::Address),
            None => tree.as_u64().and_then(|n| u16::try_from(n).ok()).map(Item::Port),
        }
    }

    fn tree(self) -> Tree {
        match self {
            Item::Address(ip) => json!(ip.to_string()),
            Item::Port(port) => json!(port),
        }
    }
}

/// The address and node ports a service has. One that is but a name has none, whatever is written in it.
pub fn used_by(service: &Tree) -> BTreeSet<Item> {
    let spec = service.at("spec");
    if spec.text("type") == "ExternalName" {
        return BTreeSet::new();
    }
    let address = spec.text("clusterIP").parse().ok().map(Item::Address);
    let ports = spec.list("ports").iter().filter_map(|p| p.int("nodePort"));
    let ports = ports.chain(spec.int("healthCheckNodePort"));
    let ports = ports.filter_map(|n| u16::try_from(n).ok().filter(|n| *n > 0)).map(Item::Port);
    address.into_iter().chain(ports).collect()
}

/// A run of service addresses, first and last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block {
    /// The first.
    pub first: Ipv4Addr,
    /// The last, not below the first.
    pub last: Ipv4Addr,
    /// It is being returned: no service may begin to use an address of it.
    pub ending: bool,
}

impl Block {
    /// All of them.
    pub fn addresses(self) -> impl Iterator<Item = Ipv4Addr> {
        (u32::from(self.first)..=u32::from(self.last)).map(Ipv4Addr::from)
    }

    /// Whether an address is one of them.
    pub fn contains(self, ip: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&ip)
    }
}

/// A reservation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reserved {
    /// What.
    pub item: Item,
    /// The uid of the service it was asked for. Any of the namespace may use it.
    pub service: String,
    /// When it was asked for last, by root's calendar.
    pub since: Wall,
    /// It is being returned: no service may begin to use it.
    pub ending: bool,
}

/// What root has handed out to a namespace.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Allotment {
    /// Its change.
    pub revision: Revision,
    /// Blocks, in the order in which they were handed out.
    pub blocks: Vec<Block>,
    /// Reservations, in the order in which they were asked for.
    pub reserved: Vec<Reserved>,
}

impl Allotment {
    /// Read from its record. What cannot be read is not held.
    pub fn of(tree: &Tree) -> Allotment {
        let spec = tree.at("spec");
        let ip = |t: &Tree| t.as_str().and_then(|t| t.parse::<Ipv4Addr>().ok());
        let block = |b: &Tree| {
            let (first, last) = (ip(b.at("first"))?, ip(b.at("last"))?);
            (first <= last).then_some(Block { first, last, ending: b.flag("ending") })
        };
        let reserved = |r: &Tree| {
            Some(Reserved {
                item: Item::of(r.at("item"))?,
                service: r.text("service").to_owned(),
                since: Wall::parse_rfc3339(r.text("since")).unwrap_or_default(),
                ending: r.flag("ending"),
            })
        };
        Allotment {
            revision: crate::read::parse_revision(tree.at("metadata").text("resourceVersion")).unwrap_or_default(),
            blocks: spec.list("blocks").iter().filter_map(block).collect(),
            reserved: spec.list("reserved").iter().filter_map(reserved).collect(),
        }
    }

    /// What its record's `spec` is.
    pub fn spec(&self) -> Tree {
        let marked = |mut tree: Tree, ending: bool| {
            if ending {
                tree["ending"] = json!(true);
            }
            tree
        };
        let block = |b: &Block| marked(json!({"first": b.first.to_string(), "last": b.last.to_string()}), b.ending);
        let reserved = |r: &Reserved| {
            marked(json!({"item": r.item.tree(), "service": r.service, "since": r.since.rfc3339()}), r.ending)
        };
        json!({
            "blocks": self.blocks.iter().map(block).collect::<Vec<_>>(),
            "reserved": self.reserved.iter().map(reserved).collect::<Vec<_>>(),
        })
    }

    /// Whether its record calls anything ending; cheaper than to read all of it.
    pub fn is_ending(tree: &Tree) -> bool {
        let spec = tree.at("spec");
        spec.list("blocks").iter().chain(spec.list("reserved")).any(|x| x.flag("ending"))
    }

    /// Whether a service of the namespace may begin to use it.
    pub fn allows(&self, item: Item) -> bool {
        self.is_in_its_block(item) || self.reserved.iter().any(|r| r.item == item && !r.ending)
    }

    /// Whether nobody else of the mesh can have it.
    pub fn holds(&self, item: Item) -> bool {
        self.block_of(item).is_some() || self.reserved.iter().any(|r| r.item == item)
    }

    fn block_of(&self, item: Item) -> Option<&Block> {
        match item {
            Item::Address(ip) => self.blocks.iter().find(|b| b.contains(ip)),
            Item::Port(_) => None,
        }
    }

    fn is_in_its_block(&self, item: Item) -> bool {
        self.block_of(item).is_some_and(|b| !b.ending)
    }

    fn reserve(&mut self, item: Item, service: &str, now: Wall) {
        // Of its own block it has it anyway; who asks for no service in particular changes nothing about whose it is.
        if self.is_in_its_block(item) || (service.is_empty() && self.allows(item)) {
            return;
        }
        self.reserved.retain(|r| r.item != item);
        self.reserved.push(Reserved { item, service: service.to_owned(), since: now, ending: false });
    }
}

/// What a service needs that its cell does not hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wanted {
    /// The namespace's name.
    pub namespace: String,
    /// Its uid, which names the Allotment.
    pub uid: String,
    /// The service's uid.
    pub service: String,
    /// A block beyond the first so many.
    pub block_after: Option<usize>,
    /// What was chosen.
    pub chosen: Vec<Item>,
    /// How many node ports that root is to choose.
    pub ports: usize,
}

impl Wanted {
    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.block_after.is_none() && self.chosen.is_empty() && self.ports == 0
    }

    /// As the body of a request to root.
    pub fn tree(&self) -> Tree {
        json!({"apiVersion": API_VERSION, "kind": "Allotment", "metadata": {"name": self.uid}, "spec": {
            "namespace": self.namespace,
            "service": self.service,
            "blockAfter": self.block_after,
            "chosen": self.chosen.iter().map(|i| i.tree()).collect::<Vec<_>>(),
            "ports": self.ports,
        }})
    }

    /// Read from that body.
    pub fn of(tree: &Tree) -> Wanted {
        let spec = tree.at("spec");
        let number = |name: &str| spec.at(name).as_u64().and_then(|n| usize::try_from(n).ok());
        Wanted {
            namespace: spec.text("namespace").to_owned(),
            uid: tree.at("metadata").text("name").to_owned(),
            service: spec.text("service").to_owned(),
            block_after: number("blockAfter"),
            chosen: spec.list("chosen").iter().filter_map(Item::of).collect(),
            ports: number("ports").unwrap_or(0),
        }
    }
}

/// An answer of root's, for the cell that wanted it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Given {
    /// What was wanted.
    pub wanted: Wanted,
    /// What the namespace has since. What was wanted and is not in here is not to be had.
    pub allotment: Allotment,
}

/// What root hands out of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ranges {
    /// All service addresses, as a network and its prefix length.
    pub network: (Ipv4Addr, u8),
    /// Those handed out in blocks, first and last.
    pub blocks: (Ipv4Addr, Ipv4Addr),
    /// Node ports, first and last.
    pub ports: (u16, u16),
}

impl Ranges {
    /// The address of the API's own service, the first of all: it is told to every container as soon as it begins.
    pub fn api(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network.0).wrapping_add(1))
    }

    /// Whether an address is a service's.
    pub fn contains(&self, ip: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.network.1)).unwrap_or(0);
        u32::from(ip) & mask == u32::from(self.network.0) & mask
    }
}

impl Default for Ranges {
    fn default() -> Ranges {
        let ip = Ipv4Addr::new;
        Ranges {
            network: (ip(10, 43, 0, 0), 16),
            blocks: (ip(10, 43, 1, 0), ip(10, 43, 255, 254)),
            ports: (30000, 32767),
        }
    }
}

/// Hands out what is wanted to the namespace that has `own`; `others` are all others'. Of what was chosen as much as is
/// to be had, so that it can be said what is not; a block, since it serves other services as well; of ports all or
/// none, and none if something chosen is not to be had: they would stay reserved for a service that is not made.
/// `chance` keeps apart what is handed out at once, and what was returned from being used again at once.
pub fn hand_out(wanted: &Wanted, own: &mut Allotment, others: &[Allotment], ranges: &Ranges, chance: u64, now: Wall) {
    let is_to_be_had = |item: &Item| {
        let known = match item {
            Item::Address(ip) => ranges.contains(*ip) && *ip != ranges.api(),
            Item::Port(port) => (ranges.ports.0..=ranges.ports.1).contains(port),
        };
        known && !others.iter().any(|o| o.holds(*item))
    };
    for item in wanted.chosen.iter().filter(|i| is_to_be_had(i)) {
        own.reserve(*item, &wanted.service, now);
    }
    if wanted.block_after.is_some_and(|n| n >= own.blocks.len())
        && let Some(block) = free_block(own, others, ranges, chance)
    {
        own.blocks.push(block);
    }
    let free = free_ports(own, others, ranges, chance);
    match free.get(..wanted.ports) {
        Some(ports) if wanted.chosen.iter().all(is_to_be_had) => {
            ports.iter().for_each(|port| own.reserve(Item::Port(*port), &wanted.service, now));
        }
        _ => {}
    }
}

/// A block nobody has anything of; when there is no whole one, the longest run that is left of any. O(all service
/// addresses).
fn free_block(own: &Allotment, others: &[Allotment], ranges: &Ranges, chance: u64) -> Option<Block> {
    let (first, last) = (u32::from(ranges.blocks.0), u32::from(ranges.blocks.1));
    let size = usize::try_from(last.checked_sub(first)?).ok()? + 1;
    let mut taken = vec![false; size];
    let mut take = |from: Ipv4Addr, to: Ipv4Addr| {
        for n in u32::from(from).max(first)..=u32::from(to).min(last) {
            if let Some(t) = usize::try_from(n - first).ok().and_then(|i| taken.get_mut(i)) {
                *t = true;
            }
        }
    };
    for a in others.iter().chain([own]) {
        a.blocks.iter().for_each(|b| take(b.first, b.last));
        for r in &a.reserved {
            if let Item::Address(ip) = r.item {
                take(ip, ip);
            }
        }
    }
    // (how long, where) of the longest run in a stretch of a block's length, from a stretch by chance on.
    let left = taken.iter().filter(|t| !**t).count();
    let stretch = (left / BLOCKS_LEFT).clamp(1, BLOCK);
    let count = size.div_ceil(stretch);
    let begin = usize::try_from(chance % count as u64).unwrap_or(0);
    let mut best: Option<(usize, usize)> = None;
    for i in 0..count {
        let at = (begin + i) % count * stretch;
        let mut run = 0;
        for (n, t) in taken.iter().enumerate().skip(at).take(stretch) {
            run = if *t { 0 } else { run + 1 };
            if run > 0 && best.is_none_or(|(most, _)| run > most) {
                best = Some((run, n + 1 - run));
            }
        }
        if best.is_some_and(|(most, _)| most == stretch) {
            break;
        }
    }
    let (length, at) = best?;
    let address = |n: usize| u32::try_from(n).ok().map(|n| Ipv4Addr::from(first + n));
    Some(Block { first: address(at)?, last: address(at + length - 1)?, ending: false })
}

/// Node ports nobody has: first those that are seldom chosen by hand.
fn free_ports(own: &Allotment, others: &[Allotment], ranges: &Ranges, chance: u64) -> Vec<u16> {
    let reserved = others.iter().chain([own]).flat_map(|a| &a.reserved);
    let taken: BTreeSet<Item> = reserved.map(|r| r.item).collect();
    let (first, last) = ranges.ports;
    let middle = first.saturating_add(CHOSEN_PORTS);
    let free = |from: u16, to: u16| {
        let mut all: Vec<u16> = (from..=to).filter(|p| !taken.contains(&Item::Port(*p))).collect();
        if !all.is_empty() {
            let begin = usize::try_from(chance % all.len() as u64).unwrap_or(0);
            all.rotate_left(begin);
        }
        all
    };
    let mut ports = free(middle.min(last), last);
    ports.extend(free(first, middle.min(last).saturating_sub(1)));
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    fn port(n: u16) -> Item {
        Item::Port(n)
    }

    fn narrow() -> Ranges {
        Ranges { blocks: (ip("10.43.1.0"), ip("10.43.1.39")), ports: (30000, 30087), ..Ranges::default() }
    }

    #[test]
    fn what_is_handed_out_is_handed_out_once_and_to_the_last() {
        let mut all: Vec<Allotment> = vec![Allotment::default(); 5];
        let (mut seen, mut ports) = (BTreeSet::new(), BTreeSet::new());
        for round in 0..40u64 {
            let i = (round % 5) as usize;
            let mut own = all.remove(i);
            let (blocks, reserved) = (own.blocks.len(), own.reserved.len());
            let chance = round.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let block = Wanted { block_after: Some(own.blocks.len()), ..Wanted::default() };
            hand_out(&block, &mut own, &all, &narrow(), chance, Wall(1));
            for ports in [3, 1] {
                let wanted = Wanted { ports, ..Wanted::default() };
                hand_out(&wanted, &mut own, &all, &narrow(), chance, Wall(1));
            }
            let new = own.blocks.iter().skip(blocks).flat_map(|b| b.addresses());
            assert!(new.collect::<Vec<_>>().into_iter().all(|a| seen.insert(a)), "an address twice");
            assert!(own.reserved.iter().skip(reserved).all(|r| ports.insert(r.item)), "a port twice");
            all.insert(i, own);
        }
        assert_eq!(seen.len(), 40, "all of them, one by one");
        assert_eq!(ports.len(), 88);
    }

    #[test]
    fn ports_that_people_choose_are_given_last() {
        let mut own = Allotment::default();
        hand_out(&Wanted { ports: 2, ..Wanted::default() }, &mut own, &[], &narrow(), 7, Wall(1));
        assert!(own.reserved.iter().all(|r| r.item >= port(30086)), "{own:?}");
    }

    #[test]
    fn what_somebody_has_is_not_had_by_others() {
        let ranges = Ranges::default();
        let mut one = Allotment::default();
        let chosen = vec![port(30080), Item::Address(ip("10.43.0.10"))];
        let wanted = Wanted { chosen: chosen.clone(), block_after: Some(0), ..Wanted::default() };
        hand_out(&wanted, &mut one, &[], &ranges, 5, Wall(1));
        assert!(chosen.iter().all(|i| one.allows(*i)));
        let block = one.blocks[0];
        assert_eq!(block.addresses().count(), 16);
        let again = Wanted { chosen: vec![chosen[0], Item::Address(block.first)], ..Wanted::default() };
        let before = one.clone();
        hand_out(&again, &mut one, &[], &ranges, 5, Wall(2));
        assert_eq!(one, before, "it has that");
        // Asked again it is not two.
        hand_out(&wanted, &mut one, &[], &ranges, 6, Wall(2));
        assert_eq!((one.blocks.len(), one.reserved.len()), (1, 2));

        let beyond = vec![
            Item::Address(block.last),
            Item::Address(ip("10.43.0.1")),
            Item::Address(ip("10.44.0.7")),
            port(29999),
        ];
        let mut two = Allotment::default();
        one.reserved.iter_mut().for_each(|r| r.ending = true);
        for item in chosen.iter().chain(&beyond) {
            let chosen = vec![port(30090), *item];
            let wanted = Wanted { chosen, block_after: Some(0), ports: 5, ..Wanted::default() };
            hand_out(&wanted, &mut two, &[one.clone()], &ranges, 7, Wall(3));
            let has: Vec<Item> = two.reserved.iter().map(|r| r.item).collect();
            assert_eq!((two.blocks.len(), has), (1, vec![port(30090)]), "{item}: not even what is being returned");
        }
        assert!(chosen.iter().all(|i| !one.allows(*i)));
        // Who had it may have it again.
        hand_out(&wanted, &mut one, &[two], &ranges, 7, Wall(3));
        assert!(chosen.iter().all(|i| one.allows(*i)));
    }

    #[test]
    fn its_record_says_all_of_it() {
        let mut a = Allotment::default();
        let wanted = Wanted {
            namespace: "n".into(),
            uid: "u".into(),
            service: "s".into(),
            block_after: Some(0),
            chosen: vec![port(30080), Item::Address(ip("10.43.0.10"))],
            ports: 1,
        };
        assert_eq!(Wanted::of(&wanted.tree()), wanted);
        hand_out(&wanted, &mut a, &[], &Ranges::default(), 9, Wall(1_795_000_000_000));
        a.reserved[0].ending = true;
        let tree = json!({"metadata": {"resourceVersion": "77"}, "spec": a.spec()});
        a.revision = Revision::from_u64(77).unwrap();
        assert_eq!(Allotment::of(&tree), a);
        assert_eq!(Allotment::of(&Tree::Null), Allotment::default());
    }
}
