//! The joining machine's own side: a key that lasts over crashes, a request, and what an answer is turned into.

use crate::home::{self, JOINING, MESH, NODE, StoredJoining, StoredMesh, StoredNode};
use crate::{
    Contact, GatewayNames, GatewayRequest, Identity, IdentityError, JoinAnswer, JoinRequest, Known, NodeKey,
    PersonRequest, Roles, SpiffeId, SvidRequest, Ticket, TokenAuthority, TrustedTokenKey, Wanted, files, held,
};
use base::{NodeId, Wall};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A machine that belongs to no mesh yet, and its keys. They are on disk: however often it is begun, it is the
/// same machine that asks, so that a ticket used for it is good until it has joined.
#[derive(Debug)]
pub struct Joining {
    data: PathBuf,
    node: NodeKey,
    token_keys: Vec<TrustedTokenKey>,
}

/// A request to join, and the keys that wait for its answer.
#[derive(Debug)]
pub struct Asked {
    request: JoinRequest,
    ticket: Ticket,
    svid: SvidRequest,
    gateway: Option<GatewayRequest>,
    admin: Option<PersonRequest>,
}

/// What a machine asks for.
#[derive(Clone, Debug, Default)]
pub struct Asking {
    /// The name its Node object shall have.
    pub name: String,
    /// What it wants to do; some of what the ticket grants.
    pub roles: Roles,
    /// What its API server is called, if it shall have one.
    pub gateway: Option<GatewayNames>,
    /// Where others may reach it; the first [`crate::ticket::MAX_ADDRESSES`] that can be dialled.
    pub addresses: Vec<SocketAddr>,
    /// Whether it asks for a certificate of its administrator, user and group.
    pub admin: Option<(String, String)>,
}

impl Asked {
    /// What travels.
    pub fn request(&self) -> &JoinRequest {
        &self.request
    }
}

impl Identity {
    /// Takes up, or makes, the keys of a machine that will join a mesh.
    ///
    /// # Errors
    /// [`IdentityError::AlreadyFounded`] if `data` belongs to a mesh; or if a file cannot be read or written.
    pub fn begin_join(data: &Path, now: Wall) -> Result<Joining, IdentityError> {
        let folder = home::folder(data);
        if let Some(mesh) = files::load::<StoredMesh>(&folder.join("mesh.json"), MESH)? {
            return Err(IdentityError::AlreadyFounded { dir: data.to_owned(), trust_domain: mesh.trust_domain });
        }
        files::make_folder(&folder)?;
        let path = folder.join("node.json");
        let node = match files::load::<StoredNode>(&path, NODE)? {
            Some(stored) => NodeKey::from_pem(&stored.key)
                .map_err(|e| IdentityError::Corrupt { path: path.clone(), what: e.to_string() })?,
            None => {
                let made = NodeKey::make()?;
                files::store(&path, NODE, &StoredNode { key: made.to_pem() })?;
                made
            }
        };
        // The issuer of its tokens is told by the answer; its keys do not depend on it.
        let token_keys = TokenAuthority::open(&folder.join("tokens.json"), "", now)?.own();
        Ok(Joining { data: data.to_owned(), node, token_keys })
    }

    /// Makes the machine a node of the mesh that answered, if that is the one the ticket is for. Done again
    /// after a crash or a failure, from [`Identity::begin_join`] on, it ends in the same.
    ///
    /// # Errors
    /// If the answer is not believed, in which case nothing was written, or a file cannot be written.
    pub fn complete_join(
        joining: &Joining,
        asked: &Asked,
        answer: &JoinAnswer,
        now: Wall,
    ) -> Result<Identity, IdentityError> {
        let verifier = answer.verifier(&asked.ticket, now)?;
        let (svid, _) = asked.svid.complete(answer.svid.clone(), &verifier, now)?;
        let gateway = match (&asked.gateway, &answer.gateway) {
            (Some(request), Some(chain)) => Some(request.complete(chain.clone(), &verifier, now)?),
            _ => None,
        };

        let admin = match (&asked.admin, &answer.admin) {
            (Some(request), Some(chain)) => Some(request.complete(chain.clone(), &verifier, now)?),
            _ => None,
        };

        let folder = home::folder(&joining.data);
        remove_left_over(&folder)?;
        held::write(&folder.join("svid.json"), home::SVID, &svid)?;
        if let Some(gateway) = gateway {
            held::write(&folder.join("gateway.json"), home::GATEWAY, &gateway)?;
        }
        if let Some(admin) = admin {
            held::write(&folder.join("admin.json"), home::ADMIN, &admin)?;
        }
        let known = Known {
            contacts: answer.contacts.clone(),
            token_keys: answer.token_keys.clone(),
            revocations: answer.revocations.clone(),
        };
        known.store(&folder.join("known.json"), home::KNOWN)?;
        let mesh = StoredMesh {
            trust_domain: answer.trust_domain.to_string(),
            token_issuer: answer.token_issuer.clone(),
            bundle: answer.bundle_pem.clone(),
            founded_at_ms: now.0,
        };
        files::store(&folder.join("mesh.json"), MESH, &mesh)?;
        files::remove(&folder.join("joining.json"))?;
        Identity::resume(&joining.data, now)
    }
}

/// What an interrupted founding left there belongs to a mesh that never was.
fn remove_left_over(folder: &Path) -> Result<(), IdentityError> {
    for file in ["root.json", "admin.json", "svid.json", "gateway.json", "known.json"] {
        files::remove(&folder.join(file))?;
    }
    let failed = |source| IdentityError::File { operation: "read", path: folder.to_owned(), source };
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("issuer-") {
            files::remove(&entry.path())?;
        }
    }
    Ok(())
}

impl Joining {
    /// The machine's name in every mesh.
    pub fn node_id(&self) -> NodeId {
        self.node.id()
    }

    /// The machine's key: what it dials with.
    pub fn node_key(&self) -> &NodeKey {
        &self.node
    }

    /// Makes a request to join. From here on the data directory is the joiner's: no mesh is founded there by accident.
    ///
    /// # Errors
    /// If the gateway's names cannot stand in a certificate, or a file cannot be written.
    pub fn ask(&self, ticket: &Ticket, asking: Asking, now: Wall) -> Result<Asked, IdentityError> {
        let Asking { name, roles, gateway, addresses, admin } = asking;
        let trust_domain = ticket.invitation().trust_domain.clone();
        let gateway = gateway.map(GatewayRequest::make).transpose()?;
        let admin = admin.map(|(name, group)| PersonRequest::make(&name, &group)).transpose()?;
        let begun = StoredJoining { trust_domain: trust_domain.to_string() };
        files::store(&home::folder(&self.data).join("joining.json"), JOINING, &begun)?;
        let svid = SvidRequest::make(&SpiffeId::Node { trust_domain, node: self.node_id() })?;
        let wanted = Wanted {
            name,
            roles,
            at: now,
            svid: svid.encode()?,
            gateway: gateway.as_ref().map(GatewayRequest::encode).transpose()?,
            token_keys: self.token_keys.clone(),
            addresses: Contact { node: self.node_id(), addresses }.bounded().addresses,
            admin: admin.as_ref().map(PersonRequest::encode).transpose()?,
        };
        let request = JoinRequest::make(ticket, &self.node, wanted)?;
        Ok(Asked { request, ticket: ticket.clone(), svid, gateway, admin })
    }
}
