//! The replicas at their nodes: what the program's driver does, with every node as it would be on a machine
//! of its own.

use super::network::Packet;
use super::{Event, Local, REGISTRY, ROOT, Truth, World, index_of, node_id};
use crate::checks::{Checked, Violation, ensure};
use crate::keeper::{EPOCH_MS, Keeps, Seat, Up};
use agree::heartbeat::{self, Pair};
use agree::log::{Answer, Command, Persist};
use agree::raft;
use base::disk::{self, Machine as _};
use base::{BootId, CellId, Chance, Revision, Time, Wall};
use node::bundle::Bundle;
use node::cell::{Cell, Config, Effect, Found, Input, Purpose, Role};
use node::controllers;
use node::genesis::{self, Genesis};
use node::keeping::{self, Keeping};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

impl World {
    pub(super) fn start(&mut self, node: usize) -> Checked {
        if self.keepers[node].up.is_some() {
            return Ok(());
        }
        let (log, found) = self.open_log(node)?;
        let now = self.keepers[node].now(self.now);
        let boot = self.keepers[node].boot + 1;
        let others = (0..self.size()).filter(|o| *o != node);
        let pair = |o| (o, Pair::new(heartbeat::Config::default(), BootId(boot), now.mono));
        let pairs = others.map(pair).collect();
        let of_cell = |(id, c): (CellId, agree::log::OfCell)| (id, Found { records: c.records, lossy: c.lossy });
        let k = &mut self.keepers[node];
        k.boot = boot;
        k.up = Some(Up {
            seats: BTreeMap::new(),
            pairs,
            bundle: Arc::default(),
            log,
            ops: VecDeque::new(),
            busy: false,
            told: true,
            // Of a life that is over nothing is left.
            recovered: found.cells.into_iter().filter(|(_, c)| c.lossy || !c.records.is_empty()).map(of_cell).collect(),
            parked: Vec::new(),
            woken_at: u64::MAX,
            keeps: Keeps { began: now.mono, ..Keeps::default() },
        });
        let chance = Chance::from_u64(7);
        self.recall_lives(node);
        self.seat_kept(node)?;
        let root = Purpose { role: Role::Root, since: Revision::ZERO };
        self.seat(node, ROOT, root, Some(genesis::root(chance.stream("root"), Wall(EPOCH_MS))))?;
        self.begin_registry(node)?;
        let bundle = self.keepers[node].cell(ROOT).map(|c| c.bundle().clone()).unwrap_or_default();
        self.take_bundle(node, &bundle)
    }

    /// Seats a cell: as it was, or new with its genesis.
    pub(super) fn seat(&mut self, node: usize, id: CellId, purpose: Purpose, genesis: Option<Genesis>) -> Checked {
        let Some(life) = self.life(id, node) else { return Ok(()) };
        let Purpose { role, since } = purpose;
        let now = self.keepers[node].now(self.now);
        let chance = Chance::from_u64(self.dice.starts.u64());
        let mut config = Config::new(id, role.clone(), node_id(node), self.settings.clone()).in_life(life);
        config.since = since;
        // Few, so that who was away needs a snapshot.
        config.raft.entries_kept = 20;
        config.founders = self.founders_of(node, life);
        let genesis = genesis.filter(|_| !config.founders.is_empty());
        let rotten = self.keepers[node].rotten;
        let Some(up) = &mut self.keepers[node].up else { return Ok(()) };
        let found = up.recovered.get(&id).cloned();
        if rotten && found.is_none() && self.truths.contains_key(&id) {
            // It may have been kept here, with nothing of it left: it is never founded anew over that.
            return Ok(());
        }
        let cell = Cell::new(config, found, up.bundle.clone(), genesis, &chance, now);
        let cell = match cell {
            Ok(cell) => cell,
            // What is left of it says so little that it is not started.
            Err(_) if rotten => return Ok(()),
            Err(e) => {
                return Err(Violation { checker: "invariant", what: format!("node {node} does not start: {e}") });
            }
        };
        ensure("invariant", !cell.member().replica().is_lossy() || rotten, || {
            format!("node {node} took a torn tail for a loss")
        })?;
        let bundle = up.bundle.clone();
        up.recovered.remove(&id);
        let (votes, refused) = (Vec::new(), BTreeSet::new());
        up.seats.insert(id, Seat { cell, role: role.clone(), voted: (0, 0), votes, refused, last: None });
        let asked: Vec<Input> = up.parked.extract_if(.., |(c, _)| *c == id).map(|(_, input)| input).collect();
        if let Role::Namespace(name) = &role {
            self.names.insert(name.clone(), id);
        }
        self.truths.entry(id).or_insert_with(|| Truth::of(&role));
        self.have_kept(node, id);
        self.tell(node, id, Input::Bundle(bundle))?;
        self.tell(node, id, Input::Tick)?;
        for input in asked {
            self.tell(node, id, input)?;
        }
        Ok(())
    }

    /// A bundle: every other cell is told, new namespaces get their cells, gone ones lose them.
    pub(super) fn take_bundle(&mut self, node: usize, bundle: &Arc<Bundle>) -> Checked {
        let Some(up) = self.keepers[node].up.as_mut().filter(|u| bundle.number() > u.bundle.number()) else {
            return Ok(());
        };
        up.bundle = bundle.clone();
        let named: BTreeMap<CellId, Arc<str>> = bundle.cells().into_iter().map(|(n, c)| (c, n)).collect();
        self.control_bundle(node, bundle);
        let Some(up) = &self.keepers[node].up else { return Ok(()) };
        let seated: Vec<CellId> = up.seats.keys().copied().filter(|c| *c != ROOT).collect();
        for id in seated {
            if named.contains_key(&id) || id == REGISTRY {
                self.tell(node, id, Input::Bundle(bundle.clone()))?;
            } else if self.keepers[node].cell(id).is_some_and(|c| c.config().since > bundle.number()) {
                // Root as it was before the namespace.
            } else if let Some(up) = &mut self.keepers[node].up {
                up.seats.remove(&id);
                up.keeps.machines.remove(&id);
                self.control_gone(node, Some(id));
                self.command(node, Command::Live { cell: id, bytes: 0 });
            }
        }
        for (id, name) in named {
            if self.keepers[node].cell(id).is_some() {
                continue;
            }
            let genesis = genesis::namespace(&name, id.0, bundle.number(), "PEM", Wall(EPOCH_MS));
            let purpose = Purpose { role: Role::Namespace(name), since: bundle.number() };
            self.seat(node, id, purpose, Some(genesis))?;
        }
        self.settle()
    }

    pub(super) fn tell(&mut self, node: usize, cell: CellId, input: Input) -> Checked {
        self.pass(Local::Cell(node, cell, input))
    }

    pub(super) fn tell_all(&mut self, node: usize, input: impl Fn() -> Input) -> Checked {
        let Some(up) = &self.keepers[node].up else { return Ok(()) };
        let cells: Vec<CellId> = up.seats.keys().copied().collect();
        cells.into_iter().try_for_each(|cell| self.tell(node, cell, input()))
    }

    /// The machines of a node are linked by messages only: what one says to another waits until it is
    /// through with its step.
    pub(super) fn pass(&mut self, local: Local) -> Checked {
        self.local.push_back(local);
        self.settle()
    }

    /// Until no machine has anything to say to another of its node.
    pub(super) fn settle(&mut self) -> Checked {
        if std::mem::replace(&mut self.settling, true) {
            // Whoever is at it comes to what was added.
            return Ok(());
        }
        let settled = self.settle_all();
        self.settling = false;
        settled
    }

    fn settle_all(&mut self) -> Checked {
        loop {
            while let Some(local) = self.local.pop_front() {
                match local {
                    Local::Cell(node, cell, input) => self.step_cell(node, cell, input)?,
                    Local::Pair(node, other, input) => self.step_pair(node, other, input),
                    Local::Log(node, command) => {
                        if let Some(up) = &mut self.keepers[node].up {
                            up.told = true;
                            self.step_log(node, disk::Input::Command(command))?;
                        }
                    }
                    Local::Bundle(node, bundle) => self.take_bundle(node, &bundle)?,
                    Local::Look(node, cell) => self.step_look(node, cell),
                    Local::Keeping(node, cell, input) => self.step_keeping(node, cell, input),
                }
            }
            let told = |n: &usize| self.keepers[*n].up.as_ref().is_some_and(|u| u.told);
            let Some(node) = (0..self.size()).find(told) else { return Ok(()) };
            if let Some(up) = &mut self.keepers[node].up {
                up.told = false;
            }
            self.drained(node)?;
            self.wake(node);
        }
    }

    fn step_cell(&mut self, node: usize, cell: CellId, input: Input) -> Checked {
        let now = self.keepers[node].now(self.now);
        let has_pods = self.is_of_pods(cell);
        let Some(seat) = self.keepers[node].up.as_mut().and_then(|u| u.seats.get_mut(&cell)) else { return Ok(()) };
        self.counts.steps += 1;
        let mut fx = Vec::new();
        seat.cell.step(now, input, &mut fx);
        seat.cell.check();
        let member = seat.cell.member();
        // One that has lost what it acknowledged is deaf: what it has is nothing anybody goes by.
        let lossy = member.replica().is_lossy();
        if let Some(truth) = self.truths.get_mut(&cell).filter(|_| !lossy) {
            truth.applied.observe(node, member)?;
            truth.promise.kept(&truth.applied)?;
            if member.replica().role() == raft::Role::Leader {
                truth.election.leads(node, member.replica().term())?;
            }
        }
        if let Some(pods) = self.pods.as_mut().filter(|_| has_pods && !lossy) {
            pods.observe(member)?;
        }
        if let Some(control) = self.control.as_mut().filter(|_| has_pods && !lossy) {
            control.observe(member)?;
        }
        if let Some(control) = self.control.as_mut().filter(|_| !lossy) {
            match cell {
                ROOT => control.shared.observe_root(member)?,
                _ => control.shared.observe(cell, member)?,
            }
        }
        for effect in fx {
            self.take(node, cell, effect)?;
        }
        self.leases(cell)?;
        self.wake(node);
        Ok(())
    }

    fn leases(&self, cell: CellId) -> Checked {
        let holds = |n: &usize| {
            let k = &self.keepers[*n];
            let now = k.now(self.now).mono;
            k.cell(cell).is_some_and(|c| c.member().replica().lease_until(now).is_some())
        };
        let holders: Vec<usize> = (0..self.size()).filter(holds).collect();
        self.truths.get(&cell).map_or(Ok(()), |t| t.election.leases(&holders))
    }

    fn step_pair(&mut self, node: usize, other: usize, input: heartbeat::Input) {
        let now = self.keepers[node].now(self.now).mono;
        let Some(up) = &mut self.keepers[node].up else { return };
        let Some(pair) = up.pairs.get_mut(&other) else { return };
        let mut fx = Vec::new();
        pair.step(now, input, &mut fx);
        pair.check();
        for effect in fx {
            let (cell, input) = match effect {
                heartbeat::Effect::Send(m) => {
                    self.send(node, other, Packet::Beat(m.encode()));
                    continue;
                }
                heartbeat::Effect::Answered { cell, from, term, sent } => {
                    (cell, raft::Input::Answered { from, term, sent })
                }
                heartbeat::Effect::Strayed { cell, from } => (cell, raft::Input::Strayed { from }),
                heartbeat::Effect::Restarted { cell, from } => (cell, raft::Input::Restarted { from }),
                heartbeat::Effect::Unfollowed { cell, id, last } => (cell, raft::Input::Unfollowed { id, last }),
            };
            self.local.push_back(Local::Cell(node, cell, Input::Heartbeat(input)));
        }
        self.wake(node);
    }

    fn take(&mut self, node: usize, cell: CellId, effect: Effect) -> Checked {
        self.overhear(node, cell, &effect);
        match effect {
            Effect::Reply(reply) => self.reply(node, reply)?,
            Effect::Persist { ticket, records, vital } => {
                self.persist(node, Persist { cell, ticket, vital, records })?;
            }
            Effect::Carried { question, ticket, records } => {
                self.carried(node, cell, question, Persist { cell, ticket, vital: true, records });
            }
            Effect::CarriedLater { question } => {
                self.command(node, Command::Carried { question, cell, answer: Answer::Later });
            }
            Effect::Resume => self.command(node, Command::Resume(cell)),
            Effect::Live { bytes } => self.command(node, Command::Live { cell, bytes }),
            Effect::Send { to, message } => {
                let to = index_of(to);
                self.lie_in_wait(node, to, &message);
                self.send(node, to, Packet::Raft(message.encode()));
            }
            Effect::Pair { node: other, input } => self.local.push_back(Local::Pair(node, index_of(other), input)),
            Effect::Kept(_) => self.kept(node, cell),
            Effect::KeeperLossy { replica } => {
                self.local.push_back(Local::Keeping(node, cell, keeping::Input::Lossy(replica)));
            }
            Effect::Ended => self.ended(node, cell),
            Effect::Bundle(bundle) => self.local.push_back(Local::Bundle(node, bundle)),
            Effect::Events { changes, .. } => self.events(node, cell, &changes)?,
            Effect::Replaced => {
                self.counts.snapshots += 1;
                self.unwatch(node, Some(cell));
            }
            Effect::Leading(false) => {
                self.look_at_keepers(node, cell);
                if self.is_of_pods(cell) {
                    self.unled(node);
                }
                self.control_over(node, cell);
                // Half of the watchers stay where they are: a follower tells its changes as well.
                if self.dice.clients.below(2) == 0 {
                    self.unwatch(node, Some(cell));
                }
            }
            Effect::Committed { term, objects, changes } => {
                if self.is_of_pods(cell) {
                    self.committed(node, term, objects.clone(), changes.clone());
                }
                self.control_committed(node, cell, term, controllers::Input::Committed { objects, changes });
            }
            Effect::Closed { revision } => {
                if let Some(truth) = self.truths.get_mut(&cell) {
                    truth.promise.closed(revision);
                }
            }
            Effect::Stopped { why } => return Err(Violation { checker: "invariant", what: why }),
            Effect::Leading(true) => self.look_at_keepers(node, cell),
            Effect::Progress { .. } | Effect::Subscribed { .. } => {}
        }
        Ok(())
    }

    /// Has a node woken when the first of its machines wants to be.
    pub(super) fn wake(&mut self, node: usize) {
        let k = &mut self.keepers[node];
        let Some(up) = &k.up else { return };
        let cells = up.seats.values().map(|s| s.cell.next_deadline());
        let keeping = up.keeps.machines.values().map(Keeping::next_deadline);
        let deadlines =
            up.pairs.values().map(Pair::next_deadline).chain(cells).chain(keeping).chain([up.log.next_deadline()]);
        let Some(at) = deadlines.flatten().min().filter(|t| *t != Time::NEVER) else { return };
        let at = k.clock.when(at).max(self.now + 1);
        let Some(up) = &mut k.up else { return };
        if at >= up.woken_at && up.woken_at > self.now {
            return;
        }
        up.woken_at = at;
        let boot = k.boot;
        self.at(at - self.now, Event::Wake { node, boot });
    }

    pub(super) fn tick(&mut self, node: usize) -> Checked {
        let now = self.keepers[node].now(self.now).mono;
        let Some(up) = &mut self.keepers[node].up else { return Ok(()) };
        up.woken_at = u64::MAX;
        let due = |d: Option<Time>| d.is_some_and(|d| d <= now);
        let pairs: Vec<usize> = up.pairs.iter().filter(|(_, p)| due(p.next_deadline())).map(|(o, _)| *o).collect();
        let cells: Vec<CellId> =
            up.seats.iter().filter(|(_, s)| due(s.cell.next_deadline())).map(|(c, _)| *c).collect();
        let kept = up.keeps.machines.iter().filter(|(_, k)| due(k.next_deadline())).map(|(c, _)| *c);
        self.local.extend(kept.map(|cell| Local::Look(node, cell)));
        if due(up.log.next_deadline()) {
            up.told = true;
            self.step_log(node, disk::Input::Tick)?;
        }
        self.local.extend(pairs.into_iter().map(|other| Local::Pair(node, other, heartbeat::Input::Tick)));
        self.local.extend(cells.into_iter().map(|cell| Local::Cell(node, cell, Input::Tick)));
        self.settle()?;
        self.wake(node);
        Ok(())
    }
}
