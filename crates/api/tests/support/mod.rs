//! A gateway on the loopback over a small map, and a client: what the tests of HTTP semantics stand on.

#![allow(clippy::unwrap_used, unreachable_pub, dead_code)]

use api::catalogue::Catalogue;
use api::port::*;
use api::server::{ALPN, Limits, serve};
use base::Revision;
use bytes::Bytes;
use http::{Request as HttpRequest, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use objects::Tree;
use objects::kinds::KINDS;
use objects::record::{encode, set_revision};
use objects::request::{Body, Request, User, Verb};
use objects::status::{Details, Status};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};

/// Objects by storage group-kind, namespace and name; watchers of all of them.
#[derive(Default)]
struct State {
    objects: BTreeMap<(String, String, String), Bytes>,
    revision: u64,
    watchers: Vec<mpsc::Sender<Event>>,
}

/// Opens streams.
pub type Open = Box<dyn Fn(Connect) -> Result<Connected, Refusal> + Send>;

/// A test double at the port: what HTTP needs behind it, and nothing of Kubernetes' semantics.
pub struct Map {
    state: Mutex<State>,
    catalogue: Arc<Catalogue>,
    pub seen: Mutex<Vec<Request>>,
    pub unhealthy: Mutex<Option<&'static str>>,
    /// While set, requests for an object named `slow` wait for it.
    pub gate: Arc<Notify>,
    /// How many have waited for it.
    pub waiting: AtomicUsize,
    pub streams: Mutex<Option<Open>>,
    /// What a token is answered with, instead of its user.
    pub doubt: Mutex<Option<Status>>,
    /// Users whose streams are to end.
    pub revoked: Mutex<Vec<String>>,
}

impl Map {
    pub fn new() -> Map {
        Map {
            state: Mutex::default(),
            catalogue: Arc::new(Catalogue::new(KINDS)),
            seen: Mutex::default(),
            unhealthy: Mutex::default(),
            gate: Arc::default(),
            waiting: AtomicUsize::default(),
            streams: Mutex::default(),
            doubt: Mutex::default(),
            revoked: Mutex::default(),
        }
    }

    pub fn emit(&self, event: &Event) {
        self.state.lock().unwrap().watchers.retain(|w| w.try_send(event.clone()).is_ok());
    }

    pub fn watchers(&self) -> usize {
        self.state.lock().unwrap().watchers.len()
    }

    fn act(&self, r: Request) -> Result<Reply, Refusal> {
        self.seen.lock().unwrap().push(r.clone());
        if r.user.name == "nobody" {
            let why = format!(
                "User \"nobody\" cannot {} resource \"{}\" in API group \"\" in the namespace \"{}\"",
                r.verb.as_str(),
                r.kind.plural,
                r.namespace.as_deref().unwrap_or_default()
            );
            return Err(Box::new(Status::forbidden(r.kind, "", &why)));
        }
        let mut state = self.state.lock().unwrap();
        let namespace = r.namespace.as_deref().unwrap_or_default().to_owned();
        let key = |name: &str| (r.kind.storage.to_owned(), namespace.clone(), name.to_owned());
        let one = |code, json: Bytes, warnings| Ok(Reply::One(Answer { code, warnings, payload: Payload::Json(json) }));
        match (r.verb, r.body) {
            (Verb::Get, _) => {
                let name = r.name.unwrap();
                let found = state.objects.get(&key(&name)).cloned();
                one(200, found.ok_or_else(|| Box::new(Status::not_found(r.kind, &name)))?, vec![])
            }
            (Verb::List, _) => {
                let items: Vec<Bytes> = state
                    .objects
                    .iter()
                    .filter(|((s, n, _), _)| s == r.kind.storage && (r.namespace.is_none() || *n == namespace))
                    .filter(|_| r.options.label_selector.is_empty())
                    .filter(|((_, _, name), _)| {
                        r.options.field_selector.strip_prefix("metadata.name=").is_none_or(|f| f == name)
                    })
                    .map(|(_, json)| json.clone())
                    .collect();
                Ok(Reply::List(List {
                    revision: Revision::from_u64(state.revision).unwrap(),
                    continue_token: String::new(),
                    remaining: None,
                    warnings: vec![],
                    items: Box::new(items.into_iter()),
                }))
            }
            (Verb::Create | Verb::Update, Body::Object { mut tree, strict }) => {
                state.revision += 1;
                tree["metadata"]["namespace"] = namespace.clone().into();
                set_revision(&mut tree, Revision::from_u64(state.revision));
                let name = tree["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                let json = encode(&tree);
                if r.verb == Verb::Create && state.objects.contains_key(&key(&name)) {
                    return Err(Box::new(Status::already_exists(r.kind, &name)));
                }
                if !r.options.dry_run {
                    state.objects.insert(key(&name), json.clone());
                    state.watchers.retain(|w| w.try_send(Event::Added(json.clone())).is_ok());
                }
                one(if r.verb == Verb::Create { 201 } else { 200 }, json, strict)
            }
            (Verb::Delete, _) => {
                let name = r.name.unwrap();
                let gone =
                    state.objects.remove(&key(&name)).ok_or_else(|| Box::new(Status::not_found(r.kind, &name)))?;
                state.watchers.retain(|w| w.try_send(Event::Deleted(gone.clone())).is_ok());
                let details = Details { name: name.to_string(), kind: r.kind.plural.into(), ..Details::default() };
                let payload = Payload::Status(Box::new(Status::success(200, Some(details))));
                Ok(Reply::One(Answer { code: 200, warnings: vec![], payload }))
            }
            (verb, body) => Err(Box::new(Status::bare(format!("the map has no {verb:?} with {body:?}")))),
        }
    }
}

impl Backend for Map {
    fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.clone()
    }

    fn decide(&self, request: Request) -> BoxFuture<'_, Result<Reply, Refusal>> {
        Box::pin(async move {
            if request.name.as_deref() == Some("slow") {
                let open = self.gate.notified();
                self.waiting.fetch_add(1, Ordering::SeqCst);
                open.await;
            }
            self.act(request)
        })
    }

    fn watch(&self, request: Request) -> BoxFuture<'_, Result<Watch, Refusal>> {
        Box::pin(async move {
            if request.options.resource_version == "1" {
                return Err(Box::new(Status::expired("too old resource version: 1 (5)")));
            }
            let initial: Option<Box<dyn Iterator<Item = Bytes> + Send>> =
                match self.act(Request { verb: Verb::List, ..request.clone() })? {
                    Reply::List(mut l) => {
                        let mut items = Vec::new();
                        while l.items.write_next(&mut |json| items.push(Bytes::copy_from_slice(json))) {}
                        Some(Box::new(items.into_iter()))
                    }
                    Reply::One(_) => None,
                };
            let (tx, events) = mpsc::channel(WATCH_BUFFER);
            let mut state = self.state.lock().unwrap();
            state.watchers.push(tx);
            let initial_end =
                request.options.send_initial_events.filter(|s| *s).and_then(|_| Revision::from_u64(state.revision));
            Ok(Watch { initial, initial_end, events, warnings: vec![] })
        })
    }

    fn connect(&self, _request: Request, ask: Connect) -> BoxFuture<'_, Result<Connected, Refusal>> {
        Box::pin(async move {
            let streams = self.streams.lock().unwrap();
            match streams.as_ref() {
                Some(open) => open(ask),
                None => Err(Box::new(Status::bare("no streams here"))),
            }
        })
    }

    fn still<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(async move {
            match self.revoked.lock().unwrap().contains(&request.user.name) {
                true => Err(Box::new(Status::forbidden(request.kind, "", "not any more"))),
                false => Ok(()),
            }
        })
    }

    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<User, Refusal>> {
        Box::pin(async move {
            if let Some(doubt) = self.doubt.lock().unwrap().clone() {
                return Err(Box::new(doubt));
            }
            let name = token.strip_prefix("good-").ok_or_else(|| Box::new(Status::unauthorized("")))?;
            if name == "slow" {
                self.waiting.fetch_add(1, Ordering::SeqCst);
                self.gate.notified().await;
            }
            Ok(User { name: name.into(), ..User::default() })
        })
    }

    fn impersonate<'a>(&'a self, _: &'a User, _: &'a User) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(async { Ok(()) })
    }

    fn authorize_path<'a>(
        &'a self,
        user: &'a User,
        verb: &'a str,
        path: &'a str,
    ) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(async move {
            if user.name != "nobody" {
                return Ok(());
            }
            Err(Box::new(Status::forbidden_resource(
                "",
                "",
                "",
                &format!("User \"nobody\" cannot {verb} path {path:?}"),
            )))
        })
    }

    fn version(&self) -> Version {
        Version {
            major: "1".into(),
            minor: "37".into(),
            emulation_major: "1".into(),
            emulation_minor: "37".into(),
            min_compatibility_major: "1".into(),
            min_compatibility_minor: "36".into(),
            git_version: "v1.37.0".into(),
            git_commit: "$Format:%H$".into(),
            git_tree_state: String::new(),
            build_date: "1970-01-01T00:00:00Z".into(),
            go_version: "go1.26.8".into(),
            compiler: "gc".into(),
            platform: "linux/amd64".into(),
        }
    }

    fn checks(&self, _: Probe) -> Vec<Check> {
        let sick = *self.unhealthy.lock().unwrap();
        ["ping", "log"].map(|name| Check { name, ok: sick != Some(name) }).to_vec()
    }

    fn metrics(&self) -> String {
        "# HELP up Whether it is.\nup 1\n".into()
    }

    fn openapi_index(&self) -> Vec<(String, String)> {
        vec![("api/v1".into(), "ABC".into())]
    }

    fn openapi(&self, path: &str) -> Option<Document> {
        (path == "api/v1")
            .then(|| Document { json: Bytes::from_static(b"{\"openapi\":\"3.0.0\"}"), hash: "ABC".into() })
    }

    fn token_keys(&self) -> TokenKeys {
        TokenKeys {
            issuer: "https://kubernetes.default.svc".into(),
            jwks_uri: "https://x/openid/v1/jwks".into(),
            jwks: Bytes::from_static(b"{\"keys\":[]}"),
        }
    }
}

/// A gateway that serves, and what a client needs to reach it.
pub struct Served {
    pub backend: Arc<Map>,
    pub address: SocketAddr,
    pub stop: watch::Sender<bool>,
    pub done: tokio::task::JoinHandle<()>,
    ca: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// Starts a gateway on the loopback.
pub async fn start(limits: Limits) -> Served {
    let backend = Arc::new(Map::new());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "test authority");
    let ca_key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap().der().clone();
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone()).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .unwrap();
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![cert.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .unwrap();
    tls.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let done = tokio::spawn(serve(listener, Arc::new(tls), backend.clone(), limits, stopped));
    Served { backend, address, stop, done, ca, issuer }
}

impl Served {
    /// A TLS connection, with a certificate of this common name and these organizations if given.
    pub async fn tls(
        &self,
        user: Option<(&str, &[&str])>,
        alpn: &[&[u8]],
    ) -> tokio_rustls::client::TlsStream<TcpStream> {
        self.tls_until(user, alpn, None).await
    }

    /// The same, with a certificate that ends then.
    pub async fn tls_until(
        &self,
        user: Option<(&str, &[&str])>,
        alpn: &[&[u8]],
        end: Option<std::time::SystemTime>,
    ) -> tokio_rustls::client::TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.clone()).unwrap();
        let builder =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots);
        let mut config = match user {
            None => builder.with_no_client_auth(),
            Some((name, groups)) => {
                let key = KeyPair::generate().unwrap();
                let mut params = CertificateParams::new(vec![]).unwrap();
                params.distinguished_name.push(DnType::CommonName, name);
                for g in groups {
                    params.distinguished_name.push(DnType::OrganizationName, *g);
                }
                if let Some(end) = end {
                    params.not_after = end.into();
                }
                let cert = params.signed_by(&key, &self.issuer).unwrap();
                builder
                    .with_client_auth_cert(
                        vec![cert.der().clone()],
                        PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
                    )
                    .unwrap()
            }
        };
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        let tcp = TcpStream::connect(self.address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), tcp).await.unwrap()
    }

    /// An HTTP/2 client, as the administrator.
    pub async fn client(&self) -> Client {
        self.client_as(Some(("admin", &["system:masters"]))).await
    }

    /// An HTTP/2 client.
    pub async fn client_as(&self, user: Option<(&str, &[&str])>) -> Client {
        Client::over(self.tls(user, &[b"h2"]).await).await
    }
}

impl Client {
    pub async fn over(tls: tokio_rustls::client::TlsStream<TcpStream>) -> Client {
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
        tokio::spawn(connection);
        Client(sender)
    }

    /// Resolves when the server has closed the connection.
    pub async fn closed(&mut self) {
        while self.0.ready().await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

/// A client.
#[derive(Clone)]
pub struct Client(hyper::client::conn::http2::SendRequest<Full<Bytes>>);

/// An answer, read whole.
#[derive(Debug)]
pub struct Read {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Read {
    pub fn json(&self) -> Tree {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.body))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|v| v.to_str().unwrap()).unwrap_or_default()
    }
}

impl Client {
    pub async fn open(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Response<Incoming> {
        let mut request = HttpRequest::builder().method(method).uri(format!("https://localhost{path}"));
        for (k, v) in headers {
            request = request.header(*k, *v);
        }
        self.0.ready().await.unwrap();
        self.0.send_request(request.body(Full::new(body.into())).unwrap()).await.unwrap()
    }

    pub async fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Read {
        let r = self.open(method, path, headers, body).await;
        let (parts, body) = r.into_parts();
        Read { status: parts.status.as_u16(), headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
    }

    pub async fn get(&mut self, path: &str) -> Read {
        self.send("GET", path, &[], Bytes::new()).await
    }

    /// Creates a ConfigMap.
    pub async fn create(&mut self, namespace: &str, name: &str, data: &str) -> Read {
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"x": data}});
        self.send("POST", &format!("/api/v1/namespaces/{namespace}/configmaps"), &[], body.to_string()).await
    }
}

/// A body's next piece as text; `None` at its end.
pub async fn piece(body: &mut Incoming) -> Option<String> {
    loop {
        let frame = body.frame().await?.unwrap();
        if let Ok(data) = frame.into_data()
            && !data.is_empty()
        {
            return Some(String::from_utf8(data.to_vec()).unwrap());
        }
    }
}

pub fn golden(file: &str) -> Tree {
    let path = format!("{}/tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
