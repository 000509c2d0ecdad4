//! ServiceAccount tokens: what they claim, how they are written, and whether one may be believed.
//!
//! A token is a JWS in compact form (RFC 7515) signed with ES256 (RFC 7518) over the claims Kubernetes
//! uses (KEP-1205, bound ServiceAccount tokens). One algorithm exists here and the header must name it:
//! no token chooses how it is verified.

use crate::token_keys::TrustedTokenKey;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base::{Uid, Wall};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// The longest a token lives: a year and a day, since a default token of a pod is stretched to a year.
pub const MAX_LIFE: Duration = Duration::from_secs(366 * 24 * 3600);

/// How far the clocks of two nodes may differ before a token is refused for it, as in Kubernetes.
const LEEWAY: Duration = Duration::from_secs(60);

/// Longer texts are no tokens of ours and are not looked into.
const MAX_BYTES: usize = 16 * 1024;

/// Something a token is bound to: when it goes, the token is void.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BoundObject {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// What a token shall say. Expiry is counted from `now` of the issuing call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenRequest {
    /// Whom the token is for; not empty.
    pub audiences: Vec<String>,
    /// How long it lives; at most [`MAX_LIFE`], longer is cut.
    pub life: Duration,
    /// Ask the holder to come back after this; set where `life` was stretched beyond what was asked.
    pub warn_after: Option<Duration>,
    /// The ServiceAccount's namespace.
    pub namespace: String,
    /// The ServiceAccount.
    pub service_account: BoundObject,
    /// The pod it is bound to.
    pub pod: Option<BoundObject>,
    /// The Secret it is bound to.
    pub secret: Option<BoundObject>,
    /// The node it is bound to, or the one its pod runs on.
    pub node: Option<BoundObject>,
}

/// What a token says, once believed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServiceAccountClaims {
    /// Whom it is for. A single audience may be written without a list (RFC 7519, 4.1.3).
    #[serde(deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    /// Expiry, Unix seconds.
    pub exp: u64,
    /// Made at, Unix seconds.
    pub iat: u64,
    /// Who issued it.
    pub iss: String,
    /// This token's own id.
    pub jti: String,
    /// What it is bound to.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: KubernetesClaims,
    /// Good from, Unix seconds.
    pub nbf: u64,
    /// `system:serviceaccount:<namespace>:<name>`.
    pub sub: String,
}

/// Kubernetes' own part of the claims.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KubernetesClaims {
    /// The ServiceAccount's namespace.
    pub namespace: String,
    /// The node it is bound to, or its pod's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<BoundObject>,
    /// The pod it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<BoundObject>,
    /// The Secret it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<BoundObject>,
    /// The ServiceAccount.
    pub serviceaccount: BoundObject,
    /// Renew after this, Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<u64>,
}

impl ServiceAccountClaims {
    /// The claims a request stands for at `now`, under the id `jti`.
    pub fn of(request: &TokenRequest, issuer: &str, jti: Uid, now: Wall) -> ServiceAccountClaims {
        let seconds = now.0 / 1000;
        let account = &request.service_account;
        ServiceAccountClaims {
            aud: request.audiences.clone(),
            exp: seconds + request.life.min(MAX_LIFE).as_secs(),
            iat: seconds,
            iss: issuer.to_owned(),
            jti: jti.to_string(),
            kubernetes: KubernetesClaims {
                namespace: request.namespace.clone(),
                node: request.node.clone(),
                pod: request.pod.clone(),
                secret: request.secret.clone(),
                serviceaccount: account.clone(),
                warnafter: request.warn_after.map(|after| seconds + after.as_secs()),
            },
            nbf: seconds,
            sub: format!("system:serviceaccount:{}:{}", request.namespace, account.name),
        }
    }

    /// Should the holder have come for a newer one?
    pub fn is_stale(&self, now: Wall) -> bool {
        self.kubernetes.warnafter.is_some_and(|after| now.0 / 1000 > after)
    }

    /// The audiences of the token that are also among `wanted`.
    pub fn audiences_among(&self, wanted: &[String]) -> Vec<String> {
        self.aud.iter().filter(|a| wanted.contains(a)).cloned().collect()
    }
}

/// Why a token is not believed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenRefusal {
    /// Not a token of this kind at all; another authenticator may know it.
    #[error("it is not a ServiceAccount token: {0}")]
    NotOurs(&'static str),
    /// Signed with a key this mesh does not trust (any more).
    #[error("it is signed with the key {0:?}, which this mesh does not trust (any more): request a new token")]
    UnknownKey(String),
    /// The signature is not that key's.
    #[error("its signature does not match its content")]
    Signature,
    /// Signed by a key that may not sign for this namespace.
    #[error("its key may not sign for the namespace {0}")]
    BeyondScope(String),
    /// Expired.
    #[error("it expired at {0:?}: request a new token")]
    Expired(Wall),
    /// From the future.
    #[error("it is good from {0:?} only: compare the clocks")]
    NotYet(Wall),
    /// For somebody else.
    #[error("it is for {has:?} and not for {wanted:?}")]
    Audience {
        /// The token's audiences.
        has: Vec<String>,
        /// Those accepted here.
        wanted: Vec<String>,
    },
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    kid: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    crit: Vec<String>,
}

/// The part of a token that is signed.
pub(crate) fn signing_input(key_id: &str, claims: &ServiceAccountClaims) -> Result<String, serde_json::Error> {
    let header = Header { alg: "ES256".to_owned(), kid: key_id.to_owned(), crit: Vec::new() };
    let part = |json: Vec<u8>| URL_SAFE_NO_PAD.encode(json);
    Ok(format!("{}.{}", part(serde_json::to_vec(&header)?), part(serde_json::to_vec(claims)?)))
}

/// The whole token.
pub(crate) fn compact(signing_input: &str, signature: &[u8]) -> String {
    format!("{signing_input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Whether a token is to be believed at `now`: signed by one of `keys`, for a namespace that key may sign
/// for, by `issuer`, in its time, for one of `audiences`. What it is bound to must be looked up besides.
///
/// # Errors
/// Says why not.
pub fn verify<'k>(
    token: &str,
    issuer: &str,
    audiences: &[String],
    keys: impl IntoIterator<Item = &'k TrustedTokenKey>,
    now: Wall,
) -> Result<ServiceAccountClaims, TokenRefusal> {
    use TokenRefusal::NotOurs;
    if token.len() > MAX_BYTES {
        return Err(NotOurs("it is too long"));
    }
    let (input, signature) = token.rsplit_once('.').ok_or(NotOurs("it has no three parts"))?;
    let (header, payload) = input.split_once('.').ok_or(NotOurs("it has no three parts"))?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| NotOurs("a part is not base64url"));
    let header: Header =
        serde_json::from_slice(&decode(header)?).map_err(|_| NotOurs("its header names no algorithm and key"))?;
    if header.alg != "ES256" || !header.crit.is_empty() {
        return Err(NotOurs("it is not signed with ES256"));
    }
    let payload = decode(payload)?;

    // Whose it is decides who may answer for it, so the issuer is read before the signature is checked;
    // nothing else of the payload is.
    #[derive(Deserialize)]
    struct Issuer {
        iss: String,
    }
    let said: Issuer = serde_json::from_slice(&payload).map_err(|_| NotOurs("it names no issuer"))?;
    if said.iss != issuer {
        return Err(NotOurs("another issuer signed it"));
    }
    // A key may be listed more than once, by others than who has it: what they say of it takes nothing from it.
    let signature = decode(signature)?;
    let claims: ServiceAccountClaims =
        serde_json::from_slice(&payload).map_err(|_| NotOurs("it lacks claims of a ServiceAccount token"))?;
    let mut refused = TokenRefusal::UnknownKey(header.kid.clone());
    for key in keys.into_iter().filter(|k| k.id == header.kid && k.until.is_none_or(|until| now <= until)) {
        let signed = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key.point).verify(input.as_bytes(), &signature);
        refused = match signed.map_err(|_| TokenRefusal::Signature) {
            Err(why) => why,
            Ok(()) => match believable(&claims, key.namespaces.as_ref(), audiences, now) {
                Ok(()) => return Ok(claims),
                Err(why) => why,
            },
        };
    }
    Err(refused)
}

/// Whether claims with a good signature hold at `now`.
fn believable(
    claims: &ServiceAccountClaims,
    namespaces: Option<&BTreeSet<String>>,
    audiences: &[String],
    now: Wall,
) -> Result<(), TokenRefusal> {
    let kubernetes = &claims.kubernetes;
    if claims.sub != format!("system:serviceaccount:{}:{}", kubernetes.namespace, kubernetes.serviceaccount.name) {
        return Err(TokenRefusal::NotOurs("its subject and its ServiceAccount differ"));
    }
    if namespaces.is_some_and(|may| !may.contains(&kubernetes.namespace)) {
        return Err(TokenRefusal::BeyondScope(kubernetes.namespace.clone()));
    }
    let wall = |seconds: u64| Wall(seconds.saturating_mul(1000));
    if now > wall(claims.exp) + LEEWAY {
        return Err(TokenRefusal::Expired(wall(claims.exp)));
    }
    let from = wall(claims.nbf.max(claims.iat));
    if from > now + LEEWAY {
        return Err(TokenRefusal::NotYet(from));
    }
    if claims.audiences_among(audiences).is_empty() {
        return Err(TokenRefusal::Audience { has: claims.aud.clone(), wanted: audiences.to_vec() });
    }
    Ok(())
}

fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}
