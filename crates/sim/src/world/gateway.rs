//! A gateway where somebody watches all namespaces and lists them: the machine that joins the cells' streams
//! ([`Across`]), and its ways to the cells.
//!
//! A way is a connection: what comes over it comes in order, and when the gateway has waited too long for a
//! promise it gives the way up and tries another keeper.

use super::{Event, MS, QUIET, REGISTRY, ROOT, World};
use crate::checks::applied::Applied;
use crate::checks::frontier::{self, Stream};
use crate::checks::{Checked, ensure};
use crate::keeper::Clock;
use base::{CellId, Chance, Revision, Time};
use node::cell::{self, Effect as CellEffect, Input as CellInput, Outcome, ReplyTo};
use node::gateway::across::{Across, Effect, Input, Start, WatchId, in_order};
use std::collections::BTreeMap;
use std::sync::Arc;

const STORAGE: &str = "ConfigMap";
/// Without a promise for so long, another keeper is asked.
const PATIENCE: u64 = 800 * MS;

/// What happens at the gateway.
pub(super) enum Happening {
    /// Its machine is due.
    Wake {
        boot: u64,
    },
    /// Ways that are silent are given up.
    Look,
    /// Whoever watches does so again, or goes on.
    Watch,
    /// Somebody lists all namespaces.
    List,
    /// Over the way to a cell.
    ToCell {
        cell: CellId,
        epoch: u64,
        input: CellInput,
    },
    /// Over the way from one.
    FromCell {
        cell: CellId,
        epoch: u64,
        input: Input,
    },
    /// A read of one cell is asked for.
    Read {
        read: u64,
        attempt: u64,
    },
    /// It was not answered.
    ReadAgain {
        read: u64,
        attempt: u64,
    },
    Restart,
}

/// A way to a cell's replica at a keeper.
struct Way {
    to: usize,
    boot: u64,
    epoch: u64,
    /// When what was sent last over it arrives: there, and here.
    there: u64,
    here: u64,
    /// Since when a promise is waited for.
    waits: Option<u64>,
}

/// How far the watch has come.
enum Watching {
    No,
    Joining(WatchId),
    Getting { id: WatchId, at: Revision, resumed: bool },
    Open(WatchId),
}

/// What a read of one cell is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Watch,
    /// The namespaces there are, and then what is in them.
    Namespaces,
    List,
}

/// A read of one cell, asked for until it is answered.
struct Read {
    cell: CellId,
    namespace: Arc<str>,
    purpose: Purpose,
    at: Revision,
    after: Option<Revision>,
    attempt: u64,
}

/// What reads have shown so far.
#[derive(Default)]
struct Shown {
    states: BTreeMap<CellId, BTreeMap<String, Revision>>,
    parts: Vec<(CellId, Arc<str>, Vec<cell::Change>)>,
}

/// The gateway.
pub(super) struct Gateway {
    dice: Chance,
    pub(super) clock: Clock,
    boot: u64,
    machine: Option<Across>,
    woken_at: u64,
    /// The newest bundle it has heard of.
    number: Revision,
    ways: BTreeMap<CellId, Way>,
    epochs: u64,
    watching: Watching,
    watches: u64,
    reads: BTreeMap<u64, Read>,
    next_read: u64,
    watch_shown: Shown,
    list_shown: Shown,
    pub(super) stream: Stream,
    pub(super) resumed: u64,
    pub(super) lists: u64,
}

impl Gateway {
    pub(super) fn new(chance: &Chance) -> Gateway {
        let mut dice = chance.stream("gateway");
        let clock = Clock { start_ns: dice.below(1 << 40), rate: dice.range(960, 1_041), ahead_ms: dice.below(900) };
        Gateway {
            dice,
            clock,
            boot: 1,
            machine: Some(Across::new(ROOT)),
            woken_at: u64::MAX,
            number: Revision::ZERO,
            ways: BTreeMap::new(),
            epochs: 0,
            watching: Watching::No,
            watches: 0,
            reads: BTreeMap::new(),
            next_read: 0,
            watch_shown: Shown::default(),
            list_shown: Shown::default(),
            stream: Stream::default(),
            resumed: 0,
            lists: 0,
        }
    }
}

impl World {
    fn gate(&mut self, delay: u64, happening: Happening) {
        self.at(delay, Event::Gateway(happening));
    }

    pub(super) fn begin_gateway(&mut self) {
        self.gate(500 * MS, Happening::Watch);
        self.gate(500 * MS, Happening::Look);
        self.gate(5_000 * MS, Happening::List);
    }

    /// The truth of every namespace.
    fn namespaces(&self) -> BTreeMap<CellId, &Applied> {
        self.truths.iter().filter(|(id, _)| ![ROOT, REGISTRY].contains(id)).map(|(id, t)| (*id, &t.applied)).collect()
    }

    pub(super) fn happen_at_gateway(&mut self, happening: Happening) -> Checked {
        match happening {
            Happening::Wake { boot } if boot == self.gateway.boot => {
                self.gateway.woken_at = u64::MAX;
                self.join(Input::Tick)
            }
            Happening::Wake { .. } => Ok(()),
            Happening::Look => {
                self.gate(200 * MS, Happening::Look);
                let late = |w: &Way| w.waits.is_some_and(|since| self.now >= since + PATIENCE);
                let silent: Vec<CellId> =
                    self.gateway.ways.iter().filter(|(_, w)| late(w)).map(|(cell, _)| *cell).collect();
                for cell in silent {
                    let old = self.gateway.ways.remove(&cell).map(|w| w.to);
                    self.way(cell, old);
                    self.join(Input::Lost { cell })?;
                }
                self.join(Input::Mark)
            }
            Happening::Watch => self.watch_all(),
            Happening::List => {
                self.list_all();
                Ok(())
            }
            Happening::ToCell { cell, epoch, input } => {
                let way = self.gateway.ways.get(&cell).filter(|w| w.epoch == epoch);
                let Some((to, boot)) = way.map(|w| (w.to, w.boot)) else { return Ok(()) };
                if self.keepers[to].boot == boot { self.tell(to, cell, input) } else { Ok(()) }
            }
            Happening::FromCell { cell, epoch, input } => {
                let Some(way) = self.gateway.ways.get_mut(&cell).filter(|w| w.epoch == epoch) else { return Ok(()) };
                match &input {
                    Input::Closed { .. } => way.waits = None,
                    // Of an older leader of root.
                    Input::Cells { number, .. } if *number < self.gateway.number => return Ok(()),
                    Input::Cells { number, .. } => self.gateway.number = *number,
                    _ => {}
                }
                self.join(input)
            }
            Happening::Read { read, attempt } => self.read_arrives(read, attempt),
            Happening::ReadAgain { read, attempt } => {
                self.read_again(read, attempt);
                Ok(())
            }
            Happening::Restart => {
                if self.gateway.machine.is_none() {
                    self.gateway.machine = Some(Across::new(ROOT));
                }
                Ok(())
            }
        }
    }

    /// The gateway's process ends; whoever watched goes on from what it has seen.
    pub(super) fn crash_gateway(&mut self) {
        let g = &mut self.gateway;
        if g.machine.take().is_none() {
            return;
        }
        g.boot += 1;
        g.woken_at = u64::MAX;
        g.number = Revision::ZERO;
        g.ways.clear();
        g.reads.clear();
        g.watching = Watching::No;
        let down = g.dice.range(10, 3_000) * MS;
        self.gate(down, Happening::Restart);
    }

    // The ways.

    /// The way to a cell, opened if there is none: to the keeper after `old`, so that all have their turn, or
    /// to any.
    fn way(&mut self, cell: CellId, old: Option<usize>) {
        let now = self.now;
        let at = self.nodes_of(cell);
        let g = &mut self.gateway;
        if g.ways.contains_key(&cell) || at.is_empty() {
            return;
        }
        g.epochs += 1;
        let any = g.dice.below(at.len() as u64) as usize;
        let next = |old| at.iter().position(|n| *n > old).unwrap_or_default();
        let (to, epoch) = (old.map_or(any, next), g.epochs);
        let to = at[to];
        let boot = self.keepers[to].boot;
        g.ways.insert(cell, Way { to, boot, epoch, there: now, here: now, waits: None });
        if cell == ROOT
            && let Some(root) = self.keepers[to].cell(ROOT)
        {
            let bundle = root.bundle().clone();
            self.hear_of(cell, cells_of(&bundle));
        }
    }

    fn say_to(&mut self, cell: CellId, input: CellInput) {
        self.way(cell, None);
        let now = self.now;
        let g = &mut self.gateway;
        let delay = g.dice.range(1, 20) * MS;
        let Some(way) = g.ways.get_mut(&cell) else { return };
        if matches!(input, CellInput::Close { .. }) {
            way.waits.get_or_insert(now);
        }
        way.there = way.there.max(now + delay);
        let (delay, epoch) = (way.there - now, way.epoch);
        self.gate(delay, Happening::ToCell { cell, epoch, input });
    }

    fn hear_of(&mut self, cell: CellId, input: Input) {
        let now = self.now;
        let faults = self.faults;
        let g = &mut self.gateway;
        let late = faults && g.dice.happens(5_000);
        let delay = if late { g.dice.range(100, 1_500) } else { g.dice.range(1, 20) } * MS;
        let Some(way) = g.ways.get_mut(&cell) else { return };
        way.here = way.here.max(now + delay);
        let (delay, epoch) = (way.here - now, way.epoch);
        self.gate(delay, Happening::FromCell { cell, epoch, input });
    }

    /// What a cell does that the gateway's way to it is open for.
    pub(super) fn overhear(&mut self, node: usize, cell: CellId, effect: &CellEffect) {
        self.overhear_nodes(node, cell, effect);
        let boot = self.keepers[node].boot;
        let open = |w: &&Way| w.to == node && w.boot == boot;
        if self.gateway.machine.is_none() || self.gateway.ways.get(&cell).filter(open).is_none() {
            return;
        }
        let input = match effect {
            CellEffect::Events { storage, changes } => {
                Input::Events { cell, storage: storage.clone(), changes: changes.clone() }
            }
            CellEffect::Subscribed { storage, after, begin } => {
                Input::Subscribed { cell, storage: storage.clone(), after: *after, begin: begin.clone() }
            }
            CellEffect::Closed { revision } => Input::Closed { cell, revision: *revision },
            CellEffect::Replaced => Input::Lost { cell },
            CellEffect::Bundle(bundle) => cells_of(bundle),
            _ => return,
        };
        self.hear_of(cell, input);
    }

    // The machine.

    fn join(&mut self, input: Input) -> Checked {
        let now = self.gateway.clock.now(self.now);
        let Some(machine) = &mut self.gateway.machine else { return Ok(()) };
        let mut fx = Vec::new();
        machine.step(now, input, &mut fx);
        machine.check();
        for effect in fx {
            self.joined(effect)?;
        }
        self.wake_gateway();
        Ok(())
    }

    fn wake_gateway(&mut self) {
        let now = self.now;
        let g = &mut self.gateway;
        let deadline = g.machine.as_ref().and_then(Across::next_deadline);
        let Some(at) = deadline.filter(|t| *t != Time::NEVER) else { return };
        let at = g.clock.when(at).max(now + MS / 10);
        if at >= g.woken_at && g.woken_at > now {
            return;
        }
        g.woken_at = at;
        let boot = g.boot;
        self.gate(at - now, Happening::Wake { boot });
    }

    fn joined(&mut self, effect: Effect) -> Checked {
        match effect {
            Effect::Subscribe { cell, storage, after } => {
                self.say_to(cell, CellInput::Subscribe { storage, after });
            }
            // Whoever watches one namespace watches the same resource there.
            Effect::Unsubscribe { .. } => {}
            Effect::Close { cell, at } => self.say_to(cell, CellInput::Close { at }),
            Effect::Begin { id, at, after, cells } => {
                if !matches!(self.gateway.watching, Watching::Joining(own) if own == id) {
                    return Ok(());
                }
                self.gateway.watching = Watching::Getting { id, at, resumed: after.is_some() };
                self.gateway.watch_shown = Shown::default();
                for (cell, namespace) in cells.iter() {
                    self.read(*cell, namespace.clone(), Purpose::Watch, at, after);
                }
                return self.shown(Purpose::Watch);
            }
            Effect::Refuse { id, .. } => {
                if matches!(self.gateway.watching, Watching::Joining(own) if own == id) {
                    self.gateway.watching = Watching::No;
                }
            }
            Effect::Tell { to, happened } => {
                if let Watching::Open(id) = self.gateway.watching
                    && to.contains(&id)
                {
                    let mut stream = std::mem::take(&mut self.gateway.stream);
                    let told = stream.hear(&self.namespaces(), &happened);
                    self.gateway.stream = stream;
                    return told;
                }
            }
            Effect::Mark { to, revision } => {
                if let Watching::Open(id) = self.gateway.watching
                    && to.contains(&id)
                {
                    return self.complete(revision);
                }
            }
            Effect::End { id, status } => {
                let own = match self.gateway.watching {
                    Watching::Open(own) | Watching::Joining(own) | Watching::Getting { id: own, .. } => own == id,
                    Watching::No => false,
                };
                if own {
                    self.gateway.watching = Watching::No;
                    self.gateway.reads.retain(|_, r| r.purpose != Purpose::Watch);
                    if status.is_some() {
                        self.gateway.stream.seen = None;
                    }
                }
            }
        }
        Ok(())
    }

    fn complete(&mut self, upto: Revision) -> Checked {
        let mut stream = std::mem::take(&mut self.gateway.stream);
        let told = stream.complete(&self.namespaces(), upto);
        self.gateway.stream = stream;
        told
    }

    // Whoever watches and lists.

    fn watch_all(&mut self) -> Checked {
        self.gate(400 * MS, Happening::Watch);
        let settled = !self.faults;
        let g = &mut self.gateway;
        if g.machine.is_none() {
            return Ok(());
        }
        match g.watching {
            Watching::No => {
                g.watches += 1;
                let id = WatchId(g.watches);
                g.watching = Watching::Joining(id);
                let start = g.stream.resume().map_or(Start::At(None), Start::After);
                self.join(Input::Watch { id, storage: STORAGE.into(), start })?;
                // Nothing else opens the way to root, and nobody begins without its list.
                self.way(ROOT, None);
                Ok(())
            }
            // Now and then it goes away and comes back, and now and then it has forgotten everything.
            Watching::Open(id) if !settled && g.dice.below(12) == 0 => {
                g.watching = Watching::No;
                if g.dice.below(4) == 0 {
                    g.stream.seen = None;
                }
                self.join(Input::Leave { id })
            }
            _ => Ok(()),
        }
    }

    fn list_all(&mut self) {
        if self.now >= QUIET {
            return;
        }
        let pause = self.gateway.dice.range(500, 3_000) * MS;
        self.gate(pause, Happening::List);
        let reading = self.gateway.reads.values().any(|r| r.purpose != Purpose::Watch);
        if reading || self.gateway.machine.is_none() || self.operations >= super::OPERATIONS.0 {
            return;
        }
        self.operations += 1;
        self.gateway.list_shown = Shown::default();
        let at = Revision::end_of(self.gateway.clock.now(self.now).wall);
        self.read(ROOT, "".into(), Purpose::Namespaces, at, None);
    }

    fn read(&mut self, cell: CellId, namespace: Arc<str>, purpose: Purpose, at: Revision, after: Option<Revision>) {
        self.gateway.next_read += 1;
        let read = self.gateway.next_read;
        self.gateway.reads.insert(read, Read { cell, namespace, purpose, at, after, attempt: 0 });
        self.ask_read(read, 0);
    }

    fn ask_read(&mut self, read: u64, pause: u64) {
        self.attempts += 1;
        let attempt = self.attempts;
        let Some(r) = self.gateway.reads.get_mut(&read) else { return };
        r.attempt = attempt;
        let delay = pause + self.gateway.dice.range(1, 10) * MS;
        self.gate(delay, Happening::Read { read, attempt });
        self.gate(delay + PATIENCE, Happening::ReadAgain { read, attempt });
    }

    fn read_arrives(&mut self, read: u64, attempt: u64) -> Checked {
        let Some(r) = self.gateway.reads.get(&read).filter(|r| r.attempt == attempt) else { return Ok(()) };
        let (cell, at, after) = (r.cell, r.at, r.after);
        let keep = self.nodes_of(cell);
        let storage = if r.purpose == Purpose::Namespaces { "Namespace" } else { STORAGE };
        let Some(node) = self.gateway.dice.pick(&keep).copied() else { return Ok(()) };
        self.tell(node, cell, CellInput::Collect { to: ReplyTo(attempt), storage: storage.into(), at, after })
    }

    fn read_again(&mut self, read: u64, attempt: u64) {
        if self.gateway.reads.get(&read).is_some_and(|r| r.attempt == attempt) {
            self.ask_read(read, 0);
        }
    }

    /// A cell has answered; whether it was a read of the gateway's.
    pub(super) fn answered_gateway(&mut self, attempt: u64, outcome: &Outcome) -> Option<Checked> {
        let read = self.gateway.reads.iter().find(|(_, r)| r.attempt == attempt).map(|(id, _)| *id)?;
        Some(self.read_answered(read, outcome))
    }

    fn read_answered(&mut self, read: u64, outcome: &Outcome) -> Checked {
        match outcome {
            Outcome::Collected(_) | Outcome::Recalled(_) => {}
            Outcome::Refused(_) => {
                // Too old or too new: whoever asked begins anew.
                let Some(r) = self.gateway.reads.remove(&read) else { return Ok(()) };
                let same = |p: Purpose| (p == Purpose::Watch) == (r.purpose == Purpose::Watch);
                self.gateway.reads.retain(|_, other| !same(other.purpose));
                if let (Purpose::Watch, Watching::Getting { id, .. }) = (r.purpose, &self.gateway.watching) {
                    let id = *id;
                    self.gateway.watching = Watching::No;
                    self.gateway.stream.seen = None;
                    return self.join(Input::Leave { id });
                }
                return Ok(());
            }
            _ => {
                let pause = self.gateway.dice.range(5, 100) * MS;
                self.ask_read(read, pause);
                return Ok(());
            }
        }
        let Some(r) = self.gateway.reads.remove(&read) else { return Ok(()) };
        match (r.purpose, outcome) {
            (Purpose::Namespaces, Outcome::Collected(snapshot)) => {
                let cells: Vec<(CellId, Arc<str>)> =
                    snapshot.iter(None).map(|(name, s)| (CellId(s.meta.uid), name)).collect();
                for (cell, name) in cells {
                    self.read(cell, name, Purpose::List, r.at, None);
                }
            }
            (_, Outcome::Collected(snapshot)) => {
                let state = snapshot.iter(None).map(|(n, s)| (n.to_string(), s.revision)).collect();
                self.shown_of(r.purpose).states.insert(r.cell, state);
            }
            (_, Outcome::Recalled(changes)) => {
                self.shown_of(r.purpose).parts.push((r.cell, r.namespace, changes.clone()));
            }
            _ => {}
        }
        if r.purpose == Purpose::Watch { self.shown(Purpose::Watch) } else { self.listed(r.at) }
    }

    fn shown_of(&mut self, purpose: Purpose) -> &mut Shown {
        let g = &mut self.gateway;
        if purpose == Purpose::Watch { &mut g.watch_shown } else { &mut g.list_shown }
    }

    /// Once the watch has been shown all it begins with, it is open.
    fn shown(&mut self, purpose: Purpose) -> Checked {
        if self.gateway.reads.values().any(|r| r.purpose == purpose) {
            return Ok(());
        }
        let Watching::Getting { id, at, resumed } = self.gateway.watching else { return Ok(()) };
        self.gateway.watching = Watching::Open(id);
        let shown = std::mem::take(&mut self.gateway.watch_shown);
        let mut stream = std::mem::take(&mut self.gateway.stream);
        let truths = self.namespaces();
        let begun = if resumed {
            let told = stream.hear(&truths, &in_order(shown.parts));
            told.and_then(|()| stream.complete(&truths, at))
        } else {
            stream.began(&truths, at, &shown.states)
        };
        self.gateway.resumed += u64::from(resumed);
        self.gateway.stream = stream;
        begun?;
        self.join(Input::Ready { id })
    }

    fn listed(&mut self, at: Revision) -> Checked {
        if self.gateway.reads.values().any(|r| r.purpose != Purpose::Watch) {
            return Ok(());
        }
        self.gateway.lists += 1;
        let shown = std::mem::take(&mut self.gateway.list_shown);
        frontier::listed(&self.namespaces(), at, &shown.states)
    }

    /// The end of a run: whoever watches all namespaces has been told everything.
    pub(super) fn end_gateway(&mut self) -> Checked {
        ensure("liveness", matches!(self.gateway.watching, Watching::Open(_)), || {
            "at the end nobody watches all namespaces".to_owned()
        })?;
        let last = self.namespaces().values().map(|t| t.last()).max().unwrap_or_default();
        self.complete(last)
    }
}

fn cells_of(bundle: &node::bundle::Bundle) -> Input {
    Input::Cells { cells: bundle.cells().into_iter().map(|(n, c)| (c, n)).collect(), number: bundle.number() }
}
