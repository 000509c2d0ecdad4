//! Joining: what a machine with a ticket asks, whether it may, and what it is told.
//!
//! The request is signed twice, by the ticket and by the node's own key, over all of it: nobody on its way
//! can change it, and nobody can join under another's key. Root decides by [`verify_join`] and commits that
//! the node has used the ticket; the node may ask again until the ticket expires, so that an answer that was
//! lost, or a crash at any point, costs nothing.

use crate::codec::{self, MessageError, Reader, Writer};
use crate::lifetime::SKEW;
use crate::request::{read_chain, write_chain};
use crate::spiffe::subdomain;
use crate::ticket::{MAX_ADDRESSES, MAX_ROOTS, MAX_USES, read_contacts, write_contacts};
use crate::{
    AskedGateway, AskedPerson, Contact, IdentityError, NodeKey, Revocations, Roles, SpiffeId, SvidRequest, Ticket,
    TicketId, TicketRecord, TrustDomain, TrustedTokenKey, Verifier, node_signed,
};
use base::{CellId, NodeId, Wall};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::net::SocketAddr;
use std::time::Duration;

/// An answer lists at most this many contacts, and this many token keys; the bundle brings the others.
pub const MAX_LISTED: usize = 4096;

/// Token keys in an answer take at most this much of it.
const MAX_TOKEN_KEY_BYTES: usize = 2 << 20;

/// A bundle of [`MAX_ROOTS`] certificates is far shorter.
const MAX_BUNDLE: usize = 64 * 1024;

/// More than a node has: the one in use, and the former ones while a token of theirs may be good.
const MAX_OWN_TOKEN_KEYS: usize = 16;

/// What a joining machine wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// The name its Node object shall have: a DNS-1123 subdomain.
    pub name: String,
    /// What it wants to do: some of what the ticket grants, not nothing.
    pub roles: Roles,
    /// The present as it sees it.
    pub at: Wall,
    /// [`SvidRequest::encode`].
    pub svid: Vec<u8>,
    /// [`crate::GatewayRequest::encode`], of a gateway.
    pub gateway: Option<Vec<u8>>,
    /// The public halves of its token keys, the one in use first.
    pub token_keys: Vec<TrustedTokenKey>,
    /// Where others may reach it, as far as it knows; at most [`MAX_ADDRESSES`], more are left out.
    pub addresses: Vec<SocketAddr>,
    /// [`crate::PersonRequest::encode`]: a certificate for its administrator, whom it may ask for with the role
    /// authority.
    pub admin: Option<Vec<u8>>,
}

/// A machine's request to join, signed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinRequest {
    /// Which ticket it has.
    pub ticket: TicketId,
    /// Of which mesh.
    pub trust_domain: TrustDomain,
    /// The machine.
    pub node: NodeId,
    /// What it wants.
    pub wanted: Wanted,
    by_ticket: [u8; 64],
    by_node: [u8; 64],
}

const BY_TICKET: &[u8] = b"beemesh join by ticket\0";
const BY_NODE: &[u8] = b"beemesh join by node\0";

impl JoinRequest {
    /// Signs what the machine with `key` wants.
    ///
    /// # Errors
    /// If the cryptographic library refuses.
    pub fn make(ticket: &Ticket, key: &NodeKey, wanted: Wanted) -> Result<JoinRequest, IdentityError> {
        let mut request = JoinRequest {
            ticket: ticket.id()?,
            trust_domain: ticket.invitation().trust_domain.clone(),
            node: key.id(),
            wanted,
            by_ticket: [0; 64],
            by_node: [0; 64],
        };
        let content = request.content().done();
        request.by_ticket = ticket.sign(&[BY_TICKET, &content].concat())?;
        let by_node = key.sign(&[BY_NODE, &content].concat())?;
        request.by_node = by_node.try_into().map_err(|_| IdentityError::Crypto {
            operation: "sign a request to join",
            why: "the signature has another length".to_owned(),
        })?;
        Ok(request)
    }

    fn content(&self) -> Writer {
        let Wanted { name, roles, at, svid, gateway, token_keys, addresses, admin } = &self.wanted;
        Writer::new(codec::JOIN_REQUEST)
            .fixed(&self.ticket.0)
            .bytes(self.trust_domain.as_str().as_bytes())
            .node(self.node)
            .bytes(name.as_bytes())
            .byte(roles.bits())
            .wall(*at)
            .bytes(svid)
            .maybe(gateway.as_ref(), |w, g| w.bytes(g))
            .list(token_keys.iter().take(MAX_OWN_TOKEN_KEYS), |w, key| key.write(w))
            .list(addresses.iter().take(MAX_ADDRESSES), |w, a| w.address(*a))
            .maybe(admin.as_ref(), |w, a| w.bytes(a))
    }

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        self.content().fixed(&self.by_ticket).fixed(&self.by_node).done()
    }

    /// Reads what [`JoinRequest::encode`] wrote. Nothing is proven by that.
    ///
    /// # Errors
    /// If it is something else.
    pub fn decode(bytes: &[u8]) -> Result<JoinRequest, MessageError> {
        let mut r = Reader::open(codec::JOIN_REQUEST, bytes)?;
        let ticket = TicketId(r.fixed()?);
        let trust_domain = r.text(255)?.parse().map_err(|_| r.damaged("its mesh has a name that none has"))?;
        let node = r.node()?;
        let name = r.text(253)?;
        let name = subdomain(name).ok_or_else(|| r.damaged("the name it wants cannot be a node's"))?.to_owned();
        let roles = Roles::from_bits(r.byte()?).filter(|r| !r.is_empty());
        let roles = roles.ok_or_else(|| r.damaged("it wants no role, or one that is not known"))?;
        let at = r.wall()?;
        let svid = r.bytes(1024)?.to_vec();
        let gateway = r.maybe(|r| r.bytes(32 * 1024).map(<[u8]>::to_vec))?;
        let token_keys = r.list(MAX_OWN_TOKEN_KEYS, TrustedTokenKey::read)?;
        let addresses = r.list(MAX_ADDRESSES, Reader::address)?;
        let admin = r.maybe(|r| r.bytes(1024).map(<[u8]>::to_vec))?;
        let (by_ticket, by_node) = (r.fixed()?, r.fixed()?);
        r.end()?;
        let wanted = Wanted { name, roles, at, svid, gateway, token_keys, addresses, admin };
        Ok(JoinRequest { ticket, trust_domain, node, wanted, by_ticket, by_node })
    }

    fn is_signed(&self, ticket: &[u8; 32]) -> bool {
        let content = self.content().done();
        // Both are Ed25519 keys: one way to verify.
        node_signed(NodeId(*ticket), &[BY_TICKET, &content].concat(), &self.by_ticket)
            && node_signed(self.node, &[BY_NODE, &content].concat(), &self.by_node)
    }
}

/// Why a machine may not join. The ticket is as it was before.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TicketRefusal {
    /// The ticket is another mesh's.
    #[error(
        "the ticket is for the mesh {theirs} and this is {ours}: invite the machine here with `beemesh invite`, or join it there"
    )]
    OtherMesh {
        /// Which it is for.
        theirs: TrustDomain,
        /// This one.
        ours: TrustDomain,
    },
    /// Root keeps no such ticket.
    #[error(
        "this mesh knows no {0:?}: it was withdrawn, or expired more than a day ago. Make another with `beemesh invite`"
    )]
    Unknown(TicketId),
    /// The signatures do not fit.
    #[error(
        "the request to join is not what the machine {0:?} and its ticket signed: it was changed on its way and nothing was done with it. Run `beemesh join` again, by another contact if it happens again"
    )]
    Tampered(NodeId),
    /// Somebody presents another's request.
    #[error(
        "the request to join is of {named:?} and was presented by {peer:?}: a machine joins with its own key and nobody else's"
    )]
    OtherPeer {
        /// Whom it names.
        named: NodeId,
        /// Who brought it.
        peer: NodeId,
    },
    /// The machine was expelled.
    #[error(
        "{0} was expelled from this mesh and does not come back under its key. If the machine may, stop beemesh there, empty its data directory, and join with a new ticket"
    )]
    Expelled(NodeId),
    /// Root was recovered since.
    #[error("the ticket was made before this mesh was recovered, which voids it. Make another with `beemesh invite`")]
    Void,
    /// Its time is over.
    #[error("the ticket expired at {at}: it is {here} here and {there} on the machine that joins. {remedy}",
        at = .expires.rfc3339(), here = .here.rfc3339(), there = .there.rfc3339(), remedy = late(*.here, *.there))]
    Expired {
        /// Its end.
        expires: Wall,
        /// The present here.
        here: Wall,
        /// The present there.
        there: Wall,
    },
    /// What is issued here would not be good there.
    #[error("the clocks differ by {by} s: it is {here} here and {there} on the machine that joins. Set both by NTP and run `beemesh join` again, with the same ticket",
        by = apart(*.here, *.there).as_secs(), here = .here.rfc3339(), there = .there.rfc3339())]
    ClockOff {
        /// The present here.
        here: Wall,
        /// The present there.
        there: Wall,
    },
    /// Single use, and used.
    #[error(
        "the ticket was good for one machine and {0} joined with it. Make another with `beemesh invite`; `--reusable` makes one for many"
    )]
    Used(NodeId),
    /// Reusable, and used as often as root remembers.
    #[error(
        "{MAX_USES} machines joined with this ticket, and no ticket admits more. Make another with `beemesh invite --reusable`"
    )]
    UsedUp,
    /// More roles than it grants.
    #[error(
        "the ticket grants {granted} and the machine wants {wanted}: run `beemesh join` with `--roles {granted}`, or make a ticket for more with `beemesh invite --roles {wanted}`"
    )]
    RolesBeyond {
        /// What the ticket grants.
        granted: Roles,
        /// What was wanted.
        wanted: Roles,
    },
    /// A part of the request cannot be used.
    #[error(transparent)]
    Part(#[from] MessageError),
}

/// What root says of a request that is good.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Granted {
    /// The machine.
    pub node: NodeId,
    /// The name it wants; root reserves it.
    pub name: String,
    /// What it may do.
    pub roles: Roles,
    /// The ticket's record to commit before anything is answered; `None` if this machine had used it before.
    pub consumed: Option<TicketRecord>,
}

/// What a mesh compares a request to join with.
#[derive(Clone, Copy, Debug)]
pub struct Mesh<'a> {
    /// Its name.
    pub trust_domain: &'a TrustDomain,
    /// Root's epoch now.
    pub root_epoch: u64,
    /// Whom it has expelled: no ticket lets them in again.
    pub revocations: &'a Revocations,
}

/// May the machine at the other end of a connection, whose key is `peer`, join? `record` is what root keeps
/// under the ticket's name.
///
/// # Errors
/// Says why not, and what helps.
pub fn verify_join(
    mesh: Mesh<'_>,
    record: Option<&TicketRecord>,
    request: &JoinRequest,
    peer: NodeId,
    now: Wall,
) -> Result<Granted, TicketRefusal> {
    let JoinRequest { ticket, trust_domain, node, wanted, .. } = request;
    if trust_domain != mesh.trust_domain {
        return Err(TicketRefusal::OtherMesh { theirs: trust_domain.clone(), ours: mesh.trust_domain.clone() });
    }
    let record = record.filter(|r| r.id() == *ticket).ok_or(TicketRefusal::Unknown(*ticket))?;
    // Before anything is said of the ticket: who does not have it learns nothing of it.
    if !request.is_signed(&record.public_key) {
        return Err(TicketRefusal::Tampered(*node));
    }
    if *node != peer {
        return Err(TicketRefusal::OtherPeer { named: *node, peer });
    }
    if mesh.revocations.is_expelled(*node) {
        return Err(TicketRefusal::Expelled(*node));
    }
    if record.root_epoch != mesh.root_epoch {
        return Err(TicketRefusal::Void);
    }
    if now > record.expires {
        return Err(TicketRefusal::Expired { expires: record.expires, here: now, there: wanted.at });
    }
    if apart(now, wanted.at) > SKEW {
        return Err(TicketRefusal::ClockOff { here: now, there: wanted.at });
    }
    let again = record.used_by.contains(node);
    match record.used_by.first() {
        Some(first) if !record.reusable && !again => return Err(TicketRefusal::Used(*first)),
        _ if !again && record.used_by.len() >= MAX_USES => return Err(TicketRefusal::UsedUp),
        _ => {}
    }
    if !record.roles.contains(wanted.roles) {
        return Err(TicketRefusal::RolesBeyond { granted: record.roles, wanted: wanted.roles });
    }
    // A ticket is not used up for keys that nobody could certify.
    let id = SpiffeId::Node { trust_domain: trust_domain.clone(), node: *node };
    SvidRequest::key_for(&id, &wanted.svid)?;
    wanted.gateway.as_deref().map(AskedGateway::decode).transpose()?;
    wanted.admin.as_deref().map(AskedPerson::decode).transpose()?;
    let consumed = (!again).then(|| {
        let mut used = record.clone();
        used.used_by.push(*node);
        used
    });
    Ok(Granted { node: *node, name: wanted.name.clone(), roles: wanted.roles, consumed })
}

fn late(here: Wall, there: Wall) -> &'static str {
    if apart(here, there) > SKEW {
        "The clocks differ: set both by NTP, then make another with `beemesh invite`"
    } else {
        "Make another with `beemesh invite`, with a longer --ttl if need be"
    }
}

fn apart(a: Wall, b: Wall) -> Duration {
    a.since(b).max(b.since(a))
}

/// What a machine that may join is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinAnswer {
    /// The present where it was answered.
    pub at: Wall,
    /// The mesh's name.
    pub trust_domain: TrustDomain,
    /// Its root certificates, PEM.
    pub bundle_pem: String,
    /// The machine's SVID with what links it to a root.
    pub svid: Vec<CertificateDer<'static>>,
    /// The gateway's certificate, if one was asked for.
    pub gateway: Option<Vec<CertificateDer<'static>>>,
    /// Its administrator's certificate, if one was asked for and whoever answered can make one.
    pub admin: Option<Vec<CertificateDer<'static>>>,
    /// The `iss` of every ServiceAccount token.
    pub token_issuer: String,
    /// The token keys of all nodes; at most [`MAX_LISTED`], more are left out.
    pub token_keys: Vec<TrustedTokenKey>,
    /// Root's cell.
    pub root: CellId,
    /// The first registry's cell.
    pub registry: CellId,
    /// Where nodes of the mesh are; at most [`MAX_LISTED`], more are left out.
    pub contacts: Vec<Contact>,
    /// Whom the mesh has expelled.
    pub revocations: Revocations,
}

/// Why a machine does not believe an answer. Nothing was written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AnswerRefusal {
    /// Another mesh answered.
    #[error(
        "the ticket is for the mesh {expected} and {answered} answered: whoever listens at the ticket's address belongs to another mesh. Make another ticket with `beemesh invite`"
    )]
    OtherMesh {
        /// The ticket's.
        expected: TrustDomain,
        /// Who answered.
        answered: TrustDomain,
    },
    /// Its root certificates are not those the ticket names.
    #[error(
        "the mesh {0} answered with a root certificate that the ticket does not name: it was replaced since the ticket was made, or somebody pretends to be this mesh. Make another ticket with `beemesh invite`"
    )]
    OtherAuthority(TrustDomain),
    /// Certificates made there are not good here.
    #[error("the clocks differ by {by} s: it is {here} here and {there} at the node that answered. Set both by NTP and run `beemesh join` again, with the same ticket",
        by = apart(*.here, *.there).as_secs(), here = .here.rfc3339(), there = .there.rfc3339())]
    ClockOff {
        /// The present here.
        here: Wall,
        /// The present there.
        there: Wall,
    },
    /// The bundle cannot be read.
    #[error(
        "the root certificates in the answer cannot be used ({0}): run `beemesh join` again, by another contact if it happens again"
    )]
    Bundle(String),
}

impl JoinAnswer {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut room = MAX_TOKEN_KEY_BYTES;
        let fitting = self.token_keys.iter().take(MAX_LISTED).map(TrustedTokenKey::encode).take_while(|key| {
            let fits = key.len() <= room;
            room = room.saturating_sub(key.len());
            fits
        });
        let token_keys: Vec<Vec<u8>> = fitting.collect();
        let contacts: Vec<Contact> = self.contacts.iter().take(MAX_LISTED).cloned().map(Contact::bounded).collect();
        let written = Writer::new(codec::JOIN_ANSWER)
            .wall(self.at)
            .bytes(self.trust_domain.as_str().as_bytes())
            .bytes(self.bundle_pem.as_bytes());
        let written = write_chain(written, &self.svid)
            .maybe(self.gateway.as_ref(), |w, chain| write_chain(w, chain))
            .maybe(self.admin.as_ref(), |w, chain| write_chain(w, chain))
            .bytes(self.token_issuer.as_bytes())
            .list(token_keys.iter(), |w, key| w.bytes(key))
            .cell(self.root)
            .cell(self.registry);
        write_contacts(written, &contacts).bytes(&self.revocations.encode()).done()
    }

    /// Reads what [`JoinAnswer::encode`] wrote. Nothing is proven by that.
    ///
    /// # Errors
    /// If it is something else.
    pub fn decode(bytes: &[u8]) -> Result<JoinAnswer, MessageError> {
        let mut r = Reader::open(codec::JOIN_ANSWER, bytes)?;
        let at = r.wall()?;
        let trust_domain = r.text(255)?.parse().map_err(|_| r.damaged("its mesh has a name that none has"))?;
        let bundle_pem = r.text(MAX_BUNDLE)?.to_owned();
        let svid = read_chain(&mut r)?;
        let gateway = r.maybe(read_chain)?;
        let admin = r.maybe(read_chain)?;
        let token_issuer = r.text(1024)?.to_owned();
        let token_keys = r.list(MAX_LISTED, |r| TrustedTokenKey::decode(r.bytes(MAX_TOKEN_KEY_BYTES)?))?;
        let (root, registry) = (r.cell()?, r.cell()?);
        let contacts = read_contacts(&mut r, MAX_LISTED)?;
        let revocations = Revocations::decode(r.bytes(1 << 20)?)?;
        r.end()?;
        Ok(JoinAnswer {
            at,
            trust_domain,
            bundle_pem,
            svid,
            gateway,
            admin,
            token_issuer,
            token_keys,
            root,
            registry,
            contacts,
            revocations,
        })
    }

    /// Is this the mesh that `ticket` is for? Gives what verifies everything else of it.
    ///
    /// # Errors
    /// Says why it is not believed.
    pub fn verifier(&self, ticket: &Ticket, now: Wall) -> Result<Verifier, AnswerRefusal> {
        let expected = &ticket.invitation().trust_domain;
        if self.trust_domain != *expected || self.root != ticket.invitation().root {
            let answered = self.trust_domain.clone();
            return Err(AnswerRefusal::OtherMesh { expected: expected.clone(), answered });
        }
        let roots: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(self.bundle_pem.as_bytes())
            .take(MAX_ROOTS + 1)
            .collect::<Result<_, _>>()
            .map_err(|e| AnswerRefusal::Bundle(e.to_string()))?;
        // Some may have gone since the ticket was made; one that came is vouched for by nobody.
        if roots.is_empty() || roots.len() > MAX_ROOTS || !roots.iter().all(|root| ticket.names_root(root)) {
            return Err(AnswerRefusal::OtherAuthority(self.trust_domain.clone()));
        }
        if apart(now, self.at) > SKEW {
            return Err(AnswerRefusal::ClockOff { here: now, there: self.at });
        }
        Verifier::new(self.trust_domain.clone(), &roots).map_err(|e| AnswerRefusal::Bundle(e.to_string()))
    }
}
