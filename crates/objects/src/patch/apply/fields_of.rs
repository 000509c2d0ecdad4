//! From an object to the set of fields it mentions, and the check that it can be applied at all.

use super::fieldset::{FieldSet, SELF, empty};
use super::typed::{Place, Shape, is_hollow, item_step};
use crate::patch::go_text;
use crate::schema::{ListKind, Scalar, Schema};
use crate::status::quote;
use crate::{Map, Tree};
use std::collections::BTreeSet;

/// The fields an object mentions: leaves, items of keyed lists and sets, keys of maps; structs only if
/// they are empty or null.
pub(super) fn fields_of(schema: &Schema, place: Place<'_>, value: &Tree) -> FieldSet {
    let (mut map, _) = node(schema, place, value);
    map.remove(SELF);
    FieldSet(map)
}

/// What lies below, and whether the place itself is a leaf.
fn node(schema: &Schema, place: Place<'_>, value: &Tree) -> (Map, bool) {
    let mut out = Map::new();
    let mut put = |step: String, (mut below, leaf): (Map, bool), member: bool| {
        let member = member || leaf;
        if member && !below.is_empty() {
            below.insert(SELF.to_owned(), empty());
        }
        if member || !below.is_empty() {
            out.insert(step, Tree::Object(below));
        }
    };
    let null_or_empty_map = |v: &Tree| !v.is_array() && is_hollow(Some(v));
    let shape = place.shape(schema);
    match (shape, value) {
        (shape, _) if shape.is_atomic() => return (out, true),
        (Shape::Deduced, value) if !value.is_object() => return (out, true),
        (shape @ (Shape::Struct { .. } | Shape::Map { .. } | Shape::Deduced), Tree::Object(map)) => {
            for (key, value) in map {
                if let Some(place) = shape.at(key) {
                    let member = null_or_empty_map(value) || !shape.names(key);
                    put(format!("f:{key}"), node(schema, place, value), member);
                }
            }
        }
        (Shape::List { item, kind }, Tree::Array(items)) => {
            let mut seen = BTreeSet::new();
            for value in items {
                let Ok(step) = item_step(schema, kind, item, value) else { continue };
                // Items that share a step are owned together, without what is in them.
                let below = if seen.insert(step.clone()) { node(schema, item, value) } else { (Map::new(), true) };
                put(step, below, true);
            }
        }
        _ => {}
    }
    (out, false)
}

/// Everything that keeps an object from being applied, as Kubernetes words it, joined as it joins them.
/// Lists may hold a key twice only if `duplicates` allows it.
pub(super) fn check(schema: &Schema, place: Place<'_>, value: &Tree, duplicates: bool) -> Result<(), String> {
    let mut errors = Vec::new();
    Check { schema, duplicates, errors: &mut errors }.node(place, value, &mut String::new());
    match errors.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("errors:\n  {}", many.join("\n  "))),
    }
}

struct Check<'e, 's> {
    schema: &'s Schema,
    duplicates: bool,
    errors: &'e mut Vec<String>,
}

impl<'s> Check<'_, 's> {
    fn report(&mut self, path: &str, what: &str) {
        self.errors.push(if path.is_empty() { what.to_owned() } else { format!("{path}: {what}") });
    }

    fn node(&mut self, place: Place<'s>, value: &Tree, path: &mut String) {
        if value.is_null() {
            return;
        }
        let printed = |expected: &str| format!("expected {expected}, got &{{{}}}", go_text::value(value));
        match (place.shape(self.schema), value) {
            (Shape::Any | Shape::Deduced, _) => {}
            (Shape::Scalar(scalar), _) => {
                if let Some(what) = scalar_error(scalar, value) {
                    self.report(path, &what);
                }
            }
            (shape @ (Shape::Struct { .. } | Shape::Map { .. }), Tree::Object(map)) => {
                for (key, value) in map {
                    match shape.at(key) {
                        Some(place) => self.step(place, value, path, &format!(".{key}")),
                        None => self.report(&format!("{path}.{key}"), "field not declared in schema"),
                    }
                }
            }
            (Shape::List { item, kind }, Tree::Array(items)) => self.items(item, kind, items, path),
            (Shape::Struct { .. } | Shape::Map { .. }, _) => self.report(path, &printed("map")),
            (Shape::List { .. }, _) => self.report(path, &printed("list")),
        }
    }

    fn items(&mut self, place: Place<'s>, kind: &ListKind, items: &[Tree], path: &mut String) {
        let mut seen = BTreeSet::new();
        for (i, item) in items.iter().enumerate() {
            if *kind == ListKind::Atomic {
                self.step(place, item, path, &format!("[{i}]"));
                continue;
            }
            match item_step(self.schema, kind, place, item) {
                Err(why) => {
                    self.report(path, &format!("element {i}: {why}"));
                    return;
                }
                Ok(step) => {
                    let shown = super::path::Step::parse(&step).map(|s| s.to_string()).unwrap_or_default();
                    if !self.duplicates && !seen.insert(step) {
                        self.report(path, &format!("duplicate entries for key {shown}"));
                    }
                    self.step(place, item, path, &shown);
                }
            }
        }
    }

    fn step(&mut self, place: Place<'s>, value: &Tree, path: &mut String, step: &str) {
        let len = path.len();
        path.push_str(step);
        self.node(place, value, path);
        path.truncate(len);
    }
}

fn scalar_error(scalar: Scalar, value: &Tree) -> Option<String> {
    let is_scalar = !value.is_object() && !value.is_array();
    match scalar {
        Scalar::String | Scalar::Bytes | Scalar::Time | Scalar::MicroTime => {
            // Go's %#v of the library's own wrapper; people search for it.
            (!value.is_string())
                .then(|| format!("expected string, got &value.valueUnstructured{{Value:{}}}", go_syntax(value)))
        }
        Scalar::Bool => (!value.is_boolean()).then(|| format!("expected boolean, got &{{{}}}", go_text::value(value))),
        Scalar::Int32 | Scalar::Int64 | Scalar::Double => {
            (!value.is_number()).then(|| format!("expected numeric (int or float), got {}", go_text::type_name(value)))
        }
        Scalar::Quantity | Scalar::IntOrString => {
            (!is_scalar).then(|| format!("expected any scalar, got &{{{}}}", go_text::value(value)))
        }
    }
}

/// `%#v`.
fn go_syntax(value: &Tree) -> String {
    match value {
        Tree::String(s) => quote(s),
        Tree::Array(items) => {
            format!("[]interface {{}}{{{}}}", items.iter().map(go_syntax).collect::<Vec<_>>().join(", "))
        }
        Tree::Object(map) => {
            let all: Vec<String> = map.iter().map(|(k, v)| format!("{}:{}", quote(k), go_syntax(v))).collect();
            format!("map[string]interface {{}}{{{}}}", all.join(", "))
        }
        other => go_text::value(other),
    }
}
