//! From a URL to what it names: Kubernetes' rules of paths, as `RequestInfoFactory` has them.

/// What a path names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Route {
    /// `/api`.
    Core,
    /// `/apis`.
    Groups,
    /// `/apis/GROUP`.
    Group(String),
    /// `/api/v1` (an empty group) or `/apis/GROUP/VERSION`.
    GroupVersion(String, String),
    /// Anything under a group-version.
    Resource(Path),
    /// Everything else, without a slash at its end.
    Other(String),
    /// A path no server of Kubernetes has: `//api`.
    Malformed,
}

/// A path under a group-version.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Path {
    /// API group; empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// The deprecated form `/api/v1/watch/...`.
    pub watch: bool,
    /// In which namespace, if the path says one.
    pub namespace: Option<String>,
    /// Resource, in the plural.
    pub resource: String,
    /// Name of one object.
    pub name: Option<String>,
    /// Subresource; empty for none.
    pub subresource: String,
    /// What follows the subresource (of `proxy`, a path; of others, an error).
    pub rest: Vec<String>,
}

/// Reads a path as it stands in the request line. Escapes are decoded part by part, so a name cannot
/// smuggle in a slash that counts.
pub fn route(path: &str) -> Route {
    let Some(inner) = path.strip_prefix('/') else { return Route::Malformed };
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    let mut parts = Vec::new();
    for raw in inner.split('/') {
        match unescape(raw, false) {
            Some(part) => parts.push(part),
            None => return Route::Malformed,
        }
    }
    // An empty part inside (`//api`, `/api//v1`) is nothing a server has; a proxied path may have them.
    let proxied = parts.iter().position(|p| p == "proxy").unwrap_or(parts.len());
    if parts.len() > 1 && parts.iter().take(proxied).any(String::is_empty) {
        return Route::Malformed;
    }
    let words: Vec<&str> = parts.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["api"] => Route::Core,
        ["apis"] => Route::Groups,
        ["apis", group] => Route::Group((*group).into()),
        ["api", version] => Route::GroupVersion(String::new(), (*version).into()),
        ["apis", group, version] => Route::GroupVersion((*group).into(), (*version).into()),
        ["api", version, rest @ ..] => Route::Resource(resource("", version, rest)),
        ["apis", group, version, rest @ ..] => Route::Resource(resource(group, version, rest)),
        _ => Route::Other(format!("/{}", words.join("/"))),
    }
}

fn resource(group: &str, version: &str, mut parts: &[&str]) -> Path {
    let mut path = Path { group: group.into(), version: version.into(), ..Path::default() };
    if let ["watch", rest @ ..] = parts
        && !rest.is_empty()
    {
        path.watch = true;
        parts = rest;
    }
    // `/namespaces/NAME/RESOURCE`, unless what follows the name is a subresource of the namespace itself.
    match parts {
        ["namespaces", name, next, ..] if !matches!(*next, "status" | "finalize") => {
            path.namespace = Some((*name).into());
            parts = parts.get(2..).unwrap_or_default();
        }
        ["namespaces", name, ..] => path.namespace = Some((*name).into()),
        _ => {}
    }
    if let Some(resource) = parts.first() {
        path.resource = (*resource).into();
    }
    path.name = parts.get(1).map(|s| (*s).into());
    path.subresource = parts.get(2).map(|s| (*s).into()).unwrap_or_default();
    path.rest = parts.get(3..).unwrap_or_default().iter().map(|s| (*s).into()).collect();
    path
}

/// The parameters of a query, in their order, decoded. Pairs that do not decode are left out, as Go's
/// `url.ParseQuery` leaves them out.
pub fn query(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.contains(';'))
        .filter_map(|pair| {
            let (k, v) = pair.split_once('=').unwrap_or((pair, ""));
            Some((unescape(k, true)?, unescape(v, true)?))
        })
        .collect()
}

/// Decodes `%41` (and `+` in queries); `None` if it is malformed or not UTF-8.
fn unescape(s: &str, plus_is_space: bool) -> Option<String> {
    let mut out = Vec::with_capacity(s.len());
    let mut bytes = s.bytes();
    while let Some(b) = bytes.next() {
        match b {
            b'%' => {
                let hi = char::from(bytes.next()?).to_digit(16)?;
                let lo = char::from(bytes.next()?).to_digit(16)?;
                out.push(u8::try_from(hi * 16 + lo).ok()?);
            }
            b'+' if plus_is_space => out.push(b' '),
            b => out.push(b),
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(p: &str) -> Path {
        match route(p) {
            Route::Resource(p) => p,
            other => panic!("{p} is {other:?}"),
        }
    }

    #[test]
    fn a_path_names_group_version_namespace_resource_name_and_subresource() {
        let table = [
            ("/api/v1/pods", "", None, "pods", None, ""),
            ("/api/v1/namespaces", "", None, "namespaces", None, ""),
            ("/api/v1/namespaces/a", "", Some("a"), "namespaces", Some("a"), ""),
            ("/api/v1/namespaces/a/status", "", Some("a"), "namespaces", Some("a"), "status"),
            ("/api/v1/namespaces/a/finalize", "", Some("a"), "namespaces", Some("a"), "finalize"),
            ("/api/v1/namespaces/a/pods", "", Some("a"), "pods", None, ""),
            ("/api/v1/namespaces/a/pods/p/", "", Some("a"), "pods", Some("p"), ""),
            ("/api/v1/namespaces/a/pods/p/log", "", Some("a"), "pods", Some("p"), "log"),
            ("/apis/apps/v1/deployments", "apps", None, "deployments", None, ""),
            (
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                "rbac.authorization.k8s.io",
                None,
                "clusterroles",
                Some("system:node"),
                "",
            ),
            ("/api/v1/nodes/n/proxy/a//b", "", None, "nodes", Some("n"), "proxy"),
        ];
        for (p, group, namespace, resource, name, sub) in table {
            let got = path(p);
            assert_eq!(
                (
                    got.group.as_str(),
                    got.namespace.as_deref(),
                    got.resource.as_str(),
                    got.name.as_deref(),
                    got.subresource.as_str(),
                    got.watch
                ),
                (group, namespace, resource, name, sub, false),
                "{p}"
            );
        }
        assert_eq!(path("/api/v1/nodes/n/proxy/a//b").rest, ["a", "", "b"]);
    }

    #[test]
    fn the_old_watch_prefix_is_understood() {
        let p = path("/api/v1/watch/namespaces/a/pods/p");
        assert!(
            p.watch && p.namespace.as_deref() == Some("a") && p.resource == "pods" && p.name.as_deref() == Some("p")
        );
        assert!(path("/apis/apps/v1/watch/deployments").watch);
        // Nothing follows, so it is a resource of that name.
        assert_eq!(path("/api/v1/watch").resource, "watch");
    }

    #[test]
    fn what_is_no_resource_is_told_apart() {
        for (p, want) in [
            ("/api", Route::Core),
            ("/api/", Route::Core),
            ("/apis", Route::Groups),
            ("/apis/apps/", Route::Group("apps".into())),
            ("/apis/apps/v1", Route::GroupVersion("apps".into(), "v1".into())),
            ("/api/v1/", Route::GroupVersion("".into(), "v1".into())),
            ("/", Route::Other("/".into())),
            ("/healthz/ping", Route::Other("/healthz/ping".into())),
            ("//api/v1", Route::Malformed),
            ("/api//v1", Route::Malformed),
            ("/api/v1/pods/%zz", Route::Malformed),
            ("*", Route::Malformed),
        ] {
            assert_eq!(route(p), want, "{p}");
        }
    }

    #[test]
    fn an_escaped_slash_does_not_make_a_part() {
        assert_eq!(path("/api/v1/namespaces/a%2Fpods%2Fb/pods").namespace.as_deref(), Some("a/pods/b"));
    }

    #[test]
    fn a_query_is_decoded_in_order() {
        assert_eq!(
            query("labelSelector=a%3Db%2Cc&watch&limit=5&x=a+b&bad=%zz"),
            [("labelSelector", "a=b,c"), ("watch", ""), ("limit", "5"), ("x", "a b")]
                .map(|(k, v)| (k.to_string(), v.to_string()))
        );
    }
}
