//! A message to a document, which the schema then types like any other.

use super::super::node::Node;
use super::super::{MAX_DEPTH, json, scalar};
use super::wire::{Reader, Value};
use crate::schema::{Alternative, Field, Holds, ObjectType, Scalar, Schema, Slot, Type, TypeId};
use base64::Engine;
use std::borrow::Cow;
use std::collections::BTreeMap;
use time::OffsetDateTime;

/// How many unknown fields of a body are reported.
const MAX_UNKNOWN: usize = 100;

pub(super) struct Decoder<'s> {
    schema: &'s Schema,
    path: Vec<&'s str>,
    unknown: Vec<String>,
    depth: usize,
}

/// The fields of one struct while its message is read; lists and maps grow as their items come.
#[derive(Default)]
struct Fields<'a> {
    by_index: BTreeMap<usize, Node<'a>>,
}

impl<'s> Decoder<'s> {
    pub(super) fn new(schema: &'s Schema) -> Self {
        Decoder { schema, path: Vec::new(), unknown: Vec::new(), depth: 0 }
    }

    pub(super) fn into_unknown(self) -> Vec<String> {
        self.unknown
    }

    /// The message of a type that has one of its own.
    pub(super) fn message<'a>(&mut self, ty: TypeId, bytes: &'a [u8]) -> Result<Node<'a>, String>
    where
        's: 'a,
    {
        if self.depth == MAX_DEPTH {
            return Err(format!("proto: exceeded max depth of {MAX_DEPTH}"));
        }
        self.depth += 1;
        let node = match self.schema.get(ty) {
            Type::Object(o) if o.proto.is_empty() => return Err(format!("{} has no protobuf message", o.short_name())),
            Type::Object(o) => {
                let mut fields = Fields::default();
                self.fields(o, &o.layout, bytes, &mut fields)?;
                Node::Map(
                    fields.by_index.into_iter().map(|(i, v)| (Cow::Borrowed(o.fields[i].name.as_str()), v)).collect(),
                )
            }
            Type::List { item, .. } => {
                let mut items = Vec::new();
                let mut r = Reader::new(bytes);
                while let Some((number, value)) = r.next()? {
                    match number {
                        1 => items.push(self.value(*item, value)?),
                        n => self.note(n),
                    }
                }
                Node::List(items)
            }
            Type::SchemaOr { schema, alternative } => self.schema_or(*schema, *alternative, bytes)?,
            Type::Any => raw(bytes)?,
            Type::Scalar(s) => leaf_message(*s, bytes)?,
            Type::Map { .. } => return Err(String::from("a map has no protobuf message")),
        };
        self.depth -= 1;
        Ok(node)
    }

    fn fields<'a>(
        &mut self,
        o: &'s ObjectType,
        layout: &'s [Slot],
        bytes: &'a [u8],
        out: &mut Fields<'a>,
    ) -> Result<(), String>
    where
        's: 'a,
    {
        let mut r = Reader::new(bytes);
        while let Some((number, value)) = r.next()? {
            match layout.binary_search_by_key(&number, |s| s.number).map(|at| &layout[at].holds) {
                Ok(Holds::Field(i)) => {
                    let f = &o.fields[*i];
                    self.path.push(&f.name);
                    self.field(f, *i, value, out)
                        .map_err(|e| if self.depth == 1 { format!("{e} at {}", self.path.join(".")) } else { e })?;
                    self.path.pop();
                }
                Ok(Holds::Embedded(inner)) => self.fields(o, inner, value.bytes()?, out)?,
                Err(_) => self.note(number),
            }
        }
        Ok(())
    }

    fn field<'a>(&mut self, f: &'s Field, index: usize, value: Value<'a>, out: &mut Fields<'a>) -> Result<(), String>
    where
        's: 'a,
    {
        match self.schema.get(f.ty) {
            Type::Map { value: ty } => {
                let (mut key, mut item) = (Cow::Borrowed(""), Node::Null);
                let mut r = Reader::new(value.bytes()?);
                while let Some((number, value)) = r.next()? {
                    match number {
                        1 => key = value.text()?.into(),
                        2 => item = self.value(*ty, value)?,
                        n => self.note(n),
                    }
                }
                if let Node::Map(entries) = out.by_index.entry(index).or_insert_with(|| Node::Map(Vec::new())) {
                    entries.push((key, item));
                }
            }
            Type::List { item, wrapped: false } => {
                let packed =
                    matches!(self.schema.get(*item), Type::Scalar(Scalar::Bool | Scalar::Int32 | Scalar::Int64));
                let mut new = Vec::new();
                match value {
                    Value::Bytes(bytes) if packed => {
                        let mut r = Reader::new(bytes);
                        while !r.is_empty() {
                            let n = r.varint()?;
                            new.push(self.value(*item, Value::Varint(n))?);
                        }
                    }
                    value => new.push(self.value(*item, value)?),
                }
                if let Node::List(items) = out.by_index.entry(index).or_insert_with(|| Node::List(Vec::new())) {
                    items.append(&mut new);
                }
            }
            _ => {
                let v = self.value(f.ty, value)?;
                // A message sent in pieces is one message.
                match (out.by_index.get_mut(&index), v) {
                    (Some(Node::Map(old)), Node::Map(mut new)) => old.append(&mut new),
                    (_, v) => drop(out.by_index.insert(index, v)),
                }
            }
        }
        Ok(())
    }

    fn value<'a>(&mut self, ty: TypeId, value: Value<'a>) -> Result<Node<'a>, String>
    where
        's: 'a,
    {
        let Type::Scalar(s) = self.schema.get(ty) else { return self.message(ty, value.bytes()?) };
        Ok(match s {
            Scalar::String => Node::Text(value.text()?.into()),
            Scalar::Bool => Node::Bool(value.varint()? != 0),
            Scalar::Int32 => Node::Number((value.varint()? as i32).to_string().into()),
            Scalar::Int64 => Node::Number((value.varint()? as i64).to_string().into()),
            Scalar::Double => {
                let d = f64::from_bits(value.fixed64()?);
                let n = scalar::number(d).ok_or_else(|| format!("json: unsupported value: {d}"))?;
                Node::Number(n.to_string().into())
            }
            Scalar::Bytes => Node::Text(scalar::BASE64.encode(value.bytes()?).into()),
            Scalar::Time | Scalar::MicroTime | Scalar::Quantity | Scalar::IntOrString => {
                leaf_message(*s, value.bytes()?)?
            }
        })
    }

    fn schema_or<'a>(&mut self, schema: TypeId, or: Alternative, bytes: &'a [u8]) -> Result<Node<'a>, String>
    where
        's: 'a,
    {
        let (mut allows, mut inner, mut items) = (false, None, Vec::new());
        let mut r = Reader::new(bytes);
        while let Some((number, value)) = r.next()? {
            match (or, number) {
                (Alternative::Bool, 1) => allows = value.varint()? != 0,
                (Alternative::Bool, 2) | (_, 1) => inner = Some(self.message(schema, value.bytes()?)?),
                (Alternative::Schemas, 2) => items.push(self.message(schema, value.bytes()?)?),
                (Alternative::Strings, 2) => items.push(Node::Text(value.text()?.into())),
                (_, n) => self.note(n),
            }
        }
        Ok(match (or, inner) {
            (Alternative::Bool, None) => Node::Bool(allows),
            (Alternative::Bool, Some(schema)) => schema,
            (_, _) if !items.is_empty() => Node::List(items),
            (_, inner) => inner.unwrap_or(Node::Null),
        })
    }

    fn note(&mut self, number: u32) {
        if self.unknown.len() < MAX_UNKNOWN {
            let dot = if self.path.is_empty() { "" } else { "." };
            let note = format!("unknown field \"{}{dot}#{number}\"", self.path.join("."));
            if !self.unknown.contains(&note) {
                self.unknown.push(note);
            }
        }
    }
}

/// The JSON in field 1 of a RawExtension, FieldsV1 or JSON.
fn raw(bytes: &[u8]) -> Result<Node<'_>, String> {
    let mut r = Reader::new(bytes);
    let mut raw: &[u8] = b"";
    while let Some((number, value)) = r.next()? {
        if number == 1 {
            raw = value.bytes()?;
        }
    }
    if raw.is_empty() { Ok(Node::Null) } else { json::node(raw) }
}

/// Leaves that are messages in protobuf.
fn leaf_message(s: Scalar, bytes: &[u8]) -> Result<Node<'_>, String> {
    let (mut one, mut two, mut text) = (0u64, 0u64, None);
    let mut r = Reader::new(bytes);
    while let Some((number, value)) = r.next()? {
        match (number, value) {
            (1, Value::Varint(n)) => one = n,
            (2, Value::Varint(n)) => two = n,
            (1 | 3, value @ Value::Bytes(_)) => text = Some(value.text()?),
            _ => return Err(format!("proto: field {number} of a {s:?} is not what it must be")),
        }
    }
    Ok(match s {
        Scalar::Quantity => Node::Text(text.unwrap_or("0").into()),
        Scalar::IntOrString if one == 1 => Node::Text(text.unwrap_or("").into()),
        Scalar::IntOrString => Node::Number((two as i32).to_string().into()),
        _ if bytes.is_empty() => Node::Null,
        _ => {
            let out_of_range = |_| format!("a time {} seconds from 1970 is not in the years 1 to 9999", one as i64);
            let t = OffsetDateTime::from_unix_timestamp(one as i64).map_err(out_of_range)?;
            if !(1..=9999).contains(&t.year()) {
                return Err(format!("a time in the year {} is not in the years 1 to 9999", t.year()));
            }
            let micros = u32::try_from(two / 1000).ok().filter(|m| *m < 1_000_000);
            let micros = micros.ok_or_else(|| format!("{two} nanoseconds are no part of a second"))?;
            let t = t.replace_microsecond(micros).map_err(|e| e.to_string())?;
            Node::Text(if s == Scalar::MicroTime { scalar::write_micro_time(t) } else { scalar::write_time(t) }.into())
        }
    })
}
