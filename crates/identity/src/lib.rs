//! Who is who in a mesh, and how it is proven: the trust domain, its root authority, the issuing keys of
//! cells, nodes' keys, SVIDs and roles, tickets, certificates for the API and for people, ServiceAccount
//! tokens.
//!
//! Three rules shape the crate:
//!
//! - Keys are made where they are used and never move. An authority signs the *public* half, for who shows
//!   that they have the other ([`request`], [`issuer`]).
//! - What is decidable is pure: whether a certificate is due for renewal ([`lifetime`]), who may issue
//!   what ([`scope`]), whether a chain or a token proves what it claims ([`verify`], [`token`]), whether a
//!   machine may join ([`join`]), who was expelled ([`revocations`]) depend on arguments alone, the present
//!   among them. Making keys and reading files are apart from it.
//! - The cryptography is aws-lc's, through `rcgen`, `rustls` and `aws-lc-rs`; nothing here computes on keys.
//!
//! Keys of authorities and of the API are ECDSA P-256 (some clients refuse Ed25519); a node's own key is
//! Ed25519, since its public half is the node's name ([`base::NodeId`]).
//!
//! [`Identity::found`], [`Identity::resume`] and [`Identity::begin_join`] are the way in. A machine joins like
//! this: the mesh makes a [`Ticket`] and keeps its [`TicketRecord`]; the machine begins ([`Joining`]) and asks
//! ([`JoinRequest`]); whoever keeps root looks at that ([`verify_join`]), commits that the ticket is used, has
//! the machine's keys certified ([`CellIssuer::certify`]) and answers ([`JoinAnswer`]); the machine believes
//! the answer if its ticket vouches for it ([`Identity::complete_join`]), and is a node. From then on
//! [`Upkeep::wants`] says what it has to ask others for, and [`Verifier::link`] who it may speak with.

#![forbid(unsafe_code)]

mod base32;
pub mod certificate;
mod codec;
pub mod error;
mod files;
pub mod gateway;
mod held;
mod home;
pub mod issuer;
pub mod join;
mod joined;
pub mod lifetime;
pub mod person;
pub mod request;
pub mod revocations;
pub mod roles;
pub mod scope;
pub mod spiffe;
pub mod ticket;
pub mod tls;
pub mod token;
pub mod token_keys;
pub mod trust_domain;
pub mod upkeep;
pub mod verify;

pub use certificate::{Credential, NodeKey, RootAuthority, node_signed};
pub use codec::MessageError;
pub use error::IdentityError;
pub use gateway::{GatewayCertificate, GatewayNames};
pub use held::Known;
pub use home::{DEFAULT_TOKEN_ISSUER, Identity};
pub use issuer::{AskedIssuer, CellIssuer, IssuerRequest};
pub use join::{AnswerRefusal, Granted, JoinAnswer, JoinRequest, TicketRefusal, Wanted, verify_join};
pub use joined::{Asked, Asking, Joining};
pub use lifetime::Lifetime;
pub use person::{AskedPerson, PersonRequest};
pub use request::{AskedGateway, Chain, GatewayRequest, SvidRequest};
pub use revocations::Revocations;
pub use roles::Roles;
pub use scope::IssuerScope;
pub use spiffe::SpiffeId;
pub use ticket::{Contact, Invitation, Ticket, TicketError, TicketId, TicketRecord};
pub use token::{BoundObject, ServiceAccountClaims, TokenRefusal, TokenRequest};
pub use token_keys::{TokenAuthority, TrustedTokenKey};
pub use trust_domain::TrustDomain;
pub use upkeep::{Upkeep, Want};
pub use verify::{GRACE, Peer, Proven, Refusal, Verifier};
