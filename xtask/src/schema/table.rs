//! The table as written: compact JSON, a type a line, so that a new release is a readable diff.

use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// A field; the short keys are explained in `crates/objects/src/schema/read.rs`, their reader.
#[derive(Serialize, Default, Debug)]
pub(super) struct FieldRow {
    #[serde(rename = "n")]
    pub(super) name: String,
    #[serde(rename = "t")]
    pub(super) ty: String,
    #[serde(rename = "p", skip_serializing_if = "is_zero")]
    pub(super) number: u32,
    #[serde(rename = "v", skip_serializing_if = "Vec::is_empty")]
    pub(super) via: Vec<u32>,
    #[serde(rename = "z", serialize_with = "zero", skip_serializing_if = "is_dropped")]
    pub(super) zero: char,
    #[serde(rename = "r", skip_serializing_if = "is_false")]
    pub(super) required: bool,
    #[serde(rename = "l", skip_serializing_if = "Option::is_none")]
    pub(super) list: Option<Vec<String>>,
    #[serde(rename = "a", skip_serializing_if = "is_false")]
    pub(super) atomic: bool,
    #[serde(rename = "g", skip_serializing_if = "is_false")]
    pub(super) granular: bool,
    #[serde(rename = "s", skip_serializing_if = "String::is_empty")]
    pub(super) patch_strategy: String,
    #[serde(rename = "k", skip_serializing_if = "String::is_empty")]
    pub(super) merge_key: String,
    #[serde(rename = "d", skip_serializing_if = "Option::is_none")]
    pub(super) default: Option<serde_json::Value>,
    #[serde(rename = "e", skip_serializing_if = "Vec::is_empty")]
    pub(super) values: Vec<String>,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}
fn is_false(b: &bool) -> bool {
    !*b
}
fn is_dropped(z: &char) -> bool {
    *z == 'd'
}
fn zero<S: serde::Serializer>(z: &char, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_char(*z)
}

/// A struct.
#[derive(Serialize, Debug)]
pub(super) struct TypeRow {
    #[serde(rename = "p", skip_serializing_if = "String::is_empty")]
    pub(super) proto: String,
    #[serde(rename = "a", skip_serializing_if = "is_false")]
    pub(super) atomic: bool,
    /// The fields' names in Go's order, where that is not the one their numbers say.
    #[serde(rename = "o", skip_serializing_if = "Vec::is_empty")]
    pub(super) order: Vec<String>,
    #[serde(rename = "f")]
    pub(super) fields: Vec<FieldRow>,
}

impl TypeRow {
    /// Of fields in the order of the Go struct.
    pub(super) fn new(proto: String, atomic: bool, mut fields: Vec<FieldRow>) -> TypeRow {
        let order: Vec<String> = fields.iter().map(|f| f.name.clone()).collect();
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        // As the reader does.
        let mut numbered: Vec<&FieldRow> = fields.iter().collect();
        numbered.sort_by_key(|f| {
            let first = ["kind", "apiVersion"].iter().position(|n| f.number == 0 && *n == f.name);
            (first.unwrap_or(2), [f.via.as_slice(), &[f.number]].concat())
        });
        let told = numbered.iter().map(|f| &f.name).eq(&order);
        TypeRow { proto, atomic, order: if told { Vec::new() } else { order }, fields }
    }
}

/// Everything.
pub(super) struct Table {
    pub(super) source: String,
    pub(super) kinds: BTreeMap<(String, String, String), String>,
    pub(super) types: BTreeMap<String, TypeRow>,
}

impl Table {
    /// The file's text.
    pub(super) fn to_json(&self) -> Result<String> {
        let mut out = format!("{{\"source\":{},\n\"kinds\":[", serde_json::to_string(&self.source)?);
        for (i, ((group, version, kind), ty)) in self.kinds.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(out, "{comma}\n{}", serde_json::to_string(&[group, version, kind, ty])?)?;
        }
        out.push_str("\n],\n\"types\":{");
        for (i, (name, row)) in self.types.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(out, "{comma}\n{}:{}", serde_json::to_string(name)?, serde_json::to_string(row)?)?;
        }
        out.push_str("\n}}\n");
        Ok(out)
    }
}
