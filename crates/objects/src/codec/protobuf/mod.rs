//! Kubernetes' protobuf: trees to messages and back, by the schema's field numbers.
//!
//! Every body on the wire is the four bytes `k8s\0` and a `runtime.Unknown` that names apiVersion and
//! kind and holds the object's message; a watch is a sequence of frames, each a four-byte length and a
//! `WatchEvent` whose object is again such a body. Fields are written as gogo-protobuf writes
//! them for Kubernetes' Go types, byte for byte: ascending, map entries sorted, values that are no
//! pointers always, zero or not.
//!
//! A field number the schema does not know cannot be kept in a tree, whose fields have names. It is
//! reported like JSON's unknown fields (`unknown field "spec.#99"`), so it is warned of or refused as the
//! request's `fieldValidation` says, never dropped in silence. The other way, fields of a newer release
//! in a stored tree have no number here: a protobuf answer lacks them, a JSON answer has them.

mod decode;
mod encode;
mod wire;

use super::Decoded;
use super::json::Error;
use crate::Tree;
use crate::schema::{Schema, TypeId};
use wire::{Back, Reader, Value};

/// What every body begins with.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// A body taken apart: `runtime.Unknown`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Envelope<'a> {
    /// As sent; may be empty.
    pub api_version: &'a str,
    /// As sent; may be empty.
    pub kind: &'a str,
    /// The object's message.
    pub raw: &'a [u8],
}

/// Opens a body.
///
/// # Errors
/// [`Error::Syntax`] if it is none, or is encoded or typed in a way nobody sends.
pub fn open(bytes: &[u8]) -> Result<Envelope<'_>, Error> {
    let Some(body) = bytes.strip_prefix(MAGIC) else {
        return Err(Error::Syntax(String::from(
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]",
        )));
    };
    envelope(body).map_err(Error::Syntax)
}

fn envelope(body: &[u8]) -> Result<Envelope<'_>, String> {
    let mut out = Envelope::default();
    let mut fields = Reader::new(body);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (1, Value::Bytes(meta)) => {
                let mut meta = Reader::new(meta);
                while let Some((number, value)) = meta.next()? {
                    match number {
                        1 => out.api_version = value.text()?,
                        2 => out.kind = value.text()?,
                        _ => {}
                    }
                }
            }
            (2, Value::Bytes(raw)) => out.raw = raw,
            (3, v) if !v.text()?.is_empty() => {
                return Err(String::from("the body has a content encoding, which is not supported"));
            }
            _ => {}
        }
    }
    Ok(out)
}

/// Reads an object's message (an [`Envelope::raw`]) into a canonical tree, without apiVersion and kind,
/// which the message does not hold.
///
/// # Errors
/// [`Error::Syntax`] if it is no message or nests deeper than [`super::MAX_DEPTH`]; [`Error::Type`] if a
/// value has not the form its type asks for.
pub fn decode(schema: &Schema, ty: TypeId, raw: &[u8]) -> Result<Decoded, Error> {
    let mut d = decode::Decoder::new(schema);
    let node = d.message(ty, raw).map_err(Error::Syntax)?;
    let strict = d.into_unknown();
    let decoded = super::typed::decode(schema, ty, node).map_err(Error::Type)?;
    Ok(Decoded { tree: decoded.tree, strict })
}

/// A tree's message. The tree must be in canonical form.
///
/// # Errors
/// [`Error::Type`] if the type has no message (Table), or a value is not of its type.
pub fn encode_message(schema: &Schema, ty: TypeId, tree: &Tree) -> Result<Vec<u8>, Error> {
    let mut out = Back::default();
    encode::root(schema, ty, tree, &mut out).map_err(Error::Type)?;
    Ok(out.finish())
}

/// A whole body: the tree's message in an envelope that names the tree's own apiVersion and kind.
///
/// # Errors
/// As [`encode_message`].
pub fn encode(schema: &Schema, ty: TypeId, tree: &Tree) -> Result<Vec<u8>, Error> {
    let text = |field: &str| tree.get(field).and_then(Tree::as_str).unwrap_or("");
    let mut out = Back::default();
    out.bytes_field(4, b"");
    out.bytes_field(3, b"");
    let end = out.len();
    encode::root(schema, ty, tree, &mut out).map_err(Error::Type)?;
    out.close(2, end);
    let end = out.len();
    out.bytes_field(2, text("kind").as_bytes());
    out.bytes_field(1, text("apiVersion").as_bytes());
    out.close(1, end);
    out.raw(MAGIC);
    Ok(out.finish())
}

/// A frame of a watch: `event` is `ADDED` and so on, `object` a whole body.
pub fn watch_frame(event: &str, object: &[u8]) -> Vec<u8> {
    let mut out = Back::default();
    let end = out.len();
    out.bytes_field(1, object);
    out.close(2, end);
    out.bytes_field(1, event.as_bytes());
    let length = u32::try_from(out.len()).unwrap_or(u32::MAX);
    out.raw(&length.to_be_bytes());
    out.finish()
}

#[cfg(test)]
mod tests;
