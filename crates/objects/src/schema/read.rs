//! The reader of `data/schema.json`.
//!
//! A field's keys there: `n` name, `t` type, `p` protobuf number, `v` numbers on the way to it, `z` what
//! becomes of the zero value (`k` kept, `n` null, `w` written, dropped if left out), `r` required, `l` list-map
//! keys (empty for a set), `a` atomic, `g` granular, `s` patch strategy, `k` merge key, `d` default, `e` enum. A
//! type's: `p` protobuf message, `a` atomic, `f` fields, `o` their names in Go's order, where that is not the one
//! of their numbers. A type word is a scalar's, `any`, `[]`, `[w]` or
//! `{}` before the item's (list, wrapped list, map), or a struct's name.

use super::{Alternative, Field, ListKind, ObjectType, PatchRule, Scalar, Schema, Type, TypeId, Zero};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Table<'a> {
    #[serde(borrow)]
    kinds: Vec<[Cow<'a, str>; 4]>,
    #[serde(borrow)]
    types: BTreeMap<Cow<'a, str>, TypeRow<'a>>,
}

#[derive(Deserialize)]
struct TypeRow<'a> {
    #[serde(default, borrow)]
    p: Cow<'a, str>,
    #[serde(default)]
    a: bool,
    #[serde(borrow)]
    f: Vec<FieldRow<'a>>,
    #[serde(default, borrow)]
    o: Vec<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct FieldRow<'a> {
    #[serde(borrow)]
    n: Cow<'a, str>,
    #[serde(borrow)]
    t: Cow<'a, str>,
    #[serde(default)]
    p: u32,
    #[serde(default)]
    v: Vec<u32>,
    #[serde(default)]
    z: Option<char>,
    #[serde(default)]
    r: bool,
    #[serde(default)]
    l: Option<Vec<String>>,
    #[serde(default)]
    a: bool,
    #[serde(default)]
    g: bool,
    #[serde(default, borrow)]
    s: Cow<'a, str>,
    #[serde(default, borrow)]
    k: Cow<'a, str>,
    #[serde(default)]
    d: Option<serde_json::Value>,
    #[serde(default)]
    e: Vec<String>,
}

/// Reads the compiled-in table. It is our own file, so a fault in it is a fault of the build and panics.
pub(super) fn table(json: &[u8]) -> Schema {
    let table: Table<'_> = match serde_json::from_slice(json) {
        Ok(t) => t,
        Err(e) => panic!("data/schema.json, which is compiled in, does not parse: {e}"),
    };
    let mut b = Builder { schema: Schema::default(), words: BTreeMap::new() };
    // Structs take the first ids, in the order of their names, so that fields can refer to later ones.
    for (i, name) in table.types.keys().enumerate() {
        let id = TypeId(i as u32);
        b.schema.names.insert(name.to_string(), id);
        b.schema.types.push(Type::Any);
    }
    for (i, (name, row)) in table.types.into_iter().enumerate() {
        let fields: Vec<Field> = row.f.into_iter().map(|f| b.field(f)).collect();
        let layout = super::layout::of(&fields);
        let order = super::layout::order(&fields, &row.o);
        let object = ObjectType {
            name: name.into_owned(),
            proto: row.p.into_owned(),
            fields,
            atomic: row.a,
            open: false,
            layout,
            order,
        };
        b.schema.types[i] = Type::Object(object);
    }
    for [group, version, kind, ty] in table.kinds {
        let id = b.word(&ty);
        b.schema.kinds.insert((group.into_owned(), version.into_owned(), kind.into_owned()), id);
    }
    b.schema
}

struct Builder {
    schema: Schema,
    /// Types without a name, by their word.
    words: BTreeMap<String, TypeId>,
}

impl Builder {
    fn field(&mut self, f: FieldRow<'_>) -> Field {
        Field {
            ty: self.word(&f.t),
            name: f.n.into_owned(),
            number: f.p,
            via: f.v,
            zero: match f.z {
                Some('k') => Zero::Kept,
                Some('n') => Zero::Null,
                Some('w') => Zero::Written,
                _ => Zero::Dropped,
            },
            required: f.r,
            list: match f.l {
                None => ListKind::Atomic,
                Some(keys) if keys.is_empty() => ListKind::Set,
                Some(keys) => ListKind::Map(keys),
            },
            atomic: f.a,
            granular: f.g,
            patch: PatchRule {
                merge: f.s.split(',').any(|s| s == "merge"),
                replace: f.s.split(',').any(|s| s == "replace"),
                retain_keys: f.s.split(',').any(|s| s == "retainKeys"),
                merge_key: (!f.k.is_empty()).then(|| f.k.into_owned()),
            },
            default: f.d,
            values: f.e,
        }
    }

    fn word(&mut self, word: &str) -> TypeId {
        if let Some(id) = self.schema.names.get(word).or_else(|| self.words.get(word)) {
            return *id;
        }
        let ty = if let Some(item) = word.strip_prefix("[]") {
            Type::List { item: self.word(item), wrapped: false }
        } else if let Some(item) = word.strip_prefix("[w]") {
            Type::List { item: self.word(item), wrapped: true }
        } else if let Some(value) = word.strip_prefix("{}") {
            Type::Map { value: self.word(value) }
        } else {
            match word {
                "any" => Type::Any,
                "string" => Type::Scalar(Scalar::String),
                "bool" => Type::Scalar(Scalar::Bool),
                "int32" => Type::Scalar(Scalar::Int32),
                "int64" => Type::Scalar(Scalar::Int64),
                "double" => Type::Scalar(Scalar::Double),
                "bytes" => Type::Scalar(Scalar::Bytes),
                "time" => Type::Scalar(Scalar::Time),
                "microtime" => Type::Scalar(Scalar::MicroTime),
                "quantity" => Type::Scalar(Scalar::Quantity),
                "intorstring" => Type::Scalar(Scalar::IntOrString),
                "schema-or-array" => self.schema_or(Alternative::Schemas),
                "schema-or-bool" => self.schema_or(Alternative::Bool),
                "schema-or-stringarray" => self.schema_or(Alternative::Strings),
                _ => panic!("data/schema.json, which is compiled in, names an unknown type {word}"),
            }
        };
        let id = TypeId(self.schema.types.len() as u32);
        self.schema.types.push(ty);
        self.words.insert(word.to_owned(), id);
        id
    }

    fn schema_or(&mut self, alternative: Alternative) -> Type {
        let schema = self.word("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps");
        Type::SchemaOr { schema, alternative }
    }
}
