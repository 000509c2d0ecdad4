//! A small mesh from a seed: nodes fail, come back, join, leave, are expelled, drained and lose their disks; a leader
//! observes, plans, and has its plans carried out. What must hold is asserted at each step, and at the end all is as wanted.

use super::*;
use base::{Chance, Uid};
use std::collections::{BTreeMap, BTreeSet};

struct Machine {
    is_up: bool,
    wanted: Wanted,
    is_lossy: bool,
    zone: u64,
    began: u64,
    heard: u64,
    heard_since: u64,
}

#[derive(Clone, Copy, Debug)]
struct Life {
    node: u64,
    votes: bool,
    matched: u64,
    is_lossy: bool,
}

struct Mesh {
    dice: Chance,
    /// Seconds.
    now: u64,
    machines: BTreeMap<u64, Machine>,
    members: BTreeMap<u64, Life>,
    leader: u64,
    leads_since: u64,
    epoch: u64,
    last: u64,
    next_life: u64,
    wanted: usize,
    /// The other half of a joint state, until when.
    changing: Option<(BTreeSet<u64>, u64)>,
    events: u64,
    moves: u64,
}

fn id(n: u64) -> NodeId {
    let mut id = [1; 32];
    id[..8].copy_from_slice(&n.to_le_bytes());
    NodeId(id)
}

fn number(id: NodeId) -> u64 {
    u64::from_le_bytes(id.0[..8].try_into().unwrap())
}

impl Mesh {
    fn new(seed: u64) -> Mesh {
        let mut dice = Chance::from_u64(seed);
        let wanted = [1, 3, 3, 5][dice.below(4) as usize];
        let mut mesh = Mesh {
            dice,
            now: 1_000,
            machines: BTreeMap::new(),
            members: BTreeMap::new(),
            leader: 1,
            leads_since: 0,
            epoch: 1,
            last: 1_000,
            next_life: 100,
            wanted,
            changing: None,
            events: 0,
            moves: 0,
        };
        (1..=mesh.dice.range(1, 8)).for_each(|n| mesh.join(n));
        mesh.members.insert(1, Life { node: 1, votes: true, matched: 1_000, is_lossy: false });
        mesh
    }

    fn join(&mut self, n: u64) {
        let zone = self.dice.below(3);
        let (now, wanted) = (self.now, Wanted::Stays);
        let machine = Machine { is_up: true, wanted, is_lossy: false, zone, began: now, heard: now, heard_since: now };
        self.machines.insert(n, machine);
    }

    fn is_up(&self, node: u64) -> bool {
        self.machines.get(&node).is_some_and(|m| m.is_up)
    }

    fn decides(&self, life: &Life) -> bool {
        life.votes && self.is_up(life.node) && !life.is_lossy
    }

    /// As far as can be known: it was heard just now.
    fn seems_up(&self, node: u64) -> bool {
        self.machines.get(&node).is_some_and(|m| m.is_up || self.now - m.heard < 5)
    }

    fn seems_to_have_quorum(&self) -> bool {
        let up = self.voters().filter(|l| self.seems_up(l.node) && !l.is_lossy).count();
        up > self.voters().count() / 2
    }

    fn voters(&self) -> impl Iterator<Item = &Life> {
        self.members.values().filter(|m| m.votes)
    }

    fn has_quorum(&self) -> bool {
        let half = |voters: Vec<&Life>| voters.iter().filter(|v| self.decides(v)).count() > voters.len() / 2;
        half(self.voters().collect())
    }

    fn observed(&self) -> Observed {
        let time = |s: u64| Time::from_ms(1_000 * s);
        let node = |(n, m): (&u64, &Machine)| Node {
            id: id(*n),
            has_role: true,
            wanted: m.wanted,
            is_lossy: m.is_lossy,
            zone: Some(m.zone.to_string()),
            up_for: Duration::from_secs(self.now - m.began),
            heard: time(m.heard),
            heard_since: time(m.heard_since),
            near: 0,
            cells: 0,
            leads: 0,
            snapshots: self.members.values().filter(|l| (l.node == *n || *n == self.leader) && l.matched == 0).count(),
        };
        let member = |(r, l): (&u64, &Life)| Member {
            replica: ReplicaId(*r),
            node: id(l.node),
            votes: l.votes,
            matched: l.matched,
            is_lossy: l.is_lossy,
        };
        Observed {
            now: time(self.now),
            cell: CellId(Uid(7)),
            epoch: self.epoch,
            wanted: self.wanted,
            leader: id(self.leader),
            leads_since: time(self.leads_since),
            is_changing: self.changing.is_some(),
            last: self.last,
            members: self.members.iter().map(member).collect(),
            nodes: self.machines.iter().map(node).collect(),
        }
    }

    /// Carries a plan out, having made sure that it may be.
    fn apply(&mut self, plan: &Plan) {
        match &plan.step {
            None => {}
            Some(Step::Transfer { to }) => {
                let to = self.members[&to.0];
                assert!(
                    to.votes && self.seems_up(to.node) && !to.is_lossy,
                    "leadership goes to one that does not answer"
                );
                self.lead(to.node);
            }
            Some(Step::Keep { epoch, keepers }) => {
                assert_eq!(*epoch, self.epoch);
                assert!(self.seems_to_have_quorum(), "changed without a quorum");
                let nodes: BTreeSet<NodeId> = keepers.iter().map(|k| k.node).collect();
                assert_eq!(nodes.len(), keepers.len(), "a node twice");
                let before = self.members.clone();
                let had = self.voters().count();
                let (gone, lost) = (
                    self.voters().any(|v| self.machines.get(&v.node).is_none_or(|m| m.wanted >= Wanted::Leaving)),
                    self.voters().any(|v| v.is_lossy),
                );
                self.members.clear();
                for k in keepers {
                    let life = k.replica.map_or(self.next_life, |r| r.0);
                    self.next_life += u64::from(k.replica.is_none());
                    let node = number(k.node);
                    let known = before.get(&life).copied();
                    let fresh = Life { node, votes: false, matched: 0, is_lossy: false };
                    let known = known.unwrap_or(fresh);
                    assert_eq!(known.node, node, "a life on another node");
                    if k.votes && !known.votes {
                        assert!(
                            known.matched > 0 && known.matched + LAG_MAX >= self.last,
                            "votes before it has caught up"
                        );
                        assert!(self.seems_up(node) && !known.is_lossy, "a vote for one that does not answer");
                    }
                    self.members.insert(life, Life { votes: k.votes, ..known });
                }
                let have = self.voters().count();
                assert!(self.seems_to_have_quorum(), "a quorum was lost by our own hand");
                assert!(have % 2 == 1 || (lost && have + 1 == had) || have == had, "{had} voters, then {have}");
                assert!(have != 2 || had == 2 || lost, "two voters");
                assert!(
                    have >= had || gone || had > self.wanted || lost || had == 4,
                    "failure took votes away: {had}, then {have}"
                );
                let outgoing: BTreeSet<u64> = before.iter().filter(|b| b.1.votes).map(|b| *b.0).collect();
                let is_joint =
                    self.members.iter().filter(|m| m.1.votes).map(|m| *m.0).collect::<BTreeSet<_>>() != outgoing;
                self.changing = is_joint.then(|| (outgoing, self.now + 2));
                self.epoch += 1;
                self.moves += 1;
                self.elect();
            }
        }
    }

    fn lead(&mut self, node: u64) {
        (self.leader, self.leads_since) = (node, self.now);
        // A new leader has heard nobody before.
        for m in self.machines.values_mut() {
            m.heard = m.heard.max(self.now);
        }
    }

    /// Somebody leads, if anybody can.
    fn elect(&mut self) {
        let leads = self.members.values().any(|l| l.node == self.leader && self.decides(l));
        if !leads && self.has_quorum() {
            let able: Vec<Life> =
                self.voters().filter(|l| self.decides(l) && l.matched + LAG_MAX >= self.last).copied().collect();
            if let Some(next) = able.first() {
                self.lead(next.node);
            }
        }
    }

    /// So many seconds pass.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += 1;
            self.changing.take_if(|c| self.now >= c.1);
            self.elect();
            let leads = self.has_quorum() && self.members.values().any(|l| l.node == self.leader && self.decides(l));
            for m in self.machines.values_mut().filter(|m| m.is_up) {
                if self.now - m.heard >= 30 {
                    m.heard_since = self.now;
                }
                m.heard = self.now;
            }
            if !leads {
                continue;
            }
            self.last += 1;
            for l in self.members.values_mut() {
                if self.machines.get(&l.node).is_some_and(|m| m.is_up) && !l.is_lossy {
                    // A snapshot takes a while.
                    let far = l.matched == 0 || self.last - l.matched > 1_000;
                    l.matched =
                        if far { l.matched.max(self.last.saturating_sub(900)) } else { self.last.min(l.matched + 300) };
                }
            }
            let o = self.observed();
            let p = plan(&o, &Policy::default());
            assert!(p.again.is_none_or(|at| at > o.now), "asked to ask at once");
            self.apply(&p);
            if p.step.is_some() && self.changing.is_none() {
                let mut then = self.observed();
                // A snapshot that ended with its learner makes room for another: that is something that has happened.
                for (n, was) in then.nodes.iter_mut().zip(&o.nodes) {
                    n.snapshots = n.snapshots.max(was.snapshots);
                }
                let again = plan(&then, &Policy::default()).step;
                let handed_over = matches!(p.step, Some(Step::Transfer { .. }));
                // From another leader's node another snapshot may begin; nobody hands it back.
                let is_more = matches!(again, Some(Step::Keep { .. })) && !handed_over;
                let is_back = matches!(again, Some(Step::Transfer { .. }));
                assert!(!is_more && !is_back, "more to do at once after {p:?}: {again:?}");
            }
        }
    }

    /// What might happen to it, as long as a quorum is left.
    fn happen(&mut self) {
        let nodes: Vec<u64> = self.machines.keys().copied().collect();
        let n = *self.dice.pick(&nodes).unwrap();
        // The voters without this one.
        let others: Vec<Life> = self.voters().filter(|l| l.node != n && self.decides(l)).copied().collect();
        let is_safe = others.len() > self.voters().count() / 2 && self.changing.is_none();
        let is_idle = !self.members.values().any(|l| l.node == n);
        self.events += 1;
        match self.dice.below(9) {
            0 | 1 => self.machines.get_mut(&n).unwrap().is_up &= !(is_safe || is_idle),
            2 | 3 => {
                let now = self.now;
                let m = self.machines.get_mut(&n).unwrap();
                if !m.is_up {
                    (m.is_up, m.began) = (true, now);
                }
            }
            4 if nodes.len() < 9 => {
                let new = nodes.last().unwrap() + 1;
                self.join(new);
            }
            5 if nodes.len() > 1 => self.machines.get_mut(&n).unwrap().wanted = Wanted::Leaving,
            6 if is_safe && nodes.len() > 3 => {
                let m = self.machines.get_mut(&n).unwrap();
                (m.wanted, m.is_up) = (Wanted::Expelled, false);
            }
            7 => {
                let m = self.machines.get_mut(&n).unwrap();
                m.wanted = match m.wanted {
                    Wanted::Stays => Wanted::Draining,
                    Wanted::Draining => Wanted::Stays,
                    other => other,
                };
            }
            8 if is_safe && self.is_up(n) => {
                self.members.values_mut().filter(|l| l.node == n).for_each(|l| l.is_lossy = true)
            }
            _ => {}
        }
        // Who has left is gone once nothing of it is needed.
        let members: BTreeSet<u64> = self.members.values().map(|l| l.node).collect();
        self.machines.retain(|n, m| m.wanted < Wanted::Leaving || members.contains(n) || nodes.len() == 1);
        if self.machines.is_empty() {
            self.join(nodes.last().unwrap() + 1);
        }
    }

    fn check_end(&self) {
        let fit = |m: &&Machine| m.wanted == Wanted::Stays;
        let able = self.machines.values().filter(fit).count();
        let want = if able >= self.wanted {
            self.wanted
        } else if able >= 3 {
            3
        } else {
            1
        };
        let have: Vec<&Life> = self.voters().collect();
        let who = format!("{:?} of {able} able, {} wanted", self.members, self.wanted);
        // Where nobody else can come, one that is drained keeps its vote.
        if able > 0 {
            assert!(
                have.len() == want
                    || (have.len() > want && have.iter().any(|v| self.machines[&v.node].wanted == Wanted::Draining))
                    || have.len() == 2,
                "{who}"
            );
        }
        // And one on a node that takes nothing new cannot begin anew there.
        let is_drained = |v: &Life| self.machines[&v.node].wanted == Wanted::Draining;
        assert!(have.iter().all(|v| self.decides(v) || is_drained(v)), "{who}");
        let learners = self.members.len() - have.len();
        assert!(learners <= if want == 1 { 2 } else { 0 } || have.len() > want || self.wanted == 1, "surplus: {who}");
    }
}

#[test]
fn whatever_happens_no_quorum_is_lost_by_our_own_hand_and_all_ends_as_wanted() {
    let (mut moves, mut events) = (0, 0);
    for seed in 0..300 {
        let mut mesh = Mesh::new(seed);
        for _ in 0..40 {
            mesh.happen();
            let pause = [1, 20, 60, 400][mesh.dice.below(4) as usize];
            mesh.pass(pause);
        }
        // All that are wanted come back, and nothing more happens.
        let now = mesh.now;
        for m in mesh.machines.values_mut().filter(|m| !m.is_up && m.wanted < Wanted::Expelled) {
            (m.is_up, m.began) = (true, now);
        }
        mesh.pass(900);
        assert!(mesh.has_quorum(), "seed {seed}: what happened left a quorum, and there is none");
        mesh.check_end();
        let at_rest = (mesh.epoch, mesh.leader);
        mesh.pass(600);
        assert_eq!((mesh.epoch, mesh.leader), at_rest, "seed {seed}: changes at rest");
        assert!(mesh.moves <= 6 * mesh.events, "seed {seed}: {} moves after {} events", mesh.moves, mesh.events);
        (moves, events) = (moves + mesh.moves, events + mesh.events);
    }
    println!("{moves} moves after {events} events");
    assert!(moves > events / 20 && moves < events, "{moves} moves after {events} events");
}

#[test]
fn one_that_comes_and_goes_moves_nothing_but_one_learner_each_time() {
    let mut mesh = Mesh::new(1);
    mesh.wanted = 3;
    (1..=5).for_each(|n| mesh.join(n));
    mesh.pass(60);
    assert_eq!(mesh.voters().count(), 3);
    let flaps = mesh.voters().map(|v| v.node).find(|n| *n != mesh.leader).unwrap();
    let before = mesh.moves;
    for _ in 0..50 {
        // Never silent for 30 s.
        mesh.machines.get_mut(&flaps).unwrap().is_up = false;
        mesh.pass(25);
        mesh.machines.get_mut(&flaps).unwrap().is_up = true;
        mesh.pass(25);
    }
    assert_eq!(mesh.moves, before, "short silences move nothing");
    for _ in 0..50 {
        mesh.machines.get_mut(&flaps).unwrap().is_up = false;
        mesh.pass(45);
        mesh.machines.get_mut(&flaps).unwrap().is_up = true;
        mesh.pass(20);
    }
    assert!(
        mesh.moves <= before + 2,
        "one that is never back for long has one stand by, once: {}",
        mesh.moves - before
    );
    assert!(mesh.voters().any(|v| v.node == flaps), "and keeps its vote");
}
