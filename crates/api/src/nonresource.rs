//! Paths that are no resource: version, health, metrics, discovery, OpenAPI, token keys.

use crate::discovery;
use crate::handle::{Gateway, Head};
use crate::negotiate;
use crate::peer::Peer;
use crate::port::{Backend, Check, Document, Probe, Refusal};
use crate::respond::{self, Body};
use crate::route::Route;
use crate::status;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderValue, Method, Response};
use std::fmt::Write as _;
use std::sync::Arc;

/// What a client without credentials may ask.
pub(crate) fn public(route: &Route) -> bool {
    match route {
        Route::Other(p) => {
            p == "/version"
                || ["/healthz", "/livez", "/readyz"]
                    .iter()
                    .any(|h| p.strip_prefix(h).is_some_and(|r| r.is_empty() || r.starts_with('/')))
        }
        _ => false,
    }
}

/// Answers a path that is no resource.
pub(crate) async fn answer<B: Backend>(
    gateway: &Gateway<B>,
    head: &Head,
    peer: &Arc<Peer>,
) -> Result<Response<Body>, Refusal> {
    let backend = &*gateway.backend;
    if !public(&head.route) {
        let verb = head.method.as_str().to_ascii_lowercase();
        backend.authorize_path(&head.user, &verb, &head.path).await?;
    }
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return Ok(match head.route {
            Route::Malformed | Route::Other(_) => respond::text(405, "method not allowed\n"),
            _ => respond::refusal(&status::method_not_allowed(), head.accept().as_deref()),
        });
    }
    let catalogue = backend.catalogue();
    let not_found = || respond::text(404, "404 page not found\n");
    let aggregated = || head.accept().is_some_and(|a| discovery::wants_aggregated(&a));
    Ok(match &head.route {
        Route::Core if aggregated() => aggregated_document(head, &catalogue.documents().core_aggregated),
        Route::Groups if aggregated() => aggregated_document(head, &catalogue.documents().aggregated),
        Route::Core => {
            let address = peer.local.map(|a| a.to_string()).unwrap_or_default();
            plain_document(head, &discovery::document(discovery::core_versions(&catalogue, &address)))?
        }
        Route::Groups => plain_document(head, &catalogue.documents().groups)?,
        Route::Group(group) => match catalogue.documents().group.get(group) {
            Some(d) => plain_document(head, d)?,
            None => not_found(),
        },
        Route::GroupVersion(group, version) => {
            match catalogue.documents().version.get(&(group.clone(), version.clone())) {
                Some(d) => plain_document(head, d)?,
                None => not_found(),
            }
        }
        Route::Other(path) => other(backend, head, path)?,
        Route::Malformed | Route::Resource(_) => not_found(),
    })
}

fn other<B: Backend>(backend: &B, head: &Head, path: &str) -> Result<Response<Body>, Refusal> {
    let not_found = || respond::text(404, "404 page not found\n");
    let catalogue = backend.catalogue();
    Ok(match path {
        "/" => respond::json(200, index(&catalogue)),
        "/version" => {
            // Indented and without a newline at its end, as it has always been.
            respond::json(200, serde_json::to_vec_pretty(&backend.version()).unwrap_or_default().into())
        }
        "/metrics" => respond::bytes(200, "text/plain; version=0.0.4; charset=utf-8", backend.metrics().into()),
        "/openapi/v3" => respond::json(200, openapi_index(backend)),
        "/openapi/v2" => match backend.openapi_v2() {
            Some(d) => cached(head, &d, "application/json"),
            None => not_found(),
        },
        "/openid/v1/jwks" => {
            const TYPE: &str = "application/jwk-set+json";
            if negotiate::choose(head.accept().as_deref(), &[TYPE]).is_none() {
                return Err(status::not_acceptable(&[TYPE]));
            }
            public_for_an_hour(respond::bytes(200, TYPE, backend.token_keys().jwks))
        }
        "/.well-known/openid-configuration" => {
            if negotiate::choose(head.accept().as_deref(), &["application/json"]).is_none() {
                return Err(status::not_acceptable(&["application/json"]));
            }
            let keys = backend.token_keys();
            let body = serde_json::json!({
                "issuer": keys.issuer,
                "jwks_uri": keys.jwks_uri,
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
            });
            public_for_an_hour(respond::json(200, body.to_string().into()))
        }
        _ => {
            if let Some(document) = path.strip_prefix("/openapi/v3/") {
                return Ok(openapi(backend, head, document).unwrap_or_else(not_found));
            }
            let (first, rest) = match path.trim_start_matches('/').split_once('/') {
                Some((first, rest)) => (first, Some(rest)),
                None => (path.trim_start_matches('/'), None),
            };
            let probe = match first {
                "healthz" => Probe::Health,
                "livez" => Probe::Live,
                "readyz" => Probe::Ready,
                _ => return Ok(not_found()),
            };
            health(head, first, rest, backend.checks(probe))
        }
    })
}

/// `/`: every path there is.
fn index(catalogue: &crate::catalogue::Catalogue) -> Bytes {
    let mut paths: Vec<String> = [
        "/.well-known/openid-configuration",
        "/api",
        "/apis",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ]
    .map(String::from)
    .to_vec();
    for g in catalogue.groups() {
        let base = if g.name.is_empty() { "/api".to_owned() } else { format!("/apis/{}", g.name) };
        paths.extend(g.versions.iter().map(|v| format!("{base}/{}", v.name)));
        if !g.name.is_empty() {
            paths.push(base);
        }
    }
    paths.sort();
    serde_json::to_vec_pretty(&serde_json::json!({ "paths": paths })).unwrap_or_default().into()
}

fn plain_document(head: &Head, document: &Document) -> Result<Response<Body>, Refusal> {
    let offered = [negotiate::Format::Json, negotiate::Format::Yaml];
    let types = offered.map(negotiate::Format::media_type);
    let chosen = negotiate::choose(head.accept().as_deref(), &types).and_then(|i| offered.get(i));
    Ok(match chosen {
        Some(negotiate::Format::Yaml) => {
            let tree: objects::Tree = serde_json::from_slice(&document.json).map_err(status::internal)?;
            respond::tree(200, &tree, negotiate::Format::Yaml, false)?
        }
        Some(_) if negotiate::pretty(head.param("pretty"), head.user_agent()) => {
            let tree: objects::Tree = serde_json::from_slice(&document.json).map_err(status::internal)?;
            respond::tree(200, &tree, negotiate::Format::Json, true)?
        }
        Some(_) => respond::json(200, document.json.clone()),
        None => return Err(status::not_acceptable(&negotiate::FORMATS)),
    })
}

fn aggregated_document(head: &Head, document: &Document) -> Response<Body> {
    let mut r = cached(head, document, discovery::AGGREGATED);
    r.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    r
}

/// A document with an ETag; 304 for whoever has it already.
fn cached(head: &Head, document: &Document, media_type: &'static str) -> Response<Body> {
    let etag = format!("\"{}\"", document.hash);
    let known = head
        .headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .any(|v| v.split(',').any(|t| t.trim() == etag || t.trim() == "*"));
    let mut r = if known { respond::empty(304) } else { respond::bytes(200, media_type, document.json.clone()) };
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        r.headers_mut().insert(ETAG, etag);
    }
    r.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    r
}

fn public_for_an_hour(mut r: Response<Body>) -> Response<Body> {
    r.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    r
}

fn openapi_index<B: Backend>(backend: &B) -> Bytes {
    let paths: serde_json::Map<String, objects::Tree> = backend
        .openapi_index()
        .into_iter()
        .map(|(path, hash)| {
            let url = format!("/openapi/v3/{path}?hash={hash}");
            (path, serde_json::json!({ "serverRelativeURL": url }))
        })
        .collect();
    serde_json::json!({ "paths": paths }).to_string().into()
}

/// A group-version's document. Asked for by its hash it never changes; by a hash that is not its own
/// (any more), the client is sent to the right one.
fn openapi<B: Backend>(backend: &B, head: &Head, path: &str) -> Option<Response<Body>> {
    let document = backend.openapi(path)?;
    match head.param("hash") {
        Some(hash) if hash != document.hash => {
            let mut r = respond::empty(301);
            let target = format!("/openapi/v3/{path}?hash={}", document.hash);
            r.headers_mut().insert(http::header::LOCATION, HeaderValue::from_str(&target).ok()?);
            Some(r)
        }
        asked => {
            let mut r = cached(head, &document, "application/json");
            if asked.is_some() {
                r.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
            }
            Some(r)
        }
    }
}

/// A health path: all checks, or one of them, with `?verbose` and `?exclude=`.
fn health(head: &Head, name: &str, one: Option<&str>, checks: Vec<Check>) -> Response<Body> {
    if let Some(one) = one {
        return match checks.iter().find(|c| c.name == one) {
            Some(c) if c.ok => respond::text(200, "ok"),
            Some(_) => respond::text(500, "internal server error: reason withheld\n"),
            None => respond::text(404, "404 page not found\n"),
        };
    }
    let mut excluded: Vec<&str> = head.query.iter().filter(|(k, _)| k == "exclude").map(|(_, v)| v.as_str()).collect();
    let mut report = String::new();
    let mut failed = false;
    for check in &checks {
        // Writing into a String cannot fail.
        let _ = if excluded.contains(&check.name) {
            excluded.retain(|e| *e != check.name);
            writeln!(report, "[+]{} excluded: ok", check.name)
        } else if check.ok {
            writeln!(report, "[+]{} ok", check.name)
        } else {
            failed = true;
            writeln!(report, "[-]{} failed: reason withheld", check.name)
        };
    }
    if !excluded.is_empty() {
        let names: Vec<String> = excluded.iter().map(|e| format!("{e:?}")).collect();
        let _ = writeln!(report, "warn: some health checks cannot be excluded: no matches for {}", names.join(", "));
    }
    if failed {
        return respond::text(500, &format!("{report}{name} check failed\n"));
    }
    if head.query.iter().any(|(k, _)| k == "verbose") {
        return respond::text(200, &format!("{report}{name} check passed\n"));
    }
    respond::text(200, "ok")
}
