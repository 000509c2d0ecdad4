//! Requests for resources: from method and path to a verb of a kind, to the backend, and back.

use crate::body;
use crate::catalogue::Catalogue;
use crate::connect;
use crate::handle::{Gateway, Head};
use crate::negotiate::{self, Accepted, Format, Shape};
use crate::options;
use crate::peer::Peer;
use crate::port::{Answer, Backend, List, Payload, Refusal, Reply};
use crate::render::{self, Renderer};
use crate::respond::{self, Body};
use crate::route::Path;
use crate::server::within;
use crate::status;
use crate::watch;
use base::{RequestId, Uid, Wall};
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use objects::kinds::{Kind, Subresource};
use objects::request::{self, PatchType, Verb};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a request is for.
pub(crate) struct Target {
    pub(crate) kind: &'static Kind,
    pub(crate) sub: Option<&'static Subresource>,
    pub(crate) verb: Verb,
}

/// Answers a request for a resource.
pub(crate) async fn answer<B: Backend>(
    gateway: &Gateway<B>,
    head: Head,
    path: Path,
    request: Request<Incoming>,
    peer: &Arc<Peer>,
) -> Result<Response<Body>, Refusal> {
    let catalogue = gateway.backend.catalogue();
    if !catalogue.has_version(&path.group, &path.version) {
        return Ok(respond::text(404, "404 page not found\n"));
    }
    let target = target(&catalogue, &head, &path)?;
    if let Some(ask) = connect::ask(&target, &head)? {
        return connect::answer(gateway, &head, &path, &target, ask, request, peer).await;
    }
    let patch = patch_type(&head, target.verb)?;
    let accepted = negotiate::accept(head.accept().as_deref(), matches!(target.verb, Verb::List | Verb::Watch))?;
    let mut options = options::read(&head, &target, patch)?;
    if let (Verb::Watch, Some(name)) = (target.verb, &path.name) {
        // Who may watch one object is shown that one.
        let comma = if options.field_selector.is_empty() { "" } else { "," };
        options.field_selector += &format!("{comma}metadata.name={}", objects::select::escape(name));
    }
    let renderer = Renderer::new(target.kind, target.sub, accepted, &head)?;

    if target.verb == Verb::Watch {
        if accepted.format == Format::Yaml {
            // It has no way to say where one document of a stream ends.
            return Err(status::form_not_acceptable(&[Format::Json.media_type(), Format::Protobuf.media_type()]));
        }
        let place = gateway.stream_place()?;
        let timeout = Duration::from_secs(match options.timeout_seconds {
            // Spread over half an hour to an hour, so that the watches of a restarted server do not all
            // come back at once.
            0 => 1800 + u64::try_from(gateway.chance() % 1800).unwrap_or(0),
            n => n,
        });
        let request = finish(gateway, &head, &path, &target, options, request::Body::None);
        let ended = gateway.ended(&head, &request);
        let opened = within(gateway.limits().request, gateway.backend.watch(request)).await.ok_or_else(too_slow)??;
        let warnings = opened.warnings.clone();
        let frames = renderer.frames();
        let media_type = frames.media_type();
        let body = watch::body(opened, frames, timeout, ended, place);
        let mut r = respond::build(200, Some(media_type), body);
        respond::warn(r.headers_mut(), &warnings);
        return Ok(r);
    }

    let _place = gateway.request_place()?;
    let limits = gateway.limits();
    let body = body::read(request, &head, &target, patch, limits).await?;
    let request = finish(gateway, &head, &path, &target, options, body);
    match within(limits.request, gateway.backend.decide(request)).await.ok_or_else(too_slow)?? {
        Reply::One(answer) => one(answer, &renderer, accepted),
        Reply::List(list) => many(list, renderer, peer, &head),
    }
}

fn one(answer: Answer, renderer: &Renderer, accepted: Accepted) -> Result<Response<Body>, Refusal> {
    let Answer { code, warnings, payload } = answer;
    let plain = accepted.shape == Shape::Object && accepted.format == Format::Json && !renderer.pretty();
    let mut r = match payload {
        // The commonest answer by far: stored bytes, as they are.
        Payload::Json(json) if plain => respond::json(code, json),
        Payload::Json(json) => {
            let tree = serde_json::from_slice(&json).map_err(status::internal)?;
            respond::bytes(code, accepted.format.media_type(), renderer.one(tree)?)
        }
        other => respond::bytes(code, accepted.format.media_type(), renderer.one(other.tree())?),
    };
    respond::warn(r.headers_mut(), &warnings);
    Ok(r)
}

fn many(list: List, renderer: Renderer, peer: &Peer, head: &Head) -> Result<Response<Body>, Refusal> {
    let warnings = list.warnings.clone();
    let media_type = renderer.media_type();
    let mut r = respond::stream(200, media_type, render::list(list, renderer)?, peer.near, &head.headers);
    respond::warn(r.headers_mut(), &warnings);
    Ok(r)
}

fn too_slow() -> Refusal {
    // Without Retry-After: whether it was done is not known.
    status::timeout("request did not complete within the allotted timeout")
}

/// What method and path ask for.
fn target(catalogue: &Catalogue, head: &Head, path: &Path) -> Result<Target, Refusal> {
    let kind = catalogue.kind(&path.group, &path.version, &path.resource).ok_or_else(status::no_such_resource)?;
    let namespaces = kind.plural == "namespaces" && kind.group.is_empty();
    // An object of a namespaced kind is only ever named together with its namespace, and a
    // cluster-scoped kind has none.
    if kind.namespaced && path.namespace.is_none() && path.name.is_some()
        || !kind.namespaced && path.namespace.is_some() && !namespaces
    {
        return Err(status::no_such_resource());
    }
    let sub = match path.subresource.as_str() {
        "" => None,
        name => Some(kind.subresource(name).ok_or_else(status::no_such_resource)?),
    };
    if !path.rest.is_empty() && sub.is_none_or(|s| s.name != "proxy") {
        return Err(status::no_such_resource());
    }
    let everywhere = kind.namespaced && path.namespace.is_none();
    let watching = path.watch || head.flag("watch");
    let verb = match (&head.method, path.name.is_some()) {
        // A watch of one object is a watch of the list that has this name.
        (&Method::GET, _) if path.watch && sub.is_none() => Verb::Watch,
        (&Method::GET, true) => Verb::Get,
        (&Method::GET, false) => {
            if watching {
                Verb::Watch
            } else {
                Verb::List
            }
        }
        (&Method::POST, true) if sub.is_some() => Verb::Create,
        (&Method::POST, false) if !everywhere => Verb::Create,
        (&Method::PUT, true) => Verb::Update,
        (&Method::PATCH, true) => Verb::Patch,
        (&Method::DELETE, true) => Verb::Delete,
        (&Method::DELETE, false) if !everywhere => Verb::DeleteCollection,
        _ => return Err(status::method_not_allowed()),
    };
    if path.watch && verb != Verb::Watch {
        return Err(status::method_not_allowed());
    }
    let verbs = sub.map_or(kind.verbs, |s| s.verbs);
    if !verbs.contains(&verb.as_str()) {
        return Err(status::method_not_allowed());
    }
    Ok(Target { kind, sub, verb })
}

/// The patch type a PATCH names in its Content-Type.
fn patch_type(head: &Head, verb: Verb) -> Result<Option<PatchType>, Refusal> {
    if verb != Verb::Patch {
        return Ok(None);
    }
    let header = head.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match header.split(';').next().unwrap_or_default().trim() {
        "application/json-patch+json" => Ok(Some(PatchType::Json)),
        "application/merge-patch+json" => Ok(Some(PatchType::Merge)),
        "application/strategic-merge-patch+json" => Ok(Some(PatchType::Strategic)),
        "application/apply-patch+yaml" => Ok(Some(PatchType::Apply)),
        _ => Err(status::patch_type_unknown()),
    }
}

/// Fixes what is chance or calendar, so that every retry is the same request.
pub(crate) fn finish<B: Backend>(
    gateway: &Gateway<B>,
    head: &Head,
    path: &Path,
    target: &Target,
    options: request::Options,
    body: request::Body,
) -> request::Request {
    // The upper half of one draw and the lower of another are independent of the uid.
    let suffix = gateway.chance();
    request::Request {
        id: RequestId(gateway.chance()),
        sent: wall(),
        user: head.user.clone(),
        verb: target.verb,
        kind: target.kind,
        namespace: if target.kind.namespaced { path.namespace.as_deref().map(Arc::from) } else { None },
        name: path.name.as_deref().map(Arc::from),
        subresource: Arc::from(target.sub.map_or("", |s| s.name)),
        options,
        body,
        uid: Uid::from_chance(gateway.chance()),
        suffix: u64::try_from(suffix & u128::from(u64::MAX)).unwrap_or(0),
    }
}

/// The calendar, as this machine believes it.
pub(crate) fn wall() -> Wall {
    let ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis());
    Wall(u64::try_from(ms).unwrap_or(u64::MAX))
}
