//! A registry of container images, over plain HTTP, at the test's end of a machine's cable. It speaks as much
//! of the OCI distribution specification 1.1 as pulling needs, and misbehaves when told.

use crate::images::{self, Image, MANIFEST};
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// How a repository answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Manner {
    /// As it should.
    Plain,
    /// Only to who shows this user name and password.
    Private(String, String),
    /// After this time, each request.
    Slow(Duration),
    /// With an error of the server's.
    Broken,
}

/// A running registry. It ends when the handle goes.
#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    shelf: Arc<Mutex<Shelf>>,
    _runtime: Runtime,
}

#[derive(Debug, Default)]
struct Shelf {
    /// By repository and tag, and by repository and digest.
    manifests: BTreeMap<(String, String), Bytes>,
    blobs: BTreeMap<String, Bytes>,
    manners: BTreeMap<String, Manner>,
    /// How many manifests were asked for, by repository.
    asked: BTreeMap<String, usize>,
}

impl Registry {
    /// Serves at that address, on a port of its own.
    ///
    /// # Errors
    /// If there is no such address here.
    pub fn serve(at: Ipv4Addr) -> Result<Registry> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind((at, 0))).with_context(|| format!("cannot serve at {at}"))?;
        let address = listener.local_addr()?;
        let shelf = Arc::new(Mutex::new(Shelf::default()));
        let shared = shelf.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shelf = shared.clone();
                let service = service_fn(move |request| {
                    let shelf = shelf.clone();
                    async move { Ok::<_, Infallible>(answer(&shelf, &request).await) }
                });
                tokio::spawn(async move {
                    // A client that goes away in the middle is no concern of a registry.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(Registry { address, shelf, _runtime: runtime })
    }

    /// Where it is: `http://ADDRESS:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Puts an image there.
    pub fn push(&self, image: &Image) {
        let mut shelf = lock(&self.shelf);
        for reference in [image.tag.clone(), image.digest()] {
            let key = (image.repository.clone(), reference);
            shelf.manifests.insert(key, Bytes::from(image.manifest.clone()));
        }
        for blob in &image.blobs {
            shelf.blobs.insert(images::digest(blob), Bytes::from(blob.clone()));
        }
    }

    /// From now on a repository answers so.
    pub fn let_answer(&self, repository: &str, manner: Manner) {
        lock(&self.shelf).manners.insert(repository.to_owned(), manner);
    }

    /// How often a manifest of that repository was asked for.
    pub fn asked(&self, repository: &str) -> usize {
        lock(&self.shelf).asked.get(repository).copied().unwrap_or(0)
    }
}

fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(shelf: &Mutex<Shelf>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if path == "/v2/" || path == "/v2" {
        return full(StatusCode::OK, "application/json", Bytes::from_static(b"{}"));
    }
    let parts: Vec<&str> = path.trim_start_matches("/v2/").rsplitn(3, '/').collect();
    let [reference, kind, repository] = parts[..] else {
        return refused(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "this is no repository's path");
    };
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return refused(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "images are put here by the test only");
    }
    let manner = lock(shelf).manners.get(repository).cloned().unwrap_or(Manner::Plain);
    match manner {
        Manner::Plain => {}
        Manner::Slow(time) => tokio::time::sleep(time).await,
        Manner::Broken => return refused(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "the registry is broken"),
        Manner::Private(user, password) => {
            let wanted = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
            if request.headers().get(AUTHORIZATION).is_none_or(|shown| shown.as_bytes() != wanted.as_bytes()) {
                let mut answer = refused(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required");
                let scheme = http::HeaderValue::from_static("Basic realm=\"test\"");
                answer.headers_mut().insert(WWW_AUTHENTICATE, scheme);
                return answer;
            }
        }
    }
    let mut shelf = lock(shelf);
    match kind {
        "manifests" => {
            *shelf.asked.entry(repository.to_owned()).or_default() += 1;
            match shelf.manifests.get(&(repository.to_owned(), reference.to_owned())) {
                Some(bytes) => found(MANIFEST, bytes),
                None => refused(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "manifest unknown"),
            }
        }
        "blobs" => match shelf.blobs.get(reference) {
            Some(bytes) => found("application/octet-stream", bytes),
            None => refused(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "blob unknown to registry"),
        },
        _ => refused(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "this is no repository's path"),
    }
}

fn found(kind: &'static str, bytes: &Bytes) -> Response<Full<Bytes>> {
    let mut answer = full(StatusCode::OK, kind, bytes.clone());
    if let Ok(digest) = images::digest(bytes).parse() {
        answer.headers_mut().insert("docker-content-digest", digest);
    }
    answer
}

fn refused(status: StatusCode, code: &str, message: &str) -> Response<Full<Bytes>> {
    let body = json!({"errors": [{"code": code, "message": message}]});
    full(status, "application/json", Bytes::from(body.to_string()))
}

/// hyper itself leaves the body out when it was asked for the head.
fn full(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    answer
}
