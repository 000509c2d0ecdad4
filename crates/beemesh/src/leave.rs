//! Leaving the mesh: what the node that goes does for `beemesh leave`, a round at a time.
//!
//! Whoever leaves asks again until it is over, and each round does what can be done now: nothing goes on when nobody
//! asks, and a round after an interruption finds what was done. First the marks (the Member says that it leaves, the
//! Node takes no more pods), then the pods, by the eviction that disruption budgets judge, then the cells, which others
//! move; and when nothing is here any more the Node object, the Member, and the data directory's own mark.

use crate::admin::About;
use crate::backend::{Node, system};
use crate::cells::of_cell;
use crate::cli::exit::{Coded, Exit};
use crate::driver::clock;
use crate::files;
use crate::invite::Refused;
use crate::membership::{self as kept, Wish};
use anyhow::{Context, Result, anyhow};
use base::NodeId;
use node::errand::Errand;
use objects::Tree;
use objects::kinds;
use objects::membership::Member;
use objects::request::{Body, Options, PatchType, Verb};
use objects::status::{Reason, Status};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// No more pods are evicted in a round when it has taken so long: whoever asks waits for its answer, and asks again.
const EVICTS_FOR: Duration = Duration::from_secs(20);
/// Of pods and cells that are waited for so many are named.
const NAMED_MAX: usize = 5;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Asked {
    /// Also if something is lost with the node.
    pub(crate) force: bool,
    /// The marks are to be taken back.
    pub(crate) cancel: bool,
}

/// How far it is. Fields are only ever added.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Round {
    /// What this round did.
    pub(crate) done: Vec<String>,
    /// What is waited for.
    pub(crate) waits: Vec<String>,
    /// The node has left, and stops; or the marks are taken back.
    pub(crate) over: bool,
}

/// The end of a node that leaves, done by whoever runs it; answered when it is done.
pub(crate) type End = oneshot::Sender<Result<(), String>>;

/// Does what can be done now.
///
/// # Errors
/// A letter.
pub(crate) async fn round(about: &About, asked: Asked) -> Result<Round, Refused> {
    let backend = &*about.backend;
    let (own, name) = (backend.identity().node_id(), about.name.as_str());
    let members = kept::members(backend).await.map_err(|s| unreached("read who belongs to the mesh", &s))?;
    let mut round = Round::default();
    if asked.cancel {
        cancel(backend, name, own, &mut round).await?;
        return Ok(round);
    }
    let pods = pods_here(backend, name).await.map_err(|s| unreached("list this node's pods", &s))?;
    may_leave(own, &members, &pods, asked.force).map_err(|why| (Exit::Refused, why))?;
    if mark(backend, name, own, true).await.map_err(|s| unreached("mark this node as leaving", &s))? {
        round.done.push(format!("{name} is marked as leaving"));
    }
    if cordon(backend, name, own, true).await.map_err(|s| unreached("cordon this node", &s))? {
        round.done.push(format!("{name} takes no more pods"));
    }
    evict(backend, &pods, &mut round).await;
    // Pods first: a namespace's cell should be near those of its pods that are there.
    if round.waits.is_empty() && !asked.force {
        let cells: Vec<_> = backend.driver().all().iter().map(|cell| cell.look(of_cell)).collect();
        let failed = backend.driver().failed().len();
        round.waits = cells_wait(&own.to_string(), &cells, failed);
    }
    if round.waits.is_empty() {
        end(about).await?;
        round.done.push(format!("{name} has left the mesh, and stops"));
        round.over = true;
    }
    Ok(round)
}

async fn end(about: &About) -> Result<(), Refused> {
    let lost = || (Exit::Failed, "the node is stopping already: run `beemesh leave` again when it runs".to_owned());
    let (done, over) = oneshot::channel();
    about.leave.send(done).await.map_err(|_| lost())?;
    over.await.map_err(|_| lost())?.map_err(|why| (Exit::Unreachable, why))
}

/// Takes away what the mesh keeps of this node, and marks its data directory. What it has issued stays good, and so do its
/// token keys.
///
/// # Errors
/// A letter; what was done stays, and can be done again.
pub(crate) async fn finish(backend: &Node, data: &Path, name: &str) -> Result<(), String> {
    let own = backend.identity().node_id();
    let failed = |what: &str, s: &Status| format!("could not remove {what} ({}): run `beemesh leave` again", s.message);
    kept::remove_node_object(backend, name, own).await.map_err(|s| failed("this node's Node object", &s))?;
    kept::remove_member(backend, name, own).await.map_err(|s| failed("this node's Member", &s))?;
    let mark = json!({"version": 1, "node": name, "at": clock::wall().rfc3339()});
    files::replace(&left_file(data), mark.to_string().as_bytes()).map_err(|e| format!("{e:#}"))
}

fn left_file(data: &Path) -> PathBuf {
    data.join("left.json")
}

/// Whether the node of a data directory has left its mesh.
pub(crate) fn has_left(data: &Path) -> bool {
    left_file(data).exists()
}

/// Refuses to run on the data directory of a node that has left.
///
/// # Errors
/// A letter that says what can be done.
pub(crate) fn still_belongs(data: &Path) -> Result<()> {
    if !has_left(data) {
        return Ok(());
    }
    let text = std::fs::read_to_string(left_file(data)).context("reading when this node left")?;
    let at = serde_json::from_str::<Tree>(&text).ok().and_then(|t| t["at"].as_str().map(str::to_owned));
    let source = anyhow!(
        "the node of {} has left its mesh{}: empty that directory, and join again with a new ticket (`beemesh join`) or found another mesh (`beemesh up`). Nothing was changed",
        data.display(),
        at.map_or_else(String::new, |at| format!(" at {at}"))
    );
    Err(Coded { exit: Exit::Refused, source }.into())
}

async fn cancel(backend: &Node, name: &str, own: NodeId, round: &mut Round) -> Result<(), Refused> {
    if mark(backend, name, own, false).await.map_err(|s| unreached("take back that this node leaves", &s))? {
        round.done.push(format!("{name} does not leave"));
    }
    if cordon(backend, name, own, false).await.map_err(|s| unreached("uncordon this node", &s))? {
        round.done.push(format!("{name} takes pods again"));
    }
    round.over = true;
    Ok(())
}

/// Says in the Member whether the node leaves; whether that was otherwise. A Member that is gone is no failure: the last
/// round went so far.
async fn mark(backend: &Node, name: &str, own: NodeId, leaving: bool) -> Result<bool, Box<Status>> {
    let mut last = Status::internal("nothing was tried");
    for _ in 0..kept::CONFLICTS {
        let Some(mut object) = kept::get(backend, "Member", name).await? else { return Ok(false) };
        match Member::of(&object) {
            Some(member) if member.node == own && member.leaving != leaving => {}
            _ => return Ok(false),
        }
        object["spec"]["leaving"] = json!(leaving);
        match kept::update(backend, "Member", object).await {
            Ok(_) => return Ok(true),
            Err(status) if status.reason == Reason::Conflict => last = *status,
            Err(other) => return Err(other),
        }
    }
    Err(Box::new(last))
}

/// As `kubectl cordon` and `uncordon`; whether it was otherwise.
async fn cordon(backend: &Node, name: &str, own: NodeId, unschedulable: bool) -> Result<bool, Box<Status>> {
    let Some(node) = kept::node_object(backend, name, own).await? else { return Ok(false) };
    if node["spec"]["unschedulable"].as_bool().unwrap_or(false) == unschedulable {
        return Ok(false);
    }
    let value = if unschedulable { json!(true) } else { Tree::Null };
    let patch = json!({"metadata": {"uid": node["metadata"]["uid"]}, "spec": {"unschedulable": value}});
    let kind = kinds::by_kind("", "v1", "Node").ok_or_else(|| Box::new(Status::internal("there is no kind Node")))?;
    let body = Body::Patch { kind: PatchType::Merge, bytes: patch.to_string().into() };
    let wish = Wish { kind, namespace: None, name: Some(name), subresource: "", body };
    kept::as_system(backend, Verb::Patch, wish).await.map(|_| true)
}

/// A pod that is bound to this node.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Pod {
    namespace: String,
    name: String,
    /// It is on its way out.
    is_ending: bool,
    /// Somebody makes another in its place, or it has finished.
    is_replaced: bool,
}

impl Pod {
    fn of(object: &Tree) -> Option<Pod> {
        let meta = &object["metadata"];
        let owners = meta["ownerReferences"].as_array();
        let is_controlled = owners.is_some_and(|o| o.iter().any(|o| o["controller"] == true));
        let has_finished = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        Some(Pod {
            namespace: meta["namespace"].as_str()?.to_owned(),
            name: meta["name"].as_str()?.to_owned(),
            is_ending: !meta["deletionTimestamp"].is_null(),
            is_replaced: is_controlled || has_finished,
        })
    }

    fn called(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

async fn pods_here(backend: &Node, name: &str) -> Result<Vec<Pod>, Box<Status>> {
    let kind = kinds::by_kind("", "v1", "Pod").ok_or_else(|| Box::new(Status::internal("there is no kind Pod")))?;
    let errand = Errand {
        user: Arc::new(system()),
        verb: Verb::List,
        kind,
        namespace: None,
        name: None,
        subresource: "",
        options: Options { field_selector: format!("spec.nodeName={name}"), ..Options::default() },
        body: Body::None,
    };
    let list = backend.errand(&errand).await?;
    Ok(list["items"].as_array().into_iter().flatten().filter_map(Pod::of).collect())
}

/// Evicts what is not on its way out yet, each pod as its disruption budget allows.
async fn evict(backend: &Node, pods: &[Pod], round: &mut Round) {
    let Some(kind) = kinds::by_kind("", "v1", "Pod") else { return };
    let mut held = Vec::new();
    let start = Instant::now();
    for pod in pods.iter().filter(|p| !p.is_ending) {
        if start.elapsed() >= EVICTS_FOR {
            break;
        }
        let tree = json!({"apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": pod.name, "namespace": pod.namespace}});
        let body = Body::Object { tree, strict: Vec::new() };
        let wish = Wish { kind, namespace: Some(&pod.namespace), name: Some(&pod.name), subresource: "eviction", body };
        match kept::as_system(backend, Verb::Create, wish).await {
            Ok(_) => round.done.push(format!("pod {} is evicted", pod.called())),
            Err(status) if status.reason == Reason::NotFound => {}
            Err(status) => held.push(format!("{} ({})", pod.called(), status.message)),
        }
    }
    if !held.is_empty() {
        round.waits.push(format!("pods that may not be evicted yet: {}", named(&held)));
    } else if !pods.is_empty() {
        let ending: Vec<String> = pods.iter().map(Pod::called).collect();
        round.waits.push(format!("pods to end: {}", named(&ending)));
    }
}

fn named(all: &[String]) -> String {
    let shown = all.get(..NAMED_MAX).unwrap_or(all).join(", ");
    match all.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Whether the mesh, and what runs, can be without this node.
fn may_leave(own: NodeId, members: &[(String, Member)], pods: &[Pod], force: bool) -> Result<(), String> {
    if force {
        return Ok(());
    }
    let others = || members.iter().filter(|(_, m)| m.node != own && !m.leaving).map(|(_, m)| m);
    if others().next().is_none() {
        return Err("this is the last node of its mesh, and leaving it ends the mesh: give --force if that is meant. Nothing was changed".to_owned());
    }
    if !others().any(kept::is_authority) {
        return Err("no other node has the role authority, and without one nobody could join or be expelled: let another in with that role first (`beemesh invite`, `beemesh join`), or give --force. Nothing was changed".to_owned());
    }
    let alone: Vec<String> = pods.iter().filter(|p| !p.is_replaced && !p.is_ending).map(Pod::called).collect();
    if !alone.is_empty() {
        return Err(format!(
            "nobody makes these pods anew elsewhere, and they would be gone: {}. Delete them, or give --force. What was done stays",
            named(&alone)
        ));
    }
    Ok(())
}

/// What is waited for of the cells kept here. Nothing, if there are none but those that no longer name this node.
fn cells_wait(own: &str, cells: &[crate::cells::CellReport], failed: usize) -> Vec<String> {
    let called = |c: &crate::cells::CellReport| {
        if c.namespace.is_empty() { c.role.clone() } else { format!("{}/{}", c.role, c.namespace) }
    };
    // One that does not know its keepers yet is asked for by somebody.
    // While keepers change, those of before vote as well: who goes may be needed yet.
    let named_here = |c: &&crate::cells::CellReport| {
        c.changing || c.keepers.is_empty() || c.keepers.iter().any(|k| k.node_id == own)
    };
    let is_alone = |c: &&crate::cells::CellReport| c.keepers.iter().all(|k| k.node_id == own || !k.votes);
    let (alone, others): (Vec<_>, Vec<_>) = cells.iter().filter(named_here).partition(is_alone);
    let list = |cells: Vec<&crate::cells::CellReport>| named(&cells.into_iter().map(called).collect::<Vec<_>>());
    let mut waits = Vec::new();
    if !alone.is_empty() {
        waits.push(format!(
            "cells of which no other node has a vote yet: {}. If no other machine can keep them, join one with the role they need; with --force they are lost",
            list(alone)
        ));
    }
    if !others.is_empty() {
        waits.push(format!("cells to be kept elsewhere: {}", list(others)));
    }
    if failed > 0 {
        waits.push(format!("{failed} cells that could not be started (`beemesh cells` says why); with --force what they hold is left behind"));
    }
    waits
}

fn unreached(what: &str, status: &Status) -> Refused {
    let why = format!("could not {what} ({}). What was done stays: run `beemesh leave` again", status.message);
    (Exit::Unreachable, why)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::cells::{CellReport, KeeperReport};
    use base::{CellId, Uid, Wall};

    fn member(n: u8, roles: &str, leaving: bool) -> (String, Member) {
        let roles = roles.split(',').map(str::to_owned).collect();
        let (node, registry) = (NodeId([n; 32]), CellId(Uid(7)));
        (format!("n{n}"), Member { node, registry, roles, addresses: Vec::new(), joined: Wall(0), leaving })
    }

    fn pod(is_ending: bool, is_replaced: bool) -> Pod {
        Pod { namespace: "shop".into(), name: "web".into(), is_ending, is_replaced }
    }

    #[test]
    fn a_mesh_keeps_a_node_and_an_authority_and_no_pod_is_lost_unasked() {
        let own = NodeId([1; 32]);
        let (me, bee) = (member(1, "authority", true), member(2, "authority", false));
        let (worker, going) = (member(3, "worker", false), member(4, "authority", true));
        let may = |members: &[&(String, Member)], pods: &[Pod]| {
            let members: Vec<_> = members.iter().map(|m| (*m).clone()).collect();
            assert_eq!(may_leave(own, &members, pods, true), Ok(()));
            may_leave(own, &members, pods, false)
        };
        assert_eq!(may(&[&me, &bee], &[pod(false, true), pod(true, false)]), Ok(()));
        for (members, pods, words) in [
            (&[&me][..], &[][..], "the last node"),
            (&[&me, &going][..], &[][..], "the last node"),
            (&[&me, &worker][..], &[][..], "no other node has the role authority"),
            (&[&me, &bee][..], &[pod(false, false)][..], "would be gone: shop/web"),
        ] {
            let why = may(members, pods).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }

    #[test]
    fn a_pod_is_replaced_if_a_controller_made_it_or_it_has_finished() {
        let of = |owner: Tree, phase: &str| {
            Pod::of(&json!({"metadata": {"namespace": "shop", "name": "web", "ownerReferences": [owner]},
                "status": {"phase": phase}}))
            .map(|p| p.is_replaced)
        };
        assert_eq!(of(json!({"controller": true}), "Running"), Some(true));
        assert_eq!(of(json!({}), "Running"), Some(false));
        assert_eq!(of(json!({}), "Failed"), Some(true));
        assert_eq!(Pod::of(&json!({"metadata": {"name": "web"}})), None);
    }

    fn cell(role: &str, namespace: &str, keepers: &[(&str, bool)]) -> CellReport {
        let keeper = |(node, votes): &(&str, bool)| KeeperReport {
            node_id: (*node).into(),
            name: None,
            votes: *votes,
            leads: false,
            lag: None,
        };
        let text = json!({"id": "1", "role": role, "namespace": namespace, "part": "leader", "voters": 1, "term": 1, "commit": 1,
            "applied": 1, "revision": 1, "objects": 1, "bytes": 1, "waiting": 0});
        CellReport { keepers: keepers.iter().map(keeper).collect(), ..serde_json::from_value(text).unwrap() }
    }

    #[test]
    fn cells_are_waited_for_as_long_as_they_name_this_node() {
        assert_eq!(cells_wait("me", &[], 0), [""; 0]);
        assert_eq!(cells_wait("me", &[cell("root", "", &[("a", true), ("b", true)])], 0), [""; 0], "it is let go");
        let cells = [
            cell("root", "", &[("me", true), ("b", false)]),
            cell("namespace", "shop", &[("me", true), ("b", true)]),
            cell("namespace", "new", &[]),
        ];
        let waits = cells_wait("me", &cells, 2);
        let [alone, others, failed] = &waits[..] else { panic!("{waits:?}") };
        assert!(alone.contains("no other node has a vote yet: root, namespace/new."), "{alone}");
        assert_eq!(others, "cells to be kept elsewhere: namespace/shop");
        assert!(failed.starts_with("2 cells that could not be started"), "{failed}");
    }

    #[test]
    fn a_node_that_left_is_not_started_again() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!has_left(dir.path()) && still_belongs(dir.path()).is_ok());
        std::fs::write(left_file(dir.path()), r#"{"version":1,"node":"n","at":"2026-01-31T08:00:00Z"}"#).unwrap();
        let why = still_belongs(dir.path()).unwrap_err();
        assert!(why.to_string().contains("has left its mesh at 2026-01-31T08:00:00Z: empty that directory"), "{why}");
        assert_eq!(crate::cli::exit::code_of(&why), Exit::Refused);
    }

    #[test]
    fn of_many_some_are_named() {
        let all: Vec<String> = (0..7).map(|n| n.to_string()).collect();
        assert_eq!((named(&all[..2]), named(&all)), ("0, 1".to_owned(), "0, 1, 2, 3, 4 and 2 more".to_owned()));
    }
}
