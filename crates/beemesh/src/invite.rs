//! Making tickets: what a node with the role authority does for `beemesh invite`.

use crate::backend::Node;
use crate::cli::exit::Exit;
use crate::driver::clock;
use crate::join;
use crate::membership as kept;
use ::mesh::Mesh;
use identity::ticket::MAX_CONTACTS;
use identity::{Contact, Invitation, Roles, Ticket};
use objects::membership::FIRST_EPOCH;
use objects::status::Status;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::Duration;

/// A ticket is good for so long at most: whoever finds it later finds nothing.
pub(crate) const TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// Root keeps this many at most.
const TICKETS_MAX: usize = 4096;
/// So many of those that are over are removed when one is made.
const SWEPT_MAX: usize = 64;

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Asked {
    /// For how long it is to be good.
    pub(crate) ttl_seconds: u64,
    /// Whether many machines may join with it.
    pub(crate) reusable: bool,
    /// What they may do at most: `authority,keeper`.
    pub(crate) roles: String,
}

/// A ticket that was made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Invited {
    /// The line for the operator.
    pub(crate) ticket: String,
    /// Its name, under which root keeps it.
    pub(crate) id: String,
    /// The last moment it is good, by RFC 3339.
    pub(crate) expires: String,
    /// Of which mesh.
    pub(crate) trust_domain: String,
    /// What a machine may do at most.
    pub(crate) roles: String,
}

/// Why no ticket was made, and how the command is to end.
pub(crate) type Refused = (Exit, String);

/// Makes a ticket, and has root keep what it is known again by.
///
/// # Errors
/// A letter; no ticket was made.
pub(crate) async fn invite(
    backend: &Node,
    mesh: &Mesh,
    advertised: &[SocketAddr],
    asked: &Asked,
) -> Result<Invited, Refused> {
    let refuse = |why: String| (Exit::Refused, format!("{why}. No ticket was made"));
    let own = backend.identity();
    if !own.roles().contains(Roles::AUTHORITY) {
        let why = format!(
            "this node's roles are {}, and only a node with the role authority invites: run `beemesh invite` there",
            own.roles()
        );
        return Err(refuse(why));
    }
    let roles: Roles = asked.roles.parse().map_err(|e: identity::roles::RolesError| refuse(e.to_string()))?;
    if !roles.contains(Roles::GATEWAY) {
        return Err(refuse(crate::config::NEEDS_GATEWAY.to_owned()));
    }
    let ttl = Duration::from_secs(asked.ttl_seconds);
    if ttl.is_zero() || ttl > TTL_MAX {
        return Err(refuse(format!("a ticket is good for 1 s to {} days", TTL_MAX.as_secs() / 86400)));
    }
    let contacts = contacts(backend, mesh, advertised).await.map_err(|s| unreached(&s))?;
    if contacts.iter().all(|c| c.addresses.is_empty()) {
        let why = "no address is known at which another machine could reach this one: start beemesh with --advertise ADDR:PORT, or --listen at an address others reach";
        return Err(refuse(why.to_owned()));
    }
    sweep(backend).await?;
    let ticket = Ticket::make(Invitation {
        trust_domain: own.trust_domain().clone(),
        roots: own.root_hashes(),
        root: backend.driver().founding().root,
        root_epoch: FIRST_EPOCH,
        contacts,
        roles,
        expires: clock::wall() + ttl,
    });
    let failed = |e: identity::IdentityError| (Exit::Failed, e.to_string());
    let ticket = ticket.map_err(failed)?;
    let record = ticket.record(asked.reusable).map_err(failed)?;
    let id = record.id().to_string();
    kept::create(backend, "Ticket", &id, kept::ticket_listed(&record).spec()).await.map_err(|s| unreached(&s))?;
    tracing::info!(ticket = id, %roles, reusable = asked.reusable, expires = record.expires.rfc3339(), "a ticket was made");
    Ok(Invited {
        ticket: ticket.to_string(),
        id,
        expires: record.expires.rfc3339(),
        trust_domain: own.trust_domain().to_string(),
        roles: roles.to_string(),
    })
}

/// Nodes that answer joiners, this one first.
async fn contacts(backend: &Node, mesh: &Mesh, advertised: &[SocketAddr]) -> Result<Vec<Contact>, Box<Status>> {
    let own = backend.identity().node_id();
    let mut contacts = vec![Contact { node: own, addresses: join::addresses(mesh, advertised) }];
    let others = kept::members(backend).await?.into_iter().map(|(_, m)| m);
    let others = others.filter(|m| m.node != own && kept::is_authority(m) && !m.addresses.is_empty());
    contacts.extend(others.take(MAX_CONTACTS - 1).map(|m| Contact { node: m.node, addresses: m.addresses }));
    Ok(contacts)
}

/// Removes tickets that expired more than a day ago; until then whoever comes late hears why.
async fn sweep(backend: &Node) -> Result<(), Refused> {
    let all = kept::list(backend, "Ticket").await.map_err(|s| unreached(&s))?;
    let over = |object: &&objects::Tree| kept::ticket_of(object).is_some_and(|r| r.is_over(clock::wall()));
    let over: Vec<&objects::Tree> = all.iter().filter(over).take(SWEPT_MAX).collect();
    for ticket in &over {
        if let Err(status) = kept::remove(backend, "Ticket", kept::name(ticket)).await {
            tracing::debug!(
                why = status.message,
                "a ticket that is over was not removed; the next invitation tries again"
            );
        }
    }
    if all.len() - over.len() < TICKETS_MAX {
        return Ok(());
    }
    let why = format!(
        "root keeps {TICKETS_MAX} tickets, which is the most: use one with --reusable for many machines, or wait until some expire. No ticket was made"
    );
    Err((Exit::Refused, why))
}

fn unreached(status: &Status) -> Refused {
    let why = format!(
        "the mesh's root did not answer ({}). No ticket was given out: see `beemesh status`, and try again",
        status.message
    );
    (Exit::Unreachable, why)
}
