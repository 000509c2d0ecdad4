//! Making keys and certificates: nodes' keys, the root authority, certificates for people, and what all
//! certificates of a mesh have in common.

use crate::error::IdentityError;
use crate::lifetime::{self, Lifetime};
use crate::{AskedIssuer, AskedPerson, TrustDomain, scope, verify};
use base::{NodeId, Wall};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SanType, SerialNumber, SigningKey,
};
use rustls_pki_types::pem::PemObject;
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
    pub(crate) fn new(key: &KeyPair, chain: Vec<CertificateDer<'static>>, lifetime: Lifetime) -> Credential {
        let chain_pem = chain.iter().map(|der| pem("CERTIFICATE", der)).collect();
        Credential { key_pem: key.serialize_pem(), chain_pem, chain, lifetime, key_der: key.serialize_der() }
    }

    /// From its PEM parts, as a file holds them; `None` if they do not belong together.
    pub(crate) fn from_pem(key_pem: &str, chain_pem: &str) -> Option<Credential> {
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(chain_pem.as_bytes()).collect::<Result<_, _>>().ok()?;
        let key = KeyPair::from_pem_and_sign_algo(key_pem, &PKCS_ECDSA_P256_SHA256).ok()?;
        let leaf = chain.first()?;
        let lifetime = verify::certified_lifetime(leaf).ok()?;
        (verify::certified_point(leaf)? == key.public_key_raw()).then(|| Credential::new(&key, chain, lifetime))
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

/// RFC 7468: lines of 64 characters.
fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|b| char::from(*b)));
        pem.push('\n');
    }
    pem + &format!("-----END {label}-----\n")
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
pub(crate) struct CaCertificate {
    pub(crate) pem: String,
    pub(crate) der: CertificateDer<'static>,
    pub(crate) lifetime: Lifetime,
}

impl CaCertificate {
    pub(crate) fn new(der: CertificateDer<'static>, lifetime: Lifetime) -> CaCertificate {
        CaCertificate { pem: pem("CERTIFICATE", &der), der, lifetime }
    }
}

/// What an authority's file holds.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredAuthority {
    pub(crate) key: String,
    pub(crate) certificate: String,
    not_before_ms: u64,
    not_after_ms: u64,
    /// Of an issuer: which scope its certificate carries, as printed.
    pub(crate) scope: Option<String>,
    /// The subject's common name.
    pub(crate) name: String,
    /// Counts this cell's issuers on this node.
    pub(crate) number: u64,
}

impl StoredAuthority {
    /// The number of this keeper's next issuer of the cell.
    pub(crate) fn next_number(&self) -> u64 {
        self.number.saturating_add(1)
    }

    pub(crate) fn certificate(&self) -> Option<CaCertificate> {
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

    /// Certifies the issuing key whose public half `asked` holds; the key itself stays with who made it.
    /// Whoever calls this has seen to it that the keeper is who asked, and keeps that cell.
    ///
    /// # Errors
    /// If the cryptographic library refuses.
    pub fn certify_issuer(&self, asked: &AskedIssuer, now: Wall) -> Result<CertificateDer<'static>, IdentityError> {
        let lifetime = Lifetime::of(now, lifetime::ISSUER, self.certificate.lifetime);
        let subject = subject(&self.trust_domain, &asked.name());
        let mut params = authority(subject, lifetime, BasicConstraints::Constrained(0))?;
        params.subject_alt_names.push(uri(&format!("spiffe://{}", self.trust_domain))?);
        let ours = [(scope::OID, asked.scope.to_der()), (scope::KEEPER_OID, scope::keeper_to_der(asked.keeper))];
        params.custom_extensions = ours.map(|(oid, der)| CustomExtension::from_oid_content(oid, der)).into();
        let made =
            params.signed_by(&asked.key, &self.issuer).map_err(IdentityError::crypto("certify an issuing key"))?;
        Ok(made.der().clone())
    }

    /// A client certificate for a person: Kubernetes reads the common name as the user and the organisation
    /// as the group. Good for a year.
    ///
    /// # Errors
    /// If the cryptographic library refuses.
    pub fn person(&self, name: &str, group: &str, now: Wall) -> Result<Credential, IdentityError> {
        let refused = IdentityError::crypto("issue a certificate");
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(&refused)?;
        let (params, lifetime) = self.of_person(name, group, now)?;
        let made = params.signed_by(&key, &self.issuer).map_err(&refused)?;
        Ok(Credential::new(&key, vec![made.der().clone()], lifetime))
    }

    /// The same for a key that lives elsewhere: the chain to answer with. Whoever calls this has seen to it that the
    /// asker may be that person.
    ///
    /// # Errors
    /// If the cryptographic library refuses.
    pub fn certify_person(
        &self,
        asked: &AskedPerson,
        now: Wall,
    ) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        let (params, _) = self.of_person(&asked.name, &asked.group, now)?;
        let made = params.signed_by(&asked.key, &self.issuer).map_err(IdentityError::crypto("issue a certificate"))?;
        Ok(vec![made.der().clone()])
    }

    fn of_person(&self, name: &str, group: &str, now: Wall) -> Result<(CertificateParams, Lifetime), IdentityError> {
        let mut subject = DistinguishedName::new();
        subject.push(DnType::OrganizationName, group);
        subject.push(DnType::CommonName, name);
        let lifetime = Lifetime::of(now, lifetime::PERSON, self.certificate.lifetime);
        let mut params = leaf(subject, lifetime)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Ok((params, lifetime))
    }
}

impl fmt::Debug for RootAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "root authority of {}", self.trust_domain)
    }
}

pub(crate) fn stored(
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
pub(crate) fn matching_key(pem: &str, certificate: &CaCertificate) -> Option<KeyPair> {
    let key = KeyPair::from_pem_and_sign_algo(pem, &PKCS_ECDSA_P256_SHA256).ok()?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate.der).ok()?;
    (parsed.public_key().subject_public_key.data.as_ref() == key.public_key_raw()).then_some(key)
}

/// The root's common name.
const ROOT_NAME: &str = "beemesh root";

pub(crate) fn subject(trust_domain: &TrustDomain, name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, trust_domain.as_str());
    subject.push(DnType::CommonName, name);
    subject
}

pub(crate) fn authority(
    subject: DistinguishedName,
    lifetime: Lifetime,
    constraints: BasicConstraints,
) -> Result<CertificateParams, IdentityError> {
    let mut params = certificate(subject, lifetime)?;
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

pub(crate) fn leaf(subject: DistinguishedName, lifetime: Lifetime) -> Result<CertificateParams, IdentityError> {
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

pub(crate) fn uri(text: &str) -> Result<SanType, IdentityError> {
    Ok(SanType::URI(ia5(text)?))
}

pub(crate) fn ia5(text: &str) -> Result<Ia5String, IdentityError> {
    Ia5String::try_from(text).map_err(IdentityError::crypto("put a name into a certificate"))
}
