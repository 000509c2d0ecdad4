//! Probes of the containers that run: when they are asked, and what their answers add up to.
//!
//! Source: the kubelet's `prober/worker.go`. Each probe belongs to one container by its id and goes with it.

use super::Cx;
use super::events::{Events, Type};
use super::handler::{Found, probe_op, probed};
use super::ops::What;
use super::pod::Pod;
use super::seen::is_running;
use super::spec;
use base::runtime::{Answer, ContainerState, Failure};
use base::{Now, Time, Wall};
use objects::Tree;
use objects::kinds::tree::Fields;
use std::collections::BTreeMap;
use std::time::Duration;

/// Which probe.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Which {
    Startup,
    Liveness,
    Readiness,
}

impl Which {
    const ALL: [Which; 3] = [Which::Startup, Which::Liveness, Which::Readiness];

    const fn field(self) -> &'static str {
        match self {
            Which::Startup => "startupProbe",
            Which::Liveness => "livenessProbe",
            Which::Readiness => "readinessProbe",
        }
    }

    /// As events name it.
    const fn word(self) -> &'static str {
        match self {
            Which::Startup => "Startup",
            Which::Liveness => "Liveness",
            Which::Readiness => "Readiness",
        }
    }
}

/// One probe of one container.
#[derive(Clone, Debug)]
struct Probe {
    /// What counts, once enough answers in a row have said it.
    well: Option<bool>,
    last: Option<bool>,
    in_a_row: i64,
    /// It has said all it has to say: a startup probe that succeeded, a liveness probe that failed.
    done: bool,
    asking: bool,
    next: Time,
}

/// The probes of a pod's containers, by the containers' ids.
#[derive(Clone, Debug, Default)]
pub(super) struct Probes(BTreeMap<(String, Which), Probe>);

impl Probes {
    /// What a probe has found; `None` if it has not found anything yet, or there is none.
    pub(super) fn well(&self, id: &str, which: Which) -> Option<bool> {
        self.0.get(&(id.to_owned(), which))?.well
    }
}

/// The moment on the steady clock at which the calendar said `wall`.
pub(super) fn steady(now: Now, wall: Wall) -> Time {
    now.mono - now.wall.since(wall)
}

fn seconds(probe: &Tree, name: &str, least: i64) -> Duration {
    Duration::from_secs(u64::try_from(probe.int(name).unwrap_or(least).max(least)).unwrap_or(0))
}

impl Pod {
    /// Whether a container that runs has started, as its startup probe sees it.
    pub(super) fn has_started(&self, container: &Tree, id: &str) -> bool {
        !container.has("startupProbe") || self.probes.well(id, Which::Startup) == Some(true)
    }

    /// Asks the probes whose time has come.
    pub(super) fn probe(&mut self, cx: &mut Cx<'_>) {
        let running: Vec<(String, String, Wall)> = self
            .view
            .containers
            .iter()
            .filter_map(|c| match c.state {
                ContainerState::Running { since } => Some((c.id.clone(), c.name.clone(), since)),
                _ => None,
            })
            .collect();
        self.probes.0.retain(|(id, _), _| running.iter().any(|(r, ..)| r == id));
        let tree = self.tree.clone();
        let ending = self.is_ending(cx.now);
        let address = self.address(cx);
        for (id, name, since) in running {
            let Some((list, container)) = spec::find(&tree, &name) else { continue };
            let lasting = list == spec::List::Main || spec::is_sidecar(list, container);
            if !lasting {
                continue;
            }
            for which in Which::ALL {
                let probe = container.at(which.field());
                if probe.is_null() || (ending && which != Which::Readiness) {
                    continue;
                }
                self.due(cx, &id, container, probe, which, since, address);
            }
        }
    }

    #[allow(clippy::too_many_arguments)] // one probe's whole place
    fn due(
        &mut self,
        cx: &mut Cx<'_>,
        id: &str,
        container: &Tree,
        probe: &Tree,
        which: Which,
        since: Wall,
        address: Option<std::net::IpAddr>,
    ) {
        let key = (id.to_owned(), which);
        if !self.probes.0.contains_key(&key) {
            let fresh = self.first_probe(cx.now, id, container, probe, which, since);
            self.probes.0.insert(key.clone(), fresh);
        }
        // Until a container has started nothing but that is asked.
        let started = self.has_started(container, id);
        let Some(state) = self.probes.0.get_mut(&key) else { return };
        if state.done || state.asking || (which == Which::Startup) == started {
            return;
        }
        if cx.now.mono < state.next {
            let next = state.next;
            self.wake_at(next);
            return;
        }
        let period = seconds(probe, "periodSeconds", 1);
        state.next = cx.now.mono + period;
        let next = state.next;
        match probe_op(id, container, probe, address) {
            Ok(op) => {
                state.asking = true;
                cx.shared.ops.ask(&self.uid, What::Probe(id.to_owned(), which), op, cx.fx);
            }
            Err(why) => self.unhealthy(cx, container, which, &Found::Error(why)),
        }
        self.wake_at(next);
    }

    /// A probe that has not been asked yet. A container that was there before this daemon stays what its
    /// pod's status says of it until it is asked.
    fn first_probe(&self, now: Now, id: &str, container: &Tree, probe: &Tree, which: Which, since: Wall) -> Probe {
        let began = steady(now, since);
        let ran = |s: &&Tree| s.text("containerID").ends_with(id) && s.at("state").has("running");
        let told = self.told(container.text("name")).filter(ran);
        let was = |field: &str| told.and_then(|s| s.at(field).as_bool());
        let well = match which {
            Which::Startup => was("started").filter(|s| *s),
            Which::Liveness => Some(true),
            Which::Readiness => Some(was("ready").unwrap_or(false)),
        };
        let mut next = began + seconds(probe, "initialDelaySeconds", 0);
        if told.is_some() {
            // All pods of a node are found at once: their probes are spread over their periods.
            let period = seconds(probe, "periodSeconds", 1);
            let place = self.uid.bytes().fold(0_u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
            next = next.max(now.mono + period.mul_f64(f64::from((place % 1000) as u32) / 1000.0));
        }
        Probe {
            well,
            last: None,
            in_a_row: 0,
            done: which == Which::Startup && well == Some(true),
            asking: false,
            next: next.max(now.mono),
        }
    }

    /// A probe was answered.
    pub(super) fn probed(&mut self, cx: &mut Cx<'_>, id: &str, which: Which, result: Result<Answer, Failure>) {
        let key = (id.to_owned(), which);
        let Some(state) = self.probes.0.get_mut(&key) else { return };
        state.asking = false;
        let Some(name) = self.view.container(id).filter(|c| is_running(c)).map(|c| c.name.clone()) else { return };
        let tree = self.tree.clone();
        let Some((_, container)) = spec::find(&tree, &name) else { return };
        let found = probed(container.at(which.field()), result);
        self.unhealthy(cx, container, which, &found);
        let Some(state) = self.probes.0.get_mut(&key) else { return };
        let well = match found {
            Found::Error(_) => return,
            Found::Ill(_) => false,
            Found::Well | Found::Warning(_) => true,
        };
        state.in_a_row = if state.last == Some(well) { state.in_a_row + 1 } else { 1 };
        state.last = Some(well);
        let threshold = if well { "successThreshold" } else { "failureThreshold" };
        let enough = container.at(which.field()).int(threshold).unwrap_or(if well { 1 } else { 3 });
        if state.in_a_row < enough {
            return;
        }
        state.well = Some(well);
        if which == Which::Startup || (which == Which::Liveness && !well) {
            state.done = true;
        }
        if which == Which::Startup && well {
            // What waited for the start is asked at once.
            for other in [Which::Liveness, Which::Readiness] {
                if let Some(p) = self.probes.0.get_mut(&(id.to_owned(), other)) {
                    p.next = p.next.min(cx.now.mono);
                }
            }
        }
    }

    fn unhealthy(&self, cx: &mut Cx<'_>, container: &Tree, which: Which, found: &Found) {
        let path = spec::field_path(&self.tree, container.text("name"));
        let (reason, message) = match found {
            Found::Well => return,
            Found::Warning(what) => ("ProbeWarning", format!("{} probe warning: {what}", which.word())),
            Found::Ill(what) => ("Unhealthy", format!("{} probe failed: {what}", which.word())),
            Found::Error(why) => {
                ("Unhealthy", format!("{} probe errored and resulted in unknown state: {why}", which.word()))
            }
        };
        Events::record(cx, &self.tree, &path, Type::Warning, reason, &message);
    }
}
