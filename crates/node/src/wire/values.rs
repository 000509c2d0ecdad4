//! The layouts of the values that messages are made of: trees, objects, statuses, plans.

use super::codec::{DecodeError, Read, Reader, Wire, Writer, fields, variants};
use crate::cell::Change;
use agree::descriptor::Descriptor;
use base::{Revision, Wall};
use bytes::Bytes;
use objects::allotment::{Allotment, Block, Given, Item, Reserved, Wanted};
use objects::codec::MAX_DEPTH;
use objects::decision::{Answer, Payload, Stream, Token};
use objects::kinds::{self, Kind};
use objects::read::{At, ListPlan, WatchPlan, WatchStart};
use objects::request::{Key, Meta, Stored};
use objects::select::{FieldSelector, LabelSelector, Operator, Requirement, Selection};
use objects::status::{Cause, Details, Reason, Status};
use objects::{Map, Tree};
use std::net::Ipv4Addr;
use std::sync::Arc;

/// How deep a tree may nest: what a body may, and a little more for what is made of it here.
const DEPTH_MAX: usize = MAX_DEPTH + 8;

/// How many values a tree may hold: more than a body of 3 MiB can. A value takes far more memory than bytes.
const VALUES_MAX: usize = 2 << 20;

// Trees. `u8`: 0 null, 1 false, 2 true, 3 a number from 0 on, 4 one below 0 (as -1 - n), 5 a fraction (its 64 bits),
// 6 a text, 7 a list, 8 a map, whose keys rise. Numbers and lengths as LEB128. They are not sent as JSON: a fraction
// has to be the same one at the other end, and what was parsed once is not parsed again.

impl Wire for Tree {
    const LEAST: usize = 1;
    fn write(&self, w: &mut Writer) {
        match self {
            Tree::Null => {
                w.u8(0);
            }
            Tree::Bool(b) => {
                w.u8(1 + u8::from(*b));
            }
            Tree::Number(n) => match (n.as_u64(), n.as_i64(), n.as_f64()) {
                (Some(n), ..) => leb(w.u8(3), n),
                (_, Some(n), _) => leb(w.u8(4), !n.cast_unsigned()),
                (.., f) => {
                    w.u8(5).u64(f.unwrap_or_default().to_bits());
                }
            },
            Tree::String(t) => leb_text(w.u8(6), t),
            Tree::Array(items) => {
                leb(w.u8(7), items.len() as u64);
                items.iter().for_each(|item| item.write(w));
            }
            Tree::Object(map) => {
                leb(w.u8(8), map.len() as u64);
                for (key, value) in map {
                    leb_text(w, key);
                    value.write(w);
                }
            }
        }
    }
    fn read(r: &mut Reader<'_>) -> Read<Tree> {
        tree(r, DEPTH_MAX, &mut 0)
    }
}

fn tree(r: &mut Reader<'_>, depth: usize, values: &mut usize) -> Read<Tree> {
    *values += 1;
    if *values > VALUES_MAX {
        return Err(r.malformed());
    }
    let deeper = |r: &Reader<'_>| depth.checked_sub(1).ok_or_else(|| r.malformed());
    Ok(match r.u8()? {
        0 => Tree::Null,
        1 => Tree::Bool(false),
        2 => Tree::Bool(true),
        3 => Tree::from(unleb(r)?),
        4 => match (!unleb(r)?).cast_signed() {
            n if n < 0 => Tree::from(n),
            _ => return Err(r.malformed()),
        },
        5 => {
            let fraction = serde_json::Number::from_f64(f64::from_bits(r.u64()?));
            Tree::Number(fraction.ok_or_else(|| r.malformed())?)
        }
        6 => Tree::String(unleb_text(r)?),
        7 => {
            let depth = deeper(r)?;
            let mut items = Vec::new();
            for _ in 0..unleb(r)? {
                items.push(tree(r, depth, values)?);
            }
            Tree::Array(items)
        }
        8 => {
            let depth = deeper(r)?;
            let mut map = Map::new();
            let mut last: Option<String> = None;
            for _ in 0..unleb(r)? {
                let key = unleb_text(r)?;
                if last.as_ref().is_some_and(|last| *last >= key) {
                    return Err(r.malformed());
                }
                last = Some(key.clone());
                map.insert(key, tree(r, depth, values)?);
            }
            Tree::Object(map)
        }
        other => return Err(r.newer(other)),
    })
}

fn leb(w: &mut Writer, mut n: u64) {
    while n >= 0x80 {
        w.u8(n as u8 | 0x80);
        n >>= 7;
    }
    w.u8(n as u8);
}

fn unleb(r: &mut Reader<'_>) -> Read<u64> {
    let mut n = 0;
    for shift in (0..64).step_by(7) {
        let b = r.u8()?;
        let part = u64::from(b & 0x7f);
        if part << shift >> shift != part {
            return Err(r.malformed());
        }
        n |= part << shift;
        if b & 0x80 == 0 {
            // One number has one form.
            return if b == 0 && shift > 0 { Err(r.malformed()) } else { Ok(n) };
        }
    }
    Err(r.malformed())
}

fn leb_text(w: &mut Writer, t: &str) {
    leb(w, t.len() as u64);
    w.0.extend_from_slice(t.as_bytes());
}

fn unleb_text(r: &mut Reader<'_>) -> Read<String> {
    let n = usize::try_from(unleb(r)?).map_err(|_| r.malformed())?;
    let bytes = r.slice(n)?;
    std::str::from_utf8(&bytes).map(str::to_owned).map_err(|_| r.malformed())
}

// Objects: header and canonical bytes as they are stored. Nothing is parsed but the header.

fields!(Key { storage: Arc<str>, name: Arc<str> });

impl Wire for Stored {
    const LEAST: usize = 16;
    fn write(&self, w: &mut Writer) {
        let Stored { revision, meta, json } = self;
        revision.write(w);
        w.bytes(&meta.encode()).bytes(json);
    }
    fn read(r: &mut Reader<'_>) -> Read<Stored> {
        let (revision, meta, json) = (Revision::read(r)?, r.bytes()?, r.bytes()?);
        let meta = match (Meta::decode(&meta), meta.first()) {
            (Some(meta), _) => meta,
            // A header that a newer release wrote may be of a version this one cannot read; the bytes always can.
            (None, Some(version)) if *version > 1 => Meta::default(),
            (None, _) => return Err(r.malformed()),
        };
        if std::str::from_utf8(&json).is_err() {
            return Err(r.malformed());
        }
        Ok(Stored { revision, meta: Arc::new(meta), json })
    }
}

fields!(Change { key: Key, revision: Revision, before: Option<Stored>, after: Option<Stored> });

/// A kind travels as its group, version and name.
impl Wire for &'static Kind {
    const LEAST: usize = 12;
    fn write(&self, w: &mut Writer) {
        w.bytes(self.group.as_bytes()).bytes(self.version.as_bytes()).bytes(self.kind.as_bytes());
    }
    fn read(r: &mut Reader<'_>) -> Read<&'static Kind> {
        let (group, version, kind) = (String::read(r)?, String::read(r)?, String::read(r)?);
        kinds::by_kind(&group, &version, &kind)
            .ok_or_else(|| DecodeError::Unknown { what: r.what(), name: format!("the kind {group}/{version} {kind}") })
    }
}

// Statuses.

variants!(Reason {
    0 => Unknown, 1 => Unauthorized, 2 => Forbidden, 3 => NotFound, 4 => AlreadyExists, 5 => Conflict, 6 => Gone,
    7 => Invalid, 8 => ServerTimeout, 9 => StoreReadError, 10 => Timeout, 11 => TooManyRequests, 12 => BadRequest,
    13 => MethodNotAllowed, 14 => NotAcceptable, 15 => RequestEntityTooLarge, 16 => UnsupportedMediaType,
    17 => InternalError, 18 => Expired, 19 => ServiceUnavailable,
});
fields!(Cause { reason: String, message: String, field: String });
fields!(Details {
    name: String, group: String, kind: String, uid: String, causes: Vec<Cause>, retry_after_seconds: u32,
});
fields!(Status {
    code: u16, reason: Reason, message: String, details: Option<Box<Details>>, success: bool, continue_token: String,
});

// Selections and plans.

variants!(Operator {
    1 => In, 2 => NotIn, 3 => Equals, 4 => DoubleEquals, 5 => NotEquals, 6 => Exists, 7 => DoesNotExist,
    8 => GreaterThan, 9 => LessThan,
});
fields!(Requirement { key: String, operator: Operator, values: Vec<String> });
fields!(LabelSelector { requirements: Vec<Requirement>, nothing: bool });
fields!(FieldSelector { terms: Vec<(String, String, bool)> });
fields!(Selection { labels: LabelSelector, fields: FieldSelector });
variants!(At { 1 => Latest, 2 => NotOlderThan(revision), 3 => Exactly(revision) });
fields!(ListPlan {
    at: At, selection: Selection, limit: u64, after: Option<String>, namespace: Arc<str>, warnings: Vec<String>,
});
variants!(WatchStart { 1 => State { not_older_than, mark }, 2 => Newest(not_older_than), 3 => After(revision) });
fields!(WatchPlan {
    start: WatchStart, selection: Selection, bookmarks: bool, timeout_seconds: u64, namespace: Arc<str>,
});

// Answers.

/// Canonical JSON, which nobody parses on the way; it is text, or it is refused.
struct Json(Bytes);

impl Wire for Json {
    const LEAST: usize = 4;
    fn write(&self, w: &mut Writer) {
        w.bytes(&self.0);
    }
    fn read(r: &mut Reader<'_>) -> Read<Json> {
        let bytes = r.bytes()?;
        if std::str::from_utf8(&bytes).is_ok() { Ok(Json(bytes)) } else { Err(r.malformed()) }
    }
}

impl Wire for Payload {
    const LEAST: usize = 1;
    fn write(&self, w: &mut Writer) {
        match self {
            Payload::Json(json) => {
                w.u8(1).bytes(json);
            }
            Payload::Tree(tree) => tree.write(w.u8(2)),
            Payload::Status(status) => status.write(w.u8(3)),
        }
    }
    fn read(r: &mut Reader<'_>) -> Read<Payload> {
        Ok(match r.u8()? {
            1 => Payload::Json(Json::read(r)?.0),
            2 => Payload::Tree(Wire::read(r)?),
            3 => Payload::Status(Wire::read(r)?),
            other => return Err(r.newer(other)),
        })
    }
}

fields!(Answer { code: u16, warnings: Vec<String>, payload: Payload });
fields!(Token {
    namespace: String, service_account: String, uid: String, audiences: Vec<String>, seconds: i64,
    bound: Option<(String, String, String)>, node: Option<(String, String)>, request: Tree, warnings: Vec<String>,
});
fields!(Stream { object: Stored, subresource: Arc<str> });

// What root hands out.

variants!(Item { 1 => Address(ip), 2 => Port(port) });
fields!(Block { first: Ipv4Addr, last: Ipv4Addr, ending: bool });
fields!(Reserved { item: Item, service: String, since: Wall, ending: bool });
fields!(Allotment { revision: Revision, blocks: Vec<Block>, reserved: Vec<Reserved> });
fields!(Wanted {
    namespace: String, uid: String, service: String, block_after: Option<usize>, chosen: Vec<Item>, ports: usize,
});
fields!(Given { wanted: Wanted, allotment: Allotment });

// Who keeps a cell: in agree's own layout.

impl Wire for Descriptor {
    const LEAST: usize = 4;
    fn write(&self, w: &mut Writer) {
        w.bytes(&self.encode());
    }
    fn read(r: &mut Reader<'_>) -> Read<Descriptor> {
        Descriptor::decode(&r.bytes()?)
    }
}

/// The bytes of stored JSON that a list is made of.
pub(super) fn read_json(r: &mut Reader<'_>) -> Read<Bytes> {
    Json::read(r).map(|j| j.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codec::{decode, encode};
    use base::Uid;
    use objects::record;
    use serde_json::json;

    fn back<T: Wire>(value: &T) -> T {
        decode("a test", &encode(value)).unwrap()
    }

    #[test]
    fn a_tree_is_the_same_at_the_other_end_to_the_last_bit() {
        for tree in [
            json!(null),
            json!([true, false, 0, 127, 128, u64::MAX, -1, i64::MIN, 0.1, -2.5e300, 1.0, "", "ä\u{0}"]),
            json!({"a": {"b": [{}, []]}, "": "x"}),
            // Parsed as JSON without care this is the number beside it.
            json!(5.0e-324_f64),
            json!(1.797_693_134_862_315_7e308_f64),
        ] {
            assert_eq!(back(&tree), tree);
        }
    }

    #[test]
    fn a_tree_that_is_deeper_than_any_body_is_refused() {
        let nested = |n: usize| (0..n).fold(Tree::Null, |inner, _| Tree::Array(vec![inner]));
        assert_eq!(back(&nested(DEPTH_MAX)), nested(DEPTH_MAX));
        assert!(decode::<Tree>("a tree", &encode(&nested(DEPTH_MAX + 1))).is_err());
        let endless = [&[1u8][..], &[7, 1].repeat(1 << 20)].concat();
        assert!(decode::<Tree>("a tree", &endless.into()).is_err());
    }

    #[test]
    fn a_tree_of_more_values_than_any_body_is_refused() {
        let flat = |n: usize| {
            let mut w = Writer::default();
            leb(w.u8(1).u8(7), n as u64);
            w.0.resize(w.0.len() + n, 0);
            decode::<Tree>("a tree", &w.finish())
        };
        assert_eq!(flat(VALUES_MAX - 1).unwrap().as_array().unwrap().len(), VALUES_MAX - 1);
        assert!(flat(VALUES_MAX).is_err());
    }

    #[test]
    fn a_tree_has_one_form() {
        for bad in [
            &[1, 3, 0x80, 0][..],                                             // a number longer than it must be
            &[1, 4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], // not below 0
            &[1, 3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2], // beyond 64 bits
            &[1, 8, 2, 1, b'b', 0, 1, b'a', 0],                               // keys that fall
            &[1, 8, 2, 1, b'a', 0, 1, b'a', 0],                               // a key twice
            &[1, 5, 0, 0, 0, 0, 0, 0, 0xf0, 0x7f],                            // infinity
            &[1, 6, 1, 0xff],                                                 // no text
            &[1, 7, 0xff, 0xff, 0xff, 0xff, 0x0f],                            // a list longer than the bytes
        ] {
            assert!(decode::<Tree>("a tree", &Bytes::copy_from_slice(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_kind_is_found_by_what_it_travels_as() {
        for kind in kinds::KINDS.iter().chain(kinds::BODIES) {
            assert!(std::ptr::eq::<Kind>(back::<&'static Kind>(&kind), kind), "{kind:?}");
        }
        let own = kinds::by_kind("beemesh.io", "v1", "Allotment").unwrap();
        assert!(std::ptr::eq::<Kind>(back::<&'static Kind>(&own), own));
        let of_tomorrow = encode(&("apps".to_owned(), "v2".to_owned(), "Deployment".to_owned()));
        let refused = decode::<&Kind>("a request", &of_tomorrow).unwrap_err();
        assert!(refused.to_string().contains("a request names the kind apps/v2 Deployment"), "{refused}");
    }

    #[test]
    fn an_object_costs_little_more_than_its_bytes() {
        let kind = kinds::by_resource("", "v1", "configmaps").unwrap();
        let tree = json!({"kind": "ConfigMap", "apiVersion": "v1", "data": {"k": "v".repeat(1000)},
            "metadata": {"name": "x", "uid": Uid(1).to_string(), "labels": {"app": "web"}}});
        let stored = Stored::from_tree(kind, tree, Revision::from_u64(5).unwrap());
        let bytes = encode(&stored);
        assert_eq!(back(&stored), stored);
        assert!(bytes.len() - stored.json.len() < 70, "{} and {}", bytes.len(), stored.json.len());
        assert_eq!(record::encode(&stored.tree()), stored.json);
    }

    #[test]
    fn a_header_of_a_newer_release_is_passed_over_and_a_damaged_one_refused() {
        let with = |meta: &[u8], json: &[u8]| {
            let mut w = Writer::default();
            w.u8(1).u64(9).bytes(meta).bytes(json);
            decode::<Stored>("an object", &w.finish())
        };
        assert_eq!(with(b"\x02new", b"{}").unwrap().meta, Arc::default());
        assert!(with(b"\x01", b"{}").is_err());
        assert!(with(b"", b"{}").is_err());
        assert!(with(&Meta::default().encode(), b"\xff").is_err());
        with(&Meta::default().encode(), b"{}").unwrap();
    }
}
