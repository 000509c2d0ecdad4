//! The API server's certificate: the names it answers to, and its replacement without a restart.

use crate::{Credential, IdentityError, Lifetime};
use base::Wall;
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, PoisonError, RwLock};

/// Everything the API server is called by its clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayNames {
    /// The cluster's DNS domain; empty means `cluster.local`.
    pub cluster_domain: String,
    /// Host names: the node's name, and any the operator states.
    pub hosts: Vec<String>,
    /// Addresses: ClusterIPs of `default/kubernetes` and the addresses listened on. The unspecified address
    /// stands for nothing a client can dial and is left out; loopback is always added.
    pub addresses: Vec<IpAddr>,
}

impl GatewayNames {
    /// All DNS names, each once: `kubernetes` in its four lengths, `localhost`, the hosts.
    pub fn dns(&self) -> BTreeSet<String> {
        let domain = if self.cluster_domain.is_empty() { "cluster.local" } else { &self.cluster_domain };
        let service = ["", ".default", ".default.svc"].map(|rest| format!("kubernetes{rest}"));
        let mut names = BTreeSet::from(service);
        names.insert(format!("kubernetes.default.svc.{domain}"));
        names.insert("localhost".to_owned());
        names.extend(self.hosts.iter().filter(|h| !h.is_empty()).map(|h| h.to_ascii_lowercase()));
        names
    }

    /// All addresses, each once.
    pub fn ips(&self) -> BTreeSet<IpAddr> {
        let mut ips: BTreeSet<IpAddr> = self.addresses.iter().copied().filter(|a| !a.is_unspecified()).collect();
        ips.insert(Ipv4Addr::LOCALHOST.into());
        ips.insert(Ipv6Addr::LOCALHOST.into());
        ips
    }
}

/// The certificate the gateway presents, replaced while connections go on.
pub struct GatewayCertificate {
    current: RwLock<(Option<Arc<CertifiedKey>>, Lifetime)>,
}

impl GatewayCertificate {
    /// Presents `first` until it is replaced.
    ///
    /// # Errors
    /// If its key is not ECDSA.
    pub fn new(first: &Credential) -> Result<GatewayCertificate, IdentityError> {
        Ok(GatewayCertificate { current: RwLock::new((Some(certified(first)?), first.lifetime)) })
    }

    /// Presents nothing, so that no handshake succeeds, until there is something to present.
    pub fn none_yet() -> GatewayCertificate {
        let never = Lifetime { not_before: Wall(0), not_after: Wall(0) };
        GatewayCertificate { current: RwLock::new((None, never)) }
    }

    /// Presents `next` to every connection from now on; those open go on as they are.
    ///
    /// # Errors
    /// If its key is not ECDSA; the present one stays then.
    pub fn replace(&self, next: &Credential) -> Result<(), IdentityError> {
        let next = (Some(certified(next)?), next.lifetime);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    /// When the certificate presented now is good; replace it at [`Lifetime::half`].
    pub fn lifetime(&self) -> Lifetime {
        self.current.read().unwrap_or_else(PoisonError::into_inner).1
    }
}

impl ResolvesServerCert for GatewayCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }
}

impl fmt::Debug for GatewayCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gateway certificate until {:?}", self.lifetime().not_after)
    }
}

fn certified(credential: &Credential) -> Result<Arc<CertifiedKey>, IdentityError> {
    let key = any_ecdsa_type(&credential.key_der())
        .map_err(|e| IdentityError::Crypto { operation: "present a certificate", why: e.to_string() })?;
    Ok(Arc::new(CertifiedKey::new(credential.chain.clone(), key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_answers_to_every_name_of_the_service_and_the_machine() {
        let names = GatewayNames {
            cluster_domain: String::new(),
            hosts: vec!["Node-1".to_owned(), String::new()],
            addresses: vec!["10.43.0.1".parse().unwrap(), "0.0.0.0".parse().unwrap(), "10.43.0.1".parse().unwrap()],
        };
        let dns: Vec<String> = names.dns().into_iter().collect();
        assert_eq!(
            dns,
            [
                "kubernetes",
                "kubernetes.default",
                "kubernetes.default.svc",
                "kubernetes.default.svc.cluster.local",
                "localhost",
                "node-1"
            ]
        );
        let ips: Vec<String> = names.ips().iter().map(ToString::to_string).collect();
        assert_eq!(ips, ["10.43.0.1", "127.0.0.1", "::1"]);
    }
}
