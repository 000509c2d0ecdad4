//! A stored object: its key, its canonical bytes, and the header kept beside them.
//!
//! The bytes are canonical JSON of the storage version with the revision inside, `kind` and
//! `apiVersion` first and all other keys in order, so the same bytes serve log, peers, GET, LIST and
//! WATCH. The header ([`Meta`]) holds what selectors, garbage collection and controllers ask of every
//! object, so that none of them parses the JSON.

use crate::Tree;
use crate::kinds::Kind;
use base::{Revision, Uid, Wall};
use bytes::Bytes;
use std::sync::Arc;

/// The key of a record in its cell: storage group-kind, then name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key {
    /// [`Kind::storage`].
    pub storage: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

/// A stored object. Cheap to clone.
#[derive(Clone, PartialEq, Debug)]
pub struct Stored {
    /// The revision of its last change; the same number stands in the bytes.
    pub revision: Revision,
    /// The header.
    pub meta: Arc<Meta>,
    /// Canonical JSON of the storage version.
    pub json: Bytes,
}

impl Stored {
    /// The object of a tree whose last change is `revision`, which is written into it.
    pub fn from_tree(kind: &Kind, mut tree: Tree, revision: Revision) -> Stored {
        set_revision(&mut tree, Some(revision));
        let meta = Arc::new(Meta::of(kind, &tree));
        Stored { revision, meta, json: encode(&tree) }
    }

    /// The object as a tree. Stored bytes are ours, so what does not parse is corruption that the log's
    /// checksums missed; it reads as null.
    pub fn tree(&self) -> Tree {
        serde_json::from_slice(&self.json).unwrap_or(Tree::Null)
    }
}

/// A reference to an owner, from `metadata.ownerReferences`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// Its group and version, as written: `apps/v1`.
    pub api_version: Box<str>,
    /// Its kind.
    pub kind: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// Its uid, as written: a client may have written what is no uid.
    pub uid: Box<str>,
    /// The one that manages this object.
    pub controller: bool,
    /// Foreground deletion of the owner waits for this object.
    pub blocks_deletion: bool,
}

/// What selectors, garbage collection and controllers ask of every object, taken from its metadata.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Meta {
    /// `metadata.uid`.
    pub uid: Uid,
    /// `metadata.creationTimestamp`, to the second.
    pub created: Wall,
    /// `metadata.generation`; 0 for kinds that count none.
    pub generation: i64,
    /// `metadata.deletionTimestamp`, to the second: when the object is (or was) to be gone.
    pub deletion: Option<Wall>,
    /// `metadata.deletionGracePeriodSeconds`.
    pub grace_seconds: Option<i64>,
    /// `metadata.labels`, in order of their keys.
    pub labels: Vec<(Box<str>, Box<str>)>,
    /// Selectable fields besides name and namespace (`spec.nodeName`), in the kind's order.
    pub fields: Vec<(Box<str>, Box<str>)>,
    /// `metadata.ownerReferences`.
    pub owners: Vec<Owner>,
    /// `metadata.finalizers`.
    pub finalizers: Vec<Box<str>>,
}

impl Meta {
    /// The header of an object.
    pub fn of(kind: &Kind, tree: &Tree) -> Meta {
        let m = &tree["metadata"];
        let text = |v: &Tree| -> Box<str> { v.as_str().unwrap_or_default().into() };
        let time = |v: &Tree| v.as_str().and_then(Wall::parse_rfc3339);
        Meta {
            uid: m["uid"].as_str().and_then(|s| s.parse().ok()).unwrap_or_default(),
            created: time(&m["creationTimestamp"]).unwrap_or_default(),
            generation: m["generation"].as_i64().unwrap_or(0),
            deletion: time(&m["deletionTimestamp"]),
            grace_seconds: m["deletionGracePeriodSeconds"].as_i64(),
            labels: m["labels"]
                .as_object()
                .map(|l| l.iter().map(|(k, v)| (k.as_str().into(), text(v))).collect())
                .unwrap_or_default(),
            fields: kind
                .rules
                .selectable()
                .iter()
                .map(|f| (Box::from(*f), kind.rules.select(tree, f).into_boxed_str()))
                .collect(),
            owners: items(&m["ownerReferences"])
                .iter()
                .map(|o| Owner {
                    api_version: text(&o["apiVersion"]),
                    kind: text(&o["kind"]),
                    name: text(&o["name"]),
                    uid: text(&o["uid"]),
                    controller: o["controller"].as_bool().unwrap_or(false),
                    blocks_deletion: o["blockOwnerDeletion"].as_bool().unwrap_or(false),
                })
                .collect(),
            finalizers: items(&m["finalizers"]).iter().map(text).collect(),
        }
    }

    /// The value of a label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.binary_search_by(|(k, _)| (**k).cmp(key)).ok().and_then(|i| self.labels.get(i)).map(|(_, v)| &**v)
    }

    /// The value of a selectable field; empty for one the object does not have.
    pub fn field(&self, path: &str) -> &str {
        self.fields.iter().find(|(k, _)| &**k == path).map_or("", |(_, v)| &**v)
    }

    /// The owner that manages this object.
    pub fn controller(&self) -> Option<&Owner> {
        self.owners.iter().find(|o| o.controller)
    }

    /// The header as bytes: version 1, then every field in the order declared; numbers as LEB128,
    /// texts and lists with their length before them, signed numbers zigzag.
    pub fn encode(&self) -> Bytes {
        let mut w = Vec::with_capacity(128);
        w.push(1);
        w.extend_from_slice(&self.uid.0.to_be_bytes());
        put(&mut w, self.created.0);
        put(&mut w, zigzag(self.generation));
        put(&mut w, self.deletion.map_or(0, |d| d.0.saturating_add(1)));
        put(&mut w, self.grace_seconds.map_or(0, |g| zigzag(g).saturating_add(1)));
        for pairs in [&self.labels, &self.fields] {
            put(&mut w, pairs.len() as u64);
            for (k, v) in pairs {
                put_text(&mut w, k);
                put_text(&mut w, v);
            }
        }
        put(&mut w, self.owners.len() as u64);
        for o in &self.owners {
            for t in [&o.api_version, &o.kind, &o.name, &o.uid] {
                put_text(&mut w, t);
            }
            w.push(u8::from(o.controller) | u8::from(o.blocks_deletion) << 1);
        }
        put(&mut w, self.finalizers.len() as u64);
        for f in &self.finalizers {
            put_text(&mut w, f);
        }
        w.into()
    }

    /// Reads what [`Meta::encode`] wrote; `None` if the bytes are of another version or damaged.
    pub fn decode(bytes: &[u8]) -> Option<Meta> {
        let mut r = Reader(bytes);
        if r.take(1)? != [1] {
            return None;
        }
        let uid = Uid(u128::from_be_bytes(r.take(16)?.try_into().ok()?));
        let created = Wall(r.number()?);
        let generation = unzigzag(r.number()?);
        let deletion = r.number()?.checked_sub(1).map(Wall);
        let grace_seconds = r.number()?.checked_sub(1).map(unzigzag);
        let labels = r.list(|r| Some((r.text()?, r.text()?)))?;
        let fields = r.list(|r| Some((r.text()?, r.text()?)))?;
        let owners = r.list(|r| {
            let (api_version, kind, name, uid) = (r.text()?, r.text()?, r.text()?, r.text()?);
            let bits = *r.take(1)?.first()?;
            Some(Owner { api_version, kind, name, uid, controller: bits & 1 != 0, blocks_deletion: bits & 2 != 0 })
        })?;
        let finalizers = r.list(Reader::text)?;
        r.0.is_empty().then_some(Meta {
            uid,
            created,
            generation,
            deletion,
            grace_seconds,
            labels,
            fields,
            owners,
            finalizers,
        })
    }
}

/// Canonical JSON: `kind` and `apiVersion` first, every other key of every map in order, no spaces.
pub fn encode(tree: &Tree) -> Bytes {
    let mut out = Vec::with_capacity(512);
    let Tree::Object(map) = tree else {
        return serde_json::to_vec(tree).unwrap_or_default().into();
    };
    out.push(b'{');
    let first = ["kind", "apiVersion"].into_iter().filter_map(|k| map.get_key_value(k));
    let rest = map.iter().filter(|(k, _)| *k != "kind" && *k != "apiVersion");
    for (n, (key, value)) in first.chain(rest).enumerate() {
        if n > 0 {
            out.push(b',');
        }
        // Writing a tree into memory cannot fail: its keys are texts and a Vec takes all bytes.
        let _ = serde_json::to_writer(&mut out, key);
        out.push(b':');
        let _ = serde_json::to_writer(&mut out, value);
    }
    out.push(b'}');
    out.into()
}

/// An object's bytes as an item of a list: without `kind` and `apiVersion`, which the list itself
/// carries. A piece to write after `{`; see [`list_item`].
fn item_tail(json: &[u8]) -> Option<&[u8]> {
    let rest = json.strip_prefix(b"{\"kind\":\"")?;
    let rest = rest.get(rest.iter().position(|b| *b == b'"')? + 1..)?.strip_prefix(b",\"apiVersion\":\"")?;
    rest.get(rest.iter().position(|b| *b == b'"')? + 1..)?.strip_prefix(b",")
}

/// Appends a stored object to a list being written, as an item without `kind` and `apiVersion`.
pub fn list_item(json: &[u8], out: &mut Vec<u8>) {
    match item_tail(json) {
        Some(tail) => {
            out.push(b'{');
            out.extend_from_slice(tail);
        }
        None => out.extend_from_slice(json),
    }
}

/// Writes a revision into `metadata.resourceVersion`, or takes it out.
pub fn set_revision(tree: &mut Tree, revision: Option<Revision>) {
    let Some(meta) = tree.get_mut("metadata").and_then(Tree::as_object_mut) else { return };
    match revision {
        Some(r) => meta.insert("resourceVersion".into(), Tree::String(r.to_string())),
        None => meta.remove("resourceVersion"),
    };
}

fn items(v: &Tree) -> &[Tree] {
    v.as_array().map_or(&[], Vec::as_slice)
}

const fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

const fn unzigzag(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}

fn put(w: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        w.push(n as u8 | 0x80);
        n >>= 7;
    }
    w.push(n as u8);
}

fn put_text(w: &mut Vec<u8>, t: &str) {
    put(w, t.len() as u64);
    w.extend_from_slice(t.as_bytes());
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    fn number(&mut self) -> Option<u64> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let b = *self.take(1)?.first()?;
            n |= u64::from(b & 0x7f).checked_shl(shift)?;
            if b & 0x80 == 0 {
                return Some(n);
            }
        }
        None
    }

    fn text(&mut self) -> Option<Box<str>> {
        let n = usize::try_from(self.number()?).ok()?;
        std::str::from_utf8(self.take(n)?).ok().map(Into::into)
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let n = self.number()?;
        // Every item takes at least a byte, so a damaged length cannot ask for more memory than there
        // are bytes.
        if n > self.0.len() as u64 {
            return None;
        }
        (0..n).map(|_| item(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn kind_and_api_version_come_first_and_leave_in_a_list() {
        let t = serde_json::json!({"apiVersion":"v1","data":{"b":"2","a":"1"},"kind":"ConfigMap","metadata":{}});
        let bytes = encode(&t);
        assert_eq!(bytes, r#"{"kind":"ConfigMap","apiVersion":"v1","data":{"a":"1","b":"2"},"metadata":{}}"#);
        let mut out = Vec::new();
        list_item(&bytes, &mut out);
        assert_eq!(out, br#"{"data":{"a":"1","b":"2"},"metadata":{}}"#);
    }

    #[test]
    fn a_header_of_version_one_reads_for_ever() {
        let meta = Meta {
            uid: Uid(1),
            created: Wall(1000),
            generation: -1,
            deletion: Some(Wall(0)),
            grace_seconds: Some(30),
            labels: vec![("a".into(), "b".into())],
            fields: vec![],
            owners: vec![Owner {
                api_version: "v1".into(),
                kind: "X".into(),
                name: "n".into(),
                uid: "u".into(),
                controller: true,
                blocks_deletion: false,
            }],
            finalizers: vec!["f".into()],
        };
        let golden = b"\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\xe8\x07\x01\x01\x3d\x01\x01a\x01b\0\x01\x02v1\x01X\x01n\x01u\x01\x01\x01f";
        assert_eq!(&meta.encode()[..], golden);
        assert_eq!(Meta::decode(golden), Some(meta));
    }

    proptest! {
        #[test]
        fn damaged_headers_are_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(m) = Meta::decode(&bytes) {
                prop_assert_eq!(Meta::decode(&m.encode()), Some(m));
            }
        }

        #[test]
        fn headers_read_back(generation in any::<i64>(), created in 0u64..(1 << 50), grace in proptest::option::of(-5i64..100_000), labels in proptest::collection::btree_map("[a-z]{1,5}", ".{0,8}", 0..5)) {
            let m = Meta { generation, created: Wall(created), grace_seconds: grace, labels: labels.into_iter().map(|(k, v)| (k.into(), v.into())).collect(), ..Meta::default() };
            prop_assert_eq!(Meta::decode(&m.encode()), Some(m));
        }
    }
}
