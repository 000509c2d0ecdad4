//! What scheduling asks of cells: a leader of its own, in the name `system:kube-scheduler`; a node that evicts
//! of whichever has the pod, in its own name.

use crate::errand::{self, Errand};
use base::{Uid, Wall};
use objects::Tree;
use objects::kinds::{self, Kind};
use objects::request::{Body, Options, PatchType, User, Verb};
use serde_json::json;
use std::sync::Arc;

/// The most that the note of an Event may hold.
const NOTE_MAX: usize = 1024;

/// Makes errands.
pub(super) struct Errands {
    user: Arc<User>,
    namespace: Arc<str>,
    /// `reportingInstance` of Events.
    instance: String,
}

/// The pod that something is about.
pub(super) struct About<'a> {
    pub(super) name: &'a str,
    pub(super) uid: Uid,
    pub(super) revision: String,
}

/// What an Event says.
pub(super) struct Said<'a> {
    pub(super) warning: bool,
    pub(super) reason: &'static str,
    pub(super) action: &'static str,
    pub(super) note: &'a str,
}

impl Errands {
    pub(super) fn new(namespace: Arc<str>, node: &str) -> Errands {
        Errands { user: errand::scheduler(), namespace, instance: format!("default-scheduler-{node}") }
    }

    /// Errands of a node about its own pods of a namespace.
    pub(super) fn of_node(namespace: Arc<str>, node: &str) -> Errands {
        Errands { user: errand::node(node), namespace, instance: format!("default-scheduler-{node}") }
    }

    fn errand(&self, verb: Verb, kind: &'static Kind, name: Option<&str>, sub: &'static str, body: Body) -> Errand {
        Errand {
            user: self.user.clone(),
            verb,
            kind,
            namespace: Some(self.namespace.clone()),
            name: name.map(Into::into),
            subresource: sub,
            options: Options { field_manager: "kube-scheduler".into(), ..Options::default() },
            body,
        }
    }

    /// Binds a pod to a node, if it still is the one of this uid: the award, once it is committed.
    pub(super) fn bind(&self, pod: &str, uid: Uid, node: &str) -> Option<Errand> {
        let tree = json!({"apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": pod, "namespace": &*self.namespace, "uid": uid.to_string()},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node}});
        let body = Body::Object { tree, strict: Vec::new() };
        Some(self.errand(Verb::Create, kinds::by_kind("", "v1", "Pod")?, Some(pod), "binding", body))
    }

    /// Says in a pod's status that it is to make room for another.
    pub(super) fn disrupted(&self, pod: &str, uid: &str, now: Wall) -> Option<Errand> {
        let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
            "message": "default-scheduler: preempting to accommodate a higher priority pod",
            "lastTransitionTime": now.rfc3339()});
        let patch = json!({"metadata": {"uid": uid}, "status": {"conditions": [condition]}});
        let body = Body::Patch { kind: PatchType::Strategic, bytes: patch.to_string().into() };
        Some(self.errand(Verb::Patch, kinds::by_kind("", "v1", "Pod")?, Some(pod), "status", body))
    }

    /// Deletes a pod, with its own grace, if it still is the one of this uid.
    pub(super) fn delete(&self, pod: &str, uid: &str) -> Option<Errand> {
        let tree = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}});
        let body = Body::Object { tree, strict: Vec::new() };
        Some(self.errand(Verb::Delete, kinds::by_kind("", "v1", "Pod")?, Some(pod), "", body))
    }

    /// Says in the pod's status why it is not scheduled, and on which node room is being made for it. `None`
    /// if it says so already.
    pub(super) fn unscheduled(
        &self,
        pod: &Tree,
        (reason, message): (&str, &str),
        nominated: &str,
        now: Wall,
    ) -> Option<Errand> {
        let old = decide::pod::items(&pod["status"]["conditions"]).iter().find(|c| c["type"] == "PodScheduled");
        let is = |c: &Tree, field: &str, value: &str| c[field] == value;
        let said = pod["status"]["nominatedNodeName"].as_str().unwrap_or_default() == nominated;
        if said && old.is_some_and(|c| is(c, "status", "False") && is(c, "reason", reason) && is(c, "message", message))
        {
            return None;
        }
        let since = old.filter(|c| c["status"] == "False").map(|c| c["lastTransitionTime"].clone());
        let mut condition = json!({"type": "PodScheduled", "status": "False", "reason": reason, "message": message,
            "lastProbeTime": null, "lastTransitionTime": since.unwrap_or_else(|| json!(now.rfc3339()))});
        if let Some(generation) = pod["metadata"]["generation"].as_i64() {
            condition["observedGeneration"] = json!(generation);
        }
        let mut patch = json!({"metadata": {"uid": pod["metadata"]["uid"]}, "status": {"conditions": [condition]}});
        if !said {
            patch["status"]["nominatedNodeName"] = if nominated.is_empty() { Tree::Null } else { json!(nominated) };
        }
        let body = Body::Patch { kind: PatchType::Strategic, bytes: patch.to_string().into() };
        let name = pod["metadata"]["name"].as_str();
        Some(self.errand(Verb::Patch, kinds::by_kind("", "v1", "Pod")?, name, "status", body))
    }

    /// An Event about a pod.
    pub(super) fn event(&self, name: &str, about: &About<'_>, said: &Said<'_>, now: Wall) -> Option<Errand> {
        let tree = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"name": name, "namespace": &*self.namespace},
            "eventTime": now.rfc3339_micro(),
            "reportingController": "default-scheduler", "reportingInstance": self.instance,
            "action": said.action, "reason": said.reason, "type": if said.warning { "Warning" } else { "Normal" },
            "regarding": {"apiVersion": "v1", "kind": "Pod", "namespace": &*self.namespace, "name": about.name,
                "uid": about.uid.to_string(), "resourceVersion": about.revision},
            "note": cut(said.note)});
        let body = Body::Object { tree, strict: Vec::new() };
        Some(self.errand(Verb::Create, kinds::by_kind("events.k8s.io", "v1", "Event")?, None, "", body))
    }

    /// The same Event has happened so many times by now.
    pub(super) fn event_again(&self, name: &str, count: u64, now: Wall) -> Option<Errand> {
        let patch = json!({"series": {"count": count, "lastObservedTime": now.rfc3339_micro()}});
        let body = Body::Patch { kind: PatchType::Merge, bytes: patch.to_string().into() };
        Some(self.errand(Verb::Patch, kinds::by_kind("events.k8s.io", "v1", "Event")?, Some(name), "", body))
    }
}

/// The beginning of a note that is too long.
fn cut(note: &str) -> &str {
    let mut end = note.len().min(NOTE_MAX);
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    note.get(..end).unwrap_or_default()
}
