//! Who may pull an image: what a pod's imagePullSecrets say about its registry.
//!
//! Source: Kubernetes' `pkg/credentialprovider/keyring.go` and docker's `config.json`.

use super::sources::decode;
use base::runtime::PullAuth;
use objects::Tree;
use objects::kinds::tree::Fields;

/// Docker's own registry, as `config.json` names it.
const DOCKER_HUB: &str = "index.docker.io";

/// The credentials in Secrets that fit an image, the most particular first.
pub(super) fn fitting(secrets: &[&Tree], image: &str) -> Vec<PullAuth> {
    let repository = repository(image);
    let mut all: Vec<(String, PullAuth)> = secrets.iter().flat_map(|s| entries(s)).collect();
    all.sort_by(|a, b| b.0.cmp(&a.0));
    let found: Vec<PullAuth> =
        all.iter().filter(|(place, _)| fits(place, &repository)).map(|(_, auth)| auth.clone()).collect();
    if !found.is_empty() || !(repository.starts_with("docker.io/") || repository.starts_with("index.docker.io/")) {
        return found;
    }
    all.into_iter().filter(|(place, _)| place == DOCKER_HUB).map(|(_, auth)| auth).collect()
}

/// What a Secret of type `kubernetes.io/dockerconfigjson` or `kubernetes.io/dockercfg` holds, by place.
fn entries(secret: &Tree) -> Vec<(String, PullAuth)> {
    let parse =
        |key: &str| -> Tree { serde_json::from_slice(&decode(secret.at("data").text(key))).unwrap_or(Tree::Null) };
    let auths = match secret.text("type") {
        "kubernetes.io/dockerconfigjson" => parse(".dockerconfigjson").at("auths").clone(),
        "kubernetes.io/dockercfg" => parse(".dockercfg"),
        _ => Tree::Null,
    };
    let auths = auths.as_object().into_iter().flatten();
    auths.map(|(server, entry)| (place(server), auth(entry))).collect()
}

fn auth(entry: &Tree) -> PullAuth {
    let joined = String::from_utf8(decode(entry.text("auth"))).unwrap_or_default();
    let (user, password) = joined.split_once(':').unwrap_or_default();
    let either = |field: &str, other: &str| match entry.text(field) {
        "" => other.to_owned(),
        own => own.to_owned(),
    };
    PullAuth {
        username: either("username", user),
        password: either("password", password),
        identity_token: entry.text("identitytoken").to_owned(),
        registry_token: entry.text("registrytoken").to_owned(),
    }
}

/// Host and path of a server as it is written.
fn place(server: &str) -> String {
    let bare = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).unwrap_or(server);
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    let path = path.strip_prefix("v1/").or_else(|| path.strip_prefix("v2/")).unwrap_or(path);
    let path = path.trim_end_matches('/');
    if path.is_empty() { host.to_owned() } else { format!("{host}/{path}") }
}

/// An image's registry and path, without tag and digest.
fn repository(image: &str) -> String {
    let name = image.split('@').next().unwrap_or(image);
    let (head, last) = match name.rsplit_once('/') {
        Some((head, last)) => (Some(head), last),
        None => (None, name),
    };
    let last = last.split(':').next().unwrap_or(last);
    let path = head.map_or_else(|| last.to_owned(), |h| format!("{h}/{last}"));
    match path.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => path,
        Some(_) => format!("docker.io/{path}"),
        None => format!("docker.io/library/{path}"),
    }
}

/// Whether a place, which may hold `*` in the parts of its host, covers a repository.
fn fits(place: &str, repository: &str) -> bool {
    let (host, path) = place.split_once('/').unwrap_or((place, ""));
    let (of_host, of_path) = repository.split_once('/').unwrap_or((repository, ""));
    let port =
        |h: &str| h.rsplit_once(':').map_or((h.to_owned(), String::new()), |(a, b)| (a.to_owned(), b.to_owned()));
    let ((host, p), (of_host, of_p)) = (port(host), port(of_host));
    let (parts, of_parts): (Vec<&str>, Vec<&str>) = (host.split('.').collect(), of_host.split('.').collect());
    p == of_p
        && parts.len() == of_parts.len()
        && parts.iter().zip(&of_parts).all(|(pattern, part)| glob(pattern, part))
        && of_path.starts_with(path)
}

fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.split_once(part) {
            Some((_, tail)) => rest = tail,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use serde_json::json;

    fn secret(auths: Tree) -> Tree {
        let text = json!({"auths": auths}).to_string();
        let data = base64::engine::general_purpose::STANDARD.encode(text);
        json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": data}})
    }

    #[test]
    fn credentials_fit_their_registry_and_the_most_particular_comes_first() {
        let s = secret(json!({
            "registry.example": {"username": "wide", "password": "1"},
            "https://registry.example/v2/team/": {"auth": "bmFycm93OjI="},
            "*.cloud.example:5000": {"username": "glob"},
            "https://index.docker.io/v1/": {"username": "hub"},
        }));
        for (image, want) in [
            ("registry.example/team/app:1", vec!["narrow", "wide"]),
            ("registry.example/other@sha256:0", vec!["wide"]),
            ("eu.cloud.example:5000/x", vec!["glob"]),
            ("eu.cloud.example/x", vec![]),
            ("busybox", vec!["hub"]),
            ("me/app:2", vec!["hub"]),
            ("quay.io/me/app", vec![]),
        ] {
            let got: Vec<String> = fitting(&[&s], image).into_iter().map(|a| a.username).collect();
            assert_eq!(got, want, "{image}");
        }
        assert_eq!(fitting(&[&s], "registry.example/team/app").first().map(|a| a.password.as_str()), Some("2"));
    }
}
