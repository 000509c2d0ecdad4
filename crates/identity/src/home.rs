//! Where a node keeps who it is: `DATA/identity`, one file per thing.
//!
//! | file | holds |
//! |---|---|
//! | `mesh.json` | trust domain, token issuer, trust bundle; written last at founding and joining: a mesh exists when it does |
//! | `node.json` | the node's Ed25519 key |
//! | `root.json` | the root authority's key and certificate, on nodes with the role `authority` |
//! | `tokens.json` | this node's ServiceAccount token keys |
//! | `issuer-<cell>.json` | this node's issuing key for a cell it keeps |
//! | `svid.json`, `gateway.json` | the node's SVID and its API server's certificate, if others issued them |
//! | `admin.json` | on a node that joined as an authority, its administrator's certificate |
//! | `known.json` | what it last knew of other nodes: where they are, their token keys, who was expelled |
//! | `joining.json` | which mesh it has begun to join; there until it has |

use crate::certificate::{StoredAuthority, chance};
use crate::held::{Held, Known};
use crate::{
    CellIssuer, Credential, GatewayRequest, IdentityError, IssuerRequest, IssuerScope, NodeKey, Peer, Roles,
    RootAuthority, SpiffeId, SvidRequest, TokenAuthority, TrustDomain, Verifier, files, ticket,
};
use base::{CellId, NodeId, Wall};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// The token issuer of a mesh founded without naming another: reachable from every pod.
pub const DEFAULT_TOKEN_ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

pub(crate) const MESH: &str = "beemesh/mesh/1";
pub(crate) const NODE: &str = "beemesh/node-key/1";
const ROOT: &str = "beemesh/root-authority/1";
pub(crate) const SVID: &str = "beemesh/svid/1";
pub(crate) const GATEWAY: &str = "beemesh/gateway/1";
pub(crate) const ADMIN: &str = "beemesh/admin/1";
pub(crate) const KNOWN: &str = "beemesh/known/1";
pub(crate) const JOINING: &str = "beemesh/joining/1";
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
    svid: Held,
    gateway: Held,
    admin: Held,
    known: RwLock<Arc<Known>>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct StoredMesh {
    pub(crate) trust_domain: String,
    pub(crate) token_issuer: String,
    pub(crate) bundle: String,
    /// Or joined at.
    pub(crate) founded_at_ms: u64,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct StoredNode {
    pub(crate) key: String,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct StoredJoining {
    pub(crate) trust_domain: String,
}

impl Identity {
    /// Founds a mesh in `data`: a node key, a root authority, a token key. Without a trust domain one is
    /// drawn. A founding that was interrupted left nothing that counts and is simply done again.
    ///
    /// # Errors
    /// If `data` already belongs to a mesh or has begun to join one, the trust domain is none, or a file cannot
    /// be written.
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
        if let Some(begun) = files::load::<StoredJoining>(&folder.join("joining.json"), JOINING)? {
            return Err(IdentityError::Joining { dir: data.to_owned(), trust_domain: begun.trust_domain });
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
        // From a founding or a joining that was interrupted, if there: they are another mesh's.
        for left_over in ["tokens.json", "svid.json", "gateway.json", "admin.json", "known.json"] {
            files::remove(&folder.join(left_over))?;
        }
        let tokens = folder.join("tokens.json");
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
        let known = Known::load(&path("known.json"), KNOWN)?;
        tokens.trust(known.token_keys.clone());
        Ok(Identity {
            svid: Held::open(path("svid.json"), SVID)?,
            gateway: Held::open(path("gateway.json"), GATEWAY)?,
            admin: Held::open(path("admin.json"), ADMIN)?,
            known: RwLock::new(Arc::new(known)),
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

    /// The hashes of the root certificates, as a ticket names them.
    pub fn root_hashes(&self) -> Vec<[u8; 32]> {
        self.verifier.roots().map(ticket::root_hash).collect()
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

    /// This node's issuing key for a cell: the one on disk, or, if there is none, its scope is another, or
    /// under 30 days of it are left, a fresh one certified by the root that this node keeps. A node that does
    /// not keep root uses the one it has to its end, and asks for the next ([`Identity::issuer_request`]).
    ///
    /// # Errors
    /// If the file is damaged, or a fresh one is needed and this node does not keep root, or cannot write it.
    pub fn issuer(&self, cell: CellId, scope: &IssuerScope, now: Wall) -> Result<CellIssuer, IdentityError> {
        let (held, _) = self.held_issuer(cell, scope)?;
        let held = held.filter(|h| !h.lifetime().issuer_is_due(now) || self.root.is_none());
        if let Some(held) = held.filter(|h| h.lifetime().covers(now)) {
            return Ok(held);
        }
        let root = self.root()?;
        let request = self.issuer_request(cell, scope)?;
        let certificate = root.certify_issuer(&request.asked()?, now)?;
        self.take_issuer(request, certificate, now)
    }

    /// A fresh issuing key for a cell, to be certified by a node that keeps root.
    ///
    /// # Errors
    /// If the file of the present one is damaged, or the cryptographic library refuses.
    pub fn issuer_request(&self, cell: CellId, scope: &IssuerScope) -> Result<IssuerRequest, IdentityError> {
        let (_, number) = self.held_issuer(cell, scope)?;
        IssuerRequest::make(self.node_id(), cell, scope.clone(), number)
    }

    /// Takes what root answered a request with: from now on this is the node's issuing key for the cell.
    ///
    /// # Errors
    /// If it is not what was asked for, or cannot be written; the present one stays in use then.
    pub fn take_issuer(
        &self,
        request: IssuerRequest,
        certificate: CertificateDer<'static>,
        now: Wall,
    ) -> Result<CellIssuer, IdentityError> {
        let path = self.issuer_path(request.cell());
        let issuer = request.complete(certificate, &self.verifier, now)?;
        files::store(&path, ISSUER, &issuer.to_stored())?;
        Ok(issuer)
    }

    /// The issuing key on disk, if it is of this scope, and the number of the next one.
    fn held_issuer(&self, cell: CellId, scope: &IssuerScope) -> Result<(Option<CellIssuer>, u64), IdentityError> {
        let path = self.issuer_path(cell);
        let Some(stored) = files::load::<StoredAuthority>(&path, ISSUER)? else { return Ok((None, 0)) };
        let held = CellIssuer::from_stored(&self.trust_domain, scope, &stored).ok_or_else(|| {
            let what = "key and certificate do not belong together".to_owned();
            IdentityError::Corrupt { path, what }
        })?;
        Ok((held, stored.next_number()))
    }

    /// Forgets the issuing key of a cell this node no longer keeps.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn forget_issuer(&self, cell: CellId) -> Result<(), IdentityError> {
        files::remove(&self.issuer_path(cell))
    }

    fn issuer_path(&self, cell: CellId) -> PathBuf {
        self.folder.join(format!("issuer-{cell}.json"))
    }

    /// This node's name as SVIDs say it.
    pub fn spiffe_id(&self) -> SpiffeId {
        SpiffeId::Node { trust_domain: self.trust_domain.clone(), node: self.node_id() }
    }

    /// The node's SVID: what it shows to other nodes. It may have run out; they grant a grace.
    pub fn svid(&self) -> Option<Arc<Credential>> {
        self.svid.current()
    }

    /// The roles the SVID says; none without one.
    pub fn roles(&self) -> Roles {
        let proven = self.svid().and_then(|own| {
            // What it says is asked here, not whether it is good: at a moment when it was.
            self.verifier.client(&own.chain, own.lifetime.not_before).ok()
        });
        proven.and_then(|p| p.node()).map_or(Roles::NONE, |(_, roles)| roles)
    }

    /// Is there no SVID, or is it half over at `now`?
    pub fn svid_is_due(&self, now: Wall) -> bool {
        self.svid().is_none_or(|own| own.lifetime.is_due(now))
    }

    /// A fresh key for the node's SVID, to be certified by a keeper of the registry.
    ///
    /// # Errors
    /// If the cryptographic library refuses.
    pub fn svid_request(&self) -> Result<SvidRequest, IdentityError> {
        SvidRequest::make(&self.spiffe_id())
    }

    /// Takes what a keeper answered a request with: from now on this is the node's SVID.
    ///
    /// # Errors
    /// If it is not what was asked for, or cannot be written; the present one stays in use then.
    pub fn take_svid(
        &self,
        request: &SvidRequest,
        chain: Vec<CertificateDer<'static>>,
        now: Wall,
    ) -> Result<Arc<Credential>, IdentityError> {
        let (credential, proven) = request.complete(chain, &self.verifier, now)?;
        if !matches!(proven.peer, Peer::Node { node, .. } if node == self.node_id()) {
            let why = "it is another node's".to_owned();
            return Err(IdentityError::NotAsAsked { what: self.spiffe_id().to_string(), why });
        }
        self.svid.take(credential)
    }

    /// Issues the node's SVID with its own issuing key of the registry, as a founder does. It is not written
    /// down: whoever can issue it can do so again.
    ///
    /// # Errors
    /// As [`CellIssuer::certify`].
    pub fn issue_svid(&self, issuer: &CellIssuer, roles: Roles, now: Wall) -> Result<Arc<Credential>, IdentityError> {
        Ok(self.svid.hold(issuer.svid(&self.spiffe_id(), roles, now)?))
    }

    /// The API server's certificate that others issued to this node.
    pub fn gateway(&self) -> Option<Arc<Credential>> {
        self.gateway.current()
    }

    /// The certificate of its administrator that this node was given when it joined as an authority.
    pub fn admin(&self) -> Option<Arc<Credential>> {
        self.admin.current()
    }

    /// Takes what a keeper answered a request with. Whoever presents it is told by
    /// [`crate::GatewayCertificate::replace`], or does it by [`crate::Upkeep::take_gateway`].
    ///
    /// # Errors
    /// If it is not what was asked for, or cannot be written; the present one stays in use then.
    pub fn take_gateway(
        &self,
        request: &GatewayRequest,
        chain: Vec<CertificateDer<'static>>,
        now: Wall,
    ) -> Result<Arc<Credential>, IdentityError> {
        self.gateway.take(request.complete(chain, &self.verifier, now)?)
    }

    /// What this node last knew of the others: enough to find them after every machine was off.
    pub fn known(&self) -> Arc<Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces what is known of the others, on disk as well, and believes their token keys from now on. Of
    /// the lists of expelled nodes the one with the higher number holds. Nothing new writes nothing.
    ///
    /// # Errors
    /// If it cannot be written; it holds all the same until the node ends.
    pub fn remember(&self, mut known: Known) -> Result<(), IdentityError> {
        let mut current = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.revocations.number() < current.revocations.number() {
            known.revocations = current.revocations.clone();
        }
        if known == **current {
            return Ok(());
        }
        self.tokens.trust(known.token_keys.clone());
        let stored = known.store(&self.folder.join("known.json"), KNOWN);
        *current = Arc::new(known);
        stored
    }
}

pub(crate) fn folder(data: &Path) -> PathBuf {
    data.join("identity")
}
