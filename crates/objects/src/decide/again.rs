//! The answer of a request that was carried out before: its first attempt's answer was lost on the way.
//!
//! What was changed is in the log, the answer is not: it is made once more of the objects as they are now, or as
//! they last were.

use super::delete::{DeleteOptions, returns_object};
use super::scale::scale_of;
use crate::decision::{Answer, Payload};
use crate::read::ListAnswer;
use crate::record::{Key, Stored};
use crate::request::{Body, Request, Verb};
use crate::status::{Details, Status};
use crate::views;

/// An object that a request changed.
#[derive(Clone, Debug)]
pub struct Changed {
    /// Which.
    pub key: Key,
    /// It as it is or, if it is gone, as it last was, as far as that is still known.
    pub image: Option<Stored>,
    /// It is gone.
    pub gone: bool,
}

/// Answers a request that changed these objects, in the order of its writes: the request's own first, then what
/// went with it.
pub fn again(request: &Request, changed: &[Changed]) -> Answer {
    let kind = request.kind;
    let answer = |code, payload| Answer { code, warnings: Vec::new(), payload };
    let succeeded = |code, details| answer(code, Payload::Status(Box::new(Status::success(code, details))));
    let own = changed.first();
    let image = own.and_then(|c| c.image.as_ref());
    let object = |s: &Stored| Payload::Json(views::bytes_from_storage(kind, &s.json));
    match (request.verb, &*request.subresource) {
        (Verb::Create, "binding" | "eviction") => succeeded(201, None),
        (Verb::Create, "") if kind.kind == "Binding" => succeeded(201, None),
        (_, "scale") => match image {
            Some(s) => answer(200, Payload::Tree(scale_of(kind, &s.tree()))),
            None => succeeded(200, None),
        },
        (Verb::DeleteCollection, _) => {
            let chosen = changed.iter().filter(|c| *c.key.storage == *kind.storage);
            let items: Vec<Stored> = chosen.filter_map(|c| c.image.clone()).collect();
            let revision = items.iter().map(|s| s.revision).max().unwrap_or_default();
            answer(200, Payload::Json(ListAnswer { items, revision, ..ListAnswer::default() }.to_json(kind)))
        }
        (Verb::Delete, _) => {
            let gone = own.is_none_or(|c| c.gone);
            let orphan = match &request.body {
                Body::Object { tree, .. } => DeleteOptions::of(tree).orphan,
                _ => request.options.orphan_dependents,
            };
            let code = if !gone && orphan == Some(false) { 202 } else { 200 };
            match image {
                Some(s) if !gone || returns_object(kind) || kind.storage == "Namespace" => answer(code, object(s)),
                _ => succeeded(
                    code,
                    Some(Details {
                        name: request.name.as_deref().unwrap_or_default().into(),
                        group: kind.group.into(),
                        kind: kind.plural.into(),
                        uid: image.map(|s| s.meta.uid.to_string()).unwrap_or_default(),
                        ..Details::default()
                    }),
                ),
            }
        }
        (verb, _) => {
            let code = if verb == Verb::Create { 201 } else { 200 };
            match image {
                Some(s) => answer(code, object(s)),
                None => succeeded(code, None),
            }
        }
    }
}
