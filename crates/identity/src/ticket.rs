//! Tickets: what an operator carries from one machine to the next so that it may join.
//!
//! A ticket holds a secret, an Ed25519 seed. The mesh keeps only the public half ([`TicketRecord`]), so that
//! nothing in a log, or in a copy of one, lets anybody join. What a joiner signs with the secret names its own
//! key, so that whoever relays it cannot use it for another machine. A ticket also says by which root
//! certificates the joiner knows the mesh: it trusts nobody it meets before.

use crate::codec::{self, MessageError, Reader, Writer};
use crate::{IdentityError, Roles, TrustDomain, base32, certificate};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base::{CellId, NodeId, Wall};
use rustls_pki_types::CertificateDer;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// Every ticket begins so. What follows is base 32: version, length, content, checksum.
const PREFIX: &str = "beemesh1";
/// The same without the digit that counts the ways of writing a ticket down.
const ANY_PREFIX: &str = "beemesh";

const VERSION: u8 = 1;
const HEADER: usize = 3;
const CHECKSUM: usize = 4;

/// A ticket says of at most this many nodes where they are, and of each so many addresses; more are left out.
pub const MAX_CONTACTS: usize = 8;
/// See [`MAX_CONTACTS`].
pub const MAX_ADDRESSES: usize = 8;
/// A mesh has one root certificate, and two while it replaces one.
pub const MAX_ROOTS: usize = 4;

/// A reusable ticket admits at most this many nodes, since root remembers each of them.
pub const MAX_USES: usize = 1024;

/// Where a node of the mesh may be reached: a hint, whoever answers there proves its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contact {
    /// Whose key to expect.
    pub node: NodeId,
    /// Addresses of its mesh port.
    pub addresses: Vec<SocketAddr>,
}

impl Contact {
    /// Without what nobody can dial and what is too much.
    pub(crate) fn bounded(mut self) -> Contact {
        self.addresses.retain(|a| !a.ip().is_unspecified());
        self.addresses.truncate(MAX_ADDRESSES);
        self
    }
}

/// A ticket's name: drawn from its public half, so that it says nothing about the secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketId(pub [u8; 16]);

impl TicketId {
    fn of(public_key: &[u8; 32]) -> TicketId {
        let hash = digest(&SHA256, &[b"beemesh ticket\0", &public_key[..]].concat());
        let mut id = [0; 16];
        id.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
        TicketId(id)
    }
}

impl fmt::Display for TicketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for TicketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ticket {self}")
    }
}

/// What a ticket says besides its secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invitation {
    /// The mesh.
    pub trust_domain: TrustDomain,
    /// SHA-256 of each root certificate the mesh has now; at most [`MAX_ROOTS`].
    pub roots: Vec<[u8; 32]>,
    /// Root's cell.
    pub root: CellId,
    /// Root's epoch: a ticket of an earlier one is void, since root was recovered without what came after.
    pub root_epoch: u64,
    /// Whom to ask.
    pub contacts: Vec<Contact>,
    /// What the joiner may do at most.
    pub roles: Roles,
    /// The last moment it is good; whole seconds.
    pub expires: Wall,
}

/// A ticket, secret included. `Debug` leaves that out; [`fmt::Display`] is the line for the operator.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    invitation: Invitation,
    secret: [u8; 32],
}

/// Why a text is no ticket that can be used here.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TicketError {
    /// Not a ticket at all.
    #[error("this is no ticket: a ticket begins with {PREFIX}. Copy the whole line that `beemesh invite` printed")]
    NotATicket,
    /// Its end is missing.
    #[error(
        "the ticket is cut off: {have} of its {want} characters are there. Copy the whole line that `beemesh invite` printed"
    )]
    CutOff {
        /// How many characters there are.
        have: usize,
        /// How many there should be.
        want: usize,
    },
    /// A character is wrong, missing or too many.
    #[error("the ticket is mistyped{}: compare it with the line that `beemesh invite` printed, or copy it", .0.map(|c| format!(" ({c:?} is in no ticket)")).unwrap_or_default())]
    Mistyped(Option<char>),
    /// A newer release made it.
    #[error("the ticket was made by a newer release of beemesh: install the release that made it here, then join")]
    Newer,
    /// Written as tickets are, but with content that none has.
    #[error(transparent)]
    Content(#[from] MessageError),
}

impl Ticket {
    /// Makes a ticket with a fresh secret. Contacts and addresses beyond the bounds are left out.
    ///
    /// # Errors
    /// If the cryptographic library has no chance to give.
    pub fn make(invitation: Invitation) -> Result<Ticket, IdentityError> {
        Ok(Ticket::of(invitation, certificate::chance()?))
    }

    /// The ticket with that secret.
    pub fn of(mut invitation: Invitation, secret: [u8; 32]) -> Ticket {
        invitation.contacts = invitation.contacts.into_iter().take(MAX_CONTACTS).map(Contact::bounded).collect();
        invitation.expires = Wall(invitation.expires.0 / 1000 * 1000);
        Ticket { invitation, secret }
    }

    /// What it says.
    pub fn invitation(&self) -> &Invitation {
        &self.invitation
    }

    /// Its name.
    ///
    /// # Errors
    /// If the cryptographic library refuses the secret.
    pub fn id(&self) -> Result<TicketId, IdentityError> {
        Ok(TicketId::of(&public_key(&self.key()?)?))
    }

    /// What root keeps of it. A `reusable` ticket admits many nodes, another one.
    ///
    /// # Errors
    /// If the cryptographic library refuses the secret.
    pub fn record(&self, reusable: bool) -> Result<TicketRecord, IdentityError> {
        let public_key = public_key(&self.key()?)?;
        let Invitation { roles, expires, root_epoch, .. } = self.invitation;
        Ok(TicketRecord { public_key, roles, expires, reusable, root_epoch, used_by: Vec::new() })
    }

    /// Is this one of the root certificates it names?
    pub fn names_root(&self, root: &CertificateDer<'_>) -> bool {
        self.invitation.roots.contains(&root_hash(root))
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Result<[u8; 64], IdentityError> {
        let refused = || crypto("sign with the ticket", "the signature has another length");
        self.key()?.sign(message).as_ref().try_into().map_err(|_| refused())
    }

    fn key(&self) -> Result<Ed25519KeyPair, IdentityError> {
        Ed25519KeyPair::from_seed_unchecked(&self.secret).map_err(|e| crypto("use the ticket", &e.to_string()))
    }

    fn encode(&self) -> Vec<u8> {
        let Invitation { trust_domain, roots, root, root_epoch, contacts, roles, expires } = &self.invitation;
        let content = Writer::bare()
            .bytes(trust_domain.as_str().as_bytes())
            .list(roots.iter(), |w, hash| w.fixed(hash))
            .cell(*root)
            .number(*root_epoch);
        let content =
            write_contacts(content, contacts).fixed(&self.secret).byte(roles.bits()).number(expires.0 / 1000).done();
        let length = (HEADER + content.len() + CHECKSUM) as u16;
        let mut whole = [&[VERSION][..], &length.to_be_bytes(), &content].concat();
        whole.extend(checksum(&whole));
        whole
    }

    fn decode(content: &[u8]) -> Result<Ticket, MessageError> {
        let mut r = Reader::bare(codec::TICKET, content);
        let trust_domain = r.text(255)?.parse().map_err(|_| r.damaged("its mesh has a name that none has"))?;
        let roots = r.list(MAX_ROOTS, Reader::fixed)?;
        let (root, root_epoch) = (r.cell()?, r.number()?);
        let contacts = read_contacts(&mut r, MAX_CONTACTS)?;
        let secret = r.fixed()?;
        let roles = Roles::from_bits(r.byte()?).ok_or_else(|| r.damaged("it grants a role that is not known"))?;
        let expires = r.number()?.checked_mul(1000).map(Wall).ok_or_else(|| r.damaged("it expires never"))?;
        r.end()?;
        Ok(Ticket {
            invitation: Invitation { trust_domain, roots, root, root_epoch, contacts, roles, expires },
            secret,
        })
    }
}

/// SHA-256 of a root certificate, as tickets name it.
pub fn root_hash(root: &CertificateDer<'_>) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.iter_mut().zip(digest(&SHA256, root).as_ref()).for_each(|(to, from)| *to = *from);
    hash
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", base32::encode(&self.encode()))
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("invitation", &self.invitation).finish_non_exhaustive()
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    /// Either case, and with white space wherever a terminal broke the line.
    fn from_str(text: &str) -> Result<Ticket, TicketError> {
        // Longer than any, and so not worth a copy.
        if text.len() > 2 * base32::length(usize::from(u16::MAX)) {
            return Err(TicketError::NotATicket);
        }
        let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).map(|c| c.to_ascii_lowercase()).collect();
        let rest = text.strip_prefix(ANY_PREFIX).ok_or(TicketError::NotATicket)?;
        let digits = match rest.chars().next() {
            Some('1' | 'l' | 'i') => &rest[1..],
            Some('2'..='9') => return Err(TicketError::Newer),
            _ => return Err(TicketError::NotATicket),
        };
        let (whole, left_over) = base32::decode(digits).map_err(|c| TicketError::Mistyped(Some(c)))?;
        let cut_off = |want: usize| TicketError::CutOff { have: text.len(), want: PREFIX.len() + want };
        let Some(([version, high, low], _)) = whole.split_first_chunk() else {
            return Err(cut_off(base32::length(HEADER + CHECKSUM)));
        };
        let want = base32::length(usize::from(u16::from_be_bytes([*high, *low])));
        if digits.len() < want {
            return Err(cut_off(want));
        }
        // The checksum comes before the version: what is mistyped must not pass for what is new.
        let Some((content, sum)) = whole.split_last_chunk::<CHECKSUM>() else {
            return Err(TicketError::Mistyped(None));
        };
        if digits.len() > want || left_over != 0 || *sum != checksum(content) {
            return Err(TicketError::Mistyped(None));
        }
        if *version > VERSION {
            return Err(TicketError::Newer);
        }
        Ok(Ticket::decode(content.get(HEADER..).unwrap_or_default())?)
    }
}

/// Not a secret and no proof, only against slips of the hand.
fn checksum(of: &[u8]) -> [u8; CHECKSUM] {
    let hash = digest(&SHA256, &[PREFIX.as_bytes(), of].concat());
    let mut sum = [0; CHECKSUM];
    sum.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
    sum
}

fn public_key(key: &Ed25519KeyPair) -> Result<[u8; 32], IdentityError> {
    key.public_key().as_ref().try_into().map_err(|_| crypto("use the ticket", "its public half is not 32 bytes"))
}

fn crypto(operation: &'static str, why: &str) -> IdentityError {
    IdentityError::Crypto { operation, why: why.to_owned() }
}

pub(crate) fn write_contacts(to: Writer, contacts: &[Contact]) -> Writer {
    to.list(contacts.iter(), |w, c| w.node(c.node).list(c.addresses.iter(), |w, a| w.address(*a)))
}

pub(crate) fn read_contacts(from: &mut Reader<'_>, most: usize) -> Result<Vec<Contact>, MessageError> {
    from.list(most, |r| Ok(Contact { node: r.node()?, addresses: r.list(MAX_ADDRESSES, Reader::address)? }))
}

/// What root keeps of a ticket: enough to know it again, nothing to join with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TicketRecord {
    /// The public half of its secret.
    pub public_key: [u8; 32],
    /// What a joiner may do at most.
    pub roles: Roles,
    /// The last moment it is good.
    pub expires: Wall,
    /// Whether it admits more than one node.
    pub reusable: bool,
    /// Root's epoch when it was made.
    pub root_epoch: u64,
    /// The nodes that joined with it, first to last; at most [`MAX_USES`].
    pub used_by: Vec<NodeId>,
}

impl TicketRecord {
    /// The ticket's name, under which root keeps this.
    pub fn id(&self) -> TicketId {
        TicketId::of(&self.public_key)
    }

    /// May root forget it at `now`? A day after it expired: until then whoever comes late hears why.
    pub fn is_over(&self, now: Wall) -> bool {
        now.since(self.expires) > std::time::Duration::from_secs(24 * 3600)
    }

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        Writer::new(codec::TICKET_RECORD)
            .fixed(&self.public_key)
            .byte(self.roles.bits())
            .wall(self.expires)
            .byte(u8::from(self.reusable))
            .number(self.root_epoch)
            .list(self.used_by.iter(), |w, node| w.node(*node))
            .done()
    }

    /// Reads what [`TicketRecord::encode`] wrote.
    ///
    /// # Errors
    /// If it is something else.
    pub fn decode(bytes: &[u8]) -> Result<TicketRecord, MessageError> {
        let mut r = Reader::open(codec::TICKET_RECORD, bytes)?;
        let public_key = r.fixed()?;
        let roles = Roles::from_bits(r.byte()?).ok_or_else(|| r.damaged("it grants a role that is not known"))?;
        let expires = r.wall()?;
        let reusable = match r.byte()? {
            0 => false,
            1 => true,
            _ => return Err(r.damaged("it is neither reusable nor not")),
        };
        let root_epoch = r.number()?;
        let used_by = r.list(MAX_USES, Reader::node)?;
        r.end()?;
        Ok(TicketRecord { public_key, roles, expires, reusable, root_epoch, used_by })
    }
}
