//! Beside each replica that leads: who should keep its cell, carried out (section 5.1 of the architecture).
//!
//! It gathers what [`decide::keepers`] looks at: which nodes there are and what the mesh wants of them, who is heard, how
//! far the cell's members have come. Of a plan it makes orders: begin to learn ([`Effect::Seat`]), change the members
//! ([`Effect::Keep`]), hand over ([`Effect::Transfer`]), and, once those who keep the cell from then on have it on their
//! disks, forget it ([`Effect::End`]). Orders to other nodes may be lost: they are said again until what they ask for is
//! seen. Nothing here is durable: a new leader sees all of it anew, but for who kept the cell before. That it knows if its
//! own replica has seen them go; else such a one says so itself ([`Input::Former`]).
//!
//! Unknown is not gone: a member whose node it was told nothing about is left where it is. Only a node that is said to
//! leave or to be expelled loses its place for that.

pub mod orders;

use crate::cell::Cell;
use agree::descriptor::{Descriptor, Keeper};
use base::{CellId, Chance, NodeId, ReplicaId, Time};
use core::time::Duration;
use decide::keepers::{Member, Node, Observed, Plan, Policy, Reason, Step, Wanted, plan};
use std::collections::{BTreeMap, BTreeSet};

/// It looks at least so often.
const LOOK: Duration = Duration::from_secs(2);
/// Lives that are to be ended, at most; of more the first is forgotten, and its node has to say that it has it.
const FORMER_MAX: usize = 64;

/// What is known of a node beside whether it is heard.
#[derive(Clone, PartialEq, Debug)]
pub struct Known {
    /// Whether it has the role the cell needs: keeper, or authority for root.
    pub has_role: bool,
    /// What the mesh wants of it.
    pub wanted: Wanted,
    /// Its disk has lost what was on it.
    pub is_lossy: bool,
    /// `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// When its process started, on this node's clock.
    pub began: Time,
    /// How near it is to what the cell is for; see [`Node::near`].
    pub near: u8,
    /// Cells that it keeps.
    pub cells: usize,
    /// Cells that its replicas lead.
    pub leads: usize,
    /// Snapshots under way to or from it.
    pub snapshots: usize,
}

/// A cell's replica here, as it is at one moment.
#[derive(Clone, PartialEq, Debug)]
pub struct View {
    /// Whether it leads.
    pub leads: bool,
    /// Whether members may be changed.
    pub may_change: bool,
    /// Whether the members in force are on the disk here.
    pub is_durable: bool,
    /// The descriptor in force.
    pub now: Descriptor,
    /// Whether those before it vote as well, yet.
    pub is_joint: bool,
    /// Its last index.
    pub last: u64,
    /// How far the others have come.
    pub matched: BTreeMap<ReplicaId, u64>,
}

impl View {
    /// What a replica is like.
    pub fn of(cell: &Cell) -> View {
        let (replica, keepers) = (cell.member().replica(), cell.member().cell().keepers());
        let matched = |k: &Keeper| Some((k.replica, replica.peer(k.replica)?.matched));
        View {
            leads: cell.is_leading(),
            may_change: replica.may_change(),
            is_durable: replica.members_are_durable(),
            now: keepers.now.clone(),
            is_joint: keepers.before.is_some(),
            last: replica.last().0,
            matched: keepers.now.keepers.iter().filter_map(matched).collect(),
        }
    }
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// [`Keeping::next_deadline`] has come, or the cell has changed: this is how it is.
    Look(View),
    /// How many voters are wanted ([`decide::keepers::voters_wanted`]).
    Wanted(usize),
    /// These are all nodes that are known, this one among them. Before the first such word nothing is planned.
    Nodes(BTreeMap<NodeId, Known>),
    /// A heartbeat of this node came, or an answer to one.
    Heard(NodeId),
    /// A member says that it has lost what it acknowledged.
    Lossy(ReplicaId),
    /// A keeper says that the members of this epoch are in force on its disk.
    Confirmed {
        /// The keeper.
        replica: ReplicaId,
        /// The epoch. A later one than that of the leader's own members says that it leads no more, and confirms nothing.
        epoch: u64,
    },
    /// A node says that it has this life of the cell, and does not find it among the keepers.
    Former(NodeId, ReplicaId),
    /// A node has nothing of that life any more.
    Ended(NodeId, ReplicaId),
}

/// What to do.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Have this node begin this life of the cell, if it has none: a replica that waits for a snapshot.
    Seat {
        /// The node.
        node: NodeId,
        /// The cell.
        cell: CellId,
        /// The life.
        replica: ReplicaId,
    },
    /// [`crate::cell::Input::Keep`], to the replica here.
    Keep {
        /// The epoch.
        epoch: u64,
        /// The keepers.
        keepers: Vec<Keeper>,
    },
    /// [`agree::raft::Input::Transfer`], to the replica here.
    Transfer {
        /// To whom.
        to: ReplicaId,
    },
    /// Ask these keepers to say [`Input::Confirmed`] of this epoch.
    Confirm {
        /// The nodes of those that have not.
        nodes: Vec<NodeId>,
        /// The epoch.
        epoch: u64,
    },
    /// Have this node forget this life of the cell: a quorum of those who keep it says so.
    End {
        /// The node.
        node: NodeId,
        /// The cell.
        cell: CellId,
        /// The life.
        replica: ReplicaId,
    },
    /// What was thought, whenever it is something else than before: for `beemesh cells`, and the log.
    Reasons(Vec<Reason>),
}

#[derive(Clone, Copy)]
struct Heard {
    last: Time,
    since: Time,
}

/// The machine beside one replica.
pub struct Keeping {
    cell: CellId,
    node: NodeId,
    policy: Policy,
    chance: Chance,
    wanted: usize,
    nodes: Option<BTreeMap<NodeId, Known>>,
    heard: BTreeMap<NodeId, Heard>,
    lossy: BTreeSet<ReplicaId>,
    /// Since when this replica leads.
    leads_since: Option<Time>,
    /// The keepers as last seen, and those of before that are to be let go.
    seen: Option<Descriptor>,
    former: BTreeMap<ReplicaId, NodeId>,
    confirmed: BTreeMap<ReplicaId, u64>,
    reasons: Vec<Reason>,
    next: Option<Time>,
}

impl Keeping {
    /// The machine beside the replica of a cell on `node`.
    pub fn new(cell: CellId, node: NodeId, policy: Policy, chance: &Chance) -> Keeping {
        Keeping {
            cell,
            node,
            policy,
            chance: chance.stream("keeping"),
            wanted: 3,
            nodes: None,
            heard: BTreeMap::new(),
            lossy: BTreeSet::new(),
            leads_since: None,
            seen: None,
            former: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            reasons: Vec::new(),
            next: None,
        }
    }

    /// Takes one input and appends what is to be done.
    pub fn step(&mut self, now: Time, input: Input, fx: &mut Vec<Effect>) {
        match input {
            Input::Look(view) => self.look(now, &view, fx),
            Input::Wanted(n) => self.wanted = n,
            Input::Nodes(nodes) => {
                self.heard.retain(|n, _| nodes.contains_key(n));
                // Nobody is there to answer; should it come back, it says what it has.
                self.former.retain(|_, n| nodes.contains_key(n));
                self.nodes = Some(nodes);
            }
            Input::Heard(node) => {
                let h = self.heard.entry(node).or_insert(Heard { last: now, since: now });
                if now.since(h.last) >= self.policy.learner_after {
                    h.since = now;
                }
                h.last = h.last.max(now);
            }
            Input::Lossy(replica) => {
                self.lossy.insert(replica);
            }
            Input::Confirmed { replica, epoch } => {
                let is_keeper = self.seen.iter().flat_map(|d| &d.keepers).any(|k| k.replica == replica);
                if is_keeper {
                    let known = self.confirmed.entry(replica).or_default();
                    *known = epoch.max(*known);
                }
            }
            Input::Former(node, replica) => {
                let is_keeper = self.seen.as_ref().is_none_or(|d| d.keepers.iter().any(|k| k.replica == replica));
                if self.leads_since.is_some() && !is_keeper {
                    self.let_go(replica, node);
                }
            }
            Input::Ended(node, replica) => {
                if self.former.get(&replica) == Some(&node) {
                    self.former.remove(&replica);
                }
            }
        }
    }

    /// When it is to be told how the cell is. `None` while it does not lead: tell it when that changes, or the keepers do.
    pub fn next_deadline(&self) -> Option<Time> {
        self.next
    }

    /// Asserts what must hold between steps.
    pub fn check(&self) {
        assert!(self.former.len() <= FORMER_MAX, "more former keepers than the bound");
        let kept = |r: &ReplicaId| self.seen.iter().flat_map(|d| &d.keepers).any(|k| k.replica == *r);
        assert!(!self.former.keys().any(kept), "a keeper is to be let go");
    }

    fn let_go(&mut self, replica: ReplicaId, node: NodeId) {
        self.former.insert(replica, node);
        if self.former.len() > FORMER_MAX {
            self.former.pop_first();
        }
    }

    fn look(&mut self, now: Time, view: &View, fx: &mut Vec<Effect>) {
        // Whoever leads next finds those whom the last leader left to be let go, itself among them perhaps.
        self.notice(view);
        if !view.leads {
            self.leads_since = None;
            self.next = None;
            return;
        }
        if self.leads_since.is_none() {
            // Nobody had to be heard here before: their silence counts from now.
            self.leads_since = Some(now);
            self.heard.values_mut().for_each(|h| h.last = h.last.max(now));
        }
        self.next = Some(now + LOOK);
        // Before the joint state is left on its disk as well it may need the former ones to be elected.
        if view.is_durable && !view.is_joint {
            let own = view.now.keepers.iter().find(|k| k.node == self.node);
            self.confirmed.extend(own.map(|k| (k.replica, view.now.epoch)));
        }
        self.end_former(view, fx);
        self.seat_learners(view, fx);
        let Some(observed) = self.observed(now, view) else { return };
        let Plan { step, reasons, again } = plan(&observed, &self.policy);
        if reasons != self.reasons {
            self.reasons.clone_from(&reasons);
            fx.push(Effect::Reasons(reasons));
        }
        self.next = again.into_iter().chain(self.next).min();
        match step {
            None => {}
            Some(Step::Transfer { to }) => fx.push(Effect::Transfer { to }),
            Some(Step::Keep { epoch, keepers }) => {
                let mut life =
                    |replica: Option<ReplicaId>| replica.unwrap_or_else(|| ReplicaId(self.chance.u64().max(1)));
                let keepers =
                    keepers.into_iter().map(|k| Keeper { replica: life(k.replica), node: k.node, votes: k.votes });
                fx.push(Effect::Keep { epoch, keepers: keepers.collect() });
            }
        }
    }

    /// Who is a keeper no more is to be let go.
    fn notice(&mut self, view: &View) {
        let is_kept = |r: ReplicaId| view.now.keepers.iter().any(|k| k.replica == r);
        let before = self.seen.replace(view.now.clone());
        for k in before.into_iter().flat_map(|d| d.keepers).filter(|k| !is_kept(k.replica)) {
            self.let_go(k.replica, k.node);
        }
        self.former.retain(|r, _| !is_kept(*r));
        self.lossy.retain(|r| is_kept(*r));
        self.confirmed.retain(|r, _| is_kept(*r));
    }

    /// Whoever keeps it now has to say that it is so, of what is on a quorum's disks: until then a former one may be needed.
    fn end_former(&self, view: &View, fx: &mut Vec<Effect>) {
        if self.former.is_empty() || view.is_joint {
            return;
        }
        let epoch = view.now.epoch;
        let says = |k: &&Keeper| self.confirmed.get(&k.replica).is_some_and(|e| *e == epoch);
        let voters = || view.now.keepers.iter().filter(|k| k.votes);
        if voters().filter(says).count() <= voters().count() / 2 {
            let nodes = voters().filter(|k| !says(k) && k.node != self.node).map(|k| k.node).collect();
            fx.push(Effect::Confirm { nodes, epoch });
            return;
        }
        let cell = self.cell;
        fx.extend(self.former.iter().map(|(replica, node)| Effect::End { node: *node, cell, replica: *replica }));
    }

    /// Members that hold nothing may not have been told that they are. On a node that has another life yet, that one ends
    /// first.
    fn seat_learners(&self, view: &View, fx: &mut Vec<Effect>) {
        let has_nothing =
            |k: &&Keeper| !k.votes && k.node != self.node && view.matched.get(&k.replica).is_none_or(|m| *m == 0);
        let is_free = |k: &&Keeper| !self.former.values().any(|n| *n == k.node);
        let new = view.now.keepers.iter().filter(has_nothing).filter(is_free);
        fx.extend(new.map(|k| Effect::Seat { node: k.node, cell: self.cell, replica: k.replica }));
    }

    fn observed(&self, now: Time, view: &View) -> Option<Observed> {
        let known = self.nodes.as_ref()?;
        let heard = |id: &NodeId| match self.heard.get(id) {
            _ if *id == self.node => Heard { last: now, since: Time::ZERO },
            Some(h) => *h,
            // Never heard: as if when it began to lead here.
            None => Heard { last: self.leads_since.unwrap_or(now), since: self.leads_since.unwrap_or(now) },
        };
        let node = |(id, k): (&NodeId, &Known)| Node {
            id: *id,
            has_role: k.has_role,
            wanted: k.wanted,
            is_lossy: k.is_lossy,
            zone: k.zone.clone(),
            up_for: now.since(k.began),
            heard: heard(id).last,
            heard_since: heard(id).since,
            near: k.near,
            cells: k.cells,
            leads: k.leads,
            snapshots: k.snapshots,
        };
        let unknown = Known {
            has_role: true,
            wanted: Wanted::Stays,
            is_lossy: false,
            zone: None,
            began: now,
            near: 0,
            cells: 0,
            leads: 0,
            snapshots: 0,
        };
        let mut nodes: Vec<Node> = known.iter().map(node).collect();
        let strangers = view.now.keepers.iter().filter(|k| !known.contains_key(&k.node));
        nodes.extend(strangers.map(|k| node((&k.node, &unknown))));
        let member = |k: &Keeper| Member {
            replica: k.replica,
            node: k.node,
            votes: k.votes,
            matched: view.matched.get(&k.replica).copied().unwrap_or_default(),
            is_lossy: self.lossy.contains(&k.replica),
        };
        Some(Observed {
            now,
            cell: self.cell,
            epoch: view.now.epoch,
            wanted: self.wanted,
            leader: self.node,
            leads_since: self.leads_since.unwrap_or(now),
            is_changing: !view.may_change || view.is_joint,
            last: view.last,
            members: view.now.keepers.iter().map(member).collect(),
            nodes,
        })
    }
}
