//! The pod's status on its way to its cell: written when it differs from what the cell has, one write at a
//! time, at once if it matters to anybody and within a second if not. And its removal, when nothing of it
//! is left.
//!
//! A write is a patch of what the node decides, so that it meets no conflict with what others write.

use super::Cx;
use super::backoff::Retry;
use super::conditions::{OURS, is_terminal};
use super::pod::Pod;
use super::post::Purpose;
use crate::errand::{Answered, Errand};
use base::{Revision, Time};
use bytes::Bytes;
use objects::Tree;
use objects::kinds::by_resource;
use objects::kinds::tree::{self, Fields, same};
use objects::request::{Body, Options, PatchType, Verb};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// What matters to nobody waits this long for company.
const UNHURRIED: Duration = Duration::from_secs(1);
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(30);

/// Fields of a status that the node decides.
const FIELDS: [&str; 16] = [
    "allocatedResources",
    "containerStatuses",
    "ephemeralContainerStatuses",
    "hostIP",
    "hostIPs",
    "initContainerStatuses",
    "message",
    "observedGeneration",
    "phase",
    "podIP",
    "podIPs",
    "qosClass",
    "reason",
    "resources",
    "startTime",
    "conditions",
];

/// What has been said of a pod.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// The status as it was composed last.
    composed: Option<Tree>,
    /// The phase it has or will have once nothing runs: the last one never changes again.
    phase: String,
    writing: bool,
    deleting: bool,
    /// The cell was asked to remove it and has agreed.
    deleted: bool,
    /// Since when it differs in what matters to nobody.
    differs: Option<Time>,
    retry: Retry,
}

impl Report {
    /// The cell has told of the pod: what was composed without its word does not count.
    pub(super) fn forget(&mut self) {
        self.composed = None;
    }

    /// The newest status: composed here, or else as the object has it.
    pub(super) fn status<'a>(&'a self, pod: &'a Tree) -> &'a Tree {
        self.composed.as_ref().unwrap_or(pod.at("status"))
    }

    /// The last phase it was found to be in.
    pub(super) fn phase(&self) -> &str {
        &self.phase
    }

    /// Whether its containers have ended for good.
    pub(super) fn has_ended(&self) -> bool {
        is_terminal(&self.phase)
    }
}

impl Pod {
    /// Composes the status and writes it if the cell has another; removes the object if all is done.
    pub(super) fn report(&mut self, cx: &mut Cx<'_>) {
        if self.removed {
            self.delete_object(cx);
            return;
        }
        // Last words are part of how a container ended: the two are told together.
        if self.words.values().any(Option::is_none) {
            return;
        }
        let (status, natural) = self.compose(cx);
        if natural != self.report.phase && is_terminal(&natural) {
            // What is left is brought to its end.
            self.wake_at(cx.now.mono);
        }
        self.report.phase = natural;
        self.report.composed = Some(status);
        if !self.known || self.gone {
            return;
        }
        let Some((patch, hurried)) = self.difference() else {
            self.report.differs = None;
            return;
        };
        let now = cx.now.mono;
        let since = *self.report.differs.get_or_insert(now);
        let due = if hurried { now } else { since + UNHURRIED }.max(self.report.retry.at);
        if self.report.writing {
            return;
        }
        if now < due {
            self.wake_at(due);
            return;
        }
        self.report.writing = true;
        self.report.differs = None;
        let body = Body::Patch { kind: PatchType::Strategic, bytes: Bytes::from(patch.to_string()) };
        let errand = self.errand(cx, Verb::Patch, "status", body);
        cx.shared.post.send(now, Purpose::Status(self.uid.clone()), errand, cx.fx);
    }

    fn errand(&self, cx: &Cx<'_>, verb: Verb, subresource: &'static str, body: Body) -> Errand {
        let meta = self.tree.at("metadata");
        Errand {
            user: cx.shared.user.clone(),
            verb,
            kind: pods(),
            namespace: Some(meta.text("namespace").into()),
            name: Some(meta.text("name").into()),
            subresource,
            options: Options { field_manager: "kubelet".to_owned(), ..Options::default() },
            body,
        }
    }

    /// The patch that makes the cell's status the composed one, and whether it matters to anybody.
    fn difference(&self) -> Option<(Tree, bool)> {
        let new = self.report.composed.as_ref()?;
        let old = self.tree.at("status");
        let mut patch = json!({});
        let mut hurried = false;
        for field in FIELDS {
            match field {
                "conditions" => {
                    let changed = changed_conditions(old, new);
                    hurried |= changed.iter().any(|c| {
                        let before = old.list("conditions").iter().find(|o| o.text("type") == c.text("type"));
                        let before = before.map_or("False", |b| b.text("status"));
                        c.text("type") == "Ready" && before != c.text("status")
                    });
                    if !changed.is_empty() {
                        patch[field] = changed.into();
                    }
                }
                _ if alike(old.at(field), new.at(field)) => {}
                "podIPs" | "hostIPs" => {
                    // Nobody asks for the address of a pod that is still being made.
                    hurried |= new.text("phase") != "Pending";
                    let mut all = new.list(field).to_vec();
                    if old.has(field) {
                        all.insert(0, json!({"$patch": "replace"}));
                    }
                    patch[field] = all.into();
                }
                // Both are merged as maps: what is no longer there has to be said.
                "allocatedResources" | "resources" => {
                    let mut value = new.at(field).clone();
                    if old.has(field) && value.is_object() {
                        value["$patch"] = "replace".into();
                    }
                    patch[field] = value;
                }
                _ => {
                    hurried |= match field {
                        "phase" | "reason" => true,
                        "containerStatuses" | "initContainerStatuses" | "ephemeralContainerStatuses" => {
                            matters(old.at(field), new.at(field))
                        }
                        _ => false,
                    };
                    patch[field] = new.at(field).clone();
                }
            }
        }
        if patch.as_object().is_none_or(|p| p.is_empty()) {
            return None;
        }
        let uid = self.tree.at("metadata").at("uid").clone();
        Some((json!({"metadata": {"uid": uid}, "status": patch}), hurried))
    }

    /// The write came back.
    pub(super) fn status_written(&mut self, cx: &mut Cx<'_>, answer: Answered) {
        self.report.writing = false;
        match answer {
            Ok(tree) => {
                self.report.retry.done();
                self.newer(tree);
            }
            Err(_) => {
                // Gone, another of the same name, or the cell is out of reach: the cell's own word will
                // come; until then it is tried again.
                self.report.retry.failed(cx.now.mono, RETRY_FIRST, RETRY_MOST);
            }
        }
    }

    /// Takes an object that is newer than the one known.
    pub(super) fn newer(&mut self, tree: Tree) {
        let revision = tree.at("metadata").text("resourceVersion").parse().ok().and_then(Revision::from_u64);
        if let Some(revision) = revision
            && revision > self.revision
            && tree.at("metadata").text("uid") == &*self.uid
        {
            self.update(revision, tree);
        }
    }

    /// Takes the object as it is now.
    pub(super) fn update(&mut self, revision: Revision, mut tree: Tree) {
        // Items of a list carry no kind of their own; whoever reads this one wants it.
        tree::set(&mut tree, "kind", "Pod");
        tree::set(&mut tree, "apiVersion", "v1");
        let shown = |t: &Tree| (t.at("metadata").at("labels").clone(), t.at("metadata").at("annotations").clone());
        if shown(&self.tree) != shown(&tree) {
            self.volumes.changed();
        }
        self.revision = revision;
        self.tree = Arc::new(tree);
    }

    /// Asks the cell to remove the object: nothing of it is left here.
    fn delete_object(&mut self, cx: &mut Cx<'_>) {
        if self.gone || self.report.deleting || self.report.deleted {
            return;
        }
        let now = cx.now.mono;
        let at = self.report.retry.at;
        if now < at {
            self.wake_at(at);
            return;
        }
        self.report.deleting = true;
        let tree = json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
            "preconditions": {"uid": &*self.uid},
        });
        let errand = self.errand(cx, Verb::Delete, "", Body::Object { tree, strict: Vec::new() });
        cx.shared.post.send(now, Purpose::Delete(self.uid.clone()), errand, cx.fx);
    }

    /// The removal came back.
    pub(super) fn deleted(&mut self, cx: &mut Cx<'_>, answer: Answered) {
        self.report.deleting = false;
        match answer {
            Ok(_) => self.report.deleted = true,
            // It is gone, or another has its name: the cell will say so.
            Err(status) if status.code == 404 || status.code == 409 => self.report.deleted = true,
            Err(_) => self.report.retry.failed(cx.now.mono, RETRY_FIRST, RETRY_MOST),
        }
    }
}

fn pods() -> &'static objects::kinds::Kind {
    static PODS: std::sync::LazyLock<&'static objects::kinds::Kind> =
        std::sync::LazyLock::new(|| by_resource("", "v1", "pods").unwrap_or(&objects::kinds::KINDS[0]));
    *PODS
}

/// Whether two values say the same: what is absent, null or empty is all one, at any depth.
fn alike(old: &Tree, new: &Tree) -> bool {
    same(old, new)
}

/// Our conditions that differ.
fn changed_conditions(old: &Tree, new: &Tree) -> Vec<Tree> {
    let ours = new.list("conditions").iter().filter(|c| OURS.contains(&c.text("type")));
    let differs = |c: &&Tree| {
        let before = old.list("conditions").iter().find(|o| o.text("type") == c.text("type"));
        before.is_none_or(|b| {
            ["status", "reason", "message", "lastTransitionTime", "observedGeneration"]
                .iter()
                .any(|f| !alike(b.at(f), c.at(f)))
        })
    };
    ours.filter(differs)
        .map(|c| {
            // What the condition no longer says has to be said.
            let mut c = c.clone();
            for field in ["reason", "message"] {
                tree::default_to(&mut c, field, Tree::Null);
            }
            c
        })
        .collect()
}

/// Whether a change of containers' statuses is one that somebody waits for: not that one is being made,
/// nor in other words why one waits.
fn matters(old: &Tree, new: &Tree) -> bool {
    let told = |all: &Tree| -> Vec<Tree> {
        let told = |s: &Tree| {
            let waiting = s.at("state").at("waiting");
            if waiting.is_null() {
                return s.clone();
            }
            let reason = match waiting.text("reason") {
                "ContainerCreating" | "PodInitializing" => "",
                other => other,
            };
            json!({"name": s.at("name"), "waits": reason, "last": s.at("lastState"), "restarts": s.at("restartCount")})
        };
        all.as_array().into_iter().flatten().map(told).collect()
    };
    let making = |s: &Tree| s["waits"] == "" && s["restarts"] == 0;
    let (old, new) = (told(old), told(new));
    if old.is_empty() { !new.iter().all(making) } else { !alike(&old.into(), &new.into()) }
}
