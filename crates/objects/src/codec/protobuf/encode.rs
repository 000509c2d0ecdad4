//! A canonical tree to its message.

use super::super::scalar::BASE64;
use super::wire::Back;
use crate::schema::{Alternative, Field, Holds, ObjectType, Scalar, Schema, Slot, Type, TypeId, Zero};
use crate::{Map, Tree};
use base64::Engine;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Writes the message of a whole object.
pub(super) fn root(schema: &Schema, ty: TypeId, tree: &Tree, out: &mut Back) -> Result<(), String> {
    match (schema.get(ty), tree) {
        (Type::Object(o), Tree::Object(m)) if !o.proto.is_empty() => slots(schema, o, &o.layout, m, out),
        (Type::Object(o), Tree::Object(_)) => {
            Err(format!("object {} does not implement the protobuf marshalling interface", o.short_name()))
        }
        _ => Err(String::from("only objects have protobuf messages")),
    }
}

fn slots(schema: &Schema, o: &ObjectType, layout: &[Slot], m: &Map, out: &mut Back) -> Result<(), String> {
    for slot in layout.iter().rev() {
        match &slot.holds {
            Holds::Embedded(inner) => {
                let end = out.len();
                slots(schema, o, inner, m, out)?;
                out.close(slot.number, end);
            }
            Holds::Field(i) => {
                let f = &o.fields[*i];
                field(schema, f, m.get(&f.name).unwrap_or(&Tree::Null), out).map_err(|e| format!("{}: {e}", f.name))?;
            }
        }
    }
    Ok(())
}

/// A struct's field: absent ones too if Go holds them by value.
fn field(schema: &Schema, f: &Field, v: &Tree, out: &mut Back) -> Result<(), String> {
    let by_value = matches!(f.zero, Zero::Dropped | Zero::Written);
    match (schema.get(f.ty), v) {
        (Type::Map { value }, Tree::Object(m)) => {
            for (k, v) in m.iter().rev() {
                let end = out.len();
                // A nil slice in a map is an entry with a key only.
                if !(v.is_null() && matches!(schema.get(*value), Type::Scalar(Scalar::Bytes))) {
                    value_field(schema, *value, 2, v, out).map_err(|e| format!("{k}: {e}"))?;
                }
                out.bytes_field(1, k.as_bytes());
                out.close(f.number, end);
            }
            Ok(())
        }
        (Type::List { item, wrapped: false }, Tree::Array(items)) => {
            for v in items.iter().rev() {
                value_field(schema, *item, f.number, v, out)?;
            }
            Ok(())
        }
        (Type::Map { .. } | Type::List { wrapped: false, .. }, Tree::Null) => Ok(()),
        (Type::Scalar(Scalar::Bytes) | Type::List { .. }, Tree::Null) => Ok(()),
        (_, Tree::Null) if !by_value => Ok(()),
        _ => value_field(schema, f.ty, f.number, v, out),
    }
}

/// A single value with its tag; null is the zero value.
fn value_field(schema: &Schema, ty: TypeId, number: u32, v: &Tree, out: &mut Back) -> Result<(), String> {
    let end = out.len();
    match (schema.get(ty), v) {
        (Type::Scalar(s), v) => return scalar(*s, number, v, out),
        (Type::Object(o), Tree::Null) => slots(schema, o, &o.layout, &Map::new(), out)?,
        (Type::Object(o), Tree::Object(m)) => slots(schema, o, &o.layout, m, out)?,
        (Type::List { item, .. }, Tree::Array(items)) => {
            for v in items.iter().rev() {
                value_field(schema, *item, 1, v, out)?;
            }
        }
        (
            Type::Any
            | Type::List { .. }
            | Type::SchemaOr { alternative: Alternative::Schemas | Alternative::Strings, .. },
            Tree::Null,
        ) => {}
        (Type::Any, v) => out.bytes_field(1, &crate::codec::json::encode(v)),
        (Type::SchemaOr { schema: inner, alternative }, v) => schema_or(schema, *inner, *alternative, v, out)?,
        (_, v) => return Err(mismatch(v)),
    }
    out.close(number, end);
    Ok(())
}

fn schema_or(schema: &Schema, inner: TypeId, or: Alternative, v: &Tree, out: &mut Back) -> Result<(), String> {
    match (or, v) {
        (Alternative::Bool, Tree::Object(_)) => {
            value_field(schema, inner, 2, v, out)?;
            out.varint_field(1, 1);
        }
        (Alternative::Bool, v) => out.varint_field(1, u64::from(v.as_bool().unwrap_or(false))),
        (_, Tree::Object(_)) => value_field(schema, inner, 1, v, out)?,
        (Alternative::Schemas, Tree::Array(items)) => {
            for v in items.iter().rev() {
                value_field(schema, inner, 2, v, out)?;
            }
        }
        (Alternative::Strings, Tree::Array(items)) => {
            for v in items.iter().rev() {
                out.bytes_field(2, v.as_str().ok_or_else(|| mismatch(v))?.as_bytes());
            }
        }
        (_, v) => return Err(mismatch(v)),
    }
    Ok(())
}

fn scalar(s: Scalar, number: u32, v: &Tree, out: &mut Back) -> Result<(), String> {
    let end = out.len();
    match (s, v) {
        (Scalar::String, v) => out.bytes_field(number, text(v, "")?.as_bytes()),
        (Scalar::Bool, Tree::Bool(b)) => out.varint_field(number, u64::from(*b)),
        (Scalar::Bool | Scalar::Int32 | Scalar::Int64, Tree::Null) => out.varint_field(number, 0),
        (Scalar::Int32 | Scalar::Int64, Tree::Number(n)) => {
            out.varint_field(number, n.as_i64().ok_or_else(|| mismatch(v))? as u64)
        }
        (Scalar::Double, Tree::Null) => out.fixed64_field(number, 0),
        (Scalar::Double, Tree::Number(n)) => {
            out.fixed64_field(number, n.as_f64().ok_or_else(|| mismatch(v))?.to_bits())
        }
        (Scalar::Bytes, Tree::String(t)) => {
            let bytes = BASE64.decode(t).map_err(|e| format!("a base64 text that is none: {e}"))?;
            out.bytes_field(number, &bytes);
        }
        (Scalar::Bytes, Tree::Null) => {}
        (Scalar::Time | Scalar::MicroTime, Tree::Null) => out.close(number, end),
        (Scalar::Time | Scalar::MicroTime, Tree::String(t)) => {
            let t = OffsetDateTime::parse(t, &Rfc3339).map_err(|e| format!("a time that is none: {e}"))?;
            let nanos = if s == Scalar::MicroTime { u64::from(t.microsecond()) * 1000 } else { 0 };
            out.varint_field(2, nanos);
            out.varint_field(1, t.unix_timestamp() as u64);
            out.close(number, end);
        }
        (Scalar::Quantity, v) => {
            out.bytes_field(1, text(v, "0")?.as_bytes());
            out.close(number, end);
        }
        (Scalar::IntOrString, v) => {
            let (kind, int, text) = match v {
                Tree::String(t) => (1, 0, t.as_str()),
                Tree::Null => (0, 0, ""),
                v => (0, v.as_i64().ok_or_else(|| mismatch(v))?, ""),
            };
            out.bytes_field(3, text.as_bytes());
            out.varint_field(2, int as u64);
            out.varint_field(1, kind);
            out.close(number, end);
        }
        (_, v) => return Err(mismatch(v)),
    }
    Ok(())
}

fn text<'v>(v: &'v Tree, zero: &'v str) -> Result<&'v str, String> {
    match v {
        Tree::String(s) => Ok(s),
        Tree::Null => Ok(zero),
        v => Err(mismatch(v)),
    }
}

fn mismatch(v: &Tree) -> String {
    let shown: String = v.to_string().chars().take(40).collect();
    format!("{shown} is not of the field's type")
}
