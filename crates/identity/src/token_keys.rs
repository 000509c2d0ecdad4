//! The keys ServiceAccount tokens are signed with: one in use per keeper node, the former ones trusted
//! until nothing they signed can be good any more; published as JWKS.

use crate::certificate::chance;
use crate::codec::{self, MessageError, Reader, Writer};
use crate::spiffe::label;
use crate::token::{self, MAX_LIFE, ServiceAccountClaims, TokenRefusal, TokenRequest};
use crate::{IdentityError, files};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base::{Uid, Wall};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

const FORMAT: &str = "beemesh/token-keys/1";

/// A token key in use for longer than this is due for rotation.
pub const ROTATED_AFTER: Duration = Duration::from_secs(90 * 24 * 3600);

/// A node keeps no more namespaces than this, as far as its token key's list is concerned.
pub const MAX_NAMESPACES: usize = 8192;

/// An uncompressed point.
const POINT: usize = 65;

/// What precedes the point in a SubjectPublicKeyInfo of P-256 (RFC 5480).
const SPKI_OF_P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A key whose tokens are believed: ours, or one the bundle lists for another keeper.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrustedTokenKey {
    /// The `kid` of its tokens: base64url of the SHA-256 of its public half, as in Kubernetes.
    pub id: String,
    /// The public half: an uncompressed P-256 point, 65 bytes.
    pub point: Vec<u8>,
    /// The namespaces it may sign for; `None` means all (a mesh of one keeper).
    pub namespaces: Option<BTreeSet<String>>,
    /// Not trusted after this.
    pub until: Option<Wall>,
}

impl TrustedTokenKey {
    /// The key with that public half: an uncompressed P-256 point. Its id follows from it.
    fn of_point(point: [u8; POINT], namespaces: Option<BTreeSet<String>>, until: Option<Wall>) -> TrustedTokenKey {
        let spki = [&SPKI_OF_P256[..], &point].concat();
        let id = URL_SAFE_NO_PAD.encode(digest(&SHA256, &spki));
        TrustedTokenKey { id, point: point.to_vec(), namespaces, until }
    }

    /// The key with that public half; `None` if it is no uncompressed point.
    pub fn from_point(
        point: &[u8],
        namespaces: Option<BTreeSet<String>>,
        until: Option<Wall>,
    ) -> Option<TrustedTokenKey> {
        let point: [u8; POINT] = point.try_into().ok().filter(|p: &[u8; POINT]| p[0] == 4)?;
        Some(TrustedTokenKey::of_point(point, namespaces, until))
    }

    /// As bytes, for other nodes. Namespaces beyond [`MAX_NAMESPACES`] are left out.
    pub fn encode(&self) -> Vec<u8> {
        self.write(Writer::new(codec::TOKEN_KEY)).done()
    }

    /// Reads what [`TrustedTokenKey::encode`] wrote.
    ///
    /// # Errors
    /// If it is something else.
    pub fn decode(bytes: &[u8]) -> Result<TrustedTokenKey, MessageError> {
        let mut r = Reader::open(codec::TOKEN_KEY, bytes)?;
        let key = TrustedTokenKey::read(&mut r)?;
        r.end()?;
        Ok(key)
    }

    pub(crate) fn write(&self, to: Writer) -> Writer {
        // Always that long, see the field.
        let mut point = [0; POINT];
        point.iter_mut().zip(&self.point).for_each(|(to, from)| *to = *from);
        let names = |w: Writer, names: &BTreeSet<String>| {
            let names: Vec<&String> = names.iter().take(MAX_NAMESPACES).collect();
            w.list(names.into_iter(), |w, name| w.bytes(name.as_bytes()))
        };
        to.fixed(&point).maybe(self.namespaces.as_ref(), names).maybe(self.until, Writer::wall)
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Result<TrustedTokenKey, MessageError> {
        let point: [u8; POINT] = from.fixed()?;
        if point.first() != Some(&4) {
            return Err(from.damaged("a token key is no point of the curve"));
        }
        let name = |r: &mut Reader<'_>| {
            let name = r.text(63)?;
            label(name).map(str::to_owned).ok_or_else(|| r.damaged("a token key is for what is no namespace"))
        };
        let namespaces = from.maybe(|r| r.list(MAX_NAMESPACES, name))?;
        let until = from.maybe(Reader::wall)?;
        Ok(TrustedTokenKey::of_point(point, namespaces.map(|n| n.into_iter().collect()), until))
    }
}

/// Issues tokens with this node's key and verifies those of every key it is told to trust.
pub struct TokenAuthority {
    issuer: String,
    path: PathBuf,
    keys: RwLock<Arc<Keys>>,
}

struct Keys {
    signing: EcdsaKeyPair,
    /// Ours, the one in use first; then those of others.
    trusted: Vec<TrustedTokenKey>,
    /// Ours only.
    stored: Stored,
}

#[derive(Clone, Serialize, Deserialize)]
struct Stored {
    /// The one in use last.
    keys: Vec<StoredKey>,
}

#[derive(Clone, Serialize, Deserialize)]
struct StoredKey {
    key: String,
    made_at_ms: u64,
    retired_at_ms: Option<u64>,
}

impl StoredKey {
    fn make(now: Wall) -> Result<StoredKey, IdentityError> {
        let refused = IdentityError::crypto("make a token key");
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(refused)?.serialize_pem();
        Ok(StoredKey { key, made_at_ms: now.0, retired_at_ms: None })
    }

    fn until(&self) -> Option<Wall> {
        self.retired_at_ms.map(|at| Wall(at) + MAX_LIFE)
    }
}

impl Keys {
    fn of(stored: Stored, others: Vec<TrustedTokenKey>) -> Option<Keys> {
        let mut trusted = Vec::new();
        let mut signing = None;
        for one in stored.keys.iter().rev() {
            let pair = KeyPair::from_pem_and_sign_algo(&one.key, &PKCS_ECDSA_P256_SHA256).ok()?;
            let id = URL_SAFE_NO_PAD.encode(digest(&SHA256, &pair.subject_public_key_info()));
            let own = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pair.serialize_der()).ok()?;
            let point = own.public_key().as_ref().to_vec();
            trusted.push(TrustedTokenKey { id, point, namespaces: None, until: one.until() });
            signing.get_or_insert(own);
        }
        trusted.extend(others);
        Some(Keys { signing: signing?, trusted, stored })
    }
}

impl TokenAuthority {
    /// Reads this node's token keys from `path`, or makes the first one at `now`.
    ///
    /// # Errors
    /// If the file cannot be read, written or understood.
    pub fn open(path: &Path, issuer: &str, now: Wall) -> Result<TokenAuthority, IdentityError> {
        let stored = match files::load::<Stored>(path, FORMAT)? {
            Some(stored) => stored,
            None => {
                let first = Stored { keys: vec![StoredKey::make(now)?] };
                files::store(path, FORMAT, &first)?;
                first
            }
        };
        let keys = Keys::of(stored, Vec::new()).ok_or_else(|| damaged(path))?;
        Ok(TokenAuthority { issuer: issuer.to_owned(), path: path.to_owned(), keys: RwLock::new(Arc::new(keys)) })
    }

    /// The `iss` of every token of this mesh, fixed at its founding.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Makes a token. Returns it and what it says.
    ///
    /// # Errors
    /// If the cryptographic library refuses.
    pub fn issue(&self, request: &TokenRequest, now: Wall) -> Result<(String, ServiceAccountClaims), IdentityError> {
        let refuse = |why: String| IdentityError::Crypto { operation: "issue a token", why };
        let jti = Uid::from_chance(u128::from_le_bytes(chance()?));
        let claims = ServiceAccountClaims::of(request, &self.issuer, jti, now);
        let keys = self.keys();
        let id = keys.trusted.first().map(|k| k.id.as_str()).unwrap_or_default();
        let input = token::signing_input(id, &claims).map_err(|e| refuse(e.to_string()))?;
        let signature = keys.signing.sign(&aws_lc_rs::rand::SystemRandom::new(), input.as_bytes());
        let signature = signature.map_err(|_| refuse("the library could not sign".to_owned()))?;
        Ok((token::compact(&input, signature.as_ref()), claims))
    }

    /// Whether a token is to be believed, see [`token::verify`]. No `audiences` means the API's own: the
    /// issuer.
    ///
    /// # Errors
    /// Says why not.
    pub fn verify(&self, token: &str, audiences: &[String], now: Wall) -> Result<ServiceAccountClaims, TokenRefusal> {
        let own = [self.issuer.clone()];
        let audiences = if audiences.is_empty() { &own[..] } else { audiences };
        token::verify(token, &self.issuer, audiences, &self.keys().trusted, now)
    }

    /// Is the key in use due for rotation at `now`?
    pub fn rotation_is_due(&self, now: Wall) -> bool {
        self.keys().stored.keys.last().is_none_or(|k| now.since(Wall(k.made_at_ms)) >= ROTATED_AFTER)
    }

    /// Signs with a fresh key from now on; the former one is trusted until its last token has expired, and
    /// those past that are forgotten. The new key is on disk before it signs.
    ///
    /// # Errors
    /// If it cannot be made or written; the present key stays in use then.
    pub fn rotate(&self, now: Wall) -> Result<(), IdentityError> {
        let mut current = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let mut stored = current.stored.clone();
        stored.keys.retain(|k| k.until().is_none_or(|until| now <= until));
        for key in &mut stored.keys {
            key.retired_at_ms.get_or_insert(now.0);
        }
        stored.keys.push(StoredKey::make(now)?);
        let others = current.trusted.iter().skip(current.stored.keys.len()).cloned().collect();
        let next = Keys::of(stored, others).ok_or_else(|| damaged(&self.path))?;
        files::store(&self.path, FORMAT, &next.stored)?;
        *current = Arc::new(next);
        Ok(())
    }

    /// Replaces the keys of other keepers, as the bundle lists them.
    pub fn trust(&self, others: Vec<TrustedTokenKey>) {
        let mut current = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        // Built from what was read before: it cannot fail now, and if it did, the old list stays.
        if let Some(next) = Keys::of(current.stored.clone(), others) {
            *current = Arc::new(next);
        }
    }

    /// Every key whose tokens are believed; this node's own first. Its entry in the bundle is the first.
    pub fn trusted(&self) -> Vec<TrustedTokenKey> {
        self.keys().trusted.clone()
    }

    /// This node's own public keys, the one in use first: what other nodes are told to trust.
    pub fn own(&self) -> Vec<TrustedTokenKey> {
        let keys = self.keys();
        keys.trusted.iter().take(keys.stored.keys.len()).cloned().collect()
    }

    /// `/openid/v1/jwks`: the public halves as a JWK set (RFC 7517), served as `application/jwk-set+json`.
    pub fn jwks(&self) -> serde_json::Value {
        let key = |k: &TrustedTokenKey| {
            // The uncompressed point is 4, x, y.
            let (x, y) = k.point.get(1..65).unwrap_or(&[0; 64]).split_at(32);
            let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
            json!({"use": "sig", "kty": "EC", "kid": k.id, "crv": "P-256", "alg": "ES256", "x": x, "y": y})
        };
        json!({"keys": self.keys().trusted.iter().map(key).collect::<Vec<_>>()})
    }

    /// `/.well-known/openid-configuration` of an API reached at `host`, an address with its port.
    pub fn discovery(&self, host: &str) -> serde_json::Value {
        json!({
            "issuer": self.issuer,
            "jwks_uri": format!("https://{host}/openid/v1/jwks"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }

    fn keys(&self) -> Arc<Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for TokenAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token authority of {} ({} keys)", self.issuer, self.keys().trusted.len())
    }
}

fn damaged(path: &Path) -> IdentityError {
    IdentityError::Corrupt { path: path.to_owned(), what: "a key in it cannot be read".to_owned() }
}
