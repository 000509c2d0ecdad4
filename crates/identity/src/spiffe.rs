//! SPIFFE IDs of this mesh: `spiffe://<td>/node/<id>` and `spiffe://<td>/ns/<ns>/sa/<sa>`.

use crate::TrustDomain;
use base::NodeId;
use std::fmt;

/// Whom an SVID names. The path forms are the only two a mesh issues; Istio uses the second one too.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SpiffeId {
    /// A machine.
    Node {
        /// The mesh.
        trust_domain: TrustDomain,
        /// The machine's key.
        node: NodeId,
    },
    /// What runs as a ServiceAccount.
    Workload {
        /// The mesh.
        trust_domain: TrustDomain,
        /// The ServiceAccount's namespace.
        namespace: String,
        /// The ServiceAccount's name.
        service_account: String,
    },
}

impl SpiffeId {
    /// The trust domain it belongs to.
    pub fn trust_domain(&self) -> &TrustDomain {
        match self {
            SpiffeId::Node { trust_domain, .. } | SpiffeId::Workload { trust_domain, .. } => trust_domain,
        }
    }

    /// Reads an id; `None` if it is not one of the two forms, byte for byte as [`fmt::Display`] prints them.
    pub fn parse(uri: &str) -> Option<SpiffeId> {
        let (domain, path) = uri.strip_prefix("spiffe://")?.split_once('/')?;
        let trust_domain: TrustDomain = domain.parse().ok()?;
        let mut segments = path.split('/');
        let id = match (segments.next()?, segments.next()?, segments.next(), segments.next()) {
            ("node", node, None, None) => SpiffeId::Node { trust_domain, node: node.parse().ok()? },
            ("ns", namespace, Some("sa"), Some(account)) => SpiffeId::Workload {
                trust_domain,
                namespace: label(namespace)?.to_owned(),
                service_account: subdomain(account)?.to_owned(),
            },
            _ => return None,
        };
        // Node ids have one spelling; anything after the last segment would be lost in print.
        (id.to_string() == uri).then_some(id)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpiffeId::Node { trust_domain, node } => write!(f, "spiffe://{trust_domain}/node/{node}"),
            SpiffeId::Workload { trust_domain, namespace, service_account } => {
                write!(f, "spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}")
            }
        }
    }
}

/// The text if it can be a namespace's name (RFC 1123 label).
pub(crate) fn label(text: &str) -> Option<&str> {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let fits = (1..=63).contains(&text.len()) && text.bytes().all(inner);
    (fits && !text.starts_with('-') && !text.ends_with('-')).then_some(text)
}

/// The text if it can be a ServiceAccount's, a node's or a host's name (RFC 1123 subdomain).
pub(crate) fn subdomain(text: &str) -> Option<&str> {
    (text.len() <= 253 && text.split('.').all(|part| label(part).is_some())).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_what_it_prints() {
        let node = format!("spiffe://a.mesh/node/{}", "ab".repeat(32));
        for text in [node.as_str(), "spiffe://a.mesh/ns/default/sa/web", "spiffe://a.mesh/ns/a-b/sa/x.y"] {
            assert_eq!(SpiffeId::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn any_other_form_is_no_id() {
        let upper = format!("spiffe://a.mesh/node/{}", "AB".repeat(32));
        for text in [
            upper.as_str(),
            "spiffe://a.mesh/",
            "spiffe://a.mesh",
            "spiffe:///ns/a/sa/b",
            "https://a.mesh/ns/a/sa/b",
            "spiffe://a.mesh/ns/a/sa/b/",
            "spiffe://a.mesh/ns/a/sa/b/c",
            "spiffe://a.mesh/ns//sa/b",
            "spiffe://a.mesh/ns/../sa/b",
            "spiffe://a.mesh/ns/a/sa/b?x=1",
            "spiffe://a.mesh/ns/A/sa/b",
            "spiffe://a.mesh:8443/ns/a/sa/b",
            "spiffe://user@a.mesh/ns/a/sa/b",
            "spiffe://a.mesh/node/ff",
        ] {
            assert_eq!(SpiffeId::parse(text), None, "{text}");
        }
    }
}
