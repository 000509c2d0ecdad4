//! Who is who in a mesh, and how it is proven: the trust domain, its root authority, the issuing keys of
//! cells, nodes' keys and SVIDs, certificates for the API and for people, ServiceAccount tokens.
//!
//! Three rules shape the crate:
//!
//! - Keys are made where they are used and never move. An authority signs the *public* half.
//! - What is decidable is pure: whether a certificate is due for renewal ([`lifetime`]), who may issue
//!   what ([`scope`]), whether a chain or a token proves what it claims ([`verify`], [`token`]) depend on
//!   arguments alone, the present among them. Making keys and reading files are apart from it.
//! - The cryptography is aws-lc's, through `rcgen`, `rustls` and `aws-lc-rs`; nothing here computes on keys.
//!
//! Keys of authorities and of the API are ECDSA P-256 (some clients refuse Ed25519); a node's own key is
//! Ed25519, since its public half is the node's name ([`base::NodeId`]).
//!
//! [`Identity::found`] and [`Identity::resume`] are the way in.

#![forbid(unsafe_code)]

pub mod certificate;
pub mod error;
mod files;
pub mod gateway;
mod home;
pub mod lifetime;
pub mod scope;
pub mod spiffe;
pub mod tls;
pub mod token;
pub mod token_keys;
pub mod trust_domain;
pub mod upkeep;
pub mod verify;

pub use certificate::{CellIssuer, Credential, IssuerRequest, NodeKey, RootAuthority, node_signed};
pub use error::IdentityError;
pub use gateway::{GatewayCertificate, GatewayNames};
pub use home::{DEFAULT_TOKEN_ISSUER, Identity};
pub use lifetime::Lifetime;
pub use scope::IssuerScope;
pub use spiffe::SpiffeId;
pub use token::{BoundObject, ServiceAccountClaims, TokenRefusal, TokenRequest};
pub use token_keys::{TokenAuthority, TrustedTokenKey};
pub use trust_domain::TrustDomain;
pub use upkeep::Upkeep;
pub use verify::{Peer, Proven, Refusal, Verifier};
