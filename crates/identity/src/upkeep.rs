//! Renewal of what a node holds, in one place: whoever has a timer calls [`Upkeep::renew`] at the moment it
//! names, and everything is renewed before it expires. What only others can issue is listed by
//! [`Upkeep::wants`]: whoever speaks with them asks, and hands back what they answer.

use crate::token_keys::ROTATED_AFTER;
use crate::{
    CellIssuer, GatewayCertificate, GatewayNames, GatewayRequest, Identity, IdentityError, IssuerRequest, IssuerScope,
    Roles, lifetime,
};
use base::{CellId, Wall};
use rustls_pki_types::CertificateDer;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A clock may be set, and a machine may sleep: nobody waits longer than this before looking again.
pub const LOOKS_AGAIN_AFTER: Duration = Duration::from_secs(3600);

/// After a failure: soon enough that a full disk which is cleared costs no certificate.
pub const TRIES_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// A node's certificates and keys, kept fresh.
#[derive(Debug)]
pub struct Upkeep {
    identity: Arc<Identity>,
    registry: CellId,
    /// `None` on a node that serves no API.
    names: Option<GatewayNames>,
    gateway: Arc<GatewayCertificate>,
    issuers: Mutex<Issuers>,
}

#[derive(Debug, Default)]
struct Issuers {
    held: BTreeMap<CellId, Arc<CellIssuer>>,
    /// Of cells this node keeps, and nobody has certified a key for yet.
    missing: BTreeMap<CellId, IssuerScope>,
}

/// Something that is due and that only others can issue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Want {
    /// The node's SVID: [`Identity::svid_request`], a keeper of the registry, [`Identity::take_svid`].
    Svid,
    /// The API server's certificate: [`Upkeep::gateway_request`], a keeper of the registry,
    /// [`Upkeep::take_gateway`].
    Gateway,
    /// An issuing key: [`Identity::issuer_request`], a node that keeps root, [`Upkeep::take_issuer`].
    Issuer(CellId, IssuerScope),
}

impl Upkeep {
    /// Of a node that issues its certificates itself, as a founder does: takes up the registry's issuing key,
    /// and makes the first certificate of the gateway and the node's SVID.
    ///
    /// # Errors
    /// If a key cannot be read, made or written.
    pub fn start(
        identity: Arc<Identity>,
        registry: CellId,
        names: GatewayNames,
        now: Wall,
    ) -> Result<Upkeep, IdentityError> {
        let issuer = Arc::new(identity.issuer(registry, &IssuerScope::Registry, now)?);
        let gateway = Arc::new(GatewayCertificate::new(&issuer.gateway(&names, now)?)?);
        let issuers = Issuers { held: [(registry, issuer.clone())].into(), ..Issuers::default() };
        let upkeep = Upkeep { identity, registry, names: Some(names), gateway, issuers: Mutex::new(issuers) };
        upkeep.issue_svid(&issuer, now)?;
        Ok(upkeep)
    }

    /// Of a node that joined: with the certificates it was given, of which one may have run out, or none may be
    /// there. `names` are its API server's, if it has one.
    ///
    /// # Errors
    /// If the gateway's key is none that can be used.
    pub fn joined(
        identity: Arc<Identity>,
        registry: CellId,
        names: Option<GatewayNames>,
    ) -> Result<Upkeep, IdentityError> {
        let gateway = match identity.gateway() {
            Some(held) => GatewayCertificate::new(&held)?,
            None => GatewayCertificate::none_yet(),
        };
        Ok(Upkeep { identity, registry, names, gateway: Arc::new(gateway), issuers: Mutex::default() })
    }

    /// The gateway's certificate, for [`crate::tls::server_config`].
    pub fn gateway(&self) -> &Arc<GatewayCertificate> {
        &self.gateway
    }

    /// The issuing key of a cell that this node keeps: taken up or made at the first call, renewed since. If
    /// only root's keepers elsewhere can certify one, it is among the [`Upkeep::wants`] from now on.
    ///
    /// # Errors
    /// As [`Identity::issuer`].
    pub fn issuer(&self, cell: CellId, scope: &IssuerScope, now: Wall) -> Result<Arc<CellIssuer>, IdentityError> {
        let fits = |i: &&Arc<CellIssuer>| i.scope() == scope && !i.lifetime().issuer_is_due(now);
        if let Some(held) = self.issuers().held.get(&cell).filter(fits) {
            return Ok(held.clone());
        }
        match self.identity.issuer(cell, scope, now) {
            Ok(issuer) => Ok(self.hold(cell, issuer)),
            Err(e) => {
                if matches!(e, IdentityError::NotAnAuthority { .. }) {
                    self.issuers().missing.insert(cell, scope.clone());
                }
                Err(e)
            }
        }
    }

    /// Forgets the issuing key of a cell this node no longer keeps.
    ///
    /// # Errors
    /// If its file cannot be removed.
    pub fn forget(&self, cell: CellId) -> Result<(), IdentityError> {
        let mut issuers = self.issuers();
        issuers.held.remove(&cell);
        issuers.missing.remove(&cell);
        drop(issuers);
        self.identity.forget_issuer(cell)
    }

    /// Renews what is due at `now` and this node can issue, and returns when to call again. What cannot be
    /// renewed stays in use while it is good; the failures come back as well, to be told to the operator. Then
    /// look at [`Upkeep::wants`].
    pub fn renew(&self, now: Wall) -> (Wall, Vec<IdentityError>) {
        let mut failures = Vec::new();
        let due: Vec<(CellId, IssuerScope)> = self
            .issuers()
            .held
            .iter()
            .filter(|(_, i)| i.lifetime().issuer_is_due(now))
            .map(|(cell, i)| (*cell, i.scope().clone()))
            .collect();
        for (cell, scope) in due {
            failures.extend(self.issuer(cell, &scope, now).err());
        }
        if let Some(issuer) = self.registry_issuer(now, &mut failures) {
            if let Some(names) = self.names.as_ref().filter(|_| self.gateway.lifetime().is_due(now)) {
                let fresh = issuer.gateway(names, now);
                failures.extend(fresh.and_then(|fresh| self.gateway.replace(&fresh)).err());
            }
            if self.identity.svid_is_due(now) {
                failures.extend(self.issue_svid(&issuer, now).err());
            }
        }
        let tokens = self.identity.tokens();
        if tokens.rotation_is_due(now) {
            failures.extend(tokens.rotate(now).err());
        }
        let soon = !failures.is_empty() || !self.wants(now).is_empty();
        let mut next = now + if soon { TRIES_AGAIN_AFTER } else { LOOKS_AGAIN_AFTER };
        let svid = self.identity.svid().map(|own| own.lifetime.half());
        let gateway = self.names.as_ref().map(|_| self.gateway.lifetime().half());
        for half in [svid, gateway].into_iter().flatten().filter(|half| *half > now) {
            next = next.min(half);
        }
        (next.max(now + Duration::from_secs(1)), failures)
    }

    /// What is due at `now` and must be asked of others.
    pub fn wants(&self, now: Wall) -> Vec<Want> {
        let issuers = self.issuers();
        let mut wants = Vec::new();
        let issues = issuers.held.get(&self.registry).is_some_and(|i| i.lifetime().covers(now));
        if !issues && self.identity.svid_is_due(now) {
            wants.push(Want::Svid);
        }
        if !issues && self.names.is_some() && self.gateway.lifetime().is_due(now) {
            wants.push(Want::Gateway);
        }
        if self.identity.root().is_err() {
            let due = issuers.held.iter().filter(|(_, i)| i.lifetime().issuer_is_due(now));
            wants.extend(due.map(|(cell, i)| Want::Issuer(*cell, i.scope().clone())));
            wants.extend(issuers.missing.iter().map(|(cell, scope)| Want::Issuer(*cell, scope.clone())));
        }
        wants
    }

    /// A fresh key for the API server's certificate; `None` if this node serves no API.
    ///
    /// # Errors
    /// As [`GatewayRequest::make`].
    pub fn gateway_request(&self) -> Result<Option<GatewayRequest>, IdentityError> {
        self.names.clone().map(GatewayRequest::make).transpose()
    }

    /// Takes what a keeper answered a gateway's request with, and presents it from now on.
    ///
    /// # Errors
    /// As [`Identity::take_gateway`].
    pub fn take_gateway(
        &self,
        request: &GatewayRequest,
        chain: Vec<CertificateDer<'static>>,
        now: Wall,
    ) -> Result<(), IdentityError> {
        self.gateway.replace(&*self.identity.take_gateway(request, chain, now)?)
    }

    /// Takes what root answered an issuer's request with, and issues with it from now on.
    ///
    /// # Errors
    /// As [`Identity::take_issuer`].
    pub fn take_issuer(
        &self,
        request: IssuerRequest,
        certificate: CertificateDer<'static>,
        now: Wall,
    ) -> Result<Arc<CellIssuer>, IdentityError> {
        let cell = request.cell();
        Ok(self.hold(cell, self.identity.take_issuer(request, certificate, now)?))
    }

    fn hold(&self, cell: CellId, issuer: CellIssuer) -> Arc<CellIssuer> {
        let issuer = Arc::new(issuer);
        let mut issuers = self.issuers();
        issuers.missing.remove(&cell);
        issuers.held.insert(cell, issuer.clone());
        issuer
    }

    /// The registry's issuing key, if this node has one that is good.
    fn registry_issuer(&self, now: Wall, failures: &mut Vec<IdentityError>) -> Option<Arc<CellIssuer>> {
        let held = self.issuers().held.get(&self.registry).cloned()?;
        if held.lifetime().covers(now) {
            return Some(held);
        }
        self.issuer(self.registry, &IssuerScope::Registry, now).map_err(|e| failures.push(e)).ok()
    }

    /// With the roles it has; a founder begins with all.
    fn issue_svid(&self, issuer: &CellIssuer, now: Wall) -> Result<(), IdentityError> {
        let held = self.identity.svid().map(|_| self.identity.roles());
        let founder = if self.identity.root().is_ok() { Roles::ALL } else { Roles::NONE };
        self.identity.issue_svid(issuer, held.unwrap_or(founder), now).map(|_| ())
    }

    fn issuers(&self) -> MutexGuard<'_, Issuers> {
        self.issuers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// The hourly look is often enough for each of them; SVIDs and gateways' certificates name their moment.
const _: () = assert!(LOOKS_AGAIN_AFTER.as_secs() * 2 < lifetime::GATEWAY.as_secs());
const _: () = assert!(LOOKS_AGAIN_AFTER.as_secs() < lifetime::ISSUER_RENEWED_AT_LEFT.as_secs());
const _: () = assert!(LOOKS_AGAIN_AFTER.as_secs() < ROTATED_AFTER.as_secs());
