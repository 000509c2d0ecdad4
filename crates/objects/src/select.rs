//! Selectors: which objects a list, a watch, a controller or a quota means.
//!
//! [`LabelSelector`] reads both the string grammar of query parameters and LabelSelector objects;
//! [`FieldSelector`] the grammar of field selectors. Errors are worded as the API server words them.

mod field;
mod label;

pub use field::{FieldSelector, escape, name_in_field_selector, required_field};
pub use label::{LabelSelector, Operator, Requirement};

use crate::record::Meta;

/// What a list or watch selects by.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selection {
    /// By labels.
    pub labels: LabelSelector,
    /// By fields.
    pub fields: FieldSelector,
}

impl Selection {
    /// Whether nothing is left out.
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// Whether an object is meant, from its header, name and namespace.
    pub fn matches(&self, meta: &Meta, name: &str, namespace: &str) -> bool {
        self.labels.matches(|k| meta.label(k))
            && self.fields.matches(|f| match f {
                "metadata.name" => name,
                "metadata.namespace" => namespace,
                f => meta.field(f),
            })
    }
}
