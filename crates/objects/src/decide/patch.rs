//! Patch: the stored object, changed as asked, then treated like an update.

use super::update::check_identity;
use super::{Outcome, Visit, default};
use crate::Tree;
use crate::decision::Decision;
use crate::request::{Body, PatchType};
use crate::status::Status;
use crate::views;

impl Visit<'_> {
    pub(super) fn patch(&mut self) -> Outcome<Decision> {
        let stored = self.stored()?;
        let current = views::from_storage(self.kind, stored.tree());
        let mut new = self.patched(self.kind.type_name, current)?;
        check_identity(self.req, &new)?;
        default(self.kind, &mut new);
        self.change(stored, new, true)
    }

    /// `current` as the request's patch makes it; its type is named `type_name` in the schema.
    pub(super) fn patched(&mut self, type_name: &str, mut current: Tree) -> Outcome<Tree> {
        let _ = type_name;
        let Body::Patch { kind, bytes } = &self.req.body else {
            return Err(Box::new(Status::bad_request("the request has no patch in its body")));
        };
        let patch: Tree =
            serde_json::from_slice(bytes).map_err(|_| Box::new(Status::bad_request("invalid JSON patch")))?;
        match kind {
            PatchType::Json => {
                let patch: json_patch::Patch =
                    serde_json::from_value(patch).map_err(|_| Box::new(Status::unprocessable_patch()))?;
                json_patch::patch(&mut current, &patch).map_err(|_| Box::new(Status::unprocessable_patch()))?;
            }
            PatchType::Merge => json_patch::merge(&mut current, &patch),
            PatchType::Strategic | PatchType::Apply => {
                return Err(Box::new(Status::unsupported_media_type(&[
                    "application/json-patch+json",
                    "application/merge-patch+json",
                ])));
            }
        }
        Ok(current)
    }
}
