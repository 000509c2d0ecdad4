//! Letting machines join: what a node with the role authority answers to who brings a ticket.
//!
//! The order is such that a crash anywhere, or an answer that is lost, costs nothing: the ticket is consumed for this
//! machine, then the name is reserved, then its token keys are written, and only then is anything certified. Each
//! step done again by the same machine changes nothing, and the same ticket and key lead to the end of it.

use crate::backend::Node;
use crate::driver::clock;
use crate::membership::{self as kept, CONFLICTS, roles_listed};
use ::mesh::Mesh;
use base::{NodeId, Wall};
use identity::join::Mesh as Compared;
use identity::{
    AskedGateway, AskedPerson, CellIssuer, Chain, Contact, GatewayNames, Granted, IssuerScope, JoinAnswer, JoinRequest,
    Revocations, Roles, SpiffeId, Upkeep, verify_join,
};
use objects::membership::{ADDRESSES_MAX, FIRST_EPOCH, Member};
use objects::status::{Reason, Status};
use std::net::SocketAddr;
use std::sync::Arc;

/// Whom an administrator's certificate names.
pub(crate) const ADMIN: (&str, &str) = ("admin", "system:masters");

/// A letter that begins so is of the one who was asked, not of the one who asks: another contact may say yes.
const ELSEWHERE: &str = "not here: ";

/// Why somebody else is to be asked.
pub(crate) fn elsewhere(why: &str) -> String {
    format!("{ELSEWHERE}{why}")
}

/// Whether another contact may answer otherwise.
pub(crate) fn is_elsewhere(letter: &str) -> bool {
    letter.starts_with(ELSEWHERE) || letter.starts_with("this node lets nobody join")
}

/// Answers machines that ask to join.
pub(crate) struct Joins {
    backend: Arc<Node>,
    upkeep: Arc<Upkeep>,
    mesh: Arc<Mesh>,
    advertised: Vec<SocketAddr>,
}

impl Joins {
    pub(crate) fn new(backend: Arc<Node>, upkeep: Arc<Upkeep>, mesh: Arc<Mesh>, advertised: Vec<SocketAddr>) -> Joins {
        Joins { backend, upkeep, mesh, advertised }
    }

    /// Answers a machine whose key is `peer`, as its connection proves.
    ///
    /// # Errors
    /// A letter for its operator; it is logged here as well.
    pub(crate) async fn answer(&self, peer: NodeId, question: &[u8]) -> Result<Vec<u8>, String> {
        let decided = self.decide(peer, question).await;
        match &decided {
            Ok((granted, _)) => {
                tracing::info!(node = %peer, name = granted.name, roles = %granted.roles, again = granted.consumed.is_none(), "a machine has joined the mesh");
            }
            Err(why) => tracing::warn!(node = %peer, %why, "a machine asked to join and was refused"),
        }
        decided.map(|(_, answer)| answer.encode())
    }

    async fn decide(&self, peer: NodeId, question: &[u8]) -> Result<(Granted, JoinAnswer), String> {
        let own = self.backend.identity();
        if !own.roles().contains(Roles::AUTHORITY | Roles::KEEPER) {
            return Err(elsewhere("this node lets nobody join: ask one with the roles authority and keeper"));
        }
        let request = JoinRequest::decode(question).map_err(|e| e.to_string())?;
        let registry = self.backend.driver().founding().registry;
        // Before a ticket is used: who cannot certify does not consume it.
        let issuer = self.upkeep.issuer(registry, &IssuerScope::Registry, clock::wall());
        let issuer = issuer.map_err(|e| elsewhere(&format!("this node cannot certify keys yet ({e})")))?;
        let granted = self.consume(peer, &request).await?;
        self.reserve(&granted, &request).await?;
        // Tokens are asked for at gateways: nobody else's are believed.
        if granted.roles.contains(Roles::GATEWAY) {
            let published = kept::publish(&self.backend, peer, &request.wanted.token_keys).await;
            published.map_err(|s| unreached("write its token keys", &s))?;
        }
        let answer = self.certified(&granted, &request, &issuer).await?;
        Ok((granted, answer))
    }

    /// Judges the request by what root has now, and commits that the ticket is used.
    async fn consume(&self, peer: NodeId, request: &JoinRequest) -> Result<Granted, String> {
        let id = request.ticket.to_string();
        let own = self.backend.identity();
        let mut last = String::new();
        for _ in 0..CONFLICTS {
            let object = kept::get(&self.backend, "Ticket", &id).await.map_err(|s| unreached("read the ticket", &s))?;
            let record = object.as_ref().and_then(kept::ticket_of);
            if object.is_some() && record.is_none() {
                return Err(format!(
                    "what root keeps of the ticket {id} cannot be read: make another with `beemesh invite`"
                ));
            }
            let revocations = self.expelled(peer).await?;
            let compared =
                Compared { trust_domain: own.trust_domain(), root_epoch: FIRST_EPOCH, revocations: &revocations };
            let now = clock::wall();
            let granted = verify_join(compared, record.as_ref(), request, peer, now).map_err(|e| e.to_string())?;
            fits(request)?;
            let (Some(mut object), Some(consumed)) = (object, &granted.consumed) else { return Ok(granted) };
            // Only what changes: a field of a newer release stays.
            object["spec"]["usedBy"] = kept::ticket_listed(consumed).spec()["usedBy"].clone();
            match kept::update(&self.backend, "Ticket", object).await {
                Ok(_) => return Ok(granted),
                // Somebody was first, or nobody knows: what root has now says it.
                Err(s) if matches!(s.reason, Reason::Conflict | Reason::Timeout | Reason::NotFound) => {
                    last = s.message;
                }
                Err(s) => return Err(unreached("note that the ticket is used", &s)),
            }
        }
        Err(elsewhere(&format!("the ticket is being used by others all the time ({last}): run `beemesh join` again")))
    }

    /// Whom the mesh has expelled, and of this machine what root itself says now.
    pub(crate) async fn expelled(&self, peer: NodeId) -> Result<Revocations, String> {
        let known = self.backend.identity().known().revocations.clone();
        let found = kept::get(&self.backend, "Revocation", &peer.to_string()).await;
        match found.map_err(|s| unreached("ask whether it was expelled", &s))? {
            Some(_) => Ok(known.with(peer, clock::wall(), known.number() + 1)),
            None => Ok(known),
        }
    }

    /// Reserves the name, by making its Member.
    async fn reserve(&self, granted: &Granted, request: &JoinRequest) -> Result<(), String> {
        let member = Member {
            node: granted.node,
            registry: self.backend.driver().founding().registry,
            roles: roles_listed(granted.roles),
            addresses: request.wanted.addresses.clone(),
            joined: clock::wall(),
            leaving: false,
        };
        enroll(&self.backend, &granted.name, member).await.map_err(|e| match e {
            Enrolling::Taken(by) => taken(&granted.name, by),
            Enrolling::Otherwise(name) => otherwise(&granted.name, &name),
            Enrolling::Failed(s) => unreached("reserve its name", &s),
        })
    }

    async fn certified(
        &self,
        granted: &Granted,
        request: &JoinRequest,
        issuer: &CellIssuer,
    ) -> Result<JoinAnswer, String> {
        let own = self.backend.identity();
        let founding = self.backend.driver().founding();
        let now = clock::wall();
        let id = SpiffeId::Node { trust_domain: own.trust_domain().clone(), node: granted.node };
        let svid = issuer.certify(&request.wanted.svid, &id, granted.roles, now).map_err(|e| e.to_string())?;
        let gateway = request.wanted.gateway.as_deref().map(|bytes| gateway(issuer, bytes, &granted.name, now));
        let admin = match (&request.wanted.admin, own.root()) {
            (Some(bytes), Ok(root)) => {
                let asked = AskedPerson::decode(bytes).map_err(|e| e.to_string())?;
                Some(root.certify_person(&asked, now).map_err(|e| e.to_string())?)
            }
            // An authority without root's key cannot make one: the machine says how to get it.
            _ => None,
        };
        let bundle = self.backend.driver().bundle();
        let mut token_keys = own.tokens().own();
        token_keys.extend(kept::token_keys(&bundle, own.node_id()));
        Ok(JoinAnswer {
            at: now,
            trust_domain: own.trust_domain().clone(),
            bundle_pem: own.bundle_pem().to_owned(),
            svid,
            gateway: gateway.transpose()?,
            admin,
            token_issuer: own.tokens().issuer().to_owned(),
            token_keys,
            root: founding.root,
            registry: founding.registry,
            contacts: self.contacts(granted.node).await?,
            revocations: kept::revocations(&bundle, &own.known().revocations),
        })
    }

    /// Where the others are, this node first.
    async fn contacts(&self, but: NodeId) -> Result<Vec<Contact>, String> {
        let own = self.backend.identity().node_id();
        let mut contacts = vec![Contact { node: own, addresses: addresses(&self.mesh, &self.advertised) }];
        let members = kept::members(&self.backend).await.map_err(|s| unreached("read where the nodes are", &s))?;
        let others = members.into_iter().map(|(_, m)| m);
        let others = others.filter(|m| m.node != own && m.node != but && !m.addresses.is_empty());
        contacts.extend(others.map(|m| Contact { node: m.node, addresses: m.addresses }));
        Ok(contacts)
    }
}

/// Where others may reach this node: what its operator says, then what the machine says.
pub(crate) fn addresses(mesh: &Mesh, advertised: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut all = advertised.to_vec();
    all.extend(mesh.addresses().into_iter().filter(|a| !advertised.contains(a)));
    // A Member holds no more.
    all.truncate(ADDRESSES_MAX);
    all
}

/// Why a name was not reserved.
pub(crate) enum Enrolling {
    /// Another node has it.
    Taken(NodeId),
    /// The node has another one.
    Otherwise(String),
    /// Root did not do it.
    Failed(Box<Status>),
}

/// Makes the Member of a node under its name, or brings the one there is up to date.
pub(crate) async fn enroll(backend: &Node, name: &str, member: Member) -> Result<(), Enrolling> {
    let mut last = Box::new(Status::internal("nothing was tried"));
    for _ in 0..CONFLICTS {
        let done = match kept::get(backend, "Member", name).await.map_err(Enrolling::Failed)? {
            Some(mut have) => {
                let Some(there) = Member::of(&have) else {
                    let why = format!("what root keeps of the node {name} cannot be read");
                    return Err(Enrolling::Failed(Box::new(Status::internal(&why))));
                };
                if there.node != member.node {
                    return Err(Enrolling::Taken(there.node));
                }
                let now = Member { joined: there.joined, leaving: there.leaving, ..member.clone() };
                if now == there {
                    return Ok(());
                }
                // Only what changes: a field of a newer release stays.
                for (field, value) in now.spec().as_object().into_iter().flatten() {
                    have["spec"][field] = value.clone();
                }
                kept::update(backend, "Member", have).await
            }
            None => kept::create(backend, "Member", name, member.spec()).await,
        };
        match done {
            Ok(_) => return Ok(()),
            // Read again: somebody was first, or the node has another name.
            Err(s) if matches!(s.reason, Reason::Conflict | Reason::AlreadyExists | Reason::Timeout) => last = s,
            Err(s) => return Err(Enrolling::Failed(s)),
        }
        let members = kept::members(backend).await.map_err(Enrolling::Failed)?;
        if let Some((other, _)) = members.into_iter().find(|(n, m)| m.node == member.node && n != name) {
            return Err(Enrolling::Otherwise(other));
        }
    }
    Err(Enrolling::Failed(last))
}

/// Whether the parts of a request belong together. Nothing has been written yet.
fn fits(request: &JoinRequest) -> Result<(), String> {
    let wanted = &request.wanted;
    // A gateway's certificate says its node's name: it must be nothing that clients take for a service.
    let name = wanted.name.as_str();
    let service = [".svc", ".cluster.local"].iter().any(|end| name.ends_with(end)) || name.contains(".svc.");
    if service || ["kubernetes", "localhost"].contains(&name) || name.starts_with("kubernetes.") {
        return Err(format!("{name:?} is no name for a node, since services are called so: give another with --name"));
    }
    if let Some(bytes) = &wanted.gateway {
        if !wanted.roles.contains(Roles::GATEWAY) {
            return Err("it asks for a gateway's certificate without the role gateway".to_owned());
        }
        let asked = AskedGateway::decode(bytes).map_err(|e| e.to_string())?;
        strange(&asked.names, &wanted.name)?;
    }
    if let Some(bytes) = &wanted.admin {
        let asked = AskedPerson::decode(bytes).map_err(|e| e.to_string())?;
        if !wanted.roles.contains(Roles::AUTHORITY) || (asked.name.as_str(), asked.group.as_str()) != ADMIN {
            let (name, group) = (&asked.name, &asked.group);
            return Err(format!("it asks for a certificate of {name} ({group}), which its roles do not allow"));
        }
    }
    if wanted.token_keys.is_empty() {
        return Err("it names no token key of its own".to_owned());
    }
    Ok(())
}

/// A gateway is called by its node's own name. Its addresses it knows alone: two nodes behind routers have the same.
fn strange(names: &GatewayNames, own: &str) -> Result<(), String> {
    match names.hosts.iter().find(|host| *host != own) {
        None if names.cluster_domain.is_empty() => Ok(()),
        None => Err(format!("it asks to serve the domain {:?}, which is not this mesh's", names.cluster_domain)),
        Some(host) => Err(format!("it asks to be called {host:?} and its name is {own:?}")),
    }
}

/// Certifies a gateway's key for the node of this name.
pub(crate) fn gateway(issuer: &CellIssuer, asked: &[u8], name: &str, now: Wall) -> Result<Chain, String> {
    let asked = AskedGateway::decode(asked).map_err(|e| e.to_string())?;
    strange(&asked.names, name)?;
    let addresses = asked.names.addresses.clone();
    let allowed = GatewayNames { cluster_domain: String::new(), hosts: vec![name.to_owned()], addresses };
    issuer.certify_gateway(&asked, &allowed, now).map_err(|e| e.to_string())
}

fn taken(name: &str, by: NodeId) -> String {
    format!(
        "the name {name} is another node's ({}): run `beemesh join` again with the same ticket and another --name",
        by.short()
    )
}

fn otherwise(asked: &str, has: &str) -> String {
    format!(
        "this machine is a member of the mesh under the name {has}, and a node has one: run `beemesh join` again with `--name {has}` instead of {asked}"
    )
}

fn unreached(what: &str, status: &Status) -> String {
    elsewhere(&format!(
        "could not {what} ({}). Nothing is lost: run `beemesh join` again with the same ticket",
        status.message
    ))
}
