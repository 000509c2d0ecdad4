//! When an applier may not have a field: another manager set it to something else.

use super::fieldset::FieldSet;
use super::managers::{Id, Operation};
use crate::status::{Cause, Status, quote};
use std::fmt::Write;

/// What others own that an applier wants otherwise.
pub(super) struct Conflicts(pub(super) Vec<(Id, FieldSet)>);

impl Conflicts {
    /// All the fields in question.
    pub(super) fn fields(&self) -> FieldSet {
        let mut all = FieldSet::new();
        for (_, fields) in &self.0 {
            all.unite(fields.clone());
        }
        all
    }

    /// Those that `allowed` does not name.
    pub(super) fn without(mut self, allowed: &FieldSet) -> Conflicts {
        for (_, fields) in &mut self.0 {
            fields.subtract(allowed);
        }
        self.0.retain(|(_, fields)| !fields.is_empty());
        self
    }

    /// The 409, with a cause for every field.
    pub(super) fn into_status(mut self) -> Status {
        self.0.sort_by(|(a, _), (b, _)| {
            let key = |id: &Id| (id.manager.clone(), id.operation, id.version.clone(), id.subresource.clone());
            key(a).cmp(&key(b))
        });
        let mut causes = Vec::new();
        let mut listed = String::new();
        for (id, fields) in &self.0 {
            let who = shown(id);
            let _ = write!(listed, "{}conflicts with {who}:", if listed.is_empty() { "" } else { "\n" });
            for path in fields.paths() {
                let field: String = path.iter().map(ToString::to_string).collect();
                let _ = write!(listed, "\n- {field}");
                causes.push(Cause {
                    reason: "FieldManagerConflict".into(),
                    message: format!("conflict with {who}"),
                    field,
                });
            }
        }
        let message = match causes.as_slice() {
            [one] => format!("Apply failed with 1 conflict: {}: {}", one.message, one.field),
            many => format!("Apply failed with {} conflicts: {listed}", many.len()),
        };
        Status::apply_conflict(message, causes)
    }
}

fn shown(id: &Id) -> String {
    let mut out = quote(&id.manager);
    if !id.subresource.is_empty() {
        let _ = write!(out, " with subresource {}", quote(&id.subresource));
    }
    if id.operation == Operation::Update {
        let _ = write!(out, " using {}", id.version);
    }
    out
}
