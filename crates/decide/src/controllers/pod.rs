//! A pod as controllers see it: read from its object once per change, and small, since a leader keeps one
//! of every pod of its cell.

use crate::pod::items;
use base::{Revision, Wall};
use objects::Tree;
use objects::record::{Meta, Stored};
use objects::select::LabelSelector;
use std::sync::Arc;

/// How far a pod has come: `status.phase`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[allow(missing_docs)] // they are Kubernetes' words
pub enum Phase {
    #[default]
    Pending,
    Unknown,
    Running,
    Succeeded,
    Failed,
}

/// A port that a container names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// Its name.
    pub name: Box<str>,
    /// `TCP`, `UDP`, `SCTP`.
    pub protocol: Box<str>,
    /// The port.
    pub port: u16,
}

/// A pod.
#[derive(Clone, PartialEq, Debug)]
pub struct Pod {
    /// Its name.
    pub name: Arc<str>,
    /// Its uid, as written.
    pub uid: Box<str>,
    /// The number of its last change.
    pub revision: Revision,
    /// The header of its record: labels, owners, deletion.
    pub meta: Arc<Meta>,
    /// `status.phase`.
    pub phase: Phase,
    /// The node it is bound to; empty for none.
    pub node: Box<str>,
    /// Since when it is ready, if it is.
    pub ready_since: Option<Wall>,
    /// The most restarts of one of its containers, and of one of its restartable init containers.
    pub restarts: (i64, i64),
    /// `controller.kubernetes.io/pod-deletion-cost`.
    pub deletion_cost: i32,
    /// `status.podIPs`, or `status.podIP` alone.
    pub addresses: Vec<Box<str>>,
    /// `spec.hostname` and `spec.subdomain`.
    pub host: (Box<str>, Box<str>),
    /// Ports with names.
    pub ports: Vec<Port>,
}

impl Pod {
    /// The pod of a record.
    pub fn of(name: &str, stored: &Stored) -> Pod {
        Pod::read(name, stored.revision, stored.meta.clone(), &stored.tree())
    }

    fn read(name: &str, revision: Revision, meta: Arc<Meta>, tree: &Tree) -> Pod {
        let (spec, status) = (&tree["spec"], &tree["status"]);
        let text = |t: &Tree| -> Box<str> { t.as_str().unwrap_or_default().into() };
        let most = |containers: &Tree, of: &dyn Fn(&Tree) -> bool| {
            items(containers).iter().filter(|c| of(c)).filter_map(|c| c["restartCount"].as_i64()).max().unwrap_or(0)
        };
        let is_sidecar = |c: &Tree| {
            let of = |i: &&Tree| i["name"] == c["name"] && i["restartPolicy"] == "Always";
            items(&spec["initContainers"]).iter().any(|i| of(&i))
        };
        let mut addresses: Vec<Box<str>> = items(&status["podIPs"]).iter().map(|a| text(&a["ip"])).collect();
        if addresses.is_empty() {
            addresses.extend(status["podIP"].as_str().filter(|a| !a.is_empty()).map(Box::from));
        }
        let running =
            items(&spec["containers"]).iter().chain(items(&spec["initContainers"]).iter().filter(|c| is_sidecar(c)));
        let ports = running.flat_map(|c| items(&c["ports"])).filter_map(|p| {
            Some(Port {
                name: p["name"].as_str().filter(|n| !n.is_empty())?.into(),
                protocol: p["protocol"].as_str().unwrap_or("TCP").into(),
                port: u16::try_from(p["containerPort"].as_u64()?).ok()?,
            })
        });
        let ready = items(&status["conditions"]).iter().find(|c| c["type"] == "Ready" && c["status"] == "True");
        let cost = &tree["metadata"]["annotations"]["controller.kubernetes.io/pod-deletion-cost"];
        Pod {
            name: name.into(),
            uid: text(&tree["metadata"]["uid"]),
            revision,
            meta,
            phase: match status["phase"].as_str() {
                Some("Running") => Phase::Running,
                Some("Succeeded") => Phase::Succeeded,
                Some("Failed") => Phase::Failed,
                Some("Unknown") => Phase::Unknown,
                _ => Phase::Pending,
            },
            node: text(&spec["nodeName"]),
            ready_since: ready
                .map(|c| c["lastTransitionTime"].as_str().and_then(Wall::parse_rfc3339).unwrap_or_default()),
            restarts: (
                most(&status["containerStatuses"], &|_| true),
                most(&status["initContainerStatuses"], &is_sidecar),
            ),
            deletion_cost: cost.as_str().and_then(|c| c.parse().ok()).unwrap_or(0),
            addresses,
            host: (text(&spec["hostname"]), text(&spec["subdomain"])),
            ports: ports.collect(),
        }
    }

    /// It has run to its end.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }

    /// It is being deleted.
    pub fn is_terminating(&self) -> bool {
        self.meta.deletion.is_some()
    }

    /// It neither ended nor is on its way out: what counts as one of a controller's pods.
    pub fn is_active(&self) -> bool {
        !self.is_finished() && !self.is_terminating()
    }

    /// The condition `Ready` is true.
    pub fn is_ready(&self) -> bool {
        self.ready_since.is_some()
    }

    /// It as it is to be taken while its node is silent: whatever it said last, it serves nobody.
    #[must_use]
    pub fn unserving(&self) -> Pod {
        Pod { ready_since: None, ..self.clone() }
    }

    /// Whether its labels satisfy a selector.
    pub fn is_selected(&self, selector: &LabelSelector) -> bool {
        selector.matches(|k| self.meta.label(k))
    }

    /// The uid of the owner that manages it.
    pub fn controller(&self) -> Option<&str> {
        self.meta.controller().map(|o| &*o.uid)
    }

    pub(crate) fn target(&self) -> super::Target {
        super::Target {
            api_version: "v1".into(),
            kind: "Pod".into(),
            name: self.name.to_string(),
            uid: self.uid.to_string(),
        }
    }
}

#[cfg(test)]
impl Pod {
    /// The pod of a tree, for tests.
    #[allow(clippy::unwrap_used)]
    pub(crate) fn of_tree(tree: &Tree) -> Pod {
        let kind = objects::kinds::by_kind("", "v1", "Pod").unwrap();
        let meta = Arc::new(Meta::of(kind, tree));
        Pod::read(tree["metadata"]["name"].as_str().unwrap_or_default(), Revision::ZERO, meta, tree)
    }
}
