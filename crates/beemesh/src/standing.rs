//! Keeping true what root says of this node, and what this node knows of the others; and its certificates fresh.

use crate::backend::Node;
use crate::driver::clock;
use crate::issue::{self, Asking};
use crate::join::{self, Enrolling, enroll};
use crate::membership as kept;
use ::mesh::{Mesh, Standing};
use base::Revision;
use identity::Known;
use objects::membership::Member;
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
    let member = Member { node: own.node_id(), registry, roles, addresses, joined: clock::wall() };
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
            let now = Known { contacts: known.contacts.clone(), token_keys, revocations: revocations.clone() };
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
