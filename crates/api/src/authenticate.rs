//! Who asks: a client certificate, a bearer token, and the headers that ask to be taken for another.

use crate::port::Refusal;
use crate::status;
use base::Wall;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use objects::request::User;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The group of everyone whom an authenticator knows.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of everyone else.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The user of requests without credentials.
pub const ANONYMOUS: &str = "system:anonymous";

/// The user a verified client certificate stands for: its common name, with its organizations as groups.
/// `None` if it does not parse, has no common name, or is an SVID: whoever verified that has checked its URI
/// against what its issuer may name, and its subject against nothing.
pub fn certificate_user(der: &[u8]) -> Option<User> {
    let (_, cert) = X509Certificate::from_der(der).ok()?;
    let names = cert.subject_alternative_name().ok()?;
    if names.is_some_and(|n| n.value.general_names.iter().any(|n| matches!(n, GeneralName::URI(_)))) {
        return None;
    }
    let subject = cert.subject();
    let name = subject.iter_common_name().next()?.as_str().ok().filter(|n| !n.is_empty())?.to_owned();
    let groups = subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
    let mut id = String::from("X509SHA256=");
    for byte in Sha256::digest(der) {
        // Writing into a String cannot fail.
        let _ = write!(id, "{byte:02x}");
    }
    let extra = vec![("authentication.kubernetes.io/credential-id".into(), vec![id])];
    Some(known(User { name, uid: String::new(), groups, extra }))
}

/// The last moment of a certificate; `None` if it does not parse.
pub(crate) fn certificate_end(der: &[u8]) -> Option<Wall> {
    let (_, cert) = X509Certificate::from_der(der).ok()?;
    let seconds = u64::try_from(cert.validity().not_after.timestamp()).unwrap_or(0);
    // To the second, and good until that second is over.
    Some(Wall(seconds.saturating_mul(1000).saturating_add(999)))
}

/// A user without credentials.
pub fn anonymous() -> User {
    User { name: ANONYMOUS.into(), groups: vec![UNAUTHENTICATED.into()], ..User::default() }
}

/// A user whom an authenticator knows: [`AUTHENTICATED`] is among the groups.
pub fn known(mut user: User) -> User {
    if user.name != ANONYMOUS && !user.groups.iter().any(|g| g == AUTHENTICATED || g == UNAUTHENTICATED) {
        user.groups.push(AUTHENTICATED.into());
    }
    user
}

/// The bearer token of a request, if it has one; `Err` if the header is there and no token can be read.
pub fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let value = value.to_str().map_err(|_| status::unauthorized())?.trim();
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Ok(None);
    }
    let token = token.trim();
    if token.is_empty() { Ok(None) } else { Ok(Some(token)) }
}

/// Where WebSocket clients in browsers carry their token, since they can set no other header:
/// `base64url.bearer.authorization.k8s.io.TOKEN` among the subprotocols.
pub const WEBSOCKET_BEARER: &str = "base64url.bearer.authorization.k8s.io.";

/// The token among a WebSocket's offered subprotocols.
pub fn websocket_bearer(headers: &HeaderMap) -> Option<String> {
    use base64::Engine as _;
    let offered = headers.get("sec-websocket-protocol")?.to_str().ok()?;
    let encoded = offered.split(',').find_map(|p| p.trim().strip_prefix(WEBSOCKET_BEARER))?;
    let token = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(encoded).ok()?;
    String::from_utf8(token).ok().filter(|t| !t.is_empty())
}

/// The user a request asks to be taken for; `None` if it does not ask.
///
/// # Errors
/// 400 if it names groups, a uid or extra facts, but no user, or if a header is not UTF-8: whoever asks to be
/// somebody else must never act as itself instead.
pub fn impersonated(headers: &HeaderMap) -> Result<Option<User>, Refusal> {
    let text = |v: &http::HeaderValue| {
        let text = std::str::from_utf8(v.as_bytes()).map(str::to_owned);
        text.map_err(|_| status::bad_request("an Impersonate header is not UTF-8"))
    };
    let name = headers.get("impersonate-user").map(text).transpose()?.unwrap_or_default();
    let uid = headers.get("impersonate-uid").map(text).transpose()?.unwrap_or_default();
    let mut groups: Vec<String> = headers.get_all("impersonate-group").iter().map(text).collect::<Result<_, _>>()?;
    let mut extra: Vec<(String, Vec<String>)> = Vec::new();
    for (key, value) in headers {
        let Some(key) = key.as_str().strip_prefix("impersonate-extra-") else { continue };
        let key = crate::route::query(&format!("{key}=")).into_iter().next().map_or_else(|| key.to_owned(), |(k, _)| k);
        match extra.iter_mut().find(|(k, _)| *k == key) {
            Some((_, values)) => values.push(text(value)?),
            None => extra.push((key, vec![text(value)?])),
        }
    }
    if name.is_empty() {
        if groups.is_empty() && uid.is_empty() && extra.is_empty() {
            return Ok(None);
        }
        return Err(status::bad_request(format!(
            "requested {} without impersonating a user name",
            go_user(&uid, &groups, &extra)
        )));
    }
    if groups.is_empty()
        && let Some((namespace, _)) = name.strip_prefix("system:serviceaccount:").and_then(|r| r.split_once(':'))
    {
        groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
    }
    if name == ANONYMOUS && groups.is_empty() {
        groups.push(UNAUTHENTICATED.into());
    }
    Ok(Some(known(User { name, uid, groups, extra })))
}

/// `%#v` of Go's `user.DefaultInfo`, which the message quotes.
fn go_user(uid: &str, groups: &[String], extra: &[(String, Vec<String>)]) -> String {
    let strings = |list: &[String]| {
        if list.is_empty() {
            return "[]string(nil)".to_owned();
        }
        format!("[]string{{{}}}", list.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(", "))
    };
    let extra = if extra.is_empty() {
        "map[string][]string(nil)".to_owned()
    } else {
        let pairs: Vec<String> = extra.iter().map(|(k, v)| format!("{k:?}:{}", strings(v))).collect();
        format!("map[string][]string{{{}}}", pairs.join(", "))
    };
    format!("&user.DefaultInfo{{Name:\"\", UID:{uid:?}, Groups:{}, Extra:{extra}}}", strings(groups))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut h = HeaderMap::new();
        for (k, v) in pairs {
            h.append(http::HeaderName::from_bytes(k.as_bytes()).unwrap(), v.parse().unwrap());
        }
        h
    }

    #[test]
    fn a_workloads_certificate_is_no_users_whatever_its_subject_says() {
        use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
        let user = |uri: Option<&str>| {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::OrganizationName, "system:masters");
            params.distinguished_name.push(DnType::CommonName, "mallory");
            params.subject_alt_names.extend(uri.map(|uri| SanType::URI(uri.try_into().unwrap())));
            certificate_user(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der())
        };
        assert_eq!(user(None).unwrap().name, "mallory");
        assert!(user(Some("spiffe://a.mesh/ns/web/sa/web")).is_none());
    }

    #[test]
    fn a_bearer_token_is_found_whatever_the_case_of_its_scheme() {
        assert_eq!(bearer(&headers(&[("authorization", "bEaReR  abc")])).unwrap(), Some("abc"));
        assert_eq!(bearer(&headers(&[("authorization", "Basic abc")])).unwrap(), None);
        assert_eq!(bearer(&headers(&[("authorization", "Bearer")])).unwrap(), None);
        assert_eq!(bearer(&headers(&[])).unwrap(), None);
    }

    #[test]
    fn a_browser_may_hide_its_token_among_the_subprotocols() {
        let h =
            headers(&[("sec-websocket-protocol", "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.YS5iLmM")]);
        assert_eq!(websocket_bearer(&h).as_deref(), Some("a.b.c"));
    }

    #[test]
    fn an_impersonated_service_account_has_its_groups() {
        let u = impersonated(&headers(&[("Impersonate-User", "system:serviceaccount:ns:n")])).unwrap().unwrap();
        assert_eq!(u.groups, ["system:serviceaccounts", "system:serviceaccounts:ns", AUTHENTICATED]);
        let u = impersonated(&headers(&[
            ("Impersonate-User", "a"),
            ("Impersonate-Group", "g"),
            ("Impersonate-Extra-Scopes", "x"),
            ("Impersonate-Extra-a%2fb", "y"),
        ]))
        .unwrap()
        .unwrap();
        assert_eq!(u.groups, ["g", AUTHENTICATED]);
        assert_eq!(
            u.extra,
            [("scopes".to_string(), vec!["x".to_string()]), ("a/b".to_string(), vec!["y".to_string()])]
        );
        assert_eq!(impersonated(&headers(&[])).unwrap(), None);
    }

    #[test]
    fn whoever_asks_to_be_somebody_is_never_taken_for_itself() {
        let mut h = HeaderMap::new();
        h.insert("impersonate-user", http::HeaderValue::from_bytes("j\u{fc}rgen".as_bytes()).unwrap());
        assert_eq!(impersonated(&h).unwrap().unwrap().name, "j\u{fc}rgen");
        h.insert("impersonate-user", http::HeaderValue::from_bytes(b"j\xfcrgen").unwrap());
        assert_eq!(impersonated(&h).unwrap_err().code, 400);
    }

    #[test]
    fn groups_without_a_user_are_refused() {
        let e = impersonated(&headers(&[("Impersonate-Group", "x")])).unwrap_err();
        assert_eq!(
            e.message,
            "requested &user.DefaultInfo{Name:\"\", UID:\"\", Groups:[]string{\"x\"}, Extra:map[string][]string(nil)} without impersonating a user name"
        );
        assert_eq!(e.code, 400);
    }
}
