//! Making keys and certificates: the root authority, cells' issuing keys, SVIDs, certificates for the API
//! and for people.

use crate::error::IdentityError;
use crate::lifetime::{self, Lifetime};
use crate::scope::{self, IssuerScope, Named};
use crate::spiffe::SpiffeId;
use crate::{GatewayNames, TrustDomain};
use base::{CellId, NodeId, Wall};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SanType, SerialNumber, SigningKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use std::fmt;
use time::OffsetDateTime;

/// A key, the certificate that names it, and what links that to a root. In PEM, as files and clients take
/// it; the key is never printed by `Debug`.
#[derive(Clone)]
pub struct Credential {
    /// The private key, PKCS #8 PEM.
    pub key_pem: String,
    /// The certificate and any intermediate, leaf first, PEM.
    pub chain_pem: String,
    /// The same certificates, DER.
    pub chain: Vec<CertificateDer<'static>>,
    /// When the leaf is good.
    pub lifetime: Lifetime,
    key_der: Vec<u8>,
}

impl Credential {
    fn new(key: &KeyPair, leaf: &rcgen::Certificate, above: Option<&CaCertificate>, lifetime: Lifetime) -> Credential {
        let mut chain = vec![leaf.der().clone()];
        let mut chain_pem = leaf.pem();
        if let Some(above) = above {
            chain.push(above.der.clone());
            chain_pem.push_str(&above.pem);
        }
        Credential { key_pem: key.serialize_pem(), chain_pem, chain, lifetime, key_der: key.serialize_der() }
    }

    /// The private key as rustls takes it.
    pub fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key_der.clone().into())
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

/// A node's own Ed25519 key: its public half is the [`NodeId`].
pub struct NodeKey {
    key: KeyPair,
    id: NodeId,
}

impl NodeKey {
    /// Makes a key. Chance comes from the cryptographic library.
    ///
    /// # Errors
    /// If the library has none to give.
    pub fn make() -> Result<NodeKey, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(IdentityError::crypto("make a node key"))?;
        NodeKey::of(key)
    }

    /// The key in PKCS #8 PEM, as [`NodeKey::to_pem`] gave it.
    ///
    /// # Errors
    /// If it is not an Ed25519 key in that form.
    pub fn from_pem(pem: &str) -> Result<NodeKey, IdentityError> {
        let operation = "read a node key";
        let key = KeyPair::from_pem(pem).map_err(IdentityError::crypto(operation))?;
        if key.algorithm() != &PKCS_ED25519 {
            return Err(IdentityError::Crypto { operation, why: "it is not an Ed25519 key".to_owned() });
        }
        NodeKey::of(key)
    }

    fn of(key: KeyPair) -> Result<NodeKey, IdentityError> {
        let id = <[u8; 32]>::try_from(key.public_key_raw()).map_err(|_| IdentityError::Crypto {
            operation: "read a node key",
            why: "its public half is not 32 bytes".to_owned(),
        })?;
        Ok(NodeKey { key, id: NodeId(id) })
    }

    /// The node's name: the public half.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The private key in PKCS #8 PEM, for the node's own disk only.
    pub fn to_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// Signs `message`.
    ///
    /// # Errors
    /// If the library refuses.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, IdentityError> {
        self.key.sign(message).map_err(IdentityError::crypto("sign with the node key"))
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key of {:?}", self.id)
    }
}

/// Whether `signature` is what the node with that id signs `message` with.
pub fn node_signed(node: NodeId, message: &[u8], signature: &[u8]) -> bool {
    let key = aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, node.0);
    key.verify(message, signature).is_ok()
}

/// A certificate that may sign others.
#[derive(Clone)]
struct CaCertificate {
    pem: String,
    der: CertificateDer<'static>,
    lifetime: Lifetime,
}

/// What an authority's file holds.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredAuthority {
    pub(crate) key: String,
    pub(crate) certificate: String,
    not_before_ms: u64,
    not_after_ms: u64,
    /// Of an issuer: which scope its certificate carries, as printed.
    scope: Option<String>,
    /// The subject's common name.
    name: String,
    /// Counts this cell's issuers on this node.
    number: u64,
}

impl StoredAuthority {
    /// The number of this keeper's next issuer of the cell.
    pub(crate) fn next_number(&self) -> u64 {
        self.number.saturating_add(1)
    }

    fn certificate(&self) -> Option<CaCertificate> {
        use rustls_pki_types::pem::PemObject;
        Some(CaCertificate {
            pem: self.certificate.clone(),
            der: CertificateDer::from_pem_slice(self.certificate.as_bytes()).ok()?,
            lifetime: Lifetime { not_before: Wall(self.not_before_ms), not_after: Wall(self.not_after_ms) },
        })
    }
}

/// The mesh's root: a self-signed authority. It certifies issuing keys and people, nothing else.
pub struct RootAuthority {
    trust_domain: TrustDomain,
    issuer: Issuer<'static, KeyPair>,
    certificate: CaCertificate,
}

impl RootAuthority {
    /// Makes a root authority for a mesh founded at `now`.
    ///
    /// # Errors
    /// If the cryptographic library refuses.
    pub fn make(trust_domain: &TrustDomain, now: Wall) -> Result<RootAuthority, IdentityError> {
        let refused = IdentityError::crypto("make the root authority");
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(&refused)?;
        let lifetime = Lifetime::root(now);
        let mut params = authority(subject(trust_domain, ROOT_NAME), lifetime, BasicConstraints::Constrained(1))?;
        // The SPIFFE X.509-SVID specification, section 4.1: an authority names its trust domain.
        params.subject_alt_names.push(uri(&format!("spiffe://{trust_domain}"))?);
        let made = params.self_signed(&key).map_err(&refused)?;
        let certificate = CaCertificate { pem: made.pem(), der: made.der().clone(), lifetime };
        Ok(RootAuthority { trust_domain: trust_domain.clone(), issuer: Issuer::new(params, key), certificate })
    }

    pub(crate) fn to_stored(&self) -> StoredAuthority {
        stored(&self.issuer, &self.certificate, None, ROOT_NAME.to_owned(), 0)
    }

    /// `None` if the certificate and the key do not belong together or cannot be read.
    pub(crate) fn from_stored(trust_domain: &TrustDomain, from: &StoredAuthority) -> Option<RootAuthority> {
        let certificate = from.certificate()?;
        let key = matching_key(&from.key, &certificate)?;
        let constraints = BasicConstraints::Constrained(1);
        let params = authority(subject(trust_domain, &from.name), certificate.lifetime, constraints).ok()?;
        Some(RootAuthority { trust_domain: trust_domain.clone(), issuer: Issuer::new(params, key), certificate })
    }

    /// The root certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate.pem
    }

    /// The root certificate, DER.
    pub fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.certificate.der
    }

    /// Certifies the issuing key that `request` holds the public half of. The key itself stays with who
    /// made it.
    ///
    /// # Errors
    /// If the cryptographic library refuses.
    pub fn certify_issuer(&self, request: &IssuerRequest, now: Wall) -> Result<CellIssuer, IdentityError> {
        let lifetime = Lifetime::of(now, lifetime::ISSUER, self.certificate.lifetime);
        let mut params =
            authority(subject(&self.trust_domain, &request.name), lifetime, BasicConstraints::Constrained(0))?;
        params.subject_alt_names.push(uri(&format!("spiffe://{}", self.trust_domain))?);
        params.custom_extensions.push(CustomExtension::from_oid_content(scope::OID, request.scope.to_der()));
        let made =
            params.signed_by(&request.key, &self.issuer).map_err(IdentityError::crypto("certify an issuing key"))?;
        let certificate = CaCertificate { pem: made.pem(), der: made.der().clone(), lifetime };
        let key = copy(&request.key)?;
        Ok(CellIssuer {
            trust_domain: self.trust_domain.clone(),
            scope: request.scope.clone(),
            name: request.name.clone(),
            number: request.number,
            issuer: Issuer::new(params, key),
            certificate,
        })
    }

    /// A client certificate for a person: Kubernetes reads the common name as the user and the organisation
    /// as the group. Good for a year.
    ///
    /// # Errors
    /// If the cryptographic library refuses.
    pub fn person(&self, name: &str, group: &str, now: Wall) -> Result<Credential, IdentityError> {
        let mut subject = DistinguishedName::new();
        subject.push(DnType::OrganizationName, group);
        subject.push(DnType::CommonName, name);
        let lifetime = Lifetime::of(now, lifetime::PERSON, self.certificate.lifetime);
        let mut params = leaf(subject, lifetime)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        issue(&params, &self.issuer, None, lifetime)
    }
}

impl fmt::Debug for RootAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "root authority of {}", self.trust_domain)
    }
}

/// A fresh issuing key that waits for root's signature.
pub struct IssuerRequest {
    key: KeyPair,
    name: String,
    scope: IssuerScope,
    number: u64,
}

impl IssuerRequest {
    /// Makes an issuing key for a cell on the node that keeps it. `number` counts this node's issuers of the
    /// cell: no two issuers of a mesh share a subject, so that a verifier never tries the wrong one.
    ///
    /// # Errors
    /// If the cryptographic library refuses.
    pub fn make(keeper: NodeId, cell: CellId, scope: IssuerScope, number: u64) -> Result<IssuerRequest, IdentityError> {
        let refused = IdentityError::crypto("make an issuing key");
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(refused)?;
        // At most 64 characters (RFC 5280, appendix A): enough of the keeper's id to tell keepers apart.
        let name = format!("issuer {cell} {} {number}", keeper.short());
        Ok(IssuerRequest { key, name, scope, number })
    }
}

/// A cell's issuing key on this node, certified by root for one [`IssuerScope`].
pub struct CellIssuer {
    trust_domain: TrustDomain,
    scope: IssuerScope,
    name: String,
    number: u64,
    issuer: Issuer<'static, KeyPair>,
    certificate: CaCertificate,
}

impl CellIssuer {
    pub(crate) fn to_stored(&self) -> StoredAuthority {
        stored(&self.issuer, &self.certificate, Some(self.scope.to_string()), self.name.clone(), self.number)
    }

    /// `None` if the parts do not belong together; `Some(None)` if they do and the scope is another one.
    pub(crate) fn from_stored(
        trust_domain: &TrustDomain,
        scope: &IssuerScope,
        from: &StoredAuthority,
    ) -> Option<Option<CellIssuer>> {
        let certificate = from.certificate()?;
        let key = matching_key(&from.key, &certificate)?;
        if from.scope.as_deref() != Some(scope.to_string().as_str()) {
            return Some(None);
        }
        let subject = subject(trust_domain, &from.name);
        let params = authority(subject, certificate.lifetime, BasicConstraints::Constrained(0)).ok()?;
        Some(Some(CellIssuer {
            trust_domain: trust_domain.clone(),
            scope: scope.clone(),
            name: from.name.clone(),
            number: from.number,
            issuer: Issuer::new(params, key),
            certificate,
        }))
    }

    /// When the issuing certificate is good.
    pub fn lifetime(&self) -> Lifetime {
        self.certificate.lifetime
    }

    /// What it may issue.
    pub fn scope(&self) -> &IssuerScope {
        &self.scope
    }

    /// Which of this keeper's issuers of the cell it is.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// An SVID with a fresh key, for an hour. Renew it half way ([`Lifetime::half`]).
    ///
    /// # Errors
    /// [`IdentityError::BeyondScope`] if `id` is not this issuer's to name; or if the library refuses.
    pub fn svid(&self, id: &SpiffeId, now: Wall) -> Result<Credential, IdentityError> {
        if !self.scope.permits(&Named::Svid(id)) || id.trust_domain() != &self.trust_domain {
            return Err(self.beyond(id.to_string()));
        }
        let lifetime = Lifetime::of(now, lifetime::SVID, self.certificate.lifetime);
        // An empty subject makes the alternative name critical (RFC 5280, 4.2.1.6), which SPIFFE allows and
        // some verifiers do not: the trust domain as organisation says nothing new.
        let mut subject = DistinguishedName::new();
        subject.push(DnType::OrganizationName, self.trust_domain.as_str());
        let mut params = leaf(subject, lifetime)?;
        params.subject_alt_names.push(uri(&id.to_string())?);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        issue(&params, &self.issuer, Some(&self.certificate), lifetime)
    }

    /// A certificate for the API server under all the names it answers to, for a day, good as a server
    /// only. Renew it half way.
    ///
    /// # Errors
    /// [`IdentityError::BeyondScope`] unless this is the registry's issuer; or if a name cannot stand in a
    /// certificate; or if the library refuses.
    pub fn gateway(&self, names: &GatewayNames, now: Wall) -> Result<Credential, IdentityError> {
        if self.scope != IssuerScope::Registry {
            return Err(self.beyond("the API server".to_owned()));
        }
        let lifetime = Lifetime::of(now, lifetime::GATEWAY, self.certificate.lifetime);
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, "kubernetes");
        let mut params = leaf(subject, lifetime)?;
        for name in names.dns() {
            params.subject_alt_names.push(SanType::DnsName(ia5(&name)?));
        }
        params.subject_alt_names.extend(names.ips().into_iter().map(SanType::IpAddress));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        issue(&params, &self.issuer, Some(&self.certificate), lifetime)
    }

    fn beyond(&self, name: String) -> IdentityError {
        IdentityError::BeyondScope { scope: self.scope.to_string(), name }
    }
}

impl fmt::Debug for CellIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "issuer for {} of {}, until {:?}", self.scope, self.trust_domain, self.certificate.lifetime.not_after)
    }
}

fn issue(
    params: &CertificateParams,
    issuer: &Issuer<'_, KeyPair>,
    above: Option<&CaCertificate>,
    lifetime: Lifetime,
) -> Result<Credential, IdentityError> {
    let refused = IdentityError::crypto("issue a certificate");
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(&refused)?;
    let made = params.signed_by(&key, issuer).map_err(&refused)?;
    Ok(Credential::new(&key, &made, above, lifetime))
}

fn stored(
    issuer: &Issuer<'_, KeyPair>,
    certificate: &CaCertificate,
    scope: Option<String>,
    name: String,
    number: u64,
) -> StoredAuthority {
    StoredAuthority {
        key: issuer.key().serialize_pem(),
        certificate: certificate.pem.clone(),
        not_before_ms: certificate.lifetime.not_before.0,
        not_after_ms: certificate.lifetime.not_after.0,
        scope,
        name,
        number,
    }
}

/// The key if it is the one the certificate names.
fn matching_key(pem: &str, certificate: &CaCertificate) -> Option<KeyPair> {
    let key = KeyPair::from_pem_and_sign_algo(pem, &PKCS_ECDSA_P256_SHA256).ok()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate.der).ok()?;
    (parsed.public_key().subject_public_key.data.as_ref() == key.public_key_raw()).then_some(key)
}

fn copy(key: &KeyPair) -> Result<KeyPair, IdentityError> {
    KeyPair::from_pem_and_sign_algo(&key.serialize_pem(), &PKCS_ECDSA_P256_SHA256)
        .map_err(IdentityError::crypto("hold an issuing key"))
}

/// The root's common name.
const ROOT_NAME: &str = "beemesh root";

fn subject(trust_domain: &TrustDomain, name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, trust_domain.as_str());
    subject.push(DnType::CommonName, name);
    subject
}

fn authority(
    subject: DistinguishedName,
    lifetime: Lifetime,
    constraints: BasicConstraints,
) -> Result<CertificateParams, IdentityError> {
    let mut params = certificate(subject, lifetime)?;
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn leaf(subject: DistinguishedName, lifetime: Lifetime) -> Result<CertificateParams, IdentityError> {
    let mut params = certificate(subject, lifetime)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

fn certificate(subject: DistinguishedName, lifetime: Lifetime) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.not_before = calendar(lifetime.not_before)?;
    params.not_after = calendar(lifetime.not_after)?;
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(serial()?);
    Ok(params)
}

/// 127 random bits (RFC 5280, 4.1.2.2 wants it positive and unique; the default would be one per key).
fn serial() -> Result<SerialNumber, IdentityError> {
    let mut bytes = chance::<16>()?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// Chance from the cryptographic library.
pub(crate) fn chance<const N: usize>() -> Result<[u8; N], IdentityError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| IdentityError::Crypto { operation: "draw chance", why: "the library has none".to_owned() })?;
    Ok(bytes)
}

fn calendar(wall: Wall) -> Result<OffsetDateTime, IdentityError> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(wall.0) * 1_000_000)
        .map_err(|e| IdentityError::Crypto { operation: "date a certificate", why: e.to_string() })
}

fn uri(text: &str) -> Result<SanType, IdentityError> {
    Ok(SanType::URI(ia5(text)?))
}

fn ia5(text: &str) -> Result<Ia5String, IdentityError> {
    Ia5String::try_from(text).map_err(IdentityError::crypto("put a name into a certificate"))
}
