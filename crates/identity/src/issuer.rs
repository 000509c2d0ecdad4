//! Cells' issuing keys: made by each keeper, certified by root for one [`IssuerScope`], and what they issue.

use crate::certificate::{
    CaCertificate, Credential, StoredAuthority, authority, ia5, leaf, matching_key, stored, subject, uri,
};
use crate::codec::{self, MessageError, Reader, Writer};
use crate::lifetime::{self, Lifetime};
use crate::request::{ForeignKey, fresh_key, proven_key, with_proof};
use crate::scope::{IssuerScope, Named};
use crate::{
    AskedGateway, GatewayNames, GatewayRequest, IdentityError, Roles, SpiffeId, SvidRequest, TrustDomain, Verifier,
    roles,
};
use base::{CellId, NodeId, Wall};
use rcgen::{
    BasicConstraints, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair,
    PublicKeyData, SanType,
};
use rustls_pki_types::CertificateDer;
use std::fmt;

/// A fresh issuing key that waits for root's signature.
pub struct IssuerRequest {
    key: KeyPair,
    keeper: NodeId,
    cell: CellId,
    scope: IssuerScope,
    number: u64,
}

const CONTEXT: &str = "beemesh issuer request";

impl IssuerRequest {
    /// Makes an issuing key for a cell on the node that keeps it. `number` counts this node's issuers of the
    /// cell: no two issuers of a mesh share a subject, so that a verifier never tries the wrong one.
    ///
    /// # Errors
    /// If the cryptographic library refuses.
    pub fn make(keeper: NodeId, cell: CellId, scope: IssuerScope, number: u64) -> Result<IssuerRequest, IdentityError> {
        Ok(IssuerRequest { key: fresh_key()?, keeper, cell, scope, number })
    }

    /// The cell it is for.
    pub fn cell(&self) -> CellId {
        self.cell
    }

    /// What travels to a node that keeps root, for [`crate::RootAuthority::certify_issuer`].
    ///
    /// # Errors
    /// If the cryptographic library refuses.
    pub fn encode(&self) -> Result<Vec<u8>, IdentityError> {
        let written = Writer::new(codec::ISSUER_REQUEST)
            .node(self.keeper)
            .cell(self.cell)
            .bytes(&self.scope.to_der())
            .number(self.number);
        with_proof(&self.key, written, CONTEXT)
    }

    pub(crate) fn asked(&self) -> Result<AskedIssuer, IdentityError> {
        Ok(AskedIssuer::decode(&self.encode()?)?)
    }

    /// Joins the key with the certificate that root answered with.
    ///
    /// # Errors
    /// [`IdentityError::NotAsAsked`] unless root signed it, it is good at `now`, and it says what was asked for.
    pub fn complete(
        self,
        certificate: CertificateDer<'static>,
        verifier: &Verifier,
        now: Wall,
    ) -> Result<CellIssuer, IdentityError> {
        let name = issuer_name(self.keeper, self.cell, self.number);
        let refuse = |why: String| IdentityError::NotAsAsked { what: name.clone(), why };
        let proven = verifier.issuer(&certificate, now).map_err(|e| refuse(e.to_string()))?;
        if proven.point != self.key.der_bytes() {
            return Err(refuse("it certifies another key".to_owned()));
        }
        if proven.scope != self.scope || proven.keeper != Some(self.keeper) || proven.name != name {
            return Err(refuse(format!("it is {:?} for {}", proven.name, proven.scope)));
        }
        let trust_domain = verifier.trust_domain().clone();
        let params = authority(subject(&trust_domain, &name), proven.lifetime, BasicConstraints::Constrained(0))?;
        Ok(CellIssuer {
            trust_domain,
            scope: self.scope,
            name,
            number: self.number,
            issuer: Issuer::new(params, self.key),
            certificate: CaCertificate::new(certificate, proven.lifetime),
        })
    }
}

impl fmt::Debug for IssuerRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request for {} ({})", issuer_name(self.keeper, self.cell, self.number), self.scope)
    }
}

/// An [`IssuerRequest`] as the one who keeps root sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AskedIssuer {
    /// Who asks; to be compared with the peer.
    pub keeper: NodeId,
    /// Which cell it keeps; to be compared with the cell's descriptor.
    pub cell: CellId,
    /// What it wants to issue; to be compared with what the cell is.
    pub scope: IssuerScope,
    /// Counts the keeper's issuers of the cell.
    pub number: u64,
    pub(crate) key: ForeignKey,
}

impl AskedIssuer {
    /// Reads what [`IssuerRequest::encode`] wrote.
    ///
    /// # Errors
    /// If it is something else, or the asker does not have the key.
    pub fn decode(bytes: &[u8]) -> Result<AskedIssuer, MessageError> {
        let mut r = Reader::open(codec::ISSUER_REQUEST, bytes)?;
        let (keeper, cell) = (r.node()?, r.cell()?);
        let scope = r.bytes(127)?;
        let scope = IssuerScope::from_der(scope).ok_or_else(|| r.damaged("it asks for a scope that is not known"))?;
        let number = r.number()?;
        Ok(AskedIssuer { keeper, cell, scope, number, key: proven_key(r, CONTEXT)? })
    }

    /// The certificate's common name.
    pub(crate) fn name(&self) -> String {
        issuer_name(self.keeper, self.cell, self.number)
    }
}

/// At most 64 characters (RFC 5280, appendix A): enough of the keeper's id to tell keepers apart. With a
/// number of more than ten digits it would be longer, which nobody's keys ever count to.
fn issuer_name(keeper: NodeId, cell: CellId, number: u64) -> String {
    format!("issuer {cell} {} {number}", keeper.short())
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

    /// An SVID for an hour, for the key whose holder made `request` ([`SvidRequest::encode`]): the chain to
    /// answer with. A node's SVID says its roles; a workload has none. Renew it half way
    /// ([`Lifetime::half`]).
    ///
    /// # Errors
    /// [`IdentityError::BeyondScope`] if `id` is not this issuer's to name, or is a workload's and has roles;
    /// [`IdentityError::Message`] if the request is not one for `id` by a key's holder.
    pub fn certify(
        &self,
        request: &[u8],
        id: &SpiffeId,
        roles: Roles,
        now: Wall,
    ) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        if !self.scope.permits(&Named::Svid(id)) || id.trust_domain() != &self.trust_domain {
            return Err(self.beyond(id.to_string()));
        }
        if !roles.is_empty() && !matches!(id, SpiffeId::Node { .. }) {
            return Err(self.beyond(format!("{id} with the roles {roles}")));
        }
        let key = SvidRequest::key_for(id, request)?;
        let lifetime = Lifetime::of(now, lifetime::SVID, self.certificate.lifetime);
        // An empty subject makes the alternative name critical (RFC 5280, 4.2.1.6), which SPIFFE allows and
        // some verifiers do not: the trust domain as organisation says nothing new.
        let mut subject = DistinguishedName::new();
        subject.push(DnType::OrganizationName, self.trust_domain.as_str());
        let mut params = leaf(subject, lifetime)?;
        params.subject_alt_names.push(uri(&id.to_string())?);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        if !roles.is_empty() {
            params.custom_extensions.push(CustomExtension::from_oid_content(roles::OID, roles.to_der()));
        }
        self.chain(&params, &key)
    }

    /// A certificate for the API server under all the names it answers to, for a day, good as a server only:
    /// the chain to answer `asked` with. `allowed` are the names that are the asker's. Renew it half way.
    ///
    /// # Errors
    /// [`IdentityError::BeyondScope`] unless this is the registry's issuer;
    /// [`IdentityError::GatewayNames`] if a name is not the asker's, or cannot stand in a certificate.
    pub fn certify_gateway(
        &self,
        asked: &AskedGateway,
        allowed: &GatewayNames,
        now: Wall,
    ) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        if self.scope != IssuerScope::Registry {
            return Err(self.beyond("the API server".to_owned()));
        }
        let (dns, ips) = (asked.names.dns(), asked.names.ips());
        let (allowed_dns, allowed_ips) = (allowed.dns(), allowed.ips());
        let strange = dns.difference(&allowed_dns).next().cloned();
        if let Some(name) = strange.or_else(|| ips.difference(&allowed_ips).next().map(ToString::to_string)) {
            let why = format!("{name} is not this node's; start it under a name and with addresses of its own");
            return Err(IdentityError::GatewayNames { why });
        }
        let lifetime = Lifetime::of(now, lifetime::GATEWAY, self.certificate.lifetime);
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, "kubernetes");
        let mut params = leaf(subject, lifetime)?;
        for name in dns {
            params.subject_alt_names.push(SanType::DnsName(ia5(&name)?));
        }
        params.subject_alt_names.extend(ips.into_iter().map(SanType::IpAddress));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.chain(&params, &asked.key)
    }

    /// An SVID for whoever holds this issuing key too: asks and certifies in one.
    ///
    /// # Errors
    /// As [`CellIssuer::certify`].
    pub fn svid(&self, id: &SpiffeId, roles: Roles, now: Wall) -> Result<Credential, IdentityError> {
        let request = SvidRequest::make(id)?;
        let chain = self.certify(&request.encode()?, id, roles, now)?;
        request.joined(chain)
    }

    /// A gateway's certificate for whoever holds this issuing key too: asks and certifies in one.
    ///
    /// # Errors
    /// As [`CellIssuer::certify_gateway`] and [`GatewayRequest::make`].
    pub fn gateway(&self, names: &GatewayNames, now: Wall) -> Result<Credential, IdentityError> {
        let request = GatewayRequest::make(names.clone())?;
        let chain = self.certify_gateway(&request.asked()?, names, now)?;
        request.joined(chain)
    }

    fn chain(
        &self,
        params: &rcgen::CertificateParams,
        key: &ForeignKey,
    ) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
        let made = params.signed_by(key, &self.issuer).map_err(IdentityError::crypto("issue a certificate"))?;
        Ok(vec![made.der().clone(), self.certificate.der.clone()])
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
