//! Root hands out what the whole mesh shares, and takes it back ([`crate::allotment`]).

use super::{Outcome, Visit};
use crate::Tree;
use crate::allotment::{API_VERSION, Allotment, STORAGE, Wanted, hand_out};
use crate::decision::{Decision, Payload, Plan, Reply, Write};
use crate::kinds::tree::{self, Fields};
use crate::record::{Stored, encode};
use crate::request::Verb;
use crate::status::Status;
use crate::{kinds, views};
use serde_json::json;

impl Visit<'_> {
    /// What is done with Allotments otherwise than with other objects.
    pub(super) fn allot(&mut self) -> Option<Outcome<Decision>> {
        match (&*self.req.subresource, self.req.verb) {
            ("reserve", Verb::Create) => Some(self.reserve()),
            ("", Verb::Update) => Some(self.settle()),
            _ => None,
        }
    }

    /// Hands out what a namespace's cell wants. The answer is its Allotment, whatever is in it.
    fn reserve(&mut self) -> Outcome<Decision> {
        let wanted = Wanted::of(&self.body()?);
        let namespace = self.view.get("Namespace", &wanted.namespace).filter(|s| s.meta.uid.to_string() == wanted.uid);
        if namespace.is_none() || wanted.uid != self.name() {
            return match kinds::by_kind("", "v1", "Namespace") {
                Some(kind) => Err(Box::new(Status::not_found(kind, &wanted.namespace))),
                None => Err(Box::new(Status::internal("there is no kind Namespace"))),
            };
        }
        let stored = self.view.get(STORAGE, self.name());
        let mut own = stored.as_ref().map(|s| Allotment::of(&s.tree())).unwrap_or_default();
        let others: Vec<Allotment> = self
            .view
            .list(STORAGE, None)
            .filter(|(name, _)| **name != *self.name())
            .map(|(_, s)| Allotment::of(&s.tree()))
            .collect();
        hand_out(&wanted, &mut own, &others, &self.env.config.services, self.req.suffix, self.env.now);
        let mut tree = stored.as_ref().map_or_else(|| self.new_allotment(&wanted), Stored::tree);
        tree::set(&mut tree, "spec", own.spec());
        self.write_allotment(tree, stored.as_ref())
    }

    fn new_allotment(&self, wanted: &Wanted) -> Tree {
        json!({"apiVersion": API_VERSION, "kind": "Allotment", "metadata": {
            "name": wanted.uid,
            "uid": self.req.uid.to_string(),
            "creationTimestamp": self.env.now.rfc3339(),
            // It goes with its namespace.
            "ownerReferences": [{"apiVersion": "v1", "kind": "Namespace", "name": wanted.namespace, "uid": wanted.uid}],
        }})
    }

    /// Takes an Allotment as its cell's leader wants it to be, if it is as that leader knows it.
    fn settle(&mut self) -> Outcome<Decision> {
        let new = self.body()?;
        let stored = self.stored()?;
        if new.at("metadata").text("resourceVersion") != stored.revision.to_string() {
            return Err(Box::new(Status::modified(self.kind, self.name())));
        }
        let mut tree = stored.tree();
        tree::set(&mut tree, "spec", Allotment::of(&new).spec());
        self.write_allotment(tree, Some(&stored))
    }

    fn write_allotment(&mut self, tree: Tree, old: Option<&Stored>) -> Outcome<Decision> {
        if self.req.options.dry_run {
            return Ok(self.answer(200, Payload::Json(encode(&tree))));
        }
        if let Some(old) = old.filter(|old| old.tree() == tree) {
            return Ok(self.answer(200, Payload::Json(old.json.clone())));
        }
        let write =
            Write { key: self.key(self.name()), expected: old.map(|o| o.revision), kind: self.kind, tree: Some(tree) };
        let reply = Reply::Written { write: 0, view: views::from_storage, kind: self.kind, raw: true };
        Ok(Decision::Commit(Plan { writes: vec![write], warnings: Vec::new(), code: 200, reply }))
    }
}
