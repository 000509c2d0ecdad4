//! Whether a certificate chain proves what it says. Pure: chain and present in, name or refusal out.
//!
//! A mesh's chains are short and of one shape, so the whole of what is accepted fits one screen: a leaf
//! signed by root itself names a person; a leaf signed by an issuing key that root signed names what that
//! key's [`IssuerScope`] permits. Everything else is refused, whatever else X.509 would allow.

use crate::scope::{self, IssuerScope, Named};
use crate::spiffe::SpiffeId;
use crate::{Lifetime, Revocations, Roles, TrustDomain, roles};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use base::{NodeId, Wall};
use rustls_pki_types::CertificateDer;
use std::time::Duration;
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::Oid;
use x509_parser::extensions::{GeneralName, ParsedExtension};

/// Who is at the other end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Peer {
    /// A machine of the mesh.
    Node {
        /// Which.
        node: NodeId,
        /// What it may do.
        roles: Roles,
    },
    /// What runs as a ServiceAccount.
    Workload {
        /// The ServiceAccount's namespace.
        namespace: String,
        /// Its name.
        service_account: String,
    },
    /// Somebody with a client certificate.
    Person {
        /// The subject's common name: Kubernetes' user.
        name: String,
        /// The subject's organisations: Kubernetes' groups.
        groups: Vec<String>,
    },
}

/// What a chain proves, and until when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proven {
    /// Who.
    pub peer: Peer,
    /// When all of the chain is good, a grace that was granted included. A connection that outlives this is
    /// authorised again or closed.
    pub lifetime: Lifetime,
    /// The keeper whose issuing key vouches for it. `None` if root itself does, or if the issuing certificate
    /// is from a release that did not write it there.
    pub issued_by: Option<NodeId>,
}

impl Proven {
    /// The node and its roles, if it is one.
    pub fn node(&self) -> Option<(NodeId, Roles)> {
        match self.peer {
            Peer::Node { node, roles } => Some((node, roles)),
            Peer::Workload { .. } | Peer::Person { .. } => None,
        }
    }
}

/// How long after its end a node's SVID still proves who it is, where nobody was there to renew it: long
/// enough for an outage that is noticed in the morning.
pub const GRACE: Duration = Duration::from_secs(24 * 3600);

/// Why a chain proves nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// Not a certificate, or one with parts that cannot be read.
    #[error("a certificate of the chain cannot be read ({0})")]
    Unreadable(String),
    /// The chain's shape is none a mesh issues.
    #[error("the chain has {0} certificates: a leaf, or a leaf and its issuer, are accepted")]
    Shape(usize),
    /// Nobody this mesh trusts signed it.
    #[error("it was not signed by an authority of {0}")]
    Stranger(TrustDomain),
    /// Not good at this time.
    #[error("{what} is good from {from} to {to} and it is {now}: {remedy}", what = .what, from = .lifetime.not_before.rfc3339(),
        to = .lifetime.not_after.rfc3339(), now = .now.rfc3339(),
        remedy = if .now < &.lifetime.not_before { "compare the clocks" } else { "it must be renewed" })]
    OutOfTime {
        /// Which certificate.
        what: &'static str,
        /// When it is good.
        lifetime: Lifetime,
        /// The present.
        now: Wall,
    },
    /// The certificate is not for this use.
    #[error("the certificate is not for this: {0}")]
    Purpose(&'static str),
    /// The issuer may not name this.
    #[error("its issuer may not name it ({0})")]
    BeyondScope(String),
    /// An SVID of another mesh.
    #[error(
        "it belongs to {0}, another trust domain: two meshes do not become one. To move a machine, empty its data directory and join it with a ticket"
    )]
    OtherDomain(TrustDomain),
    /// A node's SVID, presented by another node.
    #[error(
        "the chain is that of {proven:?} and it was presented by {presented:?}: a node proves itself with its own only"
    )]
    OtherNode {
        /// Whom the chain names.
        proven: NodeId,
        /// Whose key the connection has.
        presented: NodeId,
    },
    /// The node, or the keeper that vouches for it, was expelled.
    #[error("{0} was expelled from the mesh: if it is to come back, empty its data directory and invite it again")]
    Expelled(NodeId),
}

/// A root as a verifier needs it.
#[derive(Clone)]
struct Root {
    der: CertificateDer<'static>,
    subject: Vec<u8>,
    public_key: Vec<u8>,
    lifetime: Lifetime,
}

/// Verifies chains of one mesh.
#[derive(Clone)]
pub struct Verifier {
    trust_domain: TrustDomain,
    roots: Vec<Root>,
}

impl Verifier {
    /// A verifier that trusts these root certificates.
    ///
    /// # Errors
    /// If one of them cannot be read or is no P-256 authority.
    pub fn new(trust_domain: TrustDomain, roots: &[CertificateDer<'_>]) -> Result<Verifier, Refusal> {
        let root = |der: &CertificateDer<'_>| {
            let parsed = parse(der)?;
            authority(&parsed)?;
            Ok(Root {
                der: der.clone().into_owned(),
                subject: parsed.subject().as_raw().to_vec(),
                public_key: public_key(&parsed)?.to_vec(),
                lifetime: lifetime(&parsed)?,
            })
        };
        Ok(Verifier { trust_domain, roots: roots.iter().map(root).collect::<Result<_, _>>()? })
    }

    /// The mesh it verifies for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The roots it trusts, DER.
    pub fn roots(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.roots.iter().map(|r| &r.der)
    }

    /// Whom a client's chain (leaf first, as presented) proves at `now`.
    ///
    /// # Errors
    /// Says why it proves nobody.
    pub fn client(&self, chain: &[CertificateDer<'_>], now: Wall) -> Result<Proven, Refusal> {
        self.proven(&self.walk(chain, Duration::ZERO, now)?)
    }

    /// Which node a chain proves at `now`, also when it ended less than `grace` ago ([`GRACE`] by default):
    /// between nodes an SVID may run out because no issuer was within reach. Nobody else gets that, and
    /// whoever calls this asks [`Revocations::check`] as well; [`Verifier::link`] does both.
    ///
    /// # Errors
    /// Says why it proves no node.
    pub fn node(&self, chain: &[CertificateDer<'_>], now: Wall, grace: Duration) -> Result<Proven, Refusal> {
        let proven = self.proven(&self.walk(chain, grace, now)?)?;
        if proven.node().is_none() {
            return Err(Refusal::Purpose("it is no node's"));
        }
        Ok(proven)
    }

    /// Whether the node at the other end of a link, whose key is `peer`, is of this mesh: its chain is good,
    /// names that very key, and neither it nor its issuer was expelled.
    ///
    /// # Errors
    /// Says why not.
    pub fn link(
        &self,
        chain: &[CertificateDer<'_>],
        peer: NodeId,
        revocations: &Revocations,
        now: Wall,
        grace: Duration,
    ) -> Result<Proven, Refusal> {
        let proven = self.node(chain, now, grace).map_err(|refusal| match refusal {
            // Two founders that meet: what it says of itself is unproven, and good enough to say so.
            Refusal::Stranger(own) => match chain.first().and_then(claimed_domain) {
                Some(other) if other != own => Refusal::OtherDomain(other),
                _ => Refusal::Stranger(own),
            },
            other => other,
        })?;
        match proven.node() {
            Some((node, _)) if node == peer => {}
            other => {
                return Err(Refusal::OtherNode { proven: other.map_or(peer, |(node, _)| node), presented: peer });
            }
        }
        revocations.check(&proven)?;
        Ok(proven)
    }

    /// When a server's chain, such as a gateway's, is good. Names are the client's to compare.
    ///
    /// # Errors
    /// Says why it is no server's of this mesh.
    pub fn server(&self, chain: &[CertificateDer<'_>], now: Wall) -> Result<Lifetime, Refusal> {
        let walked = self.walk(chain, Duration::ZERO, now)?;
        if walked.scope != Some(IssuerScope::Registry) {
            return Err(Refusal::BeyondScope("only a registry's issuer certifies servers".to_owned()));
        }
        let unreadable = |e: x509_parser::error::X509Error| Refusal::Unreadable(e.to_string());
        let usage = walked.leaf.extended_key_usage().map_err(unreadable)?;
        if walked.leaf.is_ca() || !usage.is_some_and(|u| u.value.server_auth) {
            return Err(Refusal::Purpose("it does not authenticate servers"));
        }
        Ok(walked.good)
    }

    /// What root certified an issuing key for.
    pub(crate) fn issuer(&self, certificate: &CertificateDer<'_>, now: Wall) -> Result<ProvenIssuer, Refusal> {
        let parsed = parse(certificate)?;
        authority(&parsed)?;
        let lifetime = valid(&parsed, "the issuing certificate", Duration::ZERO, now)?;
        self.signed_by_root(&parsed, now)?;
        let name = parsed.subject().iter_common_name().next().and_then(|n| n.as_str().ok());
        Ok(ProvenIssuer {
            scope: issuer_scope(&parsed)?,
            keeper: issuer_keeper(&parsed)?,
            name: name.unwrap_or_default().to_owned(),
            point: public_key(&parsed)?.to_vec(),
            lifetime,
        })
    }

    /// Everything about a chain but whom its leaf names.
    fn walk<'c>(&self, chain: &'c [CertificateDer<'_>], grace: Duration, now: Wall) -> Result<Walked<'c>, Refusal> {
        // Some clients send the root as well: it proves nothing and hurts nothing.
        let chain = match chain {
            [rest @ .., last] if !rest.is_empty() && self.roots.iter().any(|r| r.der == *last) => rest,
            all => all,
        };
        let (leaf, issuer) = match chain {
            [leaf] => (parse(leaf)?, None),
            [leaf, issuer] => (parse(leaf)?, Some(parse(issuer)?)),
            other => return Err(Refusal::Shape(other.len())),
        };
        let mut good = valid(&leaf, "the certificate", grace, now)?;
        let Some(issuer) = issuer else {
            good = shorter(good, self.signed_by_root(&leaf, now)?);
            return Ok(Walked { leaf, scope: None, issued_by: None, good });
        };
        authority(&issuer)?;
        // It outlives every leaf it signed, and the grace is theirs.
        good = shorter(good, valid(&issuer, "its issuer", grace, now)?);
        good = shorter(good, self.signed_by_root(&issuer, now)?);
        let key = public_key(&issuer)?;
        if leaf.issuer().as_raw() != issuer.subject().as_raw() || !signed(&leaf, key) {
            return Err(Refusal::Stranger(self.trust_domain.clone()));
        }
        Ok(Walked { leaf, scope: Some(issuer_scope(&issuer)?), issued_by: issuer_keeper(&issuer)?, good })
    }

    /// Whom the leaf of a chain names, and whether its issuer may.
    fn proven(&self, walked: &Walked<'_>) -> Result<Proven, Refusal> {
        let Walked { leaf, scope, issued_by, good } = walked;
        client_leaf(leaf)?;
        let peer = match svid(leaf)? {
            Some(id) => {
                // Its issuer's scope was checked against the URI alone. A name beside it would be read as a
                // user by whoever looks at the subject, and nobody vouches for that.
                if leaf.subject().iter_common_name().next().is_some() {
                    return Err(Refusal::BeyondScope("an SVID whose subject names a person as well".to_owned()));
                }
                if id.trust_domain() != &self.trust_domain {
                    return Err(Refusal::OtherDomain(id.trust_domain().clone()));
                }
                // Root itself names people only: what it could name besides is an issuer's to name.
                let permitted = scope.as_ref().is_some_and(|s| s.permits(&Named::Svid(&id)));
                if !permitted {
                    let who = scope.as_ref().map_or("root".to_owned(), |s| format!("it issues for {s}"));
                    return Err(Refusal::BeyondScope(who));
                }
                match id {
                    SpiffeId::Node { node, .. } => Peer::Node { node, roles: node_roles(leaf)? },
                    SpiffeId::Workload { namespace, service_account, .. } => {
                        Peer::Workload { namespace, service_account }
                    }
                }
            }
            None => {
                if let Some(scope) = scope.as_ref().filter(|s| !s.permits(&Named::Person)) {
                    return Err(Refusal::BeyondScope(format!("it issues for {scope}")));
                }
                person(leaf)?
            }
        };
        Ok(Proven { peer, lifetime: *good, issued_by: *issued_by })
    }

    /// The lifetime of the root that signed this certificate.
    fn signed_by_root(&self, certificate: &X509Certificate<'_>, now: Wall) -> Result<Lifetime, Refusal> {
        let issuer = certificate.issuer().as_raw();
        let root = self.roots.iter().find(|r| r.subject == issuer && signed(certificate, &r.public_key));
        let root = root.ok_or_else(|| Refusal::Stranger(self.trust_domain.clone()))?;
        if !root.lifetime.covers(now) {
            return Err(Refusal::OutOfTime { what: "the root authority", lifetime: root.lifetime, now });
        }
        Ok(root.lifetime)
    }
}

/// What an issuing certificate says.
pub(crate) struct ProvenIssuer {
    pub(crate) scope: IssuerScope,
    pub(crate) keeper: Option<NodeId>,
    pub(crate) name: String,
    pub(crate) point: Vec<u8>,
    pub(crate) lifetime: Lifetime,
}

/// A chain whose signatures and dates are in order.
struct Walked<'c> {
    leaf: X509Certificate<'c>,
    /// Its issuer's; `None` if root signed it.
    scope: Option<IssuerScope>,
    issued_by: Option<NodeId>,
    good: Lifetime,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "verifier for {} ({} roots)", self.trust_domain, self.roots.len())
    }
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Refusal> {
    let (rest, parsed) = x509_parser::parse_x509_certificate(der).map_err(|e| Refusal::Unreadable(e.to_string()))?;
    if !rest.is_empty() {
        return Err(Refusal::Unreadable("bytes follow it".to_owned()));
    }
    // RFC 5280, 4.2: what is critical and not understood must be refused.
    for extension in parsed.extensions() {
        let understood = matches!(
            extension.parsed_extension(),
            ParsedExtension::BasicConstraints(_)
                | ParsedExtension::KeyUsage(_)
                | ParsedExtension::ExtendedKeyUsage(_)
                | ParsedExtension::SubjectAlternativeName(_)
        );
        if extension.critical && !understood {
            return Err(Refusal::Unreadable(format!("critical extension {}", extension.oid)));
        }
    }
    Ok(parsed)
}

fn signed(certificate: &X509Certificate<'_>, by: &[u8]) -> bool {
    // id-ecdsa-with-SHA256 (RFC 5758); the algorithm of the outer and the signed part must agree.
    const ECDSA_WITH_SHA256: &str = "1.2.840.10045.4.3.2";
    let outer = certificate.signature_algorithm.algorithm.to_id_string();
    let inner = certificate.tbs_certificate.signature.algorithm.to_id_string();
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, by);
    let signature = certificate.signature_value.data.as_ref();
    outer == ECDSA_WITH_SHA256
        && inner == ECDSA_WITH_SHA256
        && key.verify(certificate.tbs_certificate.as_ref(), signature).is_ok()
}

/// The uncompressed point of a P-256 key.
fn public_key<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a [u8], Refusal> {
    let point = certificate.public_key().subject_public_key.data.as_ref();
    if point.len() == 65 { Ok(point) } else { Err(Refusal::Purpose("its key is not ECDSA P-256")) }
}

fn lifetime(certificate: &X509Certificate<'_>) -> Result<Lifetime, Refusal> {
    let wall = |seconds: i64| u64::try_from(seconds).ok().and_then(|s| s.checked_mul(1000)).map(Wall);
    let validity = certificate.validity();
    match (wall(validity.not_before.timestamp()), wall(validity.not_after.timestamp())) {
        (Some(not_before), Some(not_after)) => Ok(Lifetime { not_before, not_after }),
        _ => Err(Refusal::Unreadable("a date before 1970".to_owned())),
    }
}

fn valid(
    certificate: &X509Certificate<'_>,
    what: &'static str,
    grace: Duration,
    now: Wall,
) -> Result<Lifetime, Refusal> {
    let lifetime = lifetime(certificate)?;
    let good = Lifetime { not_after: lifetime.not_after + grace, ..lifetime };
    if good.covers(now) { Ok(good) } else { Err(Refusal::OutOfTime { what, lifetime, now }) }
}

fn shorter(a: Lifetime, b: Lifetime) -> Lifetime {
    Lifetime { not_before: a.not_before.max(b.not_before), not_after: a.not_after.min(b.not_after) }
}

/// Refuses what may not sign certificates.
fn authority(certificate: &X509Certificate<'_>) -> Result<(), Refusal> {
    let unreadable = |e: x509_parser::error::X509Error| Refusal::Unreadable(e.to_string());
    let ca = certificate.basic_constraints().map_err(unreadable)?.is_some_and(|c| c.value.ca);
    let signs = certificate.key_usage().map_err(unreadable)?.is_some_and(|u| u.value.key_cert_sign());
    if ca && signs { Ok(()) } else { Err(Refusal::Purpose("an issuer that is no authority")) }
}

/// Refuses a leaf that is no client's.
fn client_leaf(leaf: &X509Certificate<'_>) -> Result<(), Refusal> {
    let unreadable = |e: x509_parser::error::X509Error| Refusal::Unreadable(e.to_string());
    if leaf.is_ca() {
        return Err(Refusal::Purpose("it is an authority's"));
    }
    let usage = leaf.extended_key_usage().map_err(unreadable)?;
    if !usage.is_some_and(|u| u.value.client_auth) {
        return Err(Refusal::Purpose("it does not authenticate clients"));
    }
    Ok(())
}

fn issuer_scope(issuer: &X509Certificate<'_>) -> Result<IssuerScope, Refusal> {
    let nothing = || Refusal::BeyondScope("it has no scope this release knows".to_owned());
    extension(issuer, scope::OID)?.and_then(IssuerScope::from_der).ok_or_else(nothing)
}

fn issuer_keeper(issuer: &X509Certificate<'_>) -> Result<Option<NodeId>, Refusal> {
    let unreadable = || Refusal::Unreadable("the extension that names the keeper".to_owned());
    extension(issuer, scope::KEEPER_OID)?.map(|der| scope::keeper_from_der(der).ok_or_else(unreadable)).transpose()
}

fn node_roles(leaf: &X509Certificate<'_>) -> Result<Roles, Refusal> {
    Ok(extension(leaf, roles::OID)?.and_then(Roles::from_der).unwrap_or_default())
}

/// The content of an extension of ours. Twice the same is refused: nobody could say which one holds.
fn extension<'a>(certificate: &'a X509Certificate<'_>, oid: &[u64]) -> Result<Option<&'a [u8]>, Refusal> {
    let oid = Oid::from(oid).map_err(|_| Refusal::Unreadable("an object identifier".to_owned()))?;
    let found = certificate.get_extension_unique(&oid).map_err(|e| Refusal::Unreadable(e.to_string()))?;
    Ok(found.map(|e| e.value))
}

/// The uncompressed point of a certificate's P-256 key; `None` if it is no certificate or has another key.
pub(crate) fn certified_point(der: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let parsed = parse(der).ok()?;
    public_key(&parsed).ok().map(<[u8]>::to_vec)
}

/// When a certificate says it is good.
pub(crate) fn certified_lifetime(der: &CertificateDer<'_>) -> Result<Lifetime, Refusal> {
    lifetime(&parse(der)?)
}

/// The leaf's SPIFFE ID, if it is an SVID: exactly one URI (X.509-SVID, section 2).
fn svid(leaf: &X509Certificate<'_>) -> Result<Option<SpiffeId>, Refusal> {
    let names = leaf.subject_alternative_name().map_err(|e| Refusal::Unreadable(e.to_string()))?;
    let Some(names) = names else { return Ok(None) };
    let mut uris = names.value.general_names.iter().filter_map(|n| match n {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (None, _) => Ok(None),
        (Some(uri), None) => match SpiffeId::parse(uri) {
            Some(id) => Ok(Some(id)),
            None => Err(Refusal::Unreadable(format!("{uri} is no SPIFFE ID of a mesh"))),
        },
        (Some(_), Some(_)) => Err(Refusal::Unreadable("an SVID with two URIs".to_owned())),
    }
}

/// The trust domain a leaf says it is of, proven or not.
fn claimed_domain(leaf: &CertificateDer<'_>) -> Option<TrustDomain> {
    svid(&parse(leaf).ok()?).ok()?.map(|id| id.trust_domain().clone())
}

fn person(leaf: &X509Certificate<'_>) -> Result<Peer, Refusal> {
    let unreadable = |_| Refusal::Unreadable("a subject that is no text".to_owned());
    let subject = leaf.subject();
    let name = subject.iter_common_name().next().ok_or(Refusal::Purpose("its subject has no common name"))?;
    let groups = subject.iter_organization().map(|o| o.as_str().map(str::to_owned));
    Ok(Peer::Person {
        name: name.as_str().map_err(unreadable)?.to_owned(),
        groups: groups.collect::<Result<_, _>>().map_err(unreadable)?,
    })
}
