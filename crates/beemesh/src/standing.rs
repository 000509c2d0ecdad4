//! Keeping true what root says of this node, and what this node knows of the others; and its certificates fresh.

use crate::backend::Node;
use crate::driver::clock;
use crate::issue::{self, Asking};
use crate::join::{self, Enrolling, enroll};
use crate::membership as kept;
use ::mesh::{Mesh, Standing};
use base::Revision;
use identity::{Contact, Known};
use node::bundle::Bundle;
use objects::membership::{Founding, Member, REVOCATION};
use objects::request::Shared;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often it is looked whether root's records of this node are still true.
const EVERY: Duration = Duration::from_secs(60);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(2);

/// Keeps this node's Member and token keys as they are to be. A founder's are made here; a node that joined has them
/// since it did.
pub(crate) async fn tell(
    backend: Arc<Node>,
    mesh: Arc<Mesh>,
    name: String,
    advertised: Vec<SocketAddr>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut told = None;
    loop {
        let pause = match once(&backend, &mesh, &name, &advertised).await {
            Ok(()) => {
                told = None;
                EVERY
            }
            Err(why) => {
                if told.as_ref() != Some(&why) {
                    tracing::warn!(node = %name, %why, "root's record of this node could not be brought up to date; trying again");
                }
                told = Some(why);
                AGAIN
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stopped.changed() => return,
        }
    }
}

async fn once(backend: &Node, mesh: &Mesh, name: &str, advertised: &[SocketAddr]) -> Result<(), String> {
    let own = backend.identity();
    let addresses = join::addresses(mesh, advertised);
    let there = kept::get(backend, "Member", name).await.map_err(|s| s.message)?;
    // Only who holds root's key vouches for itself: whoever was let in by a ticket was written down then.
    if there.is_none() && own.root().is_err() {
        return Err(format!(
            "root knows no member {name}: this node was removed from the mesh. If it is to come back, empty its data directory and join with a new ticket"
        ));
    }
    let roles = match there.as_ref().and_then(Member::of) {
        Some(member) => member.roles,
        None => kept::roles_listed(own.roles()),
    };
    let registry = backend.driver().founding().registry;
    let member = Member { node: own.node_id(), registry, roles, addresses, joined: clock::wall(), leaving: false };
    enroll(backend, name, member).await.map_err(|e| match e {
        Enrolling::Taken(by) => format!("the name {name} is another node's ({})", by.short()),
        Enrolling::Otherwise(other) => format!("root knows this node as {other}"),
        Enrolling::Failed(status) => status.message,
    })?;
    kept::publish(backend, own.node_id(), &own.tokens().own()).await.map_err(|s| s.message)
}

/// Takes from the bundle whose tokens are to be believed, and who was expelled.
pub(crate) async fn hear(backend: Arc<Node>, mesh: Arc<Mesh>, mut stopped: watch::Receiver<bool>) {
    let mut changes = backend.driver().changes();
    let mut heard = Revision::ZERO;
    loop {
        changes.borrow_and_update();
        let bundle = backend.driver().bundle();
        if bundle.number() > heard {
            heard = bundle.number();
            let own = backend.identity();
            let known = own.known();
            let revocations = kept::revocations(&bundle, &known.revocations);
            let token_keys = kept::token_keys(&bundle, own.node_id());
            let contacts = meet(&backend, &mesh, &bundle, &known.contacts);
            let now = Known { contacts, token_keys, revocations: revocations.clone() };
            if let Err(error) = own.remember(now) {
                tracing::warn!(%error, "what is known of other nodes could not be written down; it holds until this node ends");
            }
            mesh.expel(revocations);
        }
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            _ = stopped.changed() => return,
        }
    }
}

/// Has the transport keep a link to every other member, and this node ask them; returns where they are. As long as root names
/// nobody, it is whom this node met when it joined.
fn meet(backend: &Node, mesh: &Mesh, bundle: &Bundle, last: &[Contact]) -> Vec<Contact> {
    let own = backend.identity().node_id();
    let mut members: Vec<Member> = bundle.members().map(|(_, m)| m).filter(|m| m.node != own).collect();
    members.retain(|m| bundle.get(REVOCATION, &m.node.to_string()).is_none());
    if members.is_empty() {
        return last.to_vec();
    }
    // Those that may keep root know of every cell.
    members.sort_by_key(|m| !kept::is_authority(m));
    let contacts: Vec<Contact> =
        members.into_iter().map(|m| Contact { node: m.node, addresses: m.addresses }).collect();
    for gone in last.iter().filter(|l| contacts.iter().all(|c| c.node != l.node)) {
        let _ = mesh.want(gone.node, false);
    }
    for contact in &contacts {
        mesh.hint(contact.node, &contact.addresses);
        if let Err(why) = mesh.want(contact.node, true) {
            tracing::warn!(node = %contact.node, %why, "no link is kept to a member of the mesh");
        }
    }
    if let Some(away) = backend.driver().away() {
        away.contacts_are(contacts.iter().map(|c| c.node).collect());
    }
    contacts
}

/// Makes the cells that root has this node make, and has root know when they are there.
pub(crate) async fn found(backend: Arc<Node>, mut stopped: watch::Receiver<bool>) {
    let driver = backend.driver().clone();
    let mut changes = driver.changes();
    loop {
        changes.borrow_and_update();
        let mut waits = false;
        let mine: Vec<Founding> = driver.bundle().foundings().filter(|f| f.node == driver.node()).collect();
        for founding in mine {
            if let Err(why) = found_one(&backend, founding).await {
                tracing::debug!(cell = %founding.cell, %why, "a cell is still to be begun");
                waits = true;
            }
        }
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep(AGAIN), if waits => {}
            _ = stopped.changed() => return,
        }
    }
}

/// What a node knows of root may be old, and the cell long kept by others: whoever leads root is asked before it is made.
async fn found_one(backend: &Node, founding: Founding) -> Result<(), String> {
    let (driver, cell) = (backend.driver(), founding.cell);
    let name = cell.to_string();
    let there = kept::get(backend, "Founding", &name).await.map_err(|s| s.message)?;
    let Some((mut object, _)) = there.and_then(|o| Some((o.clone(), Founding::of(&o).filter(|f| *f == founding)?)))
    else {
        return Ok(());
    };
    if driver.cell(cell).is_none() {
        driver.found(cell);
    }
    if !driver.has_begun(cell) {
        return Err("its first leader is not elected yet".to_owned());
    }
    object["spec"] = Founding { done: true, ..founding }.spec();
    kept::update(backend, "Founding", object).await.map(drop).map_err(|s| s.message)
}

/// Renews certificates and keys before they expire, asks others for those that only they can issue, and shows the newest
/// SVID on every link.
pub(crate) async fn renew(asking: Asking, registry: base::CellId, mut stopped: watch::Receiver<bool>) {
    let mut shown = asking.identity.svid().map(|own| own.lifetime);
    loop {
        let now = clock::wall();
        issue::want_issuer(&asking.identity, &asking.upkeep, registry, now);
        let (again, failures) = asking.upkeep.renew(now);
        for error in failures {
            tracing::warn!(%error, "something could not be renewed; what there is stays in use while it is good");
        }
        let wants = asking.upkeep.wants(now);
        let asked = !wants.is_empty();
        asking.ask_for(wants).await;
        let held = asking.identity.svid().map(|own| own.lifetime);
        if held != shown {
            shown = held;
            let set = Standing::of(&asking.identity).and_then(|standing| asking.mesh.set_identity(standing));
            if let Err(error) = set {
                tracing::warn!(%error, "a new SVID could not be shown to the other nodes");
            }
        }
        // What was given in the meantime names its own moment.
        let again =
            if asked && asking.upkeep.wants(clock::wall()).is_empty() { asking.upkeep.renew(now).0 } else { again };
        tokio::select! {
            () = tokio::time::sleep(again.since(now)) => {}
            _ = stopped.changed() => return,
        }
    }
}
