//! Pods in the world: the scheduling leaders beside the keepers' cells, nodes that bid and run what they are
//! given on runtimes of their own, and people who make, bind and remove pods.

mod asks;
mod leaders;
mod nodes;
mod people;
mod running;

use super::{MS, SECOND, World};
use crate::checks::award::Award;
use crate::checks::{Checked, containers, ensure};
use crate::client::NAMESPACE;
use crate::host::{self, Host};
use crate::keeper::Clock;
use asks::Ask;
pub(super) use asks::Then;
use base::runtime::{Answer, Failure, Op, Seen};
use base::{CellId, Chance, Now, Time, Uid};
use decide::schedule::Book;
use node::errand::{Answered, ErrandId};
use node::pods::{self, OpId};
use node::scheduling::message::{ToLeader, ToNode};
use node::scheduling::{Leader, LeaderInput, WorkerInput};
use objects::Tree;
use running::SWEEP;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What happens to pods.
#[derive(Clone)]
pub(in crate::world) enum Happening {
    /// Somebody wants something.
    People,
    WakeLeader {
        keeper: usize,
        boot: u64,
    },
    WakeWorker {
        host: usize,
        boot: u64,
    },
    ToNode {
        host: usize,
        message: ToNode,
    },
    ToLeader {
        host: usize,
        message: ToLeader,
    },
    Restart {
        host: usize,
    },
    /// A node hears what became of its errand.
    Answered {
        host: usize,
        boot: u64,
        id: ErrandId,
        answer: Answered,
    },
    /// What runs its pods hears of one.
    Heard {
        host: usize,
        boot: u64,
        id: ErrandId,
        answer: Answered,
    },
    WakePods {
        host: usize,
        boot: u64,
    },
    /// Nothing of a pod runs at a node any more.
    Ended {
        host: usize,
        boot: u64,
        uid: Uid,
    },
    /// An operation comes to a node's runtime.
    Op {
        host: usize,
        boot: u64,
        power: u64,
        id: OpId,
        op: Box<Op>,
    },
    /// Its answer comes back.
    Done {
        host: usize,
        boot: u64,
        id: OpId,
        result: Result<Answer, Failure>,
    },
    /// A runtime is asked for all there is.
    Look {
        host: usize,
        boot: u64,
    },
    Sight {
        host: usize,
        boot: u64,
        seen: Arc<Seen>,
    },
    /// A node goes through what is on its disk.
    Sweep {
        host: usize,
        boot: u64,
    },
    /// A node notices that its runtime is away, or back.
    Runtime {
        host: usize,
    },
    Arrives {
        ask: u64,
        attempt: u64,
    },
    Again {
        ask: u64,
        attempt: u64,
    },
    /// A leader is told of the Nodes that are known at its keeper.
    Nodes {
        keeper: usize,
        boot: u64,
    },
    Fault,
}

/// The pods' part of the world.
pub(in crate::world) struct Scene {
    dice: Chance,
    of_runtimes: Chance,
    hosts: Vec<Host>,
    /// By keeper, while it leads: the term, and the machine.
    leaders: BTreeMap<usize, (u64, Leader)>,
    /// When each is woken next, in virtual nanoseconds.
    woken_at: BTreeMap<usize, u64>,
    asks: BTreeMap<u64, Ask>,
    next: u64,
    /// The last number a leader of this term has told a node, for the bug at that port.
    told: BTreeMap<(u64, usize), u64>,
    award: Award,
    pub(super) started: u64,
    pub(super) refused: u64,
    pub(super) crashes: u64,
    pub(super) power_cuts: u64,
    pub(super) away: u64,
}

impl Scene {
    /// Those that run pods of controllers have room for all of them.
    pub(super) fn new(chance: &Chance, controlled: bool) -> Scene {
        let mut dice = chance.stream("pods");
        let count = dice.range(1, 5) as usize;
        let mut host = |n| {
            let cpu = dice.range(2, 5);
            Host::new(
                n,
                cpu,
                if controlled { 40 } else { 8 },
                Clock { start_ns: dice.below(1 << 40), rate: dice.range(960, 1_041), ahead_ms: 0 },
            )
        };
        let hosts = (0..count).map(&mut host).collect();
        Scene {
            dice,
            of_runtimes: chance.stream("runtimes"),
            hosts,
            leaders: BTreeMap::new(),
            woken_at: BTreeMap::new(),
            asks: BTreeMap::new(),
            next: 0,
            told: BTreeMap::new(),
            award: Award::default(),
            started: 0,
            refused: 0,
            crashes: 0,
            power_cuts: 0,
            away: 0,
        }
    }

    pub(super) fn observe(&mut self, member: &agree::cell::Member) -> Checked {
        self.award.observe(member)
    }

    pub(super) fn awards(&self) -> u64 {
        self.award.awards
    }
}

impl World {
    fn scene(&mut self, delay: u64, happening: Happening) {
        self.at(delay, super::Event::Pods(happening));
    }

    /// The cell in which pods are, once root names its namespace.
    fn cell_of_pods(&self) -> Option<CellId> {
        self.names.get(NAMESPACE).copied()
    }

    /// Whether pods are in this cell.
    pub(super) fn is_of_pods(&self, cell: CellId) -> bool {
        self.cell_of_pods() == Some(cell)
    }

    /// Once there is a namespace the nodes start, and people come.
    pub(super) fn begin_pods(&mut self) -> Checked {
        if self.cell_of_pods().is_none() {
            self.at(100 * MS, super::Event::BeginPods);
            return Ok(());
        }
        let count = self.pods.as_ref().map_or(0, |s| s.hosts.len());
        for host in 0..count {
            self.start_host(host)?;
        }
        if self.control.is_none() {
            self.scene(300 * MS, Happening::People);
        }
        self.begin_control();
        self.scene(SECOND, Happening::Fault);
        Ok(())
    }

    pub(super) fn happen_to_pods(&mut self, happening: Happening) -> Checked {
        let now = self.now;
        let Some(s) = &mut self.pods else { return Ok(()) };
        let boot_of = |keepers: &[crate::keeper::Keeper], k: usize| keepers.get(k).map_or(0, |k| k.boot);
        match happening {
            Happening::People => {
                self.people();
                Ok(())
            }
            Happening::WakeLeader { keeper, boot } if boot_of(&self.keepers, keeper) == boot => {
                s.woken_at.remove(&keeper);
                self.lead(keeper, LeaderInput::Tick);
                Ok(())
            }
            Happening::WakeWorker { host, boot } if s.hosts[host].boot == boot => {
                if let Some(up) = &mut s.hosts[host].up {
                    up.woken_at.0 = u64::MAX;
                }
                self.work(host, WorkerInput::Tick)
            }
            Happening::WakePods { host, boot } if s.hosts[host].boot == boot => {
                if let Some(up) = &mut s.hosts[host].up {
                    up.woken_at.1 = u64::MAX;
                }
                self.run(host, pods::Input::Tick)
            }
            Happening::ToNode { host, message } if s.hosts[host].deaf_until <= now => {
                self.work(host, WorkerInput::Message(message))
            }
            Happening::ToLeader { host, message } => {
                // Whoever believes to lead is found; there may be more than one.
                let leads: Vec<usize> = s.leaders.keys().copied().collect();
                if let Some(keeper) = s.dice.pick(&leads).copied() {
                    let from = host::id(host);
                    self.lead(keeper, LeaderInput::Message { from, message });
                }
                Ok(())
            }
            Happening::Restart { host } => self.start_host(host),
            Happening::Answered { host, boot, id, answer } if s.hosts[host].boot == boot => {
                self.work(host, WorkerInput::Answered { id, answer })
            }
            Happening::Heard { host, boot, id, answer } if s.hosts[host].boot == boot => {
                self.run(host, pods::Input::Answered { id, answer })
            }
            Happening::Ended { host, boot, uid } if s.hosts[host].boot == boot => {
                self.work(host, WorkerInput::Ended { uid })
            }
            Happening::Op { host, boot, power, id, op } => self.operate(host, (boot, power), id, &op),
            Happening::Done { host, boot, id, result } if s.hosts[host].boot == boot => {
                self.run(host, pods::Input::Done { id, result })
            }
            Happening::Look { host, boot } if s.hosts[host].boot == boot => {
                self.look(host);
                Ok(())
            }
            Happening::Sight { host, boot, seen } if s.hosts[host].boot == boot => {
                self.run(host, pods::Input::Seen(seen))
            }
            Happening::Sweep { host, boot } if s.hosts[host].boot == boot => self.sweep(host),
            Happening::Runtime { host } => self.tell_facts_of_pods(host),
            Happening::Arrives { ask, attempt } => self.ask_arrives(ask, attempt),
            Happening::Again { ask, attempt } => {
                self.ask_again(ask, attempt);
                Ok(())
            }
            Happening::Nodes { keeper, boot } if boot_of(&self.keepers, keeper) == boot => {
                self.tell_nodes_to_leader(keeper);
                Ok(())
            }
            Happening::Fault => {
                self.fault_of_pods();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    // The end.

    pub(super) fn end_pods(&self) -> Checked {
        let Some(s) = &self.pods else { return Ok(()) };
        for (host, h) in s.hosts.iter().enumerate() {
            let name = host::name(host);
            let Some(worker) = h.up.as_ref().map(|up| &up.worker) else {
                ensure("liveness", false, || format!("{name} is down at the end"))?;
                continue;
            };
            containers::settled(&s.award, &name, &h.runtime)?;
            let open = worker.book().open();
            ensure("award", open == 0, || {
                format!("{name} still keeps {open} reservations, where nothing has happened for {:?}", Book::ASK)
            })?;
            let want = s.award.bound_to(&name);
            let counted: BTreeSet<Uid> =
                worker.book().facts().hosted.keys().filter_map(|uid| uid.parse().ok()).collect();
            ensure("award", counted == want, || format!("{name} counts {counted:?}, and {want:?} are bound to it"))?;
        }
        self.end_nodes(s.hosts.len())?;
        s.award.served(&self.facts_of_nodes())
    }

    // What the nodes' readers need of their nodes.

    pub(super) fn clock_of_host(&self, host: usize) -> Now {
        self.pods.as_ref().map(|s| s.hosts[host].clock(self.now)).unwrap_or_default()
    }

    pub(super) fn when_at_host(&self, host: usize, at: Time) -> u64 {
        self.pods.as_ref().map_or(u64::MAX, |s| s.hosts[host].when(at))
    }

    /// How long each copy of what a node says takes; nothing of it arrives while the node is mute.
    pub(super) fn ways_of_host(&mut self, host: usize) -> Vec<u64> {
        let mute = self.pods.as_ref().is_some_and(|s| s.hosts[host].mute_until > self.now);
        if mute { Vec::new() } else { self.ways() }
    }

    /// What a node's object is to be, while its process runs.
    pub(super) fn tree_of_host(&self, host: usize) -> Option<Tree> {
        let h = &self.pods.as_ref()?.hosts[host];
        h.up.as_ref().map(|_| h.tree.clone())
    }
}
