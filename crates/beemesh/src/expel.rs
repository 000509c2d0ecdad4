//! Expelling a node: what a node with the role authority does for `beemesh expel`.
//!
//! The order is such that an end anywhere loses nothing, and the same command, given again, goes on. First the
//! Revocation: from then on whoever hears of it refuses the node, its renewals and its joining, though nothing else were
//! done. Then its Node object, that its pods are replaced; then its token keys and the tickets that it still has; its
//! Member at last, since a name that is free might be another's when the rest is done again.

use crate::backend::Node;
use crate::cli::exit::Exit;
use crate::driver::clock;
use crate::invite::Refused;
use crate::membership as kept;
use ::mesh::Mesh;
use agree::descriptor::Keeper;
use base::{NodeId, Wall};
use identity::revocations::MAX_EXPELLED;
use identity::{GRACE, Roles, lifetime};
use objects::membership::{Member, Revocation};
use objects::status::{Reason, Status};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::timeout;

/// Of an id so many digits have to be typed at least.
const PREFIX_MIN: usize = 4;
/// Of the nodes there are so many are listed to somebody who named none of them.
const LISTED_MAX: usize = 20;
/// How long it is waited until this node itself has heard of it from root.
const HEARD_WITHIN: Duration = Duration::from_secs(5);

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Asked {
    /// Its name, or the beginning of its id.
    pub(crate) node: String,
    /// Also if others are cut off with it.
    pub(crate) force: bool,
}

/// A node that is expelled. Fields are only ever added.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Expelled {
    /// The name it had.
    pub(crate) name: String,
    /// Its id.
    pub(crate) node_id: String,
    /// Since when, by RFC 3339.
    pub(crate) at: String,
    /// It had been expelled before this command.
    pub(crate) again: bool,
    /// Until when whoever has not heard of it takes its certificate, by RFC 3339.
    pub(crate) good_until: String,
    /// The same of what its issuing key vouches for; `None` if it had no role to have one.
    pub(crate) issues_until: Option<String>,
    /// Whether its Node object was there and is gone.
    pub(crate) node_object_removed: bool,
    /// Tickets for many machines that it had joined with: they let nobody in any more.
    pub(crate) tickets_removed: Vec<String>,
    /// Nodes whose certificates it has issued, as far as is seen here: they are refused with it.
    pub(crate) cut_off: Vec<String>,
    /// Whether its links at this node are closed.
    pub(crate) heard_here: bool,
}

/// Who is meant.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Target {
    name: String,
    node: NodeId,
    roles: Option<Roles>,
    is_expelled: bool,
}

/// Who keeps root, as far as is known here.
#[derive(Clone, PartialEq, Eq, Debug)]
enum RootKept {
    /// A replica is here, and says who votes; each with whether it is this node or linked to it.
    By(Vec<(NodeId, bool)>),
    /// None is here. This node led it when it was asked last.
    Led(NodeId),
    /// Nobody has answered.
    Unknown,
}

/// Expels a node.
///
/// # Errors
/// A letter that says what became of it.
pub(crate) async fn expel(backend: &Node, mesh: &Mesh, asked: &Asked) -> Result<Expelled, Refused> {
    let own = backend.identity();
    let (members, revocations) = listed(backend).await?;
    let refuse = |why: String| (Exit::Refused, format!("{why}. Nothing was changed"));
    if !own.roles().contains(Roles::AUTHORITY) {
        let why = format!(
            "this node's roles are {}, and only a node with the role authority expels: run `beemesh expel` on {}",
            own.roles(),
            authorities(&members, &revocations).join(" or ")
        );
        return Err(refuse(why));
    }
    let target = meant(&asked.node, &members, &revocations).map_err(refuse)?;
    let cut_off = cut_off(backend, mesh, &members, target.node);
    if !target.is_expelled {
        let root = root_kept(backend, mesh);
        may_go(own.node_id(), &target, &members, &revocations, &root).map_err(refuse)?;
        if !cut_off.is_empty() && !asked.force {
            let why = format!(
                "{} has issued the certificates of {}: they would be refused with it, and could only join anew with tickets. They are renewed every half hour, by whoever is asked then; if {} must go at once, give --force",
                target.name,
                cut_off.join(", "),
                target.name
            );
            return Err(refuse(why));
        }
        if revocations.len() >= MAX_EXPELLED {
            return Err(refuse(format!("root lists {MAX_EXPELLED} expelled nodes, which is the most")));
        }
    }
    let linked = mesh.peer(target.node);
    let at = revoke(backend, &target).await?;
    tracing::warn!(node = %target.node, name = target.name, "a node was expelled");
    let heard_here = hears(backend, mesh, target.node).await;
    let (node_object_removed, tickets_removed) = tidy(backend, &target).await.map_err(|s| half_done(&target, &s))?;
    let now = clock::wall();
    let roles = target.roles.unwrap_or(Roles::ALL);
    // What it may have been given a moment ago, and nobody here has seen.
    let latest = (now + lifetime::SVID + GRACE).max(linked.map_or(now, |peer| peer.expires));
    let issues = roles.contains(Roles::AUTHORITY | Roles::KEEPER);
    Ok(Expelled {
        name: target.name,
        node_id: target.node.to_string(),
        at: at.rfc3339(),
        again: target.is_expelled,
        good_until: latest.rfc3339(),
        issues_until: issues.then(|| (now + lifetime::ISSUER).rfc3339()),
        node_object_removed,
        tickets_removed,
        cut_off,
        heard_here,
    })
}

type Listed = (Vec<(String, Member)>, Vec<Revocation>);

async fn listed(backend: &Node) -> Result<Listed, Refused> {
    let unreached = |s: Box<Status>| {
        let why = format!("the mesh's root did not answer ({}). Nothing was changed: try again", s.message);
        (Exit::Unreachable, why)
    };
    let members = kept::members(backend).await.map_err(unreached)?;
    let revocations = kept::list(backend, "Revocation").await.map_err(unreached)?;
    Ok((members, revocations.iter().filter_map(Revocation::of).collect()))
}

/// Has root list it; since when it does.
async fn revoke(backend: &Node, target: &Target) -> Result<Wall, Refused> {
    let id = target.node.to_string();
    let now = clock::wall();
    let spec = Revocation { node: target.node, at: now, name: target.name.clone() }.spec();
    let unsure = |s: Box<Status>| {
        let why = format!(
            "root was asked to expel {} and did not say that it has ({}): it may have been done or not. Run the same command again",
            target.name, s.message
        );
        (Exit::Unreachable, why)
    };
    match kept::create(backend, "Revocation", &id, spec).await {
        Ok(_) => Ok(now),
        // Before this command, or by it: an answer may have been lost.
        Err(s) if s.reason == Reason::AlreadyExists => {
            let there = kept::get(backend, "Revocation", &id).await.map_err(unsure)?;
            Ok(there.as_ref().and_then(Revocation::of).map_or(now, |r| r.at))
        }
        Err(s) => Err(unsure(s)),
    }
}

/// Waits until this node has heard of it from root, and has no link to that node any more: what the node writes after
/// that does not come by here.
async fn hears(backend: &Node, mesh: &Mesh, node: NodeId) -> bool {
    let heard = async {
        let mut changes = backend.driver().changes();
        loop {
            changes.borrow_and_update();
            if backend.identity().known().revocations.is_expelled(node) && mesh.peer(node).is_none() {
                return;
            }
            // The links close after the change, by themselves.
            let _ = timeout(Duration::from_millis(50), changes.changed()).await;
        }
    };
    timeout(HEARD_WITHIN, heard).await.is_ok()
}

/// Takes away what root and the registry keep of an expelled node, but for that it is one.
async fn tidy(backend: &Node, target: &Target) -> Result<(bool, Vec<String>), Box<Status>> {
    let Target { name, node, .. } = target;
    let mut removed = kept::remove_node_object(backend, name, *node).await?;
    kept::remove(backend, "TokenKeys", &node.to_string()).await?;
    let mut tickets = Vec::new();
    for object in kept::list(backend, "Ticket").await? {
        let has_it = |t: &identity::TicketRecord| t.reusable && t.used_by.contains(node);
        if kept::ticket_of(&object).as_ref().is_some_and(has_it) {
            kept::remove(backend, "Ticket", kept::name(&object)).await?;
            tickets.push(kept::name(&object).to_owned());
        }
    }
    // Until it was heard of by all on its way, the node may have made its object anew.
    removed |= kept::remove_node_object(backend, name, *node).await?;
    kept::remove_member(backend, name, *node).await?;
    Ok((removed, tickets))
}

fn half_done(target: &Target, status: &Status) -> Refused {
    let why = format!(
        "{} is expelled: whoever has heard of it refuses it. But what is kept of it could not all be removed ({}): its pods may not be replaced, and its name not be free. Run the same command again",
        target.name, status.message
    );
    (Exit::Unreachable, why)
}

fn root_kept(backend: &Node, mesh: &Mesh) -> RootKept {
    let root = backend.driver().founding().root;
    if let Some(seat) = backend.driver().cell(root) {
        let is_there = |node: NodeId| node == backend.identity().node_id() || mesh.peer(node).is_some();
        let told = |k: &Keeper| (k.node, is_there(k.node));
        let voters = |keepers: &[Keeper]| keepers.iter().filter(|k| k.votes).map(told).collect();
        return RootKept::By(seat.look(|cell| voters(&cell.member().cell().keepers().now.keepers)));
    }
    let leader = backend.driver().away().and_then(|away| away.leader_of(root));
    leader.map_or(RootKept::Unknown, RootKept::Led)
}

/// Whose certificates rest on this node's issuing key, as far as is seen here: it is refused, and so is what it
/// vouches for.
fn cut_off(backend: &Node, mesh: &Mesh, members: &[(String, Member)], node: NodeId) -> Vec<String> {
    let own = backend.identity();
    let links = mesh.links();
    let others = links.iter().filter(|l| l.issued_by == Some(node) && l.peer.node != node).map(|l| l.peer.node);
    let proven = own.svid().and_then(|svid| own.verifier().node(&svid.chain, clock::wall(), GRACE).ok());
    let here = proven.and_then(|proven| proven.issued_by).filter(|by| *by == node && node != own.node_id());
    others.chain(here.map(|_| own.node_id())).map(|id| called(id, members)).collect()
}

fn called(id: NodeId, members: &[(String, Member)]) -> String {
    members.iter().find(|(_, m)| m.node == id).map_or_else(|| id.short(), |(name, _)| name.clone())
}

fn is_listed(node: NodeId, revocations: &[Revocation]) -> bool {
    revocations.iter().any(|r| r.node == node)
}

/// The nodes that may expel, by name.
fn authorities(members: &[(String, Member)], revocations: &[Revocation]) -> Vec<String> {
    let may = members.iter().filter(|(_, m)| kept::is_authority(m) && !is_listed(m.node, revocations));
    may.map(|(name, _)| name.clone()).collect()
}

/// Which node is meant by what was typed: a member's name, or the beginning of an id, or the name that a node had that is
/// no member any more.
fn meant(typed: &str, members: &[(String, Member)], revocations: &[Revocation]) -> Result<Target, String> {
    let member = |(name, m): &(String, Member)| Target {
        name: name.clone(),
        node: m.node,
        roles: kept::roles_of(&m.roles),
        is_expelled: is_listed(m.node, revocations),
    };
    if let Some(named) = members.iter().find(|(name, _)| name == typed) {
        return Ok(member(named));
    }
    let is_member = |node: NodeId| members.iter().any(|(_, m)| m.node == node);
    let gone = revocations.iter().filter(|r| !is_member(r.node));
    let gone = gone.map(|r| Target { name: r.name.clone(), node: r.node, roles: None, is_expelled: true });
    let all: Vec<Target> = members.iter().map(member).chain(gone).collect();
    let begins = |t: &&Target| t.node.to_string().starts_with(&typed.to_ascii_lowercase());
    let by_id: Vec<&Target> = if typed.len() < PREFIX_MIN { Vec::new() } else { all.iter().filter(begins).collect() };
    let by_name: Vec<&Target> = all.iter().filter(|t| t.name == typed).collect();
    match if by_id.is_empty() { by_name } else { by_id }[..] {
        [one] => Ok(one.clone()),
        [] => Err(format!(
            "no node of this mesh is called {typed:?}, and no id begins so (of an id {PREFIX_MIN} digits at least are to be given): there are {}",
            shown(&members.iter().map(member).collect::<Vec<_>>().iter().collect::<Vec<_>>())
        )),
        ref many => Err(format!("{typed:?} may be any of {} nodes: {}. Give more of its id", many.len(), shown(many))),
    }
}

fn shown(targets: &[&Target]) -> String {
    let listed: Vec<String> = targets
        .iter()
        .take(LISTED_MAX)
        .map(|t| format!("{} ({})", t.name, t.node.to_string().get(..12).unwrap_or_default()))
        .collect();
    match targets.len().saturating_sub(LISTED_MAX) {
        0 if listed.is_empty() => "none".to_owned(),
        0 => listed.join(", "),
        more => format!("{} and {more} more", listed.join(", ")),
    }
}

/// Whether the mesh can be without a node.
fn may_go(
    own: NodeId,
    target: &Target,
    members: &[(String, Member)],
    revocations: &[Revocation],
    root: &RootKept,
) -> Result<(), String> {
    let name = &target.name;
    if target.node == own {
        return Err(format!(
            "{name} is this node, and a node does not expel itself: to take it out of the mesh, run `beemesh leave` here; if it is in wrong hands, run `beemesh expel {name}` on another"
        ));
    }
    let others =
        |(_, m): &&(String, Member)| kept::is_authority(m) && m.node != target.node && !is_listed(m.node, revocations);
    if target.roles.is_none_or(|r| r.contains(Roles::AUTHORITY)) && !members.iter().any(|m| others(&m)) {
        return Err(format!(
            "{name} is the last node with the role authority, and without one nobody could join or be expelled: let another in with that role first (`beemesh invite` and `beemesh join`)"
        ));
    }
    match root {
        RootKept::By(voters) if voters.iter().all(|(node, _)| *node == target.node) => Err(format!(
            "{name} alone keeps the mesh's root, and with it all that the mesh knows would be gone: see `beemesh cells`, and expel it when another node keeps root"
        )),
        RootKept::Led(leader) if *leader == target.node => Err(format!(
            "{name} leads the mesh's root, and this node keeps no copy of it that could go on: run `beemesh expel {name}` on a node that keeps root, if there is one (`beemesh cells` shows it)"
        )),
        RootKept::By(voters)
            if voters.iter().filter(|(node, is_there)| *is_there && *node != target.node).count() * 2
                <= voters.len() =>
        {
            Err(format!(
                "without {name} fewer than a majority of those that keep the mesh's root would answer, and nothing could be changed any more, this neither: have another of them answer again first (`beemesh cells` names them, `beemesh nodes` shows which are linked), or wait until one more keeps it"
            ))
        }
        RootKept::By(_) | RootKept::Led(_) | RootKept::Unknown => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use base::{CellId, Uid};

    const NOW: Wall = Wall(1_769_846_400_000);

    fn id(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    fn member(n: u8, name: &str, roles: &str) -> (String, Member) {
        let roles = roles.split(',').map(str::to_owned).collect();
        (
            name.into(),
            Member { node: id(n), registry: CellId(Uid(7)), roles, addresses: Vec::new(), joined: NOW, leaving: false },
        )
    }

    fn gone(n: u8, name: &str) -> Revocation {
        Revocation { node: id(n), at: NOW, name: name.into() }
    }

    #[test]
    fn a_name_or_the_beginning_of_an_id_says_who_is_meant() {
        let mut twin = member(0x22, "cow", "worker");
        twin.1.node.0[31] = 9;
        let members =
            [member(0x11, "ant", "authority"), member(0x22, "bee", "worker"), twin, member(0x33, "1111", "worker")];
        let revocations = [gone(0x44, "dog"), gone(0x55, "ant"), gone(0x11, "ant")];
        let one = |typed: &str| meant(typed, &members, &revocations).map(|t| (t.node.0[0], t.name, t.is_expelled));
        assert_eq!(one("bee"), Ok((0x22, "bee".into(), false)));
        assert_eq!(one("ant"), Ok((0x11, "ant".into(), true)), "a member of that name, and it is being expelled");
        assert_eq!(one("1111"), Ok((0x33, "1111".into(), false)), "a name goes before an id");
        assert_eq!(one("111111"), Ok((0x11, "ant".into(), true)));
        assert_eq!(one(&id(0x22).to_string().to_uppercase()), Ok((0x22, "bee".into(), false)));
        assert_eq!(one("dog"), Ok((0x44, "dog".into(), true)), "no member any more");
        assert_eq!(one("5555"), Ok((0x55, "ant".into(), true)), "the one that had the name before");
        let many = one("2222").unwrap_err();
        assert!(many.contains("any of 2 nodes: bee (222222222222), cow (222222222222)"), "{many}");
        for unknown in ["eel", "222", "", "66666666"] {
            let why = one(unknown).unwrap_err();
            assert!(why.contains("there are ant (111111111111), bee"), "{why}");
        }
        assert!(meant("x", &[], &[]).unwrap_err().ends_with("there are none"));
        let two = [gone(0x44, "dog"), gone(0x45, "dog")];
        assert!(meant("dog", &[], &two).unwrap_err().contains("any of 2 nodes"));
    }

    #[test]
    fn of_many_nodes_some_are_shown() {
        let all: Vec<_> = (0..LISTED_MAX as u8 + 3).map(|n| member(n, &format!("n{n}"), "worker")).collect();
        assert!(meant("x", &all, &[]).unwrap_err().ends_with("and 3 more"));
    }

    #[test]
    fn the_mesh_keeps_an_authority_and_its_root() {
        let members = [member(1, "ant", "authority,keeper"), member(2, "bee", "authority"), member(3, "cow", "worker")];
        let go = |n: usize, revocations: &[Revocation], root: RootKept| {
            let target = meant(&members[n].0, &members, &[]).unwrap();
            may_go(id(1), &target, &members, revocations, &root)
        };
        assert_eq!(go(2, &[], RootKept::Unknown), Ok(()));
        let by = |of: &[(u8, bool)]| RootKept::By(of.iter().map(|(n, there)| (id(*n), *there)).collect());
        assert_eq!(go(1, &[], by(&[(1, true)])), Ok(()));
        assert_eq!(go(1, &[], by(&[(1, true), (2, true), (3, true)])), Ok(()));
        assert_eq!(go(1, &[], by(&[(1, true), (2, false), (3, true)])), Ok(()), "one that is lost may be expelled");
        assert_eq!(go(1, &[], RootKept::Led(id(1))), Ok(()));
        for (n, revocations, root, words) in [
            (0, &[][..], RootKept::Unknown, "does not expel itself"),
            (1, &[gone(1, "ant")][..], RootKept::Unknown, "the last node with the role authority"),
            (1, &[][..], by(&[(2, true)]), "alone keeps the mesh's root"),
            (1, &[][..], by(&[(1, true), (2, true), (3, false)]), "fewer than a majority"),
            (1, &[][..], RootKept::Led(id(2)), "leads the mesh's root"),
        ] {
            let why = go(n, revocations, root).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
        assert_eq!(authorities(&members, &[gone(1, "ant")]), ["bee"]);
    }
}
