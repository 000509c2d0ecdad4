//! What is to be done next about a pod: the kubelet's `syncPod`, as one function of what is seen.
//!
//! Nothing is remembered of what was meant to happen. Each time something is learnt the pod is looked at
//! anew: what is seen of it, against what its object asks for. So it is the same whether the last step
//! was taken by this daemon or by one that was killed in the middle of it.
//!
//! Source: the kubelet's `kuberuntime_manager.go` (`computePodActions`, `SyncPod`) and `kubelet.go`.

use super::Cx;
use super::admission;
use super::events::{Events, Type};
use super::images::go_duration;
use super::ops::What;
use super::pod::{Pod, Verdict};
use super::probes::Which;
use super::sandbox::{self, CELL, NODE, OBJECT, VOLUMES};
use super::seen::{Expect, code, has_ended, is_running};
use super::spec::{self, List, containers, is_sidecar, restarts, restarts_on_failure};
use super::stop::Reason;
use super::{Effect, container, volumes};
use base::runtime::{Answer, ContainerState, Failure, Op, Sandbox, SeenContainer, Why};
use objects::Tree;
use objects::kinds::tree::{self, Fields};
use std::time::Duration;

/// A sight that has not come by then is asked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(10);
/// An object too large to be kept beside its sandbox is not kept.
const OBJECT_MAX: usize = 256 * 1024;

/// What a look at a pod comes to.
#[derive(Debug, Default)]
struct Plan {
    /// All of it is stopped first.
    all: bool,
    /// A sandbox of this attempt is made once nothing runs.
    sandbox: Option<u32>,
    /// Containers to start, in this order.
    start: Vec<String>,
    /// Containers to stop: id, why, and the words for the event.
    stop: Vec<(String, Reason, String)>,
}

impl Pod {
    /// Looks at the pod and does what there is to do.
    pub(super) fn reconcile(&mut self, cx: &mut Cx<'_>) {
        self.wake = base::Time::NEVER;
        // What was found without its object can be stopped, but not run on.
        if !cx.shared.may_act() || !(self.known || self.gone || self.tree.has("spec")) {
            return;
        }
        self.adopt_volumes();
        if let Some(mark) = self.marks.first() {
            let again = mark.since().max(cx.shared.looked) + LOOK_AGAIN;
            if again <= cx.now.mono {
                cx.shared.look = true;
            }
            self.wake_at(again.max(cx.now.mono + LOOK_AGAIN));
        }
        self.read_words(cx);
        self.probe(cx);
        self.condemned(cx);
        if self.is_ending(cx.now) {
            self.end(cx);
        } else {
            if let Some(deadline) = self.deadline() {
                let left = deadline.since(cx.now.wall);
                self.wake_at(cx.now.mono + left);
            }
            self.run(cx);
            self.measure(cx);
        }
        self.stopping(cx);
        self.tidy(cx);
        self.report(cx);
    }

    /// Stops what was found wanting before it could be seen.
    fn condemned(&mut self, cx: &mut Cx<'_>) {
        if !self.is_settled() {
            return;
        }
        for (id, message) in std::mem::take(&mut self.condemned) {
            self.stop(cx, &id, Reason::Other, &message);
        }
    }

    fn run(&mut self, cx: &mut Cx<'_>) {
        if self.next_token().is_some_and(|t| t <= cx.now.mono) {
            self.volumes.changed();
        }
        if let Some(at) = self.next_token() {
            self.wake_at(at.max(cx.now.mono + Duration::from_secs(1)));
        }
        if self.view.active().is_none() && self.is_settled() {
            self.volumes.lost();
        }
        let laid_out = self.lay_out(cx);
        let committed = self.start.as_ref().is_some_and(super::start::Start::is_committed);
        if self.busy || committed || !self.is_settled() {
            self.starting(cx);
            return;
        }
        let plan = self.plan();
        if plan.all {
            self.abandon_start(cx);
            self.stop_all(cx, &plan, laid_out);
            return;
        }
        for (id, reason, message) in &plan.stop {
            self.stop(cx, id, *reason, message);
        }
        self.starting(cx);
        if self.start.is_none() && laid_out && self.is_settled() {
            self.start_next(cx, &plan);
        }
    }

    /// Stops whatever runs, then the sandbox, then makes another if one is wanted.
    fn stop_all(&mut self, cx: &mut Cx<'_>, plan: &Plan, laid_out: bool) {
        let live: Vec<String> = self.view.live().map(|c| c.id.clone()).collect();
        if plan.sandbox.is_some() && !self.view.sandboxes.is_empty() && !self.told_changed {
            self.told_changed = true;
            let message = "Pod sandbox changed, it will be killed and re-created.";
            Events::record(cx, &self.tree, "", Type::Normal, "SandboxChanged", message);
        }
        for id in &live {
            self.stop(cx, id, Reason::Other, "");
        }
        if !live.is_empty() {
            return;
        }
        if let Some(id) = self.unstopped() {
            self.stop_sandbox(cx, id);
        } else if let Some(attempt) = plan.sandbox
            && laid_out
        {
            self.make_sandbox(cx, attempt);
        }
    }

    /// A sandbox that has not given back what it holds.
    fn unstopped(&self) -> Option<String> {
        self.view.sandboxes.iter().find(|s| s.ready || !self.stopped.contains(&s.id)).map(|s| s.id.clone())
    }

    fn stop_sandbox(&mut self, cx: &mut Cx<'_>, id: String) {
        if self.busy || self.held(cx) {
            return;
        }
        self.busy = true;
        cx.shared.ops.ask(&self.uid, What::StopSandbox(id.clone()), Op::StopSandbox { id }, cx.fx);
    }

    /// Whether the last act on the whole failed and it is too early for the next.
    fn held(&mut self, cx: &Cx<'_>) -> bool {
        let at = self.retry.at;
        if cx.now.mono < at {
            self.wake_at(at);
            return true;
        }
        false
    }

    /// The pod's sandbox, marked as ours.
    pub(super) fn sandbox_of(&self, cx: &Cx<'_>, attempt: u32) -> Result<Sandbox, String> {
        let mut made = sandbox::sandbox(&cx.shared.facts, &self.tree, attempt)?;
        let mut object = (*self.tree).clone();
        tree::remove(&mut object, "status");
        tree::remove(tree::child(&mut object, "metadata"), "managedFields");
        let object = object.to_string();
        // What users write under our names is not ours.
        made.annotations.retain(|name, _| !name.starts_with("beemesh.io/"));
        if object.len() <= OBJECT_MAX {
            made.annotations.insert(OBJECT.to_owned(), object);
        }
        let volumes: Tree = self.volumes.paths().iter().map(|(k, v)| (k.clone(), Tree::from(v.as_str()))).collect();
        made.annotations.insert(VOLUMES.to_owned(), volumes.to_string());
        made.annotations.insert(NODE.to_owned(), cx.shared.facts.name.to_string());
        made.annotations.insert(CELL.to_owned(), self.cell.to_string());
        Ok(made)
    }

    fn make_sandbox(&mut self, cx: &mut Cx<'_>, attempt: u32) {
        if self.busy || self.held(cx) {
            return;
        }
        let unsupported = admission::unsupported(&self.tree);
        match unsupported.map_or_else(|| self.sandbox_of(cx, attempt), Err) {
            Ok(sandbox) => {
                if let (_, Some(complaint)) = sandbox::dns(&cx.shared.facts, &self.tree) {
                    Events::record(cx, &self.tree, "", Type::Warning, "DNSConfigForming", &complaint);
                }
                self.busy = true;
                cx.shared.ops.ask(&self.uid, What::RunSandbox, Op::RunSandbox(Box::new(sandbox)), cx.fx);
            }
            Err(why) => self.sandbox_failed(cx, &why),
        }
    }

    fn sandbox_failed(&mut self, cx: &mut Cx<'_>, why: &str) {
        let message = format!("Failed to create pod sandbox: {why}");
        Events::record(cx, &self.tree, "", Type::Warning, "FailedCreatePodSandBox", &message);
        self.retry.failed(cx.now.mono, RETRY_FIRST, RETRY_MOST);
        let at = self.retry.at;
        self.wake_at(at);
    }

    /// Starts the first container that can be started.
    fn start_next(&mut self, cx: &mut Cx<'_>, plan: &Plan) {
        let tree = self.tree.clone();
        for name in &plan.start {
            let Some((list, container)) = spec::find(&tree, name) else { continue };
            let runs = self.view.containers.iter().any(|c| {
                c.name == *name && matches!(c.state, ContainerState::Running { .. } | ContainerState::Unknown)
            });
            if runs || self.kills.values().any(|k| k.name() == name) {
                continue;
            }
            if self.waits(cx, container) {
                // What comes after an init container waits with it; after any other it does not.
                if list == List::Init && !is_sidecar(list, container) {
                    return;
                }
                continue;
            }
            self.begin_start(cx, name);
            return;
        }
    }

    /// Whether a container is not to be tried yet; counts its failures.
    fn waits(&mut self, cx: &mut Cx<'_>, container: &Tree) -> bool {
        let now = cx.now.mono;
        let name = container.text("name");
        if let Some(at) = self.not_before.get(name).copied().filter(|at| now < *at) {
            self.wake_at(at);
            return true;
        }
        let Some(last) = self.view.containers.iter().find(|c| c.name == name && has_ended(c)) else { return false };
        let Some(ended) = self.ends.get(&last.id).copied() else { return false };
        let last = last.id.clone();
        // One end is waited for and counts once, however often the next start is tried.
        if self.counted.get(name) == Some(&last) {
            return false;
        }
        if let Some((delay, until)) = self.crash.wait(name, ended, now) {
            let pod = spec::formatted(&self.tree);
            let message = format!("back-off {} restarting failed container={name} pod={pod}", go_duration(delay));
            self.waiting.insert(name.to_owned(), ("CrashLoopBackOff", message));
            if self.told_backoff.insert(name.to_owned(), last.clone()) != Some(last) {
                let message = format!("Back-off restarting failed container {name} in pod {pod}");
                let path = spec::field_path(&self.tree, name);
                Events::record(cx, &self.tree, &path, Type::Warning, "BackOff", &message);
            }
            self.wake_at(until);
            return true;
        }
        self.counted.insert(name.to_owned(), last);
        self.crash.next(name, ended, now);
        false
    }

    /// After a restart of this daemon: the volumes of a pod that runs lie where its sandbox says.
    fn adopt_volumes(&mut self) {
        let Some(sandbox) = self.view.active() else { return };
        let paths = sandbox.annotations.get(VOLUMES).and_then(|t| serde_json::from_str(t).ok());
        self.volumes.found(paths.unwrap_or_default());
    }

    /// What is to be done, from what is seen.
    fn plan(&self) -> Plan {
        let pod = &*self.tree;
        let view = &self.view;
        let mut plan = Plan::default();
        if view.active().is_none() || view.sandboxes.iter().filter(|s| s.ready).count() > 1 {
            plan.all = true;
            let attempt = view.sandboxes.first().map_or(0, |s| s.attempt + 1);
            if !restarts_on_failure(pod) && attempt != 0 && !view.containers.is_empty() {
                return plan;
            }
            let succeeded = |c: &Tree| view.newest(c.text("name")).and_then(code) == Some(0);
            let policy = |c: &Tree| match c.text("restartPolicy") {
                "" => pod.at("spec").text("restartPolicy").to_owned(),
                own => own.to_owned(),
            };
            let mains = containers(pod, List::Main);
            let rest = mains.iter().any(|c| !(policy(c) == "OnFailure" && succeeded(c)));
            let made = mains.iter().any(|c| view.newest(c.text("name")).is_some());
            if rest || !made {
                plan.sandbox = Some(attempt);
            }
            return plan;
        }
        for c in containers(pod, List::Ephemeral) {
            if view.newest(c.text("name")).is_none() {
                plan.start.push(c.text("name").to_owned());
            }
        }
        if !self.plan_init(&mut plan) || plan.all {
            return plan;
        }
        self.plan_main(&mut plan);
        plan
    }

    fn plan_main(&self, plan: &mut Plan) {
        let pod = &*self.tree;
        let (mut kept, before) = (0, plan.start.len());
        for c in containers(pod, List::Main) {
            let name = c.text("name");
            let seen = self.view.newest(name);
            let Some(seen) = seen.filter(|s| is_running(s)) else {
                if self.should_start(c, seen) {
                    plan.start.push(name.to_owned());
                    if let Some(s) = seen.filter(|s| s.state == ContainerState::Unknown) {
                        let message = "Container is in \"unknown\" state, try killing it before restart";
                        plan.stop.push((s.id.clone(), Reason::Other, message.to_owned()));
                    }
                }
                continue;
            };
            let Some((reason, why, always)) = self.wanting(c, seen, "Container") else {
                kept += 1;
                continue;
            };
            let policy = c.text("restartPolicy");
            let again = always || if policy.is_empty() { restarts_on_failure(pod) } else { policy != "Never" };
            let message = if again { format!("{why}, will be restarted") } else { why };
            if again {
                plan.start.push(name.to_owned());
            }
            plan.stop.push((seen.id.clone(), reason, message));
        }
        if kept == 0 && !plan.start[before..].iter().any(|n| spec::find(pod, n).is_some_and(|(l, _)| l == List::Main)) {
            plan.all = true;
            plan.start.clear();
        }
    }

    /// Whether a container that does not run is to be started.
    pub(super) fn should_start(&self, container: &Tree, seen: Option<&SeenContainer>) -> bool {
        match seen.map(|s| &s.state) {
            None | Some(ContainerState::Unknown | ContainerState::Created { .. }) => true,
            Some(ContainerState::Running { .. }) => false,
            Some(ContainerState::Exited { code, .. }) => restarts(&self.tree, container, i64::from(*code)),
        }
    }

    /// Why a container that runs is to be stopped, if it is; and whether it is started again whatever its
    /// policy.
    fn wanting(&self, c: &Tree, seen: &SeenContainer, what: &str) -> Option<(Reason, String, bool)> {
        let name = c.text("name");
        if seen.annotations.get(container::DEFINITION).is_some_and(|d| *d != spec::definition(c)) {
            return Some((Reason::Other, format!("{what} {name} definition changed"), true));
        }
        if self.probes.well(&seen.id, Which::Liveness) == Some(false) {
            return Some((Reason::Liveness, format!("{what} {name} failed liveness probe"), false));
        }
        if self.probes.well(&seen.id, Which::Startup) == Some(false) {
            return Some((Reason::Startup, format!("{what} {name} failed startup probe"), false));
        }
        None
    }

    /// Init containers, from the last that was begun. Whether the others may start.
    fn plan_init(&self, plan: &mut Plan) -> bool {
        let pod = &*self.tree;
        let inits = containers(pod, List::Init);
        if inits.is_empty() {
            return true;
        }
        let mains = containers(pod, List::Main);
        let mut initialized = mains.iter().any(|c| self.view.active_container(c.text("name")).is_some());
        let mut begun = initialized;
        let mut start: Vec<&Tree> = Vec::new();
        for (i, c) in inits.iter().enumerate().rev() {
            let sidecar = is_sidecar(List::Init, c);
            let Some(seen) = self.view.active_container(c.text("name")) else {
                if begun && sidecar {
                    start.push(c);
                }
                continue;
            };
            if begun && !sidecar {
                continue;
            }
            match &seen.state {
                ContainerState::Created { .. } => start.push(c),
                ContainerState::Running { .. } if !sidecar => {}
                ContainerState::Running { .. } => {
                    if let Some((reason, why, _)) = self.wanting(c, seen, "Init container") {
                        plan.stop.push((seen.id.clone(), reason, why));
                        start.push(c);
                    }
                    if self.has_started(c, &seen.id) {
                        match inits.get(i + 1) {
                            None => initialized = true,
                            Some(next) if !begun => start.push(next),
                            Some(_) => {}
                        }
                    }
                }
                ContainerState::Exited { .. } if sidecar => start.push(c),
                ContainerState::Exited { code: 0, .. } => match inits.get(i + 1) {
                    None => initialized = true,
                    Some(next) => start.push(next),
                },
                ContainerState::Exited { code, .. } if restarts(pod, c, i64::from(*code)) => start.push(c),
                ContainerState::Unknown if sidecar || restarts_on_failure(pod) => {
                    let message = "Init container is in \"unknown\" state, try killing it before restart";
                    plan.stop.push((seen.id.clone(), Reason::Other, message.to_owned()));
                    start.push(c);
                }
                // It failed for good, and the pod with it.
                ContainerState::Exited { .. } | ContainerState::Unknown => {
                    plan.all = true;
                    plan.start.clear();
                    return false;
                }
            }
            begun = true;
        }
        if !begun {
            start.push(&inits[0]);
        }
        plan.start.extend(start.into_iter().rev().map(|c| c.text("name").to_owned()));
        initialized
    }

    /// Brings the pod to its end: its containers, its sandbox, and, if its object goes too, all that is
    /// left of it.
    fn end(&mut self, cx: &mut Cx<'_>) {
        self.pass_verdict(cx);
        self.abandon_start(cx);
        for id in self.view.live().map(|c| c.id.clone()).collect::<Vec<_>>() {
            self.stop(cx, &id, Reason::Other, "");
        }
        if self.start.is_some() || self.busy || !self.is_settled() || self.view.live().next().is_some() {
            return;
        }
        if let Some(id) = self.unstopped() {
            self.stop_sandbox(cx, id);
            return;
        }
        if !self.ended && self.words.values().all(Option::is_some) {
            self.ended = true;
            cx.fx.push(Effect::Ended { uid: self.uid.clone() });
        }
        if self.ended && (self.gone || (self.is_deleting() && self.is_told_ended())) {
            self.remove(cx);
        } else if self.ended && self.is_told_ended() && !self.emptied {
            self.empty_memory(cx);
        }
    }

    /// Gives back the memory of a pod that has ended and whose object stays: nobody can read it any more,
    /// and secrets are not kept longer than they are of use.
    fn empty_memory(&mut self, cx: &mut Cx<'_>) {
        if !volumes::in_memory(&self.tree) {
            self.emptied = true;
            return;
        }
        if self.busy || cx.shared.ops.writes(&self.uid) || self.held(cx) {
            return;
        }
        self.busy = true;
        let op = Op::EmptyMemory { pod: self.uid.to_string() };
        cx.shared.ops.ask(&self.uid, What::EmptyMemory, op, cx.fx);
    }

    /// Says once why a pod that ran too long ends.
    fn pass_verdict(&mut self, cx: &mut Cx<'_>) {
        if self.verdict.is_some() || self.gone || self.is_told_ended() {
            return;
        }
        if self.deadline().is_some_and(|d| d <= cx.now.wall) && !self.is_deleting() {
            let verdict = Verdict {
                reason: "DeadlineExceeded".to_owned(),
                message: "Pod was active on the node longer than the specified deadline".to_owned(),
                at_once: false,
            };
            Events::record(cx, &self.tree, "", Type::Normal, "DeadlineExceeded", &verdict.message);
            self.verdict = Some(verdict);
        }
    }

    /// Removes all that is left on the machine, then the object.
    fn remove(&mut self, cx: &mut Cx<'_>) {
        if self.removed {
            if self.gone {
                self.dead = true;
            }
            return;
        }
        if self.busy || cx.shared.ops.writes(&self.uid) || self.held(cx) {
            return;
        }
        self.busy = true;
        if let Some(id) = self.view.sandboxes.first().map(|s| s.id.clone()) {
            cx.shared.ops.ask(&self.uid, What::RemoveSandbox(id.clone()), Op::RemoveSandbox { id }, cx.fx);
        } else {
            let op = Op::RemovePod { pod: sandbox::pod_name(&self.tree) };
            cx.shared.ops.ask(&self.uid, What::RemovePod, op, cx.fx);
        }
    }

    /// Removes what nobody will ask for: of each container all dead ones but the last, and sandboxes that
    /// hold nothing any more.
    fn tidy(&mut self, cx: &mut Cx<'_>) {
        if !self.is_settled() || self.busy || self.removed || !self.removing.is_empty() || self.held(cx) {
            return;
        }
        let active = self.view.active().map(|s| s.id.as_str());
        let mut dead: std::collections::BTreeSet<&str> = std::collections::BTreeSet::new();
        let surplus = self.view.containers.iter().find(|c| match c.state {
            ContainerState::Exited { .. } => {
                let read = self.words.get(&c.id).is_none_or(Option::is_some);
                !dead.insert(&c.name) && read
            }
            // It was never started, and what it was made in is gone.
            ContainerState::Created { .. } => active != Some(&c.sandbox),
            _ => false,
        });
        if let Some(c) = surplus {
            let own = [Some(&c.log_path), c.annotations.get(container::MESSAGE_FILE)];
            let files = own.into_iter().flatten().filter(|f| !f.is_empty()).cloned().collect();
            let id = c.id.clone();
            self.removing.insert(id.clone());
            cx.shared.ops.ask(&self.uid, What::RemoveContainer(id.clone()), Op::RemoveContainer { id, files }, cx.fx);
            return;
        }
        let empty = self
            .view
            .sandboxes
            .iter()
            .skip(1)
            .find(|s| !s.ready && !self.view.containers.iter().any(|c| c.sandbox == s.id));
        if let Some(id) = empty.map(|s| s.id.clone()) {
            self.busy = true;
            cx.shared.ops.ask(&self.uid, What::RemoveSandbox(id.clone()), Op::RemoveSandbox { id }, cx.fx);
        }
    }

    /// An act on the whole, or a removal, came back.
    pub(super) fn acted(&mut self, cx: &mut Cx<'_>, what: What, result: Result<Answer, Failure>) {
        let gone = matches!(&result, Err(f) if f.why == Why::NotFound);
        if let What::RemoveContainer(id) = what {
            self.removing.remove(&id);
            if result.is_ok() || gone {
                self.mark(cx, Expect::Gone(id));
            } else {
                self.retry.failed(cx.now.mono, RETRY_FIRST, RETRY_MOST);
                self.mark(cx, Expect::Anything);
            }
            return;
        }
        self.busy = false;
        if matches!(&result, Err(f) if f.why == Why::NoRuntime) {
            // Nothing is known of it: once the runtime is back it is seen.
            self.mark(cx, Expect::Anything);
            return;
        }
        match (what, result) {
            (What::RunSandbox, Ok(Answer::Id(id))) => {
                self.retry.done();
                self.told_changed = false;
                self.mark(cx, Expect::Sandbox(id));
            }
            (What::RunSandbox, other) => {
                let why = super::start::failure(other);
                self.mark(cx, Expect::Anything);
                self.sandbox_failed(cx, &why);
            }
            (What::StopSandbox(id), Ok(_)) => {
                self.retry.done();
                self.mark(cx, Expect::Unready(id.clone()));
                self.stopped.insert(id);
            }
            (What::RemoveSandbox(id), Ok(_)) => {
                self.retry.done();
                self.stopped.remove(&id);
                self.mark(cx, Expect::Gone(id));
            }
            (What::StopSandbox(_) | What::RemoveSandbox(_), Err(_)) if gone => self.mark(cx, Expect::Anything),
            (What::EmptyMemory, Ok(_)) => {
                self.retry.done();
                self.emptied = true;
            }
            (What::RemovePod, Ok(_)) => self.removed = true,
            (_, result) => {
                self.retry.failed(cx.now.mono, RETRY_FIRST, RETRY_MOST);
                let at = self.retry.at;
                self.wake_at(at);
                self.mark(cx, Expect::Anything);
                let message = format!("error killing pod: {}", super::start::failure(result));
                Events::record(cx, &self.tree, "", Type::Warning, "FailedKillPod", &message);
            }
        }
    }
}
