//! The one visit in which a cell's leader decides a request.
//!
//! In order: authorise, read or patch, check what the body decodes to, default, note who owns which
//! field, mutate (admission), validate, validating admission, quota, and a plan of writes. Everything is
//! decided on what the [`View`] shows, so there is no read-modify-write over the mesh, and nothing here
//! is done twice: an entry holds results.

mod again;
mod allot;
mod create;
mod delete;
mod patch;
mod review;
mod scale;
mod subresource;
mod update;

use crate::Tree;
use crate::admission;
use crate::allotment::{self, Wanted};
use crate::decision::{Answer, Decision, Payload, Plan, Reply, Stream, Write};
use crate::kinds::{Context, Home, Kind, tree::Fields};
use crate::rbac::{self, Attributes};
use crate::read::{ListPlan, WatchPlan};
use crate::record::{Key, Stored, encode, set_revision};
use crate::request::{Body, Env, FieldValidation, Request, Verb, View};
use crate::status::{Status, quote};
use crate::views;
use base::Revision;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a step of a visit ends in.
type Outcome<T> = Result<T, Box<Status>>;

/// Decides a request.
pub fn decide(req: &Request, view: &dyn View, env: &Env<'_>) -> Decision {
    let mut visit =
        Visit { req, view, env, kind: req.kind, warnings: Vec::new(), charged: BTreeMap::new(), wanted: None };
    match (visit.run(), visit.wanted) {
        // What is refused anyway needs nothing.
        (Err(status), _) => Decision::Refuse(status),
        (Ok(_), Some(wanted)) => Decision::Reserve(wanted),
        (Ok(d), None) => d,
    }
}

/// A request being decided.
pub(crate) struct Visit<'a> {
    pub(crate) req: &'a Request,
    pub(crate) view: &'a dyn View,
    pub(crate) env: &'a Env<'a>,
    pub(crate) kind: &'static Kind,
    pub(crate) warnings: Vec<String>,
    /// Quotas as this visit leaves them, by name: a visit that changes several objects charges them all.
    pub(crate) charged: BTreeMap<Arc<str>, Tree>,
    /// What root must give first.
    pub(crate) wanted: Option<Box<Wanted>>,
}

/// What a write does, as admission sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
}

impl Visit<'_> {
    fn run(&mut self) -> Outcome<Decision> {
        let req = self.req;
        self.authorize()?;
        let sub = &*req.subresource;
        if !sub.is_empty() && self.kind.subresource(sub).is_none() {
            return Err(Box::new(Status::no_such_resource()));
        }
        if self.kind.home == Home::Nowhere && sub.is_empty() {
            return match (req.verb, self.kind.kind) {
                (Verb::Create, "Binding") => self.bind(),
                (Verb::Create, _) => self.review(),
                _ => Err(Box::new(Status::method_not_allowed())),
            };
        }
        self.beside()?;
        if self.kind.storage == allotment::STORAGE
            && let Some(allotted) = self.allot()
        {
            return allotted;
        }
        match (sub, req.verb) {
            ("", Verb::Get) => self.get(),
            ("", Verb::List) => Ok(Decision::List(ListPlan::new(self.kind, req.namespace.as_deref(), &req.options)?)),
            ("", Verb::Watch) => {
                Ok(Decision::Watch(WatchPlan::new(self.kind, req.namespace.as_deref(), &req.options)?))
            }
            ("", Verb::Create) => self.create(),
            ("", Verb::Update) => self.update(),
            ("", Verb::Patch) => self.patch(),
            ("", Verb::Delete) => self.delete(),
            ("", Verb::DeleteCollection) => self.delete_collection(),
            ("scale", Verb::Get) => self.get_scale(),
            ("scale", Verb::Update | Verb::Patch) => self.write_scale(),
            ("binding", Verb::Create) => self.bind(),
            ("eviction", Verb::Create) => self.evict(),
            ("token", Verb::Create) => self.token(),
            ("exec" | "attach" | "portforward" | "log", _) => self.stream(),
            ("proxy", _) => Err(Box::new(Status::not_proxied())),
            (_, Verb::Get) => self.get(),
            (_, Verb::Update) => self.update(),
            (_, Verb::Patch) => self.patch(),
            _ => Err(Box::new(Status::method_not_allowed())),
        }
    }

    fn authorize(&self) -> Outcome<()> {
        // Everybody may ask who they are and what they may do; the bootstrap roles say so too.
        rbac::authorize(&self.req.user, &Attributes::of(self.req), self.view)
    }

    /// 409 if what the request is to be beside is not there.
    fn beside(&self) -> Outcome<()> {
        let Some(living) = &self.req.options.beside else { return Ok(()) };
        let found = self.view.get(&living.key.storage, &living.key.name);
        if found.is_some_and(|s| s.meta.uid.to_string() == living.uid && s.meta.deletion.is_none()) {
            return Ok(());
        }
        let why = format!("{} {} with uid {} is not there (any more)", living.key.storage, living.key.name, living.uid);
        Err(Box::new(Status::conflict_kind(self.kind, self.name(), &why)))
    }

    /// The name in the URL.
    pub(crate) fn name(&self) -> &str {
        self.req.name.as_deref().unwrap_or_default()
    }

    /// The namespace in the URL; empty for cluster-scoped kinds.
    pub(crate) fn namespace(&self) -> &str {
        self.req.namespace.as_deref().unwrap_or_default()
    }

    pub(crate) fn context(&self) -> Context<'_> {
        Context { now: self.env.now, subresource: &self.req.subresource }
    }

    /// The kind records of this request's kind are stored as.
    pub(crate) fn stored_kind(&self) -> &'static Kind {
        views::stored_kind(self.kind)
    }

    pub(crate) fn key(&self, name: &str) -> Key {
        Key { storage: self.kind.storage.into(), name: name.into() }
    }

    /// The stored object of the URL's name.
    pub(crate) fn stored(&self) -> Outcome<Stored> {
        let name = self.name();
        self.view.get(self.kind.storage, name).ok_or_else(|| Box::new(Status::not_found(self.kind, name)))
    }

    fn get(&mut self) -> Outcome<Decision> {
        let stored = self.stored()?;
        let asked =
            crate::read::parse_revision(&self.req.options.resource_version).map_err(|m| Box::new(Status::bare(m)))?;
        // The node waits for a revision that is on its way before it asks; here it is too late.
        if asked > self.env.revision.max(stored.revision) {
            return Err(Box::new(Status::too_large_resource_version(asked.get(), self.env.revision.get())));
        }
        Ok(self.answer(200, Payload::Json(views::bytes_from_storage(self.kind, &stored.json))))
    }

    fn stream(&mut self) -> Outcome<Decision> {
        if let Some(besides) = Attributes::besides(self.req) {
            rbac::authorize(&self.req.user, &besides, self.view)?;
        }
        Ok(Decision::Stream(Stream { object: self.stored()?, subresource: self.req.subresource.clone() }))
    }

    /// The object in the body. Strict decoding's findings refuse it, warn, or are passed over, as the
    /// request asks.
    pub(crate) fn body(&mut self) -> Outcome<Tree> {
        let k = self.kind;
        match &self.req.body {
            Body::Object { tree, strict } => {
                self.strict(strict, |all| {
                    Status::bad_request(format!(
                        "{} in version {} cannot be handled as a {}: strict decoding error: {all}",
                        k.kind,
                        quote(k.version),
                        k.kind
                    ))
                })?;
                Ok(tree.clone())
            }
            _ => Err(Box::new(Status::bad_request("the request has no object in its body"))),
        }
    }

    /// What strict decoding found, as the request's `fieldValidation` has it.
    pub(crate) fn strict(&mut self, found: &[String], refuse: impl Fn(&str) -> Status) -> Outcome<()> {
        if found.is_empty() {
            return Ok(());
        }
        match self.req.options.field_validation {
            FieldValidation::Strict => Err(Box::new(refuse(&found.join(", ")))),
            FieldValidation::Warn => {
                self.warnings.extend_from_slice(found);
                Ok(())
            }
            FieldValidation::Ignore => Ok(()),
        }
    }

    pub(crate) fn answer(&mut self, code: u16, payload: Payload) -> Decision {
        Decision::Answer(Answer { code, warnings: std::mem::take(&mut self.warnings), payload })
    }

    /// The end of a write of one object in the request's version: a dry run is answered, anything else
    /// planned, together with `more` writes that go with it.
    fn commit_object(
        &mut self,
        code: u16,
        name: &str,
        tree: Tree,
        old: Option<&Stored>,
        more: Vec<Write>,
    ) -> Outcome<Decision> {
        if self.req.options.dry_run {
            return Ok(self.answer(code, Payload::Json(encode(&tree))));
        }
        let mut writes = vec![Write {
            key: self.key(name),
            expected: old.map(|o| o.revision),
            kind: self.stored_kind(),
            tree: Some(views::to_storage(self.kind, tree)),
        }];
        writes.extend(more);
        let reply =
            Reply::Written { write: 0, view: self.reply_view(), kind: self.kind, raw: !views::is_view(self.kind) };
        Ok(Decision::Commit(Plan { writes, warnings: std::mem::take(&mut self.warnings), code, reply }))
    }

    /// How a stored object becomes the answer.
    fn reply_view(&self) -> fn(&Kind, Tree) -> Tree {
        views::from_storage
    }

    /// Mutating admission, validation and validating admission, in that order; the prepared and owned
    /// object comes in, the final one goes out.
    fn admit(&mut self, op: Operation, obj: &mut Tree, old: Option<&Tree>) -> Outcome<()> {
        admission::mutate(self, op, obj, old)?;
        let cx = self.context();
        let errs = match old {
            None => crate::kinds::validate_create(self.kind, obj, &cx),
            Some(old) => crate::kinds::validate_update(self.kind, obj, old, &cx),
        };
        if !errs.is_empty() {
            return Err(Box::new(Status::invalid(self.kind, obj.at("metadata").text("name"), &errs)));
        }
        let mut warnings = Vec::new();
        self.kind.rules.warnings(obj, old, &mut warnings);
        self.warnings.append(&mut warnings);
        admission::allocate(self, obj, old)?;
        admission::validate(self, op, obj, old)
    }
}

pub use again::{Changed, again};
pub(crate) use create::remix;

/// A generated suffix for another name of the same write: `n` tells the names apart.
pub(crate) fn generated_suffix(chance: u64, n: u64) -> String {
    create::suffix(create::remix(chance, n))
}

/// Fills in what the user left out, as decoding does in Kubernetes.
pub(crate) fn default(kind: &Kind, obj: &mut Tree) {
    kind.rules.default(obj);
}

/// A tree with the revision it was read at, for comparison and validation.
pub(crate) fn with_revision(mut tree: Tree, revision: Revision) -> Tree {
    set_revision(&mut tree, Some(revision));
    tree
}
