//! A request's way through the gateway: bounds, authentication, routing, the backend, and back.

use crate::authenticate;
use crate::grant::{self, Grant, Proof};
use crate::nonresource;
use crate::peer::Peer;
use crate::port::{Backend, Refusal};
use crate::resource;
use crate::respond::{self, Body};
use crate::route::{self, Route};
use crate::server::{Limits, told, within};
use crate::status;
use http::header::{ACCEPT, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use hyper::body::Incoming;
use objects::request::User;
use std::future::Future;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Everything requests share.
pub(crate) struct Gateway<B> {
    pub(crate) backend: Arc<B>,
    limits: Limits,
    requests: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    /// Says true once the server is to stop: watches and streams end.
    pub(crate) closed: watch::Receiver<bool>,
    random: &'static dyn rustls::crypto::SecureRandom,
}

/// A request, read as far as its head goes.
pub(crate) struct Head {
    pub(crate) method: Method,
    /// As sent, still escaped.
    pub(crate) path: String,
    pub(crate) route: Route,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) user: Arc<User>,
    pub(crate) proof: Proof,
}

impl Head {
    /// The first value of a query parameter.
    pub(crate) fn param(&self, key: &str) -> Option<&str> {
        self.query.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// A query parameter as Kubernetes reads booleans: there, and neither `false` nor `0`.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.param(key).is_some_and(|v| !v.eq_ignore_ascii_case("false") && v != "0")
    }

    /// All Accept headers as one.
    pub(crate) fn accept(&self) -> Option<String> {
        let all: Vec<&str> = self.headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
        if all.is_empty() { None } else { Some(all.join(",")) }
    }

    pub(crate) fn user_agent(&self) -> &str {
        self.headers.get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

/// Why a request with a good-looking token is neither served nor refused for good.
const UNPROVEN: &str = "whether the token is still good could not be told in time; nothing was done. Try again";

/// A place among the requests or streams at work, given back when dropped.
pub(crate) type Place = OwnedSemaphorePermit;

impl<B: Backend> Gateway<B> {
    pub(crate) fn new(backend: Arc<B>, limits: Limits, closed: watch::Receiver<bool>) -> Gateway<B> {
        Gateway {
            backend,
            limits,
            requests: Arc::new(Semaphore::new(limits.requests)),
            streams: Arc::new(Semaphore::new(limits.streams)),
            closed,
            random: rustls::crypto::aws_lc_rs::default_provider().secure_random,
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// 128 bits of chance.
    pub(crate) fn chance(&self) -> u128 {
        let mut bytes = [0; 16];
        // The operating system's source does not fail once it has been seeded; if it ever does, there is
        // no safe number to give instead.
        assert!(self.random.fill(&mut bytes).is_ok(), "the system has no randomness to give");
        u128::from_be_bytes(bytes)
    }

    /// A place for a request; the refusal if there is none.
    pub(crate) fn request_place(&self) -> Result<Place, Refusal> {
        self.requests.clone().try_acquire_owned().map_err(|_| status::too_many_requests())
    }

    /// A place for a watch or a stream; the refusal if there is none.
    pub(crate) fn stream_place(&self) -> Result<Place, Refusal> {
        self.streams.clone().try_acquire_owned().map_err(|_| status::too_many_requests())
    }

    /// Answers one request, whatever it is.
    pub(crate) async fn answer(&self, request: Request<Incoming>, peer: Arc<Peer>) -> Response<Body> {
        let audit = audit_id(request.headers()).unwrap_or_else(|| {
            HeaderValue::from_str(&base::Uid::from_chance(self.chance()).to_string())
                .unwrap_or(HeaderValue::from_static(""))
        });
        let accept = request.headers().get(ACCEPT).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let mut response = match self.dispatch(request, &peer).await {
            Ok(r) => r,
            Err(refusal) => respond::refusal(&refusal, accept.as_deref()),
        };
        let headers = response.headers_mut();
        headers.insert(HeaderName::from_static("audit-id"), audit);
        headers.entry(http::header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
        response
    }

    async fn dispatch(&self, request: Request<Incoming>, peer: &Arc<Peer>) -> Result<Response<Body>, Refusal> {
        let path = request.uri().path().to_owned();
        let route = route::route(&path);
        let (user, proof) = self.user(&request, peer).await?;
        let query = route::query(request.uri().query().unwrap_or_default());
        let head = Head {
            method: request.method().clone(),
            path,
            route,
            query,
            headers: request.headers().clone(),
            user,
            proof,
        };
        if head.user.name == authenticate::ANONYMOUS && !nonresource::public(&head.route) {
            return Err(status::unauthorized());
        }
        match &head.route {
            Route::Resource(path) => {
                let path = path.clone();
                resource::answer(self, head, path, request, peer).await
            }
            _ => {
                let _place = self.request_place()?;
                nonresource::answer(self, &head, peer).await
            }
        }
    }

    /// Resolves when something that stays open is to end: the server stops, or the user may not have it any
    /// more. Spread, so that the watches of a restarted server do not all ask at once.
    pub(crate) fn ended(&self, head: &Head, request: &objects::request::Request) -> impl Future<Output = ()> + use<B> {
        let spread = u32::try_from(self.chance() % 256).unwrap_or(0);
        let every = self.limits.renew + self.limits.renew * spread / 256;
        let grant = Grant::new(self.backend.clone(), head.proof.clone(), request.clone(), every);
        let mut closed = self.closed.clone();
        async move {
            tokio::select! {
                () = told(&mut closed) => {}
                () = grant.lapsed() => {}
            }
        }
    }

    /// Who asks, after impersonation, and how that is known.
    async fn user(&self, request: &Request<Incoming>, peer: &Peer) -> Result<(Arc<User>, Proof), Refusal> {
        let headers = request.headers();
        let hidden = authenticate::websocket_bearer(headers);
        let token = authenticate::bearer(headers)?.or(hidden.as_deref());
        let mut proof = match (&peer.user, token) {
            (Some(_), _) if grant::over(peer.until) => return Err(status::unauthorized()),
            (Some(user), _) => Proof { real: user.clone(), token: None, until: peer.until, acting_as: None },
            (None, Some(token)) => {
                // It takes requests to find out: they count as any others do.
                let _place = self.request_place()?;
                let asked = within(self.limits.request, self.backend.authenticate(token)).await;
                let user = asked.ok_or_else(|| status::unavailable(UNPROVEN))??;
                let real = Arc::new(authenticate::known(user));
                Proof { real, token: Some(token.into()), until: None, acting_as: None }
            }
            (None, None) => {
                Proof { real: Arc::new(authenticate::anonymous()), token: None, until: None, acting_as: None }
            }
        };
        let Some(wanted) = authenticate::impersonated(headers)? else { return Ok((proof.real.clone(), proof)) };
        // This, too, is a request, of whomever.
        let _place = self.request_place()?;
        let asked = within(self.limits.request, self.backend.impersonate(&proof.real, &wanted)).await;
        asked.ok_or_else(|| status::unavailable(UNPROVEN))??;
        let wanted = Arc::new(wanted);
        proof.acting_as = Some(wanted.clone());
        Ok((wanted, proof))
    }
}

/// The client's own Audit-ID, if it is short and plain enough to be logged.
fn audit_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get("audit-id")?;
    (id.len() <= 64 && id.to_str().is_ok() && !id.is_empty()).then(|| id.clone())
}
