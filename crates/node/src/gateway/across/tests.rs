#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use super::*;
use base::{Chance, Clock, Origin, Uid, Wall};
use bytes::Bytes;
use objects::request::{Key, Stored};

const PODS: &str = "Pod";
const ROOT: CellId = CellId(Uid(1));

fn id(n: u64) -> CellId {
    CellId(Uid(u128::from(n) + 100))
}

fn object(revision: Revision) -> Stored {
    Stored { revision, meta: Arc::default(), json: Bytes::new() }
}

fn change(name: &str, revision: Revision, before: bool, after: bool) -> Change {
    let key = Key { storage: PODS.into(), name: name.into() };
    Change { key, revision, before: before.then(|| object(revision)), after: after.then(|| object(revision)) }
}

/// A namespace's cell, or root.
struct Cell {
    clock: Clock,
    /// All that ever happened.
    changes: Vec<Change>,
    closed: Revision,
    subscribed: Option<u64>,
    serial: u64,
    /// What it has said and the machine has not heard yet.
    said: VecDeque<Input>,
    /// Up to here its history is forgotten.
    oldest: Revision,
    listed: bool,
}

/// Somebody who watches.
#[derive(Default)]
struct Watcher {
    /// What it is to see lies above this.
    from: Revision,
    begun: Option<(Revision, Option<Revision>, Vec<CellId>)>,
    ready: bool,
    seen: Vec<(Revision, CellId)>,
    marked: Revision,
    ended: Option<Option<u16>>,
    refused: Option<u16>,
}

struct World {
    machine: Across,
    now: Now,
    chance: Chance,
    cells: BTreeMap<CellId, Cell>,
    watchers: BTreeMap<WatchId, Watcher>,
    next: u64,
    /// Questions to cells go unanswered this often, in a million.
    deaf: u32,
    asks: usize,
    subscriptions: BTreeMap<CellId, usize>,
}

impl World {
    fn new(seed: u64) -> World {
        let now = Now { mono: Time::from_ms(1_000_000), wall: Wall(1_700_000_000_000) };
        let mut w = World {
            machine: Across::new(ROOT),
            now,
            chance: Chance::from_u64(seed),
            cells: BTreeMap::new(),
            watchers: BTreeMap::new(),
            next: 1,
            deaf: 0,
            asks: 0,
            subscriptions: BTreeMap::new(),
        };
        w.cells.insert(ROOT, w.cell(1, Revision::ZERO));
        w
    }

    /// Tags are few, so that cells mint the same revisions.
    fn cell(&self, n: u64, above: Revision) -> Cell {
        Cell {
            clock: Clock::new(Origin::mainline((n % 2) as u16), above),
            changes: Vec::new(),
            closed: Revision::ZERO,
            subscribed: None,
            serial: 0,
            said: VecDeque::new(),
            oldest: Revision::ZERO,
            listed: true,
        }
    }

    fn step(&mut self, input: Input) {
        let mut fx = Vec::new();
        self.machine.step(self.now, input, &mut fx);
        self.machine.check();
        for e in fx {
            self.perform(e);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Subscribe { cell, storage, after } => {
                *self.subscriptions.entry(cell).or_default() += 1;
                if self.chance.happens(self.deaf) {
                    return;
                }
                let Some(c) = self.cells.get_mut(&cell).filter(|c| c.listed) else { return };
                let begin = match after {
                    Some(after) if after < c.oldest => Subscription::Gone { oldest: c.oldest },
                    after => {
                        c.serial += 1;
                        c.subscribed = Some(c.serial);
                        let backlog: Vec<Change> =
                            c.changes.iter().filter(|e| after.is_some_and(|a| e.revision > a)).cloned().collect();
                        let revision = c.changes.last().map_or(Revision::ZERO, |e| e.revision).max(c.closed);
                        Subscription::Open { revision, backlog: backlog.into(), serial: c.serial }
                    }
                };
                c.said.push_back(Input::Subscribed { cell, storage, after, begin });
            }
            Effect::Unsubscribe { cell, serial, .. } => {
                if let Some(c) = self.cells.get_mut(&cell)
                    && c.subscribed == Some(serial)
                {
                    c.subscribed = None;
                }
            }
            Effect::Close { cell, at } => {
                self.asks += 1;
                assert!(at.wall() <= self.now.wall, "no number moves a clock");
                if self.chance.happens(self.deaf) {
                    return;
                }
                let Some(c) = self.cells.get_mut(&cell).filter(|c| c.listed) else { return };
                c.closed = c.closed.max(at);
                c.clock.observe(at);
                let revision = c.closed;
                c.said.push_back(Input::Closed { cell, revision });
            }
            Effect::Begin { id, at, after, cells } => {
                let w = self.watchers.get_mut(&id).unwrap();
                assert!(w.begun.is_none(), "begun twice");
                w.from = after.unwrap_or(at);
                w.begun = Some((at, after, cells.iter().map(|(c, _)| *c).collect()));
            }
            Effect::Tell { to, happened } => {
                for id in to.iter() {
                    let w = self.watchers.get_mut(id).unwrap();
                    assert!(w.ready && w.ended.is_none(), "told too early or too late");
                    w.seen.extend(happened.iter().map(|h| (h.change.revision, h.cell)));
                }
            }
            Effect::Mark { to, revision } => {
                for id in to.iter() {
                    self.watchers.get_mut(id).unwrap().marked = revision;
                }
            }
            Effect::Refuse { id, status } => self.watchers.get_mut(&id).unwrap().refused = Some(status.code),
            Effect::End { id, status } => {
                self.watchers.get_mut(&id).unwrap().ended = Some(status.map(|s| s.code));
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono = self.now.mono + Duration::from_millis(ms);
        self.now.wall = Wall(self.now.wall.0 + ms);
        if self.machine.next_deadline().is_some_and(|d| d <= self.now.mono) {
            self.step(Input::Tick);
        }
    }

    /// Everything said is heard, for so long.
    fn settle(&mut self, ms: u64) {
        for _ in 0..ms {
            self.pass(1);
            while let Some(cell) = self.cells.iter().find(|(_, c)| !c.said.is_empty()).map(|(id, _)| *id) {
                self.hear(cell);
            }
        }
    }

    fn hear(&mut self, cell: CellId) {
        if let Some(input) = self.cells.get_mut(&cell).and_then(|c| c.said.pop_front()) {
            self.step(input);
        }
    }

    fn list(&mut self) {
        let cells = self.cells.iter().filter(|(id, c)| c.listed && **id != ROOT);
        let cells = cells.map(|(id, _)| (*id, Arc::from(format!("ns-{}", id.0.0)))).collect();
        let root = self.cells.get_mut(&ROOT).unwrap();
        let number = root.clock.last();
        root.said.push_back(Input::Cells { cells, number });
    }

    fn create_namespace(&mut self, n: u64) -> CellId {
        let (wall, name) = (self.now.wall, format!("ns-{}", id(n).0.0));
        let root = self.cells.get_mut(&ROOT).unwrap();
        let revision = root.clock.mint(wall);
        root.changes.push(change(&name, revision, false, true));
        let cell = self.cell(n, revision);
        self.cells.insert(id(n), cell);
        self.list();
        id(n)
    }

    fn delete_namespace(&mut self, cell: CellId) {
        let (wall, name) = (self.now.wall, format!("ns-{}", cell.0.0));
        let last = self.cells[&cell].clock.last();
        let root = self.cells.get_mut(&ROOT).unwrap();
        root.clock.observe(last);
        let revision = root.clock.mint(wall);
        root.changes.push(change(&name, revision, true, false));
        while !self.cells[&cell].said.is_empty() {
            self.hear(cell);
        }
        self.cells.get_mut(&cell).unwrap().listed = false;
        self.list();
    }

    fn write(&mut self, cell: CellId) -> Revision {
        let wall = self.now.wall;
        let c = self.cells.get_mut(&cell).unwrap();
        let revision = c.clock.mint(wall);
        let new = change("p", revision, false, true);
        c.changes.push(new.clone());
        if c.subscribed.is_some() {
            c.said.push_back(Input::Events { cell, storage: PODS.into(), changes: [new].into() });
        }
        revision
    }

    fn watch(&mut self, start: Start) -> WatchId {
        let id = WatchId(self.next);
        self.next += 1;
        self.watchers.insert(id, Watcher::default());
        self.step(Input::Watch { id, storage: PODS.into(), start });
        id
    }

    /// The caller gets what the watch begins with.
    fn ready(&mut self, id: WatchId) {
        let w = &self.watchers[&id];
        let Some((at, after, cells)) = w.begun.clone() else { return };
        if w.ready || w.ended.is_some() {
            return;
        }
        if let Some(after) = after {
            let within = |c: &Change| c.revision > after && c.revision <= at;
            let namespaces: Vec<Change> = self.cells[&ROOT].changes.iter().filter(|c| within(c)).cloned().collect();
            let gone = cells.iter().any(|c| !self.cells[c].listed || self.cells[c].oldest > after);
            if gone || lost_a_namespace(&namespaces) {
                self.watchers.get_mut(&id).unwrap().ended = Some(Some(410));
                return self.step(Input::Leave { id });
            }
            let parts = cells.iter().map(|c| {
                let part = self.cells[c].changes.iter().filter(|c| within(c)).cloned().collect();
                (*c, Arc::from("x"), part)
            });
            let first = in_order(parts.collect()).iter().map(|h| (h.change.revision, h.cell)).collect();
            self.watchers.get_mut(&id).unwrap().seen = first;
        }
        self.watchers.get_mut(&id).unwrap().ready = true;
        self.step(Input::Ready { id });
    }

    /// What a watch has seen is what happened, all of it, in order.
    fn verify(&self, id: WatchId, upto: Revision) {
        let w = &self.watchers[&id];
        let Some((at, after, cells)) = &w.begun else { return };
        let mut want: Vec<(Revision, CellId)> = Vec::new();
        for (cell, c) in self.cells.iter().filter(|(cell, _)| **cell != ROOT) {
            // A cell that came and went before the watch began is none of its.
            let known = cells.contains(cell) || after.is_none();
            let above = if known { w.from } else { *at };
            want.extend(
                c.changes.iter().filter(|c| c.revision > above && c.revision <= upto).map(|c| (c.revision, *cell)),
            );
        }
        want.sort_unstable();
        let differs = w.seen.iter().zip(&want).find(|(a, b)| a != b);
        assert!(
            w.seen == want,
            "watch {id:?} from {:?} up to {upto:?} saw {} of {}; the first that differ: {differs:?}",
            w.from,
            w.seen.len(),
            want.len()
        );
    }
}

/// Namespaces and watches come and go, cells fall silent and lose their subscriptions, messages are late.
fn story(seed: u64) -> (usize, usize, usize) {
    let mut w = World::new(seed);
    let mut names = 0;
    let (mut told, mut resumed, mut expired) = (0, 0, 0);
    let mut away: Vec<Revision> = Vec::new();
    for _ in 0..3 {
        names += 1;
        w.create_namespace(names);
    }
    for _ in 0..600 {
        w.deaf = if w.chance.below(4) == 0 { 300_000 } else { 0 };
        let cells: Vec<CellId> = w.cells.iter().filter(|(id, c)| c.listed && **id != ROOT).map(|(id, _)| *id).collect();
        let some = *w.chance.pick(&cells).unwrap();
        let everybody: Vec<CellId> = w.cells.keys().copied().collect();
        let ids: Vec<WatchId> = w.watchers.iter().filter(|(_, x)| x.ended.is_none()).map(|(id, _)| *id).collect();
        match w.chance.below(20) {
            0..=6 => {
                w.write(some);
            }
            7..=11 => {
                let cell = *w.chance.pick(&everybody).unwrap();
                for _ in 0..w.chance.below(4) {
                    w.hear(cell);
                }
            }
            12..=14 => {
                let ms = w.chance.range(1, 40);
                w.pass(ms);
            }
            15 if ids.len() < 4 && away.is_empty() => {
                w.watch(Start::At(None));
            }
            15 if away.is_empty() => {
                // One that has seen something goes away and comes again.
                let id = *w.chance.pick(&ids).unwrap();
                let x = &w.watchers[&id];
                let last = x.seen.last().map(|s| s.0).unwrap_or_default().max(x.marked);
                if x.ready && last > Revision::ZERO {
                    w.verify(id, last);
                    told += w.watchers[&id].seen.len();
                    w.step(Input::Leave { id });
                    w.watchers.get_mut(&id).unwrap().ended = Some(None);
                    w.watch(Start::After(last));
                    resumed += 1;
                }
            }
            16 if w.chance.below(10) == 0 => {
                // All go away, and some come again later.
                for id in ids {
                    let x = &w.watchers[&id];
                    let last = x.seen.last().map(|s| s.0).unwrap_or_default().max(x.marked);
                    if x.ready && last > Revision::ZERO {
                        w.verify(id, last);
                        away.push(last);
                    }
                    w.step(Input::Leave { id });
                    w.watchers.get_mut(&id).unwrap().ended = Some(None);
                }
            }
            15 if !away.is_empty() => {
                let last = away.remove(0);
                w.watch(Start::After(last));
                resumed += 1;
            }
            16 => {
                if let Some(id) = w.chance.pick(&ids).copied() {
                    w.ready(id);
                }
            }
            17 => match w.chance.below(4) {
                0 if cells.len() < 6 => {
                    names += 1;
                    w.create_namespace(names);
                }
                1 if cells.len() > 1 => w.delete_namespace(some),
                2 => {
                    let c = w.cells.get_mut(&some).unwrap();
                    c.subscribed = None;
                    c.said.push_back(Input::Lost { cell: some });
                }
                _ if w.chance.below(4) == 0 => {
                    let c = w.cells.get_mut(&some).unwrap();
                    c.oldest = c.changes.last().map_or(c.oldest, |e| e.revision);
                }
                _ => {}
            },
            18 => w.step(Input::Mark),
            _ => {
                // Order between cells is nobody's promise, only that of one cell.
                for cell in everybody {
                    w.hear(cell);
                }
            }
        }
    }
    w.deaf = 0;
    w.settle(3_000);
    let all: Vec<WatchId> = w.watchers.keys().copied().collect();
    for id in &all {
        w.ready(*id);
    }
    w.settle(100);
    let upto = w.machine.frontier.reached();
    for id in all {
        let x = &w.watchers[&id];
        assert_eq!(x.refused, None, "a watch was refused though every cell answers in the end");
        match x.ended {
            None => {
                assert!(x.ready, "watch {id:?} has not begun: {:?}", x.begun);
                w.verify(id, upto);
                told += x.seen.len();
            }
            Some(Some(code)) => {
                assert_eq!(code, 410);
                expired += 1;
            }
            Some(None) => {}
        }
    }
    (told, resumed, expired)
}

#[test]
fn every_watch_sees_all_that_happened_once_and_in_order_whatever_comes_and_goes() {
    let (mut told, mut resumed, mut expired) = (0, 0, 0);
    for seed in 0..400 {
        let got = std::panic::catch_unwind(|| story(seed)).unwrap_or_else(|_| panic!("seed {seed}"));
        (told, resumed, expired) = (told + got.0, resumed + got.1, expired + got.2);
    }
    assert!(told > 8_000 && resumed > 300 && expired > 20, "too little happened: {told} {resumed} {expired}");
}

fn three() -> World {
    let mut w = World::new(1);
    for n in 1..=3 {
        w.create_namespace(n);
    }
    w.settle(50);
    w
}

#[test]
fn nothing_is_told_before_every_cell_has_promised_and_then_in_the_order_of_revisions() {
    let mut w = three();
    let x = w.watch(Start::At(None));
    w.settle(50);
    w.ready(x);
    let first = w.write(id(3));
    w.pass(1);
    let second = w.write(id(1));
    // The third cell is heard, the others are not.
    for _ in 0..100 {
        w.pass(1);
        w.hear(id(3));
        w.hear(ROOT);
    }
    assert_eq!(w.watchers[&x].seen, []);
    w.settle(30);
    assert_eq!(w.watchers[&x].seen, [(first, id(3)), (second, id(1))]);
    w.step(Input::Mark);
    assert!(w.watchers[&x].marked > second);
}

#[test]
fn what_equals_the_revision_a_watch_resumes_from_is_told_again() {
    let mut w = three();
    let x = w.watch(Start::At(None));
    w.settle(50);
    w.ready(x);
    // Cells 1 and 3 share a tag: at the same moment they mint the same.
    let (a, b) = (w.write(id(1)), w.write(id(3)));
    assert_eq!(a, b);
    w.settle(50);
    assert_eq!(w.watchers[&x].seen, [(a, id(1)), (b, id(3))]);
    let again = w.watch(Start::After(a));
    w.settle(50);
    w.ready(again);
    assert_eq!(w.watchers[&again].seen, [(a, id(1)), (b, id(3))]);
}

#[test]
fn a_watch_of_a_revision_to_come_waits_three_seconds_for_it() {
    let mut w = three();
    let soon = Revision::end_of(Wall(w.now.wall.0 + 1_000));
    let x = w.watch(Start::After(soon));
    let far = w.watch(Start::After(Revision::end_of(Wall(w.now.wall.0 + 60_000))));
    w.settle(900);
    assert!(w.watchers[&x].begun.is_none());
    w.settle(200);
    assert!(w.watchers[&x].begun.is_some());
    w.settle(2_000);
    assert_eq!((w.watchers[&far].refused, w.machine.len()), (Some(504), 1));
}

#[test]
fn a_cell_that_promises_nothing_holds_everybody_and_is_named() {
    let mut w = three();
    let x = w.watch(Start::At(None));
    w.settle(50);
    w.ready(x);
    w.cells.get_mut(&id(2)).unwrap().listed = false;
    let late = w.watch(Start::At(None));
    w.write(id(1));
    w.settle(29_000);
    assert_eq!((w.watchers[&x].seen.len(), w.watchers[&late].refused), (0, None));
    w.settle(2_000);
    assert_eq!(w.watchers[&late].refused, Some(503));
    w.cells.get_mut(&id(2)).unwrap().listed = true;
    w.settle(2_000);
    assert_eq!(w.watchers[&x].seen.len(), 1);
}

#[test]
fn a_namespace_that_comes_is_seen_from_its_first_object_and_one_that_goes_ends_nothing() {
    let mut w = three();
    let x = w.watch(Start::At(None));
    w.settle(50);
    w.ready(x);
    w.pass(5);
    let new = w.create_namespace(4);
    let first = w.write(new);
    w.pass(1);
    let last = w.write(id(2));
    w.delete_namespace(id(2));
    w.settle(100);
    assert_eq!(w.watchers[&x].seen, [(first, new), (last, id(2))]);
    assert_eq!(w.watchers[&x].ended, None);
    // One that would go on from before the end of a namespace cannot know what ended there.
    let again = w.watch(Start::After(first));
    w.settle(50);
    w.ready(again);
    assert_eq!(w.watchers[&again].ended, Some(Some(410)));
    let reached = w.machine.frontier.reached();
    let after = w.watch(Start::After(reached));
    w.settle(50);
    w.ready(after);
    assert_eq!(w.watchers[&after].ended, None);
}

#[test]
fn a_cell_is_subscribed_once_however_many_watch_and_given_up_with_the_last() {
    let mut w = three();
    let all: Vec<WatchId> = (0..10).map(|_| w.watch(Start::At(None))).collect();
    w.settle(100);
    all.iter().for_each(|x| w.ready(*x));
    assert!(w.subscriptions.values().all(|n| *n == 1) && w.subscriptions.len() == 3, "{:?}", w.subscriptions);
    for x in &all {
        assert!(w.cells[&id(1)].subscribed.is_some());
        w.step(Input::Leave { id: *x });
    }
    assert!(w.cells.values().all(|c| c.subscribed.is_none()));
    assert_eq!(w.machine.next_deadline(), None, "nobody is asked while nobody watches");
}

#[test]
fn while_nothing_happens_promises_are_asked_for_every_five_seconds() {
    let mut w = three();
    let x = w.watch(Start::At(None));
    w.settle(100);
    w.ready(x);
    w.asks = 0;
    w.settle(20_000);
    assert!((4 * 4..=5 * 4).contains(&w.asks), "{} questions to four cells in 20 s", w.asks);
    w.write(id(1));
    w.settle(25);
    assert_eq!(w.watchers[&x].seen.len(), 1, "what happens is told at once all the same");
}

#[test]
fn what_waits_is_bounded_and_whoever_waits_too_long_is_ended() {
    let mut w = three();
    let (x, slow) = (w.watch(Start::At(None)), w.watch(Start::At(None)));
    w.settle(50);
    w.ready(x);
    for _ in 0..=PENDING_MAX {
        w.write(id(1));
    }
    w.settle(50);
    assert_eq!(w.watchers[&x].seen.len(), PENDING_MAX + 1);
    assert_eq!((w.watchers[&x].ended, w.watchers[&slow].ended), (None, Some(None)));
    // A cell is silent, and another is not.
    w.cells.get_mut(&id(2)).unwrap().listed = false;
    for _ in 0..=WAITING_MAX {
        w.write(id(1));
    }
    while !w.cells[&id(1)].said.is_empty() {
        w.hear(id(1));
    }
    assert_eq!((w.watchers[&x].ended, w.machine.len()), (Some(None), 0));
}
