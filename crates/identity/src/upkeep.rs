//! Renewal of what a node holds, in one place: whoever has a timer calls [`Upkeep::renew`] at the moment it
//! names, and everything is renewed before it expires.

use crate::token_keys::ROTATED_AFTER;
use crate::{CellIssuer, GatewayCertificate, GatewayNames, Identity, IdentityError, IssuerScope, Lifetime, lifetime};
use base::{CellId, Wall};
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
    names: GatewayNames,
    gateway: Arc<GatewayCertificate>,
    issuers: Mutex<BTreeMap<CellId, Arc<CellIssuer>>>,
}

impl Upkeep {
    /// Takes up the registry's issuing key and makes the first certificate of the gateway.
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
        Ok(Upkeep { identity, registry, names, gateway, issuers: Mutex::new([(registry, issuer)].into()) })
    }

    /// The gateway's certificate, for [`crate::tls::server_config`].
    pub fn gateway(&self) -> &Arc<GatewayCertificate> {
        &self.gateway
    }

    /// The issuing key of a cell that this node keeps: taken up or made at the first call, renewed since.
    ///
    /// # Errors
    /// As [`Identity::issuer`].
    pub fn issuer(&self, cell: CellId, scope: &IssuerScope, now: Wall) -> Result<Arc<CellIssuer>, IdentityError> {
        if let Some(held) = self.issuers().get(&cell).filter(|i| i.scope() == scope && !i.lifetime().issuer_is_due(now))
        {
            return Ok(held.clone());
        }
        let issuer = Arc::new(self.identity.issuer(cell, scope, now)?);
        self.issuers().insert(cell, issuer.clone());
        Ok(issuer)
    }

    /// Forgets the issuing key of a cell this node no longer keeps.
    ///
    /// # Errors
    /// If its file cannot be removed.
    pub fn forget(&self, cell: CellId) -> Result<(), IdentityError> {
        self.issuers().remove(&cell);
        self.identity.forget_issuer(cell)
    }

    /// Renews what is due at `now` and returns when to call again. What cannot be renewed stays in use while
    /// it is good; the failures come back as well, to be told to the operator.
    pub fn renew(&self, now: Wall) -> (Wall, Vec<IdentityError>) {
        let mut failures = Vec::new();
        let due: Vec<(CellId, IssuerScope)> = self
            .issuers()
            .iter()
            .filter(|(_, i)| i.lifetime().issuer_is_due(now))
            .map(|(cell, i)| (*cell, i.scope().clone()))
            .collect();
        for (cell, scope) in due {
            failures.extend(self.issuer(cell, &scope, now).err());
        }
        if is_due(self.gateway.lifetime(), now) {
            let fresh = self.issuer(self.registry, &IssuerScope::Registry, now);
            let fresh = fresh.and_then(|issuer| issuer.gateway(&self.names, now));
            failures.extend(fresh.and_then(|fresh| self.gateway.replace(&fresh)).err());
        }
        let tokens = self.identity.tokens();
        if tokens.rotation_is_due(now) {
            failures.extend(tokens.rotate(now).err());
        }
        let wait = if failures.is_empty() { LOOKS_AGAIN_AFTER } else { TRIES_AGAIN_AFTER };
        (self.gateway.lifetime().half().max(now + Duration::from_secs(1)).min(now + wait), failures)
    }

    fn issuers(&self) -> MutexGuard<'_, BTreeMap<CellId, Arc<CellIssuer>>> {
        self.issuers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Is a certificate that is renewed half way due at `now`? Also when the clock was set back before it.
fn is_due(life: Lifetime, now: Wall) -> bool {
    now < life.not_before || now >= life.half()
}

// The hourly look is often enough for each of them.
const _: () = assert!(LOOKS_AGAIN_AFTER.as_secs() * 2 < lifetime::GATEWAY.as_secs());
const _: () = assert!(LOOKS_AGAIN_AFTER.as_secs() < lifetime::ISSUER_RENEWED_AT_LEFT.as_secs());
const _: () = assert!(LOOKS_AGAIN_AFTER.as_secs() < ROTATED_AFTER.as_secs());
