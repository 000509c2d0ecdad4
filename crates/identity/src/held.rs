//! What others gave this node and it keeps on disk: certificates they issued, and what is known of them.

use crate::{Contact, Credential, IdentityError, MessageError, Revocations, TrustedTokenKey, files};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

/// A certificate with its key, in use and on disk.
#[derive(Debug)]
pub(crate) struct Held {
    path: PathBuf,
    format: &'static str,
    current: RwLock<Option<Arc<Credential>>>,
}

#[derive(Serialize, Deserialize)]
struct StoredCredential {
    key: String,
    chain: String,
}

impl Held {
    /// Reads what is there, which may be nothing.
    pub(crate) fn open(path: PathBuf, format: &'static str) -> Result<Held, IdentityError> {
        let stored = files::load::<StoredCredential>(&path, format)?;
        let current = stored.map(|s| {
            let damaged = || IdentityError::Corrupt {
                path: path.clone(),
                what: "key and certificate do not belong together".to_owned(),
            };
            Credential::from_pem(&s.key, &s.chain).map(Arc::new).ok_or_else(damaged)
        });
        let current = RwLock::new(current.transpose()?);
        Ok(Held { path, format, current })
    }

    pub(crate) fn current(&self) -> Option<Arc<Credential>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Uses `next` from now on; it is on disk before.
    pub(crate) fn take(&self, next: Credential) -> Result<Arc<Credential>, IdentityError> {
        write(&self.path, self.format, &next)?;
        Ok(self.hold(next))
    }

    /// Uses `next` from now on, and leaves the disk alone.
    pub(crate) fn hold(&self, next: Credential) -> Arc<Credential> {
        let next = Arc::new(next);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(next.clone());
        next
    }
}

/// Writes a certificate with its key for [`Held::open`].
pub(crate) fn write(path: &Path, format: &'static str, credential: &Credential) -> Result<(), IdentityError> {
    let Credential { key_pem: key, chain_pem: chain, .. } = credential.clone();
    files::store(path, format, &StoredCredential { key, chain })
}

/// No more contacts than this are written down: any one of them leads to the others.
const MAX_CONTACTS: usize = 256;

/// Token keys take at most this much of the file; those of others are believed once the bundle is there.
const MAX_TOKEN_KEY_BYTES: usize = 1 << 20;

/// What a node knows of the others.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Known {
    /// Where they are, the likeliest first; the first 256 are written down.
    pub contacts: Vec<Contact>,
    /// Their token keys.
    pub token_keys: Vec<TrustedTokenKey>,
    /// Whom the mesh has expelled.
    pub revocations: Revocations,
}

#[derive(Serialize, Deserialize)]
struct StoredKnown {
    contacts: Vec<StoredContact>,
    /// Base64, as they travel.
    token_keys: Vec<String>,
    revocations: String,
}

#[derive(Serialize, Deserialize)]
struct StoredContact {
    node: String,
    addresses: Vec<std::net::SocketAddr>,
}

impl Known {
    pub(crate) fn store(&self, path: &Path, format: &'static str) -> Result<(), IdentityError> {
        let contact = |c: &Contact| StoredContact { node: c.node.to_string(), addresses: c.addresses.clone() };
        let contacts = self.contacts.iter().take(MAX_CONTACTS).cloned().map(|c| contact(&c.bounded())).collect();
        let mut room = MAX_TOKEN_KEY_BYTES;
        let mut token_keys = Vec::new();
        for key in self.token_keys.iter().map(TrustedTokenKey::encode) {
            if key.len() > room {
                break;
            }
            room -= key.len();
            token_keys.push(STANDARD.encode(key));
        }
        let revocations = STANDARD.encode(self.revocations.encode());
        files::store(path, format, &StoredKnown { contacts, token_keys, revocations })
    }

    /// Nothing, if there is no such file.
    pub(crate) fn load(path: &Path, format: &'static str) -> Result<Known, IdentityError> {
        let Some(stored) = files::load::<StoredKnown>(path, format)? else { return Ok(Known::default()) };
        let corrupt = |what: String| IdentityError::Corrupt { path: path.to_owned(), what };
        let bytes = |text: &String| STANDARD.decode(text).map_err(|e| corrupt(e.to_string()));
        let message = |e: MessageError| corrupt(e.to_string());
        let contact = |c: StoredContact| {
            let node = c.node.parse().map_err(|_| corrupt(format!("{:?} is no node", c.node)))?;
            Ok(Contact { node, addresses: c.addresses })
        };
        let key = |text| TrustedTokenKey::decode(&bytes(text)?).map_err(message);
        Ok(Known {
            contacts: stored.contacts.into_iter().map(contact).collect::<Result<_, IdentityError>>()?,
            token_keys: stored.token_keys.iter().map(key).collect::<Result<_, _>>()?,
            revocations: Revocations::decode(&bytes(&stored.revocations)?).map_err(message)?,
        })
    }
}
