//! The hive's Nodes: a registry that keepers keep like any cell; at every keeper and at every node that runs pods the
//! reflector that ships, which lists and watches them through a gateway; and nodes that register themselves and give
//! signs of life, which come to whoever leads the registry.
//!
//! There are such only in runs with pods.

use super::scheduling::Then;
use super::{Event, MS, REGISTRY, SECOND, World};
use crate::checks::{Checked, ensure};
use crate::host;
use crate::ports::Bug;
use base::{BootId, CellId, Chance, Revision, Time};
use decide::schedule::NodeFacts;
use node::cell::{Change, Effect as CellEffect, Input as ToCell, Opened, Purpose, Role};
use node::controllers;
use node::errand::{Answered, ErrandId};
use node::life::{self, Pulse, SignOfLife};
use node::nodes::{self, News, Nodes};
use node::reflector::{self, Effect, Reflector};
use node::scheduling::{LeaderInput, WorkerInput};
use objects::Tree;
use objects::read::{EventType, WatchPlan};
use objects::request::{Body, PatchType, Verb};
use objects::status::Status;
use serde_json::json;
use std::collections::BTreeMap;

/// The resource.
const NODE: &str = "Node";
/// How often a cell says up to where it has told everything.
const MARK: u64 = 4 * SECOND;
/// How often a node looks whether its object is there and says what it should, until it is so and afterwards.
const REGISTER: (u64, u64) = (300 * MS, 5 * SECOND);

/// Who reads Nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Who {
    Keeper(usize),
    Host(usize),
}

/// What happens to Nodes and those who read them.
pub(super) enum Happening {
    Wake {
        who: Who,
        boot: u64,
    },
    /// Something comes to a reader.
    Told {
        who: Who,
        boot: u64,
        input: Box<reflector::Input>,
    },
    /// A node looks whether its object says what it should.
    Register {
        host: usize,
        boot: u64,
    },
    Pulse {
        host: usize,
        boot: u64,
    },
    /// A sign of life arrives where the registry is led.
    Sign {
        host: usize,
        bytes: Vec<u8>,
    },
    Mark,
}

/// A reader's way to the Nodes.
struct Reader {
    boot: u64,
    reflector: Reflector,
    nodes: Nodes,
    /// When it is woken next, and when what was told it last arrives, in virtual nanoseconds.
    woken_at: u64,
    told_at: u64,
    watch: Option<Watch>,
}

/// A watch that is open at a keeper.
struct Watch {
    id: ErrandId,
    keeper: usize,
    boot: u64,
    kind: &'static objects::kinds::Kind,
    plan: WatchPlan,
}

/// The Nodes' part of the world.
pub(super) struct Scene {
    dice: Chance,
    readers: BTreeMap<Who, Reader>,
    /// By host, of the start of its process.
    pulses: BTreeMap<usize, (u64, Pulse)>,
    told: u64,
}

impl Scene {
    pub(super) fn new(chance: &Chance) -> Scene {
        Scene { dice: chance.stream("nodes"), readers: BTreeMap::new(), pulses: BTreeMap::new(), told: 0 }
    }
}

impl World {
    fn of_nodes(&mut self, delay: u64, happening: Happening) {
        self.at(delay, Event::Nodes(happening));
    }

    /// A keeper starts: it keeps the registry, and reads what is in there.
    pub(super) fn begin_registry(&mut self, node: usize) -> Checked {
        if self.nodes.is_none() {
            return Ok(());
        }
        let registry = Purpose { role: Role::Registry, since: Revision::ZERO };
        self.seat(node, REGISTRY, registry, None)?;
        let boot = self.keepers[node].boot;
        self.begin_reader(Who::Keeper(node), boot);
        Ok(())
    }

    pub(super) fn begin_marks(&mut self) {
        if self.nodes.is_some() {
            self.of_nodes(MARK, Happening::Mark);
        }
    }

    /// A node's process starts: it reads the Nodes, registers itself and gives signs of life.
    pub(super) fn begin_node(&mut self, host: usize, boot: u64) {
        self.begin_reader(Who::Host(host), boot);
        if let Some(s) = &mut self.nodes {
            s.pulses.insert(host, (boot, Pulse::new(host::id(host), BootId(boot))));
        }
        self.of_nodes(0, Happening::Pulse { host, boot });
        self.of_nodes(MS, Happening::Register { host, boot });
    }

    fn begin_reader(&mut self, who: Who, boot: u64) {
        let Some(s) = &mut self.nodes else { return };
        let Some(config) = nodes::reflected() else { return };
        let own = match who {
            // Who only keeps cells runs no pods, and has no Node here.
            Who::Keeper(_) => base::NodeId([255; 32]),
            Who::Host(host) => host::id(host),
        };
        let reflector = Reflector::new(config, Chance::from_u64(s.dice.u64()));
        let reader = Reader { boot, reflector, nodes: Nodes::new(own), woken_at: u64::MAX, told_at: 0, watch: None };
        s.readers.insert(who, reader);
        self.of_nodes(MS / 2, Happening::Wake { who, boot });
    }

    /// A process has ended, and with it what it knew.
    pub(super) fn end_reader(&mut self, who: Who) {
        if let Some(s) = &mut self.nodes {
            s.readers.remove(&who);
        }
    }

    /// A reader that lives, in this start of its process.
    fn reader(&mut self, who: Who, boot: u64) -> Option<&mut Reader> {
        self.nodes.as_mut()?.readers.get_mut(&who).filter(|r| r.boot == boot)
    }

    pub(super) fn happen_to_nodes(&mut self, happening: Happening) -> Checked {
        match happening {
            Happening::Wake { who, boot } => {
                if let Some(r) = self.reader(who, boot) {
                    r.woken_at = u64::MAX;
                }
                self.reflect(who, boot, reflector::Input::Tick)
            }
            Happening::Told { who, boot, input } => self.reflect(who, boot, *input),
            Happening::Register { host, boot } => {
                self.register(host, boot);
                Ok(())
            }
            Happening::Pulse { host, boot } => {
                self.pulse(host, boot);
                Ok(())
            }
            Happening::Sign { host, bytes } => {
                // Whoever believes to lead is found; there may be more than one.
                let leads: Vec<usize> = (0..self.size()).filter(|n| self.keepers[*n].leads(REGISTRY)).collect();
                let Some(s) = &mut self.nodes else { return Ok(()) };
                let Some(keeper) = s.dice.pick(&leads).copied().filter(|_| self.bug != Bug::SignLost) else {
                    return Ok(());
                };
                let sign = SignOfLife::decode(&bytes);
                ensure("nodes", sign.is_ok(), || format!("a sign of life of n{host} came as {sign:?}"))?;
                if let Ok(sign) = sign {
                    let heard = controllers::Input::Heard { from: host::id(host), sign };
                    self.post(keeper, REGISTRY, heard);
                }
                Ok(())
            }
            Happening::Mark => {
                self.of_nodes(MARK, Happening::Mark);
                let Some(s) = &self.nodes else { return Ok(()) };
                let at: std::collections::BTreeSet<usize> =
                    s.readers.values().filter_map(|r| r.watch.as_ref()).map(|w| w.keeper).collect();
                at.into_iter().try_for_each(|k| self.tell(k, REGISTRY, ToCell::Progress(NODE.into())))
            }
        }
    }

    fn reflect(&mut self, who: Who, boot: u64, input: reflector::Input) -> Checked {
        let now = match who {
            Who::Keeper(n) => self.keepers[n].now(self.now),
            Who::Host(h) => self.clock_of_host(h),
        };
        let Some(r) = self.reader(who, boot) else { return Ok(()) };
        let mut fx = Vec::new();
        r.reflector.step(now, input, &mut fx);
        r.reflector.check();
        for effect in fx {
            let Some(r) = self.reader(who, boot) else { return Ok(()) };
            let news = match effect {
                Effect::List { id, errand } | Effect::Watch { id, errand } => {
                    let own = match who {
                        Who::Keeper(n) => Some(n),
                        Who::Host(_) => None,
                    };
                    self.run_errand(own, &errand, Then::Reader { who, boot, id });
                    continue;
                }
                Effect::Leave { id } => {
                    r.watch.take_if(|w| w.id == id);
                    continue;
                }
                Effect::Changed(changes) => r.nodes.changed(&changes),
                Effect::Synced { .. } => r.nodes.synced(),
                Effect::Full => continue,
            };
            for n in news {
                self.tell_news(who, n)?;
            }
        }
        self.wake_reader(who, boot);
        Ok(())
    }

    /// What is new of the Nodes goes to the machines beside the reader.
    fn tell_news(&mut self, who: Who, news: News) -> Checked {
        match (who, news) {
            (Who::Keeper(k), News::Candidates(candidates)) => self.lead(k, LeaderInput::Nodes(candidates)),
            (Who::Keeper(k), News::Gateways(addresses)) => {
                self.post_to_all(k, || controllers::Input::Gateways { addresses: addresses.clone(), port: 6443 });
            }
            (Who::Keeper(k), News::Taints(taints)) => {
                self.post_to_all(k, || controllers::Input::Taints(taints.clone()));
            }
            (Who::Host(h), News::Own(facts)) => return self.work(h, WorkerInput::Facts(facts)),
            _ => {}
        }
        Ok(())
    }

    fn post_to_all(&mut self, keeper: usize, input: impl Fn() -> controllers::Input) {
        for cell in self.controlled(keeper) {
            self.post(keeper, cell, input());
        }
    }

    /// What a leader that has just begun is told of the Nodes, if they are known at its keeper.
    pub(super) fn tell_nodes_to_leader(&mut self, keeper: usize) {
        let known = self.nodes.as_ref().and_then(|s| s.readers.get(&Who::Keeper(keeper))?.nodes.candidates().cloned());
        if let Some(candidates) = known {
            self.lead(keeper, LeaderInput::Nodes(candidates));
        }
    }

    /// The same of controllers.
    pub(super) fn tell_nodes_to_controllers(&mut self, keeper: usize, cell: CellId) {
        let Some(r) = self.nodes.as_ref().and_then(|s| s.readers.get(&Who::Keeper(keeper))) else { return };
        let (gateways, taints) = (r.nodes.gateways().map(<[_]>::to_vec), r.nodes.taints().cloned());
        if let Some(addresses) = gateways {
            self.post(keeper, cell, controllers::Input::Gateways { addresses, port: 6443 });
        }
        if let Some(taints) = taints {
            self.post(keeper, cell, controllers::Input::Taints(taints));
        }
    }

    fn wake_reader(&mut self, who: Who, boot: u64) {
        let now = self.now;
        let clock = match who {
            Who::Keeper(n) => Some(self.keepers[n].clock),
            Who::Host(_) => None,
        };
        let deadline = self.reader(who, boot).and_then(|r| r.reflector.next_deadline());
        let Some(at) = deadline.filter(|t| *t != Time::NEVER) else { return };
        let at = match (clock, who) {
            (Some(clock), _) => clock.when(at),
            (None, Who::Host(h)) => self.when_at_host(h, at),
            (None, Who::Keeper(_)) => return,
        };
        let at = at.max(now + MS / 10);
        let Some(r) = self.reader(who, boot) else { return };
        if at >= r.woken_at && r.woken_at > now {
            return;
        }
        r.woken_at = at;
        self.of_nodes(at - now, Happening::Wake { who, boot });
    }

    /// Something is on its way to a reader; what was told before arrives before.
    fn tell_reader(&mut self, who: Who, boot: u64, input: reflector::Input) {
        let (now, faults) = (self.now, self.faults);
        let Some(s) = &mut self.nodes else { return };
        let late = faults && s.dice.happens(20_000);
        let delay = if late { s.dice.range(100, 2_000) } else { s.dice.range(1, 15) } * MS;
        let Some(r) = s.readers.get_mut(&who).filter(|r| r.boot == boot) else { return };
        r.told_at = r.told_at.max(now + delay);
        let delay = r.told_at - now;
        self.of_nodes(delay, Happening::Told { who, boot, input: Box::new(input) });
    }

    // What comes back.

    /// A list was answered, or a watch refused.
    pub(super) fn reader_asked(&mut self, (who, boot, id): (Who, u64, ErrandId), verb: Verb, answer: Answered) {
        let input = match (verb, answer) {
            (Verb::Watch, answer) => reflector::Input::Ended { id, why: answer.err() },
            (_, answer) => reflector::Input::Listed { id, answer },
        };
        self.tell_reader(who, boot, input);
    }

    /// A watch is open at a keeper.
    pub(super) fn reader_watches(&mut self, (who, boot, id): (Who, u64, ErrandId), keeper: usize, opened: &Opened) {
        let keeper_boot = self.keepers[keeper].boot;
        let watch = Watch { id, keeper, boot: keeper_boot, kind: opened.kind, plan: opened.plan.clone() };
        // One that goes on from nowhere begins with whatever there is.
        let trees = |state: &node::cell::Snapshot| state.iter(None).map(|(_, stored)| stored.tree()).collect();
        let mut all: Vec<_> = opened.state.iter().map(|state| reflector::Event::State(trees(state))).collect();
        all.extend(events(&watch, &opened.backlog));
        let Some(r) = self.reader(who, boot) else { return };
        r.watch = Some(watch);
        self.tell_reader(who, boot, reflector::Input::Opened { id });
        if !all.is_empty() {
            self.tell_reader(who, boot, reflector::Input::Told { id, events: all });
        }
    }

    /// What a registry's replica says goes to those who watch there.
    pub(super) fn overhear_nodes(&mut self, node: usize, cell: CellId, effect: &CellEffect) {
        if cell != REGISTRY {
            return;
        }
        let boot = self.keepers[node].boot;
        let (faults, bug) = (self.faults, self.bug);
        let Some(s) = &mut self.nodes else { return };
        let mut told = Vec::new();
        for (who, r) in &mut s.readers {
            let Some(watch) = r.watch.as_ref().filter(|w| w.keeper == node && w.boot == boot) else { continue };
            let id = watch.id;
            let input = match effect {
                CellEffect::Events { storage, changes } if **storage == *NODE => {
                    s.told += 1;
                    if bug == Bug::NodeUntold && s.told.is_multiple_of(5) {
                        continue;
                    }
                    reflector::Input::Told { id, events: events(watch, changes) }
                }
                CellEffect::Progress { storage, revision } if **storage == *NODE => {
                    reflector::Input::Told { id, events: vec![reflector::Event::Upto(*revision)] }
                }
                CellEffect::Replaced => reflector::Input::Ended { id, why: None },
                _ => continue,
            };
            // Who is behind is sent away, and goes on.
            let input = match faults && s.dice.happens(30_000) {
                true => reflector::Input::Ended { id, why: None },
                false => input,
            };
            if matches!(input, reflector::Input::Ended { .. }) {
                r.watch = None;
            }
            told.push((*who, r.boot, input));
        }
        for (who, boot, input) in told {
            self.tell_reader(who, boot, input);
        }
    }

    /// Watches at a keeper have ended: its process, or the cell there.
    pub(super) fn unwatch_nodes(&mut self, node: usize, cell: Option<CellId>) {
        if cell.is_none() {
            self.end_reader(Who::Keeper(node));
        }
        if cell.is_some_and(|c| c != REGISTRY) {
            return;
        }
        let Some(s) = &mut self.nodes else { return };
        let ended = s.readers.iter_mut().filter_map(|(who, r)| {
            let watch = r.watch.take_if(|w| w.keeper == node)?;
            Some((*who, r.boot, watch.id))
        });
        let ended: Vec<_> = ended.collect();
        for (who, boot, id) in ended {
            // One that has lost its leader may be told so, and why.
            let gone = s_happens(self.nodes.as_mut(), 100_000);
            let why = gone.then(|| Box::new(Status::expired("the history is gone")));
            self.tell_reader(who, boot, reflector::Input::Ended { id, why });
        }
    }

    // The nodes themselves.

    /// A node makes its object say what it should.
    fn register(&mut self, host: usize, boot: u64) {
        let name = host::name(host);
        let controlled = self.control.is_some();
        let Some(own) = self.tree_of_host(host) else { return };
        let Some(r) = self.reader(Who::Host(host), boot) else { return };
        let known = r.reflector.get(&name).map(|t| Tree::clone(t));
        let pause = match known {
            None if r.reflector.is_synced() => {
                self.want_node(Verb::Create, &name, "", Body::Object { tree: own, strict: Vec::new() });
                REGISTER.0
            }
            None => REGISTER.0,
            Some(mut node) if node["status"] != own["status"] => {
                node["status"] = own["status"].clone();
                self.want_node(Verb::Update, &name, "status", Body::Object { tree: node, strict: Vec::new() });
                REGISTER.0
            }
            // Without controllers nobody else takes off the taint that a Node is made with.
            Some(mut node) if !controlled && node["spec"]["taints"].is_array() => {
                if let Some(spec) = node["spec"].as_object_mut() {
                    spec.remove("taints");
                }
                self.want_node(Verb::Update, &name, "", Body::Object { tree: node, strict: Vec::new() });
                REGISTER.0
            }
            Some(_) => REGISTER.1,
        };
        self.of_nodes(pause, Happening::Register { host, boot });
    }

    /// Somebody cordons a node, or ends that.
    pub(super) fn cordon(&mut self, host: usize, cordoned: bool) {
        let patch = json!({"spec": {"unschedulable": cordoned}}).to_string();
        let body = Body::Patch { kind: PatchType::Merge, bytes: patch.into() };
        self.want_node(Verb::Patch, &host::name(host), "", body);
    }

    fn pulse(&mut self, host: usize, boot: u64) {
        let now = self.clock_of_host(host);
        let Some((_, pulse)) = self.nodes.as_mut().and_then(|s| s.pulses.get_mut(&host)).filter(|p| p.0 == boot) else {
            return;
        };
        let mut fx = Vec::new();
        pulse.step(now, life::Input::Tick, &mut fx);
        pulse.check();
        let next = pulse.next_deadline();
        for life::Effect::Send(sign) in fx {
            for delay in self.ways_of_host(host) {
                self.of_nodes(delay, Happening::Sign { host, bytes: sign.encode().to_vec() });
            }
        }
        if let Some(at) = next {
            let at = self.when_at_host(host, at).max(self.now + MS);
            self.of_nodes(at - self.now, Happening::Pulse { host, boot });
        }
    }

    // The end.

    /// The Nodes as the registry has them.
    fn registered(&self) -> BTreeMap<String, Tree> {
        let leads = self.keepers.iter().find(|k| k.leads(REGISTRY)).and_then(|k| k.cell(REGISTRY));
        let all = leads.into_iter().flat_map(|c| c.state().scan(NODE.as_bytes()));
        let tree = |json: &[u8]| serde_json::from_slice::<Tree>(json).unwrap_or_default();
        all.map(|(_, r)| tree(&r.value)).map(|t| (host_name(&t), t)).collect()
    }

    /// What the Nodes say of those who run pods.
    pub(super) fn facts_of_nodes(&self) -> Vec<NodeFacts> {
        self.registered().values().map(NodeFacts::of).collect()
    }

    pub(super) fn end_nodes(&self, hosts: usize) -> Checked {
        let Some(s) = &self.nodes else { return Ok(()) };
        let registered = self.registered();
        ensure("nodes", registered.len() == hosts, || {
            format!("{} Nodes are registered, and there are {hosts}", registered.len())
        })?;
        let version = |t: &Tree| t["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        let want: BTreeMap<&str, String> = registered.iter().map(|(n, t)| (n.as_str(), version(t))).collect();
        for (who, r) in &s.readers {
            let has: BTreeMap<&str, String> = r.reflector.objects().map(|(n, t)| (&**n, version(t))).collect();
            ensure("nodes", has == want, || format!("{who:?} knows {has:?} of the Nodes, and there are {want:?}"))?;
        }
        if self.control.is_none() {
            return Ok(());
        }
        for (name, node) in &registered {
            let all = node["status"]["conditions"].as_array().into_iter().flatten();
            let ready = all.filter(|c| c["type"] == "Ready").any(|c| c["status"] == "True");
            let tainted = node["spec"]["taints"].is_array();
            ensure("nodes", ready && !tainted, || format!("{name} lives, and its Node says otherwise: {node}"))?;
        }
        Ok(())
    }
}

fn s_happens(scene: Option<&mut Scene>, per_million: u32) -> bool {
    scene.is_some_and(|s| s.dice.happens(per_million))
}

fn host_name(node: &Tree) -> String {
    node["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

/// What a watch tells of changes.
fn events(watch: &Watch, changes: &[Change]) -> Vec<reflector::Event> {
    let event = |c: &Change| {
        let (before, after) = (c.before.as_ref(), c.after.as_ref());
        let what = watch.plan.event_in("", &c.key.name, before, after)?;
        let json = watch.plan.object(watch.kind, what, c.revision, before, after);
        let tree: Tree = serde_json::from_slice(&json).unwrap_or_default();
        Some(match what {
            EventType::Deleted => reflector::Event::Gone(tree),
            _ => reflector::Event::There(tree),
        })
    };
    changes.iter().filter_map(event).collect()
}
