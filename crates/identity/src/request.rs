//! Asking for a certificate. The key is made where it will be used and stays there; what travels is its
//! public half, and a signature that shows that the asker has the other one. The signature covers what is
//! asked for: nobody can have a key certified under another name than its holder meant.

use crate::certificate::Credential;
use crate::codec::{self, Kind, MessageError, Reader, Writer};
use crate::spiffe::subdomain;
use crate::{GatewayNames, IdentityError, Peer, Proven, SpiffeId, Verifier, verify};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use base::Wall;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};
use rustls_pki_types::CertificateDer;
use std::collections::BTreeSet;
use std::fmt;

/// A gateway answers to at most this many host names of its own.
pub const MAX_GATEWAY_HOSTS: usize = 64;

/// And to this many addresses: a machine with many interfaces has one or two for each.
pub const MAX_GATEWAY_ADDRESSES: usize = 256;

/// An uncompressed P-256 point.
const POINT: usize = 65;

/// No ECDSA signature over P-256 is longer in DER.
const MAX_SIGNATURE: usize = 72;

/// Chains of a mesh are short, and so are its certificates.
const MAX_CHAIN: usize = 4;
const MAX_CERTIFICATE: usize = 16 * 1024;

/// A certificate and what links it to a root, leaf first.
pub type Chain = Vec<CertificateDer<'static>>;

/// The public half of a key that lives elsewhere, whose holder has shown that they have the other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ForeignKey([u8; POINT]);

impl PublicKeyData for ForeignKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// Appends the public half and the proof of possession: a signature over `context`, all that was written
/// and the public half.
pub(crate) fn with_proof(key: &KeyPair, written: Writer, context: &str) -> Result<Vec<u8>, IdentityError> {
    let written = written.fixed(key.public_key_raw());
    let signature = key
        .sign(&signed_text(context, written.so_far()))
        .map_err(IdentityError::crypto("prove the possession of a key"))?;
    Ok(written.bytes(&signature).done())
}

/// Reads both back; nothing may follow.
pub(crate) fn proven_key(mut from: Reader<'_>, context: &str) -> Result<ForeignKey, MessageError> {
    let point: [u8; POINT] = from.fixed()?;
    let text = signed_text(context, from.so_far());
    let signature = from.bytes(MAX_SIGNATURE)?;
    if UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(&text, signature).is_err() {
        return Err(from.damaged("its proof of possession does not fit what is asked for"));
    }
    from.end()?;
    Ok(ForeignKey(point))
}

/// The zero byte ends the context: no context is the beginning of another.
fn signed_text(context: &str, message: &[u8]) -> Vec<u8> {
    [context.as_bytes(), &[0], message].concat()
}

pub(crate) fn fresh_key() -> Result<KeyPair, IdentityError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(IdentityError::crypto("make a key"))
}

/// A fresh key that waits for an SVID.
pub struct SvidRequest {
    id: SpiffeId,
    key: KeyPair,
}

impl SvidRequest {
    /// Makes a key for an SVID that will name `id`.
    ///
    /// # Errors
    /// If the cryptographic library refuses.
    pub fn make(id: &SpiffeId) -> Result<SvidRequest, IdentityError> {
        Ok(SvidRequest { id: id.clone(), key: fresh_key()? })
    }

    /// Whom the SVID will name.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// What travels to a keeper, for [`crate::CellIssuer::certify`].
    ///
    /// # Errors
    /// If the cryptographic library refuses.
    pub fn encode(&self) -> Result<Vec<u8>, IdentityError> {
        with_proof(&self.key, Writer::new(codec::SVID_REQUEST), &svid_context(&self.id))
    }

    /// The key of a request, if its holder asks for an SVID that names `id`.
    pub(crate) fn key_for(id: &SpiffeId, bytes: &[u8]) -> Result<ForeignKey, MessageError> {
        proven_key(Reader::open(codec::SVID_REQUEST, bytes)?, &svid_context(id))
    }

    /// Joins the key with the chain that a keeper answered with.
    ///
    /// # Errors
    /// [`IdentityError::NotAsAsked`] unless the chain is good at `now` and names this id and this key.
    pub fn complete(
        &self,
        chain: Vec<CertificateDer<'static>>,
        verifier: &Verifier,
        now: Wall,
    ) -> Result<(Credential, Proven), IdentityError> {
        let refuse = |why: String| IdentityError::NotAsAsked { what: self.id.to_string(), why };
        let proven = verifier.client(&chain, now).map_err(|e| refuse(e.to_string()))?;
        let names_us = match (&proven.peer, &self.id) {
            (Peer::Node { node, .. }, SpiffeId::Node { node: own, .. }) => node == own,
            (
                Peer::Workload { namespace: n, service_account: s },
                SpiffeId::Workload { namespace, service_account, .. },
            ) => n == namespace && s == service_account,
            _ => false,
        };
        if !names_us {
            return Err(refuse(format!("it names {:?}", proven.peer)));
        }
        Ok((joined(&self.key, chain).map_err(refuse)?, proven))
    }

    pub(crate) fn joined(&self, chain: Vec<CertificateDer<'static>>) -> Result<Credential, IdentityError> {
        joined(&self.key, chain).map_err(|why| IdentityError::NotAsAsked { what: self.id.to_string(), why })
    }
}

impl fmt::Debug for SvidRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request for the SVID {}", self.id)
    }
}

fn svid_context(id: &SpiffeId) -> String {
    format!("beemesh svid request {id}")
}

pub(crate) fn joined(key: &KeyPair, chain: Vec<CertificateDer<'static>>) -> Result<Credential, String> {
    let leaf = chain.first().ok_or("it is empty")?;
    if verify::certified_point(leaf).as_deref() != Some(key.public_key_raw()) {
        return Err("it certifies another key".to_owned());
    }
    let lifetime = verify::certified_lifetime(leaf).map_err(|e| e.to_string())?;
    Ok(Credential::new(key, chain, lifetime))
}

/// A fresh key that waits for the API server's certificate.
pub struct GatewayRequest {
    names: GatewayNames,
    key: KeyPair,
}

const GATEWAY_CONTEXT: &str = "beemesh gateway request";

impl GatewayRequest {
    /// Makes a key for an API server that answers to `names`.
    ///
    /// # Errors
    /// [`IdentityError::GatewayNames`] if they are more than [`MAX_GATEWAY_HOSTS`] and
    /// [`MAX_GATEWAY_ADDRESSES`] or one is no host's name;
    /// or if the cryptographic library refuses.
    pub fn make(names: GatewayNames) -> Result<GatewayRequest, IdentityError> {
        let names = GatewayNames {
            cluster_domain: names.cluster_domain.to_ascii_lowercase(),
            hosts: names.hosts.iter().filter(|h| !h.is_empty()).map(|h| h.to_ascii_lowercase()).collect(),
            addresses: names.addresses.into_iter().collect::<BTreeSet<_>>().into_iter().collect(),
        };
        if let Some(why) = unfit(&names) {
            return Err(IdentityError::GatewayNames { why });
        }
        Ok(GatewayRequest { names, key: fresh_key()? })
    }

    /// What travels to a keeper of the registry, for [`crate::CellIssuer::certify_gateway`].
    ///
    /// # Errors
    /// If the cryptographic library refuses.
    pub fn encode(&self) -> Result<Vec<u8>, IdentityError> {
        let written = Writer::new(codec::GATEWAY_REQUEST)
            .bytes(self.names.cluster_domain.as_bytes())
            .list(self.names.hosts.iter(), |w, host| w.bytes(host.as_bytes()))
            .list(self.names.addresses.iter(), |w, ip| w.ip(*ip));
        with_proof(&self.key, written, GATEWAY_CONTEXT)
    }

    /// Joins the key with the chain that a keeper answered with.
    ///
    /// # Errors
    /// [`IdentityError::NotAsAsked`] unless the chain is good at `now`, a server's, and certifies this key.
    pub fn complete(
        &self,
        chain: Vec<CertificateDer<'static>>,
        verifier: &Verifier,
        now: Wall,
    ) -> Result<Credential, IdentityError> {
        let refuse = |why: String| IdentityError::NotAsAsked { what: "the API server".to_owned(), why };
        verifier.server(&chain, now).map_err(|e| refuse(e.to_string()))?;
        joined(&self.key, chain).map_err(refuse)
    }

    pub(crate) fn joined(&self, chain: Vec<CertificateDer<'static>>) -> Result<Credential, IdentityError> {
        let refuse = |why: String| IdentityError::NotAsAsked { what: "the API server".to_owned(), why };
        joined(&self.key, chain).map_err(refuse)
    }

    pub(crate) fn asked(&self) -> Result<AskedGateway, IdentityError> {
        Ok(AskedGateway::decode(&self.encode()?)?)
    }
}

impl fmt::Debug for GatewayRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request for the API server's certificate as {:?}", self.names)
    }
}

/// A [`GatewayRequest`] as the one who is asked sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AskedGateway {
    /// What the server wants to be called. Whoever certifies it decides whether it may.
    pub names: GatewayNames,
    pub(crate) key: ForeignKey,
}

impl AskedGateway {
    /// Reads what [`GatewayRequest::encode`] wrote.
    ///
    /// # Errors
    /// If it is something else, or the asker does not have the key.
    pub fn decode(bytes: &[u8]) -> Result<AskedGateway, MessageError> {
        const KIND: Kind = codec::GATEWAY_REQUEST;
        let mut r = Reader::open(KIND, bytes)?;
        let names = GatewayNames {
            cluster_domain: r.text(253)?.to_owned(),
            hosts: r.list(MAX_GATEWAY_HOSTS, |r| r.text(253).map(str::to_owned))?,
            addresses: r.list(MAX_GATEWAY_ADDRESSES, Reader::ip)?,
        };
        if unfit(&names).is_some() {
            return Err(KIND.damaged("a name in it is no host's"));
        }
        Ok(AskedGateway { names, key: proven_key(r, GATEWAY_CONTEXT)? })
    }
}

/// Why names cannot stand in a certificate.
fn unfit(names: &GatewayNames) -> Option<String> {
    if names.hosts.len() > MAX_GATEWAY_HOSTS || names.addresses.len() > MAX_GATEWAY_ADDRESSES {
        let bounds = format!("{MAX_GATEWAY_HOSTS} host names or {MAX_GATEWAY_ADDRESSES} addresses");
        return Some(format!("there are more than {bounds}; state fewer"));
    }
    let stated = names.hosts.iter().chain(Some(&names.cluster_domain).filter(|d| !d.is_empty()));
    let bad = stated.into_iter().find(|host| subdomain(host).is_none())?;
    Some(format!("{bad:?} is no host's name; letters, digits, '-' and '.' make one"))
}

/// A chain as it travels, leaf first.
pub fn encode_chain(chain: &[CertificateDer<'_>]) -> Vec<u8> {
    write_chain(Writer::new(codec::CHAIN), chain).done()
}

/// Reads what [`encode_chain`] wrote. Nothing is proven by that.
///
/// # Errors
/// If it is something else, or longer than any chain of a mesh.
pub fn decode_chain(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, MessageError> {
    let mut r = Reader::open(codec::CHAIN, bytes)?;
    let chain = read_chain(&mut r)?;
    r.end()?;
    Ok(chain)
}

pub(crate) fn write_chain(to: Writer, chain: &[CertificateDer<'_>]) -> Writer {
    to.list(chain.iter(), |w, der| w.bytes(der))
}

pub(crate) fn read_chain(from: &mut Reader<'_>) -> Result<Vec<CertificateDer<'static>>, MessageError> {
    from.list(MAX_CHAIN, |r| r.bytes(MAX_CERTIFICATE).map(|der| der.to_vec().into()))
}
