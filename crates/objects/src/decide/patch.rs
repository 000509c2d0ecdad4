//! Patch: the stored object, changed as asked, then treated like an update.

use super::update::check_identity;
use super::{Outcome, Visit, default};
use crate::Tree;
use crate::codec::{self, Unknown};
use crate::decision::Decision;
use crate::patch::go_json::Walked;
use crate::patch::{self, go_json};
use crate::rbac::{self, Attributes};
use crate::request::{Body, PatchType, Request, Verb};
use crate::schema::{self, TypeId};
use crate::status::{Status, required};
use crate::{owned, views};
use bytes::Bytes;

impl Visit<'_> {
    pub(super) fn patch(&mut self) -> Outcome<Decision> {
        let (kind, bytes) = self.patch_body()?;
        if kind == PatchType::Apply {
            return self.apply(&bytes);
        }
        let stored = self.stored()?;
        let current = views::from_storage(self.kind, stored.tree());
        let mut new = self.patched(owned::type_of(self.kind), current)?;
        check_identity(self.req, &new)?;
        default(self.kind, &mut new);
        self.change(stored, new, true)
    }

    /// Server-side apply: creates what is not there.
    fn apply(&mut self, bytes: &Bytes) -> Outcome<Decision> {
        let config = self.configuration(bytes)?;
        let stored = match self.stored() {
            Ok(s) => Some(s),
            Err(_) if self.req.subresource.is_empty() => {
                let req = Request { verb: Verb::Create, ..self.req.clone() };
                rbac::authorize(&self.req.user, &Attributes::of(&req), self.view)?;
                None
            }
            Err(e) => return Err(e),
        };
        let live = stored.as_ref().map(|s| views::from_storage(self.kind, s.tree()));
        let applied = owned::apply(self, live.as_ref(), &config)?;
        let mut new = self.conformed(owned::type_of(self.kind), applied, &[], Tree::to_string)?;
        default(self.kind, &mut new);
        match stored {
            Some(stored) => self.change(stored, new, false),
            None => self.create_object(new, false),
        }
    }

    /// What is to be applied, and by somebody with a name.
    pub(super) fn configuration(&self, bytes: &Bytes) -> Outcome<Tree> {
        let config = patch::parse(bytes)?;
        if self.req.options.field_manager.is_empty() {
            let e = required("fieldManager", "is required for apply patch");
            return Err(Box::new(Status::invalid_kind("meta.k8s.io", "PatchOptions", "", &[e])));
        }
        check_identity(self.req, &config)?;
        Ok(config)
    }

    /// `current` as the request's patch makes it, decoded as its type.
    pub(super) fn patched(&mut self, ty: Option<TypeId>, mut current: Tree) -> Outcome<Tree> {
        let (kind, bytes) = self.patch_body()?;
        let patch = patch::parse(&bytes)?;
        let schema = schema::builtin();
        let types = |types: &[&str]| Box::new(Status::unsupported_media_type(types));
        match (kind, ty) {
            (PatchType::Json, _) => {
                let found = patch::json::apply(&mut current, &patch)?;
                let walked = || Walked::by_operations(&patch);
                self.conformed(ty, current, &found, |tree| go_json::text(schema, ty, tree, &walked()))
            }
            (PatchType::Merge, _) => {
                patch::merge::apply(&mut current, &patch)?;
                let walked = || Walked::by_merge(&patch);
                self.conformed(ty, current, &[], |tree| go_json::text(schema, ty, tree, &walked()))
            }
            (PatchType::Strategic, Some(of)) => {
                patch::strategic::apply(schema, of, &mut current, &patch)?;
                self.conformed(ty, current, &[], |_| patch::printed(&patch))
            }
            (PatchType::Strategic, None) => Err(types(&[
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/apply-patch+yaml",
            ])),
            (PatchType::Apply, _) => Err(types(&[
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/strategic-merge-patch+json",
            ])),
        }
    }

    /// A patched object as decoding would have made it: typed, in canonical form, unknown fields refused,
    /// warned of or dropped as the request asks, together with what was found in the patch before. `shown` is
    /// how it looks in a refusal.
    pub(super) fn conformed(
        &mut self,
        ty: Option<TypeId>,
        tree: Tree,
        found: &[String],
        shown: impl Fn(&Tree) -> String,
    ) -> Outcome<Tree> {
        // Merging puts nothing deeper than it lies in the patch, whose parser lets in a little more than bodies.
        if patch::depth(&tree, &mut 0) > codec::MAX_DEPTH {
            return Err(Box::new(Status::unprocessable_patch()));
        }
        let (decoded, strict) = match ty {
            None => (tree.clone(), Vec::new()),
            Some(ty) => {
                let decoded = codec::json::conform(schema::builtin(), ty, tree.clone(), Unknown::Drop)
                    .map_err(|e| Box::new(patch::undecodable(&shown(&tree), &e.to_string())))?;
                (decoded.tree, decoded.strict)
            }
        };
        let all = [found, &strict].concat();
        self.strict(&all, |all| patch::undecodable(&shown(&tree), &format!("strict decoding error: {all}")))?;
        Ok(decoded)
    }

    pub(super) fn patch_body(&self) -> Outcome<(PatchType, Bytes)> {
        match &self.req.body {
            Body::Patch { kind, bytes } => Ok((*kind, bytes.clone())),
            _ => Err(Box::new(Status::bad_request("the request has no patch in its body"))),
        }
    }
}
