//! Who belongs to the mesh, as this node can tell: what root keeps, and what the links here show.
//!
//! Without root it is what is known here by itself: links, contacts, and whom the mesh had expelled when it was last heard.

use crate::backend::Node;
use crate::membership as kept;
use crate::node_object::NODE_ID;
use ::mesh::{LinkReport, Mesh};
use base::{NodeId, Wall};
use identity::{Contact, Roles};
use objects::Tree;
use objects::kinds;
use objects::membership::{Member, Revocation};
use objects::request::{Body, Verb};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;

/// How long root, and the registry, are waited for before it is told what is known here.
const WITHIN: Duration = Duration::from_secs(5);

/// Who belongs to the mesh. Fields are only ever added.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodesReport {
    /// Why root could not be asked; `None` if it answered, and all nodes are listed.
    pub(crate) without_root: Option<String>,
    /// The nodes, by name; those that were expelled last.
    pub(crate) nodes: Vec<NodeReport>,
}

/// One node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeReport {
    /// Its name, if that is known.
    pub(crate) name: Option<String>,
    /// Its id.
    pub(crate) node_id: String,
    /// What it may do; empty if that is not known.
    pub(crate) roles: Vec<String>,
    /// What it is to this node.
    pub(crate) state: State,
    /// It is about to leave.
    #[serde(default)]
    pub(crate) leaving: bool,
    /// When it was expelled, by RFC 3339.
    pub(crate) expelled: Option<String>,
    /// How long ago the last link to it ended, in seconds; `None` if there is one, or none is remembered.
    pub(crate) not_linked_seconds: Option<u64>,
    /// Why that link ended.
    pub(crate) link_ended: Option<String>,
    /// Where it may be reached.
    pub(crate) addresses: Vec<String>,
    /// The link to it.
    pub(crate) link: Option<LinkedReport>,
    /// Its release, as its Node object says.
    pub(crate) version: Option<String>,
}

/// What a node is to the one that was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum State {
    /// It was asked itself.
    ThisNode,
    /// There is a link to it.
    Linked,
    /// There is none. Links are made when there is something to say.
    NotLinked,
    /// It was expelled.
    Expelled,
}

/// The link to a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LinkedReport {
    /// Whether the node that was asked dialled; else the other one did.
    pub(crate) dialed_here: bool,
    /// For how long there has been this link.
    pub(crate) seconds: u64,
    /// There and back, in microseconds, as last measured.
    pub(crate) round_trip_us: Option<u64>,
    /// Where the node is seen.
    pub(crate) seen_at: Option<String>,
    /// The id of the node whose issuing key vouches for it: when that one is expelled, this link ends, too.
    pub(crate) issued_by: Option<String>,
    /// By how many milliseconds its clock was ahead at its last hello; negative if it was behind.
    pub(crate) clock_ahead_ms: i64,
    /// Until when what it showed is good, by RFC 3339.
    pub(crate) expires: String,
}

/// What root and the registry say, as far as they answered.
#[derive(Default)]
struct Heard {
    members: Vec<(String, Member)>,
    revocations: Vec<Revocation>,
    /// Releases by node.
    versions: BTreeMap<NodeId, String>,
    without_root: Option<String>,
}

/// What is known here without asking anybody.
struct Own {
    node: NodeId,
    name: String,
    roles: Roles,
    addresses: Vec<String>,
    contacts: Vec<Contact>,
    expelled: Vec<(NodeId, Wall)>,
    links: Vec<LinkReport>,
}

/// Asks root and the registry, and tells all nodes.
pub(crate) async fn nodes(backend: &Node, mesh: &Mesh, name: &str) -> NodesReport {
    let identity = backend.identity();
    let known = identity.known();
    let heard = hear(backend).await;
    let own = Own {
        node: identity.node_id(),
        name: name.to_owned(),
        roles: identity.roles(),
        addresses: mesh.addresses().iter().map(ToString::to_string).collect(),
        contacts: known.contacts.clone(),
        expelled: known.revocations.expelled().collect(),
        // After root was asked: the link to it is there by then.
        links: mesh.links(),
    };
    told(own, heard, |node| mesh.last_linked(node))
}

async fn hear(backend: &Node) -> Heard {
    let root = async {
        let members = kept::members(backend).await?;
        let revocations = kept::list(backend, "Revocation").await?;
        Ok::<_, Box<objects::status::Status>>((members, revocations))
    };
    let (root, versions) = tokio::join!(timeout(WITHIN, root), timeout(WITHIN, releases(backend)));
    let versions = versions.ok().flatten().unwrap_or_default();
    match root {
        Ok(Ok((members, revocations))) => {
            let revocations = revocations.iter().filter_map(Revocation::of).collect();
            Heard { members, revocations, versions, without_root: None }
        }
        Ok(Err(status)) => Heard { versions, without_root: Some(status.message), ..Heard::default() },
        Err(_) => {
            let why = format!("no answer within {} s", WITHIN.as_secs());
            Heard { versions, without_root: Some(why), ..Heard::default() }
        }
    }
}

/// All Node objects. `None`: the registry does not answer.
async fn releases(backend: &Node) -> Option<BTreeMap<NodeId, String>> {
    let kind = kinds::by_kind("", "v1", "Node")?;
    let wish = kept::Wish { kind, namespace: None, name: None, subresource: "", body: Body::None };
    let list = kept::as_system(backend, Verb::List, wish).await.ok()?;
    Some(list["items"].as_array()?.iter().filter_map(release).collect())
}

/// The node of a Node object and its release, which follows Kubernetes' in its version.
fn release(object: &Tree) -> Option<(NodeId, String)> {
    let id = object["metadata"]["annotations"][NODE_ID].as_str()?.parse().ok()?;
    let version = object["status"]["nodeInfo"]["kubeletVersion"].as_str()?;
    Some((id, version.split_once("+beemesh.")?.1.to_owned()))
}

/// Puts together what was heard and what is known here.
fn told(own: Own, heard: Heard, ended: impl Fn(NodeId) -> Option<(Duration, String)>) -> NodesReport {
    let mut all: BTreeMap<NodeId, NodeReport> = BTreeMap::new();
    let listed = |addresses: &[SocketAddr]| addresses.iter().map(ToString::to_string).collect();
    let here = of(&mut all, own.node);
    (here.name, here.roles, here.addresses) = (Some(own.name), kept::roles_listed(own.roles), own.addresses);
    if heard.without_root.is_some() {
        for c in own.contacts.iter().filter(|c| c.node != own.node) {
            of(&mut all, c.node).addresses = listed(&c.addresses);
        }
        for (id, at) in &own.expelled {
            of(&mut all, *id).expelled = Some(at.rfc3339());
        }
    }
    for (name, member) in heard.members {
        let n = of(&mut all, member.node);
        (n.name, n.roles, n.addresses) = (Some(name), member.roles, listed(&member.addresses));
        n.leaving = member.leaving;
    }
    for r in heard.revocations {
        let n = of(&mut all, r.node);
        n.expelled = Some(r.at.rfc3339());
        n.name.get_or_insert(r.name);
    }
    for link in &own.links {
        let n = of(&mut all, link.peer.node);
        if n.roles.is_empty() {
            n.roles = kept::roles_listed(link.peer.roles);
        }
        n.link = Some(linked(link));
    }
    for (id, n) in &mut all {
        n.version = heard.versions.get(id).cloned();
        n.state = match (&n.expelled, &n.link) {
            (Some(_), _) => State::Expelled,
            (None, _) if *id == own.node => State::ThisNode,
            (None, Some(_)) => State::Linked,
            (None, None) => State::NotLinked,
        };
        if n.link.is_none() && *id != own.node {
            let last = ended(*id);
            n.not_linked_seconds = last.as_ref().map(|(ago, _)| ago.as_secs());
            n.link_ended = last.map(|(_, why)| why);
        }
    }
    if let Some(n) = all.get_mut(&own.node) {
        n.version = Some(env!("CARGO_PKG_VERSION").to_owned());
    }
    let mut nodes: Vec<NodeReport> = all.into_values().collect();
    nodes.sort_by_key(|n| (n.state == State::Expelled, n.name.is_none(), n.name.clone(), n.node_id.clone()));
    NodesReport { without_root: heard.without_root, nodes }
}

/// What is told of a node, made if nothing was told yet.
fn of(all: &mut BTreeMap<NodeId, NodeReport>, id: NodeId) -> &mut NodeReport {
    all.entry(id).or_insert_with(|| NodeReport {
        name: None,
        node_id: id.to_string(),
        roles: Vec::new(),
        state: State::NotLinked,
        leaving: false,
        expelled: None,
        not_linked_seconds: None,
        link_ended: None,
        addresses: Vec::new(),
        link: None,
        version: None,
    })
}

fn linked(link: &LinkReport) -> LinkedReport {
    let us = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
    LinkedReport {
        dialed_here: link.dialed_here,
        seconds: link.age.as_secs(),
        round_trip_us: link.round_trip.map(us),
        seen_at: link.seen_at.map(|a| a.to_string()),
        issued_by: link.issued_by.map(|id| id.to_string()),
        clock_ahead_ms: link.clock_ahead_ms,
        expires: link.peer.expires.rfc3339(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use ::mesh::Peer;
    use base::{CellId, Uid};
    use std::sync::Arc;

    const NOW: Wall = Wall(1_769_846_400_000);

    fn id(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    fn member(n: u8, name: &str) -> (String, Member) {
        let registry = CellId(Uid(7));
        let addresses = vec![([192, 0, 2, n], 7443).into()];
        (
            name.into(),
            Member { node: id(n), registry, roles: vec!["worker".into()], addresses, joined: NOW, leaving: n == 3 },
        )
    }

    fn link(n: u8) -> LinkReport {
        let peer = Peer { node: id(n), roles: Roles::GATEWAY, expires: NOW, protocols: Vec::new() };
        LinkReport {
            peer: Arc::new(peer),
            dialed_here: true,
            age: Duration::from_secs(65),
            round_trip: Some(Duration::from_micros(250)),
            seen_at: Some(([192, 0, 2, n], 9).into()),
            issued_by: Some(id(1)),
            clock_ahead_ms: -3,
        }
    }

    fn own() -> Own {
        Own {
            node: id(1),
            name: "ant".into(),
            roles: Roles::ALL,
            addresses: vec!["192.0.2.1:7443".into()],
            contacts: vec![Contact { node: id(3), addresses: vec![([192, 0, 2, 3], 7443).into()] }],
            expelled: vec![(id(9), NOW)],
            links: vec![link(2)],
        }
    }

    fn states(r: &NodesReport) -> Vec<(Option<&str>, State)> {
        r.nodes.iter().map(|n| (n.name.as_deref(), n.state)).collect()
    }

    #[test]
    fn root_names_the_nodes_and_links_say_who_is_there() {
        let gone = Revocation { node: id(9), at: NOW, name: "dog".into() };
        let heard = Heard {
            members: vec![member(1, "ant"), member(2, "bee"), member(3, "cow")],
            revocations: vec![gone],
            versions: [(id(2), "0.1.0".to_owned())].into(),
            without_root: None,
        };
        let told = told(own(), heard, |node| (node == id(3)).then(|| (Duration::from_secs(9), "it stopped".into())));
        let all = [
            (Some("ant"), State::ThisNode),
            (Some("bee"), State::Linked),
            (Some("cow"), State::NotLinked),
            (Some("dog"), State::Expelled),
        ];
        assert_eq!(states(&told), all);
        let [ant, bee, cow, dog] = &told.nodes[..] else { panic!("four nodes") };
        assert_eq!(ant.version.as_deref(), Some(env!("CARGO_PKG_VERSION")));
        assert_eq!((bee.roles.join(","), bee.version.as_deref()), ("worker".into(), Some("0.1.0")), "as root says");
        assert!(bee.link.as_ref().is_some_and(|l| l.dialed_here && l.seconds == 65 && l.round_trip_us == Some(250)));
        assert_eq!((cow.not_linked_seconds, cow.link_ended.as_deref()), (Some(9), Some("it stopped")));
        assert!(cow.leaving && !bee.leaving);
        assert_eq!(dog.expelled.as_deref(), Some("2026-01-31T08:00:00Z"));
    }

    #[test]
    fn without_root_it_is_what_is_known_here() {
        let heard = Heard { without_root: Some("no answer".into()), ..Heard::default() };
        let told = told(own(), heard, |_| None);
        let all =
            [(Some("ant"), State::ThisNode), (None, State::Linked), (None, State::NotLinked), (None, State::Expelled)];
        assert_eq!(states(&told), all);
        assert_eq!((told.nodes[1].roles.join(","), told.nodes[2].addresses.len()), ("gateway".into(), 1));
        assert_eq!(told.without_root.as_deref(), Some("no answer"));
    }

    #[test]
    fn who_was_expelled_and_is_a_member_yet_is_expelled() {
        let gone = Revocation { node: id(2), at: NOW, name: "bee".into() };
        let members = vec![member(2, "bee")];
        let told = told(own(), Heard { members, revocations: vec![gone], ..Heard::default() }, |_| None);
        assert_eq!(states(&told), [(Some("ant"), State::ThisNode), (Some("bee"), State::Expelled)]);
    }

    #[test]
    fn a_release_is_what_follows_kubernetes_version() {
        let object = |version: &str| {
            serde_json::json!({"metadata": {"annotations": {NODE_ID: id(2).to_string()}},
                "status": {"nodeInfo": {"kubeletVersion": version}}})
        };
        assert_eq!(release(&object("v1.37.0+beemesh.0.1.0")), Some((id(2), "0.1.0".into())));
        assert_eq!(release(&object("v1.37.0")), None, "a Node of somebody else's");
        assert_eq!(release(&Tree::Null), None);
        assert!(release(&object(&crate::backend::version().git_version)).is_some());
    }
}
