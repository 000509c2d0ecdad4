//! A pod's status, from what is seen of it and what was said of it before.
//!
//! Source: the kubelet's `kubelet_pods.go` (`generateAPIPodStatus`, `convertToAPIContainerStatuses`),
//! `prober/prober_manager.go` (`UpdatePodStatus`) and `status/status_manager.go` (`TerminatePod`).

use super::Cx;
use super::conditions::{conditions, is_terminal, phase};
use super::pod::Pod;
use super::probes::Which;
use super::qos;
use super::seen::{code, has_ended};
use super::spec::{self, List, containers, is_sidecar};
use base::Wall;
use base::runtime::{ContainerState, SeenContainer};
use decide::pod::Resources;
use objects::Tree;
use objects::kinds::tree::{self, Fields};
use serde_json::json;
use std::net::IpAddr;

/// Reason of a container of which nobody knows how it ended.
const UNKNOWN: &str = "ContainerStatusUnknown";
/// All containers' last words together hold this many bytes.
const MESSAGES_MAX: usize = 12 * 1024;
/// How a runtime's names for containers are shown.
const SCHEME: &str = "containerd://";

impl Pod {
    /// The status as it is now, and the phase it would have if nothing ran any more.
    pub(super) fn compose(&self, cx: &Cx<'_>) -> (Tree, String) {
        let pod = &*self.tree;
        let old = self.report.status(pod).clone();
        let mut status = json!({"qosClass": qos::class(pod)});
        if let Some(g) = pod.at("metadata").int("generation") {
            status["observedGeneration"] = g.into();
        }
        let refused = self.verdict.is_some() && self.view.sandboxes.is_empty() && !old.has("containerStatuses");
        for (list, field) in [
            (List::Main, "containerStatuses"),
            (List::Init, "initContainerStatuses"),
            (List::Ephemeral, "ephemeralContainerStatuses"),
        ] {
            let mut all: Vec<Tree> =
                containers(pod, list).iter().map(|c| self.container_status(list, c, old.list(field))).collect();
            if list != List::Init {
                all.sort_by(|a, b| a.text("name").cmp(b.text("name")));
            }
            if !all.is_empty() && !refused {
                status[field] = all.into();
            }
        }
        let mut natural = phase(pod, &status, self.begun(), self.ended);
        for said in [self.report.phase(), old.text("phase"), pod.at("status").text("phase")] {
            if is_terminal(said) && !is_terminal(&natural) {
                natural = said.to_owned();
            }
        }
        if let Some(verdict) = &self.verdict {
            natural = "Failed".to_owned();
            status["reason"] = verdict.reason.as_str().into();
            status["message"] = verdict.message.as_str().into();
        } else if natural == old.text("phase") {
            for field in ["reason", "message"] {
                match (old.text(field), pod.at("status").text(field)) {
                    ("", "") => {}
                    ("", said) | (said, _) => status[field] = said.into(),
                }
            }
        }
        if self.ended && (self.is_deleting() || self.gone || self.verdict.is_some()) {
            self.conclude(&mut status, &mut natural, refused);
        }
        // What is called ended runs no more: until then it is what it was.
        let mut shown = natural.clone();
        if is_terminal(&natural) && !is_terminal(old.text("phase")) && !self.ended {
            shown = if old.text("phase").is_empty() { "Pending" } else { old.text("phase") }.to_owned();
            for field in ["reason", "message"] {
                tree::keep(&mut status, &old, field);
            }
        }
        status["phase"] = shown.as_str().into();
        self.add_addresses(cx, &mut status, &old);
        let start = old.text("startTime");
        status["startTime"] = if start.is_empty() { cx.now.wall.rfc3339() } else { start.to_owned() }.into();
        add_resources(pod, &mut status);
        status["conditions"] = conditions(pod, &self.view, &status, &old, cx.now.wall);
        (status, natural)
    }

    /// Whether any container of `containers` was made in the sandbox there is.
    fn begun(&self) -> bool {
        containers(&self.tree, List::Main).iter().any(|c| self.view.active_container(c.text("name")).is_some())
    }

    /// What is left without an end when everything has ended is told as having failed.
    fn conclude(&self, status: &mut Tree, natural: &mut String, refused: bool) {
        let pod = &*self.tree;
        let lost = json!({"terminated": {
            "reason": UNKNOWN, "message": "The container could not be located when the pod was terminated",
            "exitCode": 137, "startedAt": null, "finishedAt": null,
        }});
        let inits = containers(pod, List::Init);
        let initialized = inits.is_empty()
            || status
                .list("containerStatuses")
                .iter()
                .any(|s| s.at("lastState").has("terminated") || !s.at("state").has("waiting"))
            || inits.last().zip(status.list("initContainerStatuses").last()).is_some_and(|(c, s)| {
                if is_sidecar(List::Init, c) {
                    s.at("state").has("running") && s.flag("started")
                } else {
                    [s.at("state"), s.at("lastState")]
                        .iter()
                        .any(|st| st.has("terminated") && st.at("terminated").int("exitCode") == Some(0))
                }
            });
        let never = self.view.sandboxes.is_empty();
        if initialized && !refused && !never {
            for s in tree::items(status, "containerStatuses") {
                if !s.at("state").has("terminated") {
                    s["state"] = lost.clone();
                }
            }
        }
        let begun = status
            .list("initContainerStatuses")
            .iter()
            .rposition(|s| !s.at("state").has("waiting") || s.at("lastState").has("terminated"));
        if let Some(last) = begun {
            for s in tree::items(status, "initContainerStatuses").iter_mut().take(last + 1) {
                if !s.at("state").has("terminated") {
                    s["state"] = lost.clone();
                }
            }
        }
        if !is_terminal(natural) {
            *natural = "Failed".to_owned();
        }
    }

    fn add_addresses(&self, cx: &Cx<'_>, status: &mut Tree, old: &Tree) {
        let facts = &cx.shared.facts;
        let listed = |all: &[IpAddr]| -> Tree { all.iter().map(|a| json!({"ip": a.to_string()})).collect() };
        let mut set = |one: &str, many: &str, list: Tree| {
            if let Some(first) = list.get(0).map(|f| f.at("ip").clone()) {
                status[one] = first;
                status[many] = list;
            }
        };
        if !facts.addresses.is_empty() {
            set("hostIP", "hostIPs", listed(&facts.addresses));
        }
        if spec::host_network(&self.tree) {
            let had = old.at("podIPs").clone();
            let own = if had.is_null() { listed(&facts.addresses) } else { had };
            set("podIP", "podIPs", own);
        } else {
            match self.view.active() {
                Some(sandbox) => set("podIP", "podIPs", listed(&facts.by_family(&sandbox.addresses))),
                // A pod that has ended keeps the address it had.
                None => set("podIP", "podIPs", old.at("podIPs").clone()),
            }
        }
    }

    fn container_status(&self, list: List, c: &Tree, old: &[Tree]) -> Tree {
        let name = c.text("name");
        let old = old.iter().find(|s| s.text("name") == name);
        let has_init = !containers(&self.tree, List::Init).is_empty();
        let mut status = self.without_container(c, old, has_init);
        let mut seen = self.view.containers.iter().filter(|s| s.name == name);
        if let Some(newest) = seen.next() {
            status = self.of_seen(list, c, newest, old);
            if let Some(before) = seen.next() {
                status["lastState"] = self.of_seen(list, c, before, old).at("state").clone();
            }
        }
        self.add_waiting(list, c, &mut status);
        self.add_readiness(list, c, &mut status);
        status
    }

    /// The status of a container that is not seen.
    fn without_container(&self, c: &Tree, old: Option<&Tree>, has_init: bool) -> Tree {
        let waiting = if has_init { "PodInitializing" } else { "ContainerCreating" };
        let mut status = json!({
            "name": c.text("name"), "image": c.text("image"), "imageID": "", "restartCount": 0, "ready": false,
            "state": {"waiting": {"reason": waiting}}, "lastState": {},
        });
        let mounts = mounts(c);
        if !mounts.is_empty() {
            status["volumeMounts"] = mounts.into();
        }
        let Some(old) = old else { return status };
        if old.at("state").has("terminated") {
            return old.clone();
        }
        for field in ["restartCount", "lastState"] {
            tree::keep(&mut status, old, field);
        }
        if old.at("state").has("running") && !old.at("lastState").has("terminated") {
            // It ran, and nobody saw how it ended.
            status["lastState"] = json!({"terminated": {
                "reason": UNKNOWN, "exitCode": 137, "startedAt": null, "finishedAt": null,
                "message": "The container could not be located when the pod was deleted.  The container used to be Running",
            }});
            if !self.is_deleting() {
                status["restartCount"] = (old.int("restartCount").unwrap_or(0) + 1).into();
            }
        }
        status
    }

    fn of_seen(&self, list: List, c: &Tree, seen: &SeenContainer, old: Option<&Tree>) -> Tree {
        let id = format!("{SCHEME}{}", seen.id);
        let mut restarts = i64::from(seen.attempt);
        let mut last = json!({});
        if let Some(old) = old {
            restarts = restarts.max(old.int("restartCount").unwrap_or(0));
            if old.text("containerID") != id && old.at("state").has("terminated") {
                last = old.at("state").clone();
            } else if old.at("lastState").has("terminated") {
                last = old.at("lastState").clone();
            }
        }
        let state = match &seen.state {
            ContainerState::Running { since } => json!({"running": {"startedAt": since.rfc3339()}}),
            ContainerState::Exited { started, finished, code, reason, message } => {
                let words = self.words.get(&seen.id).cloned().flatten().unwrap_or_default();
                let message = match (message.as_str(), words.as_str()) {
                    ("", w) => w.to_owned(),
                    (m, "") => m.to_owned(),
                    (m, w) => format!("{m}: {w}"),
                };
                let mut ended = json!({
                    "exitCode": code, "startedAt": time(*started), "finishedAt": time(*finished), "containerID": id,
                });
                if !reason.is_empty() {
                    ended["reason"] = reason.as_str().into();
                }
                if !message.is_empty() {
                    ended["message"] = self.cut(message).into();
                }
                json!({"terminated": ended})
            }
            ContainerState::Unknown if old.is_some_and(|o| o.at("state").has("running")) => {
                restarts = old.and_then(|o| o.int("restartCount")).unwrap_or(0) + 1;
                json!({"terminated": {
                    "reason": UNKNOWN, "message": "The container could not be located when the pod was terminated",
                    "exitCode": 137, "startedAt": null, "finishedAt": null,
                }})
            }
            ContainerState::Created { .. } | ContainerState::Unknown => json!({"waiting": {}}),
        };
        let mut status = json!({
            "name": seen.name, "image": seen.image, "imageID": seen.image_id, "containerID": id,
            "restartCount": restarts, "ready": false, "state": state, "lastState": last,
        });
        let mounts = mounts(c);
        if !mounts.is_empty() {
            status["volumeMounts"] = mounts.into();
        }
        if list != List::Ephemeral {
            status["resources"] = if c.has("resources") { c.at("resources").clone() } else { json!({}) };
            tree::remove(&mut status["resources"], "claims");
            if c.at("resources").entries("requests").next().is_some() {
                status["allocatedResources"] = c.at("resources").at("requests").clone();
            }
        }
        status
    }

    fn cut(&self, mut message: String) -> String {
        let all = List::ALL.into_iter().map(|l| containers(&self.tree, l).len()).sum::<usize>().max(1);
        let mut most = (MESSAGES_MAX / all).min(message.len());
        while !message.is_char_boundary(most) {
            most -= 1;
        }
        message.truncate(most);
        message
    }

    /// Why a container that is to start has not.
    fn add_waiting(&self, list: List, c: &Tree, status: &mut Tree) {
        let name = c.text("name");
        let newest = self.view.newest(name);
        if list == List::Init {
            if newest.is_some_and(has_ended) && newest.and_then(code) == Some(0) {
                return;
            }
            let made = containers(&self.tree, List::Main).iter().any(|c| self.view.newest(c.text("name")).is_some());
            if newest.is_none() && made && !is_sidecar(list, c) && status.at("state").has("waiting") {
                status["state"] = json!({"terminated": {
                    "reason": "Completed", "exitCode": 0, "startedAt": null, "finishedAt": null,
                    "message": "Unable to get init container status from container runtime and pod has been initialized, treat it as exited normally",
                }});
                return;
            }
        }
        if self.is_deleting() || !self.should_start(c, newest) {
            return;
        }
        let Some((reason, message)) = self.waiting.get(name) else { return };
        if status.at("state").has("terminated") {
            status["lastState"] = status.at("state").clone();
        }
        status["state"] = json!({"waiting": {"reason": reason}});
        if !message.is_empty() {
            status["state"]["waiting"]["message"] = message.as_str().into();
        }
    }

    fn add_readiness(&self, list: List, c: &Tree, status: &mut Tree) {
        if list == List::Ephemeral {
            return;
        }
        let id = status.text("containerID").strip_prefix(SCHEME).unwrap_or_default().to_owned();
        let runs = status.at("state").has("running");
        let lasting = list == List::Main || is_sidecar(list, c);
        let started = runs && (!lasting || self.has_started(c, &id));
        status["started"] = started.into();
        let ready = if lasting {
            started && (!c.has("readinessProbe") || self.probes.well(&id, Which::Readiness) == Some(true))
        } else {
            status.at("state").at("terminated").int("exitCode") == Some(0)
        };
        status["ready"] = ready.into();
    }
}

fn time(at: Wall) -> Tree {
    if at == Wall::default() { Tree::Null } else { at.rfc3339().into() }
}

/// `volumeMounts` of a container's status.
fn mounts(c: &Tree) -> Vec<Tree> {
    let mount = |m: &Tree| {
        let mut s = json!({"name": m.text("name"), "mountPath": m.text("mountPath")});
        if m.flag("readOnly") {
            s["readOnly"] = true.into();
            s["recursiveReadOnly"] = "Disabled".into();
        }
        s
    };
    c.list("volumeMounts").iter().map(mount).collect()
}

/// What the pod as a whole was given (KEP-5419).
fn add_resources(pod: &Tree, status: &mut Tree) {
    let listed = |r: &Resources| -> Tree { r.0.iter().map(|(k, q)| (k.clone(), Tree::from(q.to_string()))).collect() };
    let requests = decide::pod::requests(pod.at("spec"));
    let limits = limits(pod);
    let mut resources = json!({});
    if !requests.0.is_empty() {
        status["allocatedResources"] = listed(&requests);
        resources["requests"] = listed(&requests);
    }
    if !limits.0.is_empty() {
        resources["limits"] = listed(&limits);
    }
    status["resources"] = resources;
}

/// The limits of a pod as a whole: as its requests are added up.
pub(super) fn limits(pod: &Tree) -> Resources {
    let of = |c: &Tree| Resources::of(c.at("resources").at("limits"));
    let (mut sidecars, mut peak) = (Resources::default(), Resources::default());
    for c in containers(pod, List::Init) {
        let mut own = of(c);
        if is_sidecar(List::Init, c) {
            sidecars.add(&own);
            peak.raise(&sidecars);
        } else {
            own.add(&sidecars);
            peak.raise(&own);
        }
    }
    let mut all = sidecars;
    for c in containers(pod, List::Main) {
        all.add(&of(c));
    }
    all.raise(&peak);
    for (name, q) in of(pod.at("spec")).0 {
        all.0.insert(name, q);
    }
    all
}
