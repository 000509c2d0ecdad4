//! Where a node keeps who it is: `DATA/identity`, one file per thing.
//!
//! | file | holds |
//! |---|---|
//! | `mesh.json` | trust domain, token issuer, trust bundle; written last at founding: a mesh exists when it does |
//! | `node.json` | the node's Ed25519 key |
//! | `root.json` | the root authority's key and certificate, on nodes with the role `authority` |
//! | `tokens.json` | this node's ServiceAccount token keys |
//! | `issuer-<cell>.json` | this node's issuing key for a cell it keeps |

use crate::certificate::{IssuerRequest, StoredAuthority, chance};
use crate::{
    CellIssuer, IdentityError, IssuerScope, NodeKey, RootAuthority, TokenAuthority, TrustDomain, Verifier, files,
};
use base::{CellId, NodeId, Wall};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The token issuer of a mesh founded without naming another: reachable from every pod.
pub const DEFAULT_TOKEN_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

const MESH: &str = "beemesh/mesh/1";
const NODE: &str = "beemesh/node-key/1";
const ROOT: &str = "beemesh/root-authority/1";
const ISSUER: &str = "beemesh/issuer/1";

/// Who this node is, and what it may prove to others.
#[derive(Debug)]
pub struct Identity {
    folder: PathBuf,
    trust_domain: TrustDomain,
    bundle_pem: String,
    node: NodeKey,
    root: Option<RootAuthority>,
    tokens: Arc<TokenAuthority>,
    verifier: Arc<Verifier>,
}

#[derive(Serialize, Deserialize)]
struct StoredMesh {
    trust_domain: String,
    token_issuer: String,
    bundle: String,
    founded_at_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct StoredNode {
    key: String,
}

impl Identity {
    /// Founds a mesh in `data`: a node key, a root authority, a token key. Without a trust domain one is
    /// drawn. A founding that was interrupted left nothing that counts and is simply done again.
    ///
    /// # Errors
    /// If `data` already belongs to a mesh, the trust domain is none, or a file cannot be written.
    pub fn found(
        data: &Path,
        trust_domain: Option<&str>,
        token_issuer: Option<&str>,
        now: Wall,
    ) -> Result<Identity, IdentityError> {
        let folder = folder(data);
        if let Some(mesh) = files::load::<StoredMesh>(&folder.join("mesh.json"), MESH)? {
            return Err(IdentityError::AlreadyFounded { dir: data.to_owned(), trust_domain: mesh.trust_domain });
        }
        let trust_domain = match trust_domain {
            Some(given) => given.parse()?,
            None => TrustDomain::from_chance(chance()?),
        };
        files::make_folder(&folder)?;
        let node = NodeKey::make()?;
        files::store(&folder.join("node.json"), NODE, &StoredNode { key: node.to_pem() })?;
        let root = RootAuthority::make(&trust_domain, now)?;
        files::store(&folder.join("root.json"), ROOT, &root.to_stored())?;
        // From an interrupted founding, if there: its issuer may be another.
        let tokens = folder.join("tokens.json");
        if tokens.exists() {
            std::fs::remove_file(&tokens).map_err(|source| IdentityError::File {
                operation: "remove",
                path: tokens.clone(),
                source,
            })?;
        }
        let token_issuer = token_issuer.unwrap_or(DEFAULT_TOKEN_ISSUER).to_owned();
        TokenAuthority::open(&tokens, &token_issuer, now)?;
        let mesh = StoredMesh {
            trust_domain: trust_domain.to_string(),
            token_issuer,
            bundle: root.certificate_pem().to_owned(),
            founded_at_ms: now.0,
        };
        files::store(&folder.join("mesh.json"), MESH, &mesh)?;
        Identity::resume(data, now)
    }

    /// Does `data` belong to a mesh?
    ///
    /// # Errors
    /// If that cannot be told.
    pub fn is_founded(data: &Path) -> Result<bool, IdentityError> {
        Ok(files::load::<StoredMesh>(&folder(data).join("mesh.json"), MESH)?.is_some())
    }

    /// Takes up again who this node was.
    ///
    /// # Errors
    /// If there is no mesh in `data`, or a file is missing, damaged, open to others, or from a newer release.
    pub fn resume(data: &Path, now: Wall) -> Result<Identity, IdentityError> {
        let folder = folder(data);
        let path = |name: &str| folder.join(name);
        let corrupt = |name: &str, what: &str| IdentityError::Corrupt { path: path(name), what: what.to_owned() };
        let mesh: StoredMesh =
            files::load(&path("mesh.json"), MESH)?.ok_or_else(|| IdentityError::NotFounded { dir: data.to_owned() })?;
        let trust_domain: TrustDomain = mesh.trust_domain.parse()?;
        let roots: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(mesh.bundle.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|e| corrupt("mesh.json", &format!("its trust bundle: {e}")))?;
        if roots.is_empty() {
            return Err(corrupt("mesh.json", "its trust bundle is empty"));
        }
        let verifier = Verifier::new(trust_domain.clone(), &roots)
            .map_err(|e| corrupt("mesh.json", &format!("its trust bundle: {e}")))?;
        let node: StoredNode = files::load(&path("node.json"), NODE)?
            .ok_or_else(|| corrupt("node.json", "it is missing: this node has lost its key, and with it its name"))?;
        let node = NodeKey::from_pem(&node.key).map_err(|e| corrupt("node.json", &e.to_string()))?;
        let root = match files::load::<StoredAuthority>(&path("root.json"), ROOT)? {
            None => None,
            Some(stored) => {
                let root = RootAuthority::from_stored(&trust_domain, &stored)
                    .ok_or_else(|| corrupt("root.json", "key and certificate do not belong together"))?;
                if !roots.contains(root.certificate_der()) {
                    return Err(corrupt("root.json", "its certificate is not in the trust bundle"));
                }
                Some(root)
            }
        };
        let tokens = TokenAuthority::open(&path("tokens.json"), &mesh.token_issuer, now)?;
        Ok(Identity {
            folder,
            trust_domain,
            bundle_pem: mesh.bundle,
            node,
            root,
            tokens: Arc::new(tokens),
            verifier: Arc::new(verifier),
        })
    }

    /// The mesh's name.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// This node's name.
    pub fn node_id(&self) -> NodeId {
        self.node.id()
    }

    /// This node's key.
    pub fn node_key(&self) -> &NodeKey {
        &self.node
    }

    /// The root certificates, PEM: what a client, a kubeconfig and `kube-root-ca.crt` trust.
    pub fn bundle_pem(&self) -> &str {
        &self.bundle_pem
    }

    /// Verifies certificate chains of this mesh.
    pub fn verifier(&self) -> &Arc<Verifier> {
        &self.verifier
    }

    /// Issues and verifies ServiceAccount tokens.
    pub fn tokens(&self) -> &Arc<TokenAuthority> {
        &self.tokens
    }

    /// The root authority, on a node that keeps it.
    ///
    /// # Errors
    /// [`IdentityError::NotAnAuthority`] on every other node.
    pub fn root(&self) -> Result<&RootAuthority, IdentityError> {
        self.root.as_ref().ok_or(IdentityError::NotAnAuthority { what: "its signature" })
    }

    /// This node's issuing key for a cell: the one on disk, or a fresh one, certified by root, if there is
    /// none, its scope is another, or under 30 days of it are left.
    ///
    /// # Errors
    /// If the file is damaged, or a fresh one is needed and this node does not keep root, or cannot write it.
    pub fn issuer(&self, cell: CellId, scope: &IssuerScope, now: Wall) -> Result<CellIssuer, IdentityError> {
        let path = self.folder.join(format!("issuer-{cell}.json"));
        let mut number = 0;
        if let Some(stored) = files::load::<StoredAuthority>(&path, ISSUER)? {
            number = stored.next_number();
            let held = CellIssuer::from_stored(&self.trust_domain, scope, &stored).ok_or_else(|| {
                let what = "key and certificate do not belong together".to_owned();
                IdentityError::Corrupt { path: path.clone(), what }
            })?;
            if let Some(held) = held.filter(|h| !h.lifetime().issuer_is_due(now)) {
                return Ok(held);
            }
        }
        let request = IssuerRequest::make(self.node_id(), cell, scope.clone(), number)?;
        let issuer = self.root()?.certify_issuer(&request, now)?;
        files::store(&path, ISSUER, &issuer.to_stored())?;
        Ok(issuer)
    }

    /// Forgets the issuing key of a cell this node no longer keeps.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn forget_issuer(&self, cell: CellId) -> Result<(), IdentityError> {
        let path = self.folder.join(format!("issuer-{cell}.json"));
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|source| IdentityError::File { operation: "remove", path, source }),
        }
    }
}

fn folder(data: &Path) -> PathBuf {
    data.join("identity")
}
