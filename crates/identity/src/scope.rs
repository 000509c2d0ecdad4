//! What an issuing key may issue: an extension of our own in its certificate, and the rule about it.
//!
//! X.509 name constraints bind only the host of a URI, so they cannot keep one namespace's keeper from
//! naming another's ServiceAccounts. Our verifiers therefore read this extension and refuse what lies
//! beyond it. It is not critical, since a foreign verifier would have to refuse every chain of ours
//! otherwise: foreign verifiers see the trust domain and nothing finer.

use crate::spiffe::{SpiffeId, label};
use base::NodeId;
use std::fmt;

/// The extension's object identifier: a random number in the arc that needs no registration (X.667).
pub const OID: &[u64] = &[2, 25, 1_739_406_127, 1];

// Go's certificate reader, and so kubectl, refuses a certificate with an arc that does not fit 31 bits.
const _: () = assert!(OID[2] < 1 << 31 && OID[3] < 1 << 31);

/// The object identifier of the extension that says which keeper holds the issuing key, so that its expulsion
/// reaches what the key signed. ([`crate::roles::OID`] lies between the two.)
pub const KEEPER_OID: &[u64] = &[2, 25, 1_739_406_127, 3];

/// The content of that extension: a DER OCTET STRING.
pub(crate) fn keeper_to_der(keeper: NodeId) -> Vec<u8> {
    [&[0x04, 0x20][..], &keeper.0].concat()
}

/// Reads it back.
pub(crate) fn keeper_from_der(der: &[u8]) -> Option<NodeId> {
    let id = der.strip_prefix(&[0x04, 0x20])?;
    id.try_into().ok().map(NodeId)
}

/// Names the extension's format, first in its text.
const FORMAT: &str = "beemesh-issuer/1";

/// What an issuing key may issue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IssuerScope {
    /// A hive's registry: SVIDs of nodes, and the gateways' server certificates.
    Registry,
    /// A namespace's keeper: SVIDs of that namespace's workloads.
    Namespace(String),
}

/// Whom a certificate names, as far as scope is concerned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Named<'a> {
    /// The one URI of an SVID.
    Svid(&'a SpiffeId),
    /// Somebody known by subject: common name and organisations.
    Person,
}

impl IssuerScope {
    /// May a key of this scope issue a certificate that proves `named` as a client?
    pub fn permits(&self, named: &Named<'_>) -> bool {
        match (self, named) {
            (IssuerScope::Registry, Named::Svid(SpiffeId::Node { .. })) => true,
            (IssuerScope::Namespace(own), Named::Svid(SpiffeId::Workload { namespace, .. })) => own == namespace,
            _ => false,
        }
    }

    /// The extension's content: a DER UTF8String.
    pub fn to_der(&self) -> Vec<u8> {
        let text = format!("{FORMAT} {self}");
        // At most 16 + 11 + 63 bytes: one length octet is enough.
        let mut der = vec![0x0c, text.len().min(127) as u8];
        der.extend_from_slice(text.as_bytes());
        der
    }

    /// Reads the extension's content; `None` if it is not exactly what [`IssuerScope::to_der`] writes, also
    /// if a newer release wrote it: what is not understood permits nothing.
    pub fn from_der(der: &[u8]) -> Option<IssuerScope> {
        let text = std::str::from_utf8(der.get(2..)?).ok()?;
        let scope = match text.strip_prefix(FORMAT)?.strip_prefix(' ')? {
            "registry" => IssuerScope::Registry,
            other => IssuerScope::Namespace(label(other.strip_prefix("namespace ")?)?.to_owned()),
        };
        (scope.to_der() == der).then_some(scope)
    }
}

impl fmt::Display for IssuerScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IssuerScope::Registry => f.write_str("registry"),
            IssuerScope::Namespace(namespace) => write!(f, "namespace {namespace}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> SpiffeId {
        SpiffeId::parse(text).unwrap()
    }

    #[test]
    fn a_scope_reads_back_what_it_wrote_and_nothing_else() {
        for scope in [IssuerScope::Registry, IssuerScope::Namespace("a".repeat(63))] {
            let der = scope.to_der();
            assert_eq!(IssuerScope::from_der(&der), Some(scope));
            for cut in 0..der.len() {
                assert_eq!(IssuerScope::from_der(&der[..cut]), None, "cut at {cut}");
            }
            let mut newer = der.clone();
            newer[17] = b'2';
            assert_eq!(IssuerScope::from_der(&newer), None);
        }
        // Kept for ever: certificates in the field say this.
        assert_eq!(IssuerScope::Namespace("web".into()).to_der(), b"\x0c\x1ebeemesh-issuer/1 namespace web");
    }

    #[test]
    fn each_scope_permits_its_own_and_nothing_else() {
        let node = id(&format!("spiffe://a.mesh/node/{}", "ab".repeat(32)));
        let (web, other) = (id("spiffe://a.mesh/ns/web/sa/x"), id("spiffe://a.mesh/ns/other/sa/x"));
        let web_keeper = IssuerScope::Namespace("web".into());
        for (scope, named, permitted) in [
            (&IssuerScope::Registry, Named::Svid(&node), true),
            (&IssuerScope::Registry, Named::Svid(&web), false),
            (&IssuerScope::Registry, Named::Person, false),
            (&web_keeper, Named::Svid(&web), true),
            (&web_keeper, Named::Svid(&other), false),
            (&web_keeper, Named::Svid(&node), false),
            (&web_keeper, Named::Person, false),
        ] {
            assert_eq!(scope.permits(&named), permitted, "{scope} {named:?}");
        }
    }
}
