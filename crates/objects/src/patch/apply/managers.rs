//! `metadata.managedFields`: who set what, by which operation, in which version, through which
//! subresource, and when.

use super::fieldset::FieldSet;
use crate::{Map, Tree};
use base::Wall;
use std::collections::{BTreeMap, BTreeSet};

/// Most entries of operation Update an object keeps; of more, the oldest become one.
pub const UPDATE_MANAGERS_MAX: usize = 10;
/// The manager that the oldest updates are put under.
const ANCIENT: &str = "ancient-changes";
/// What a manager without a name is called.
const UNKNOWN: &str = "unknown";

/// How a manager wrote.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Operation {
    /// Server-side apply.
    Apply,
    /// Create, update and every other patch.
    Update,
}

/// What makes two entries the same one. An applier keeps its entry when it changes the version.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Id {
    pub(super) operation: Operation,
    pub(super) manager: String,
    /// Empty for appliers.
    pub(super) version: String,
    pub(super) subresource: String,
}

/// An entry.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Entry {
    pub(super) fields: FieldSet,
    pub(super) version: String,
    /// RFC 3339, UTC, whole seconds; none if it was never said.
    pub(super) time: Option<String>,
}

/// All entries of an object.
pub(super) type Managers = BTreeMap<Id, Entry>;

impl Id {
    pub(super) fn new(manager: &str, operation: Operation, version: &str, subresource: &str) -> Id {
        let manager = if manager.is_empty() { UNKNOWN } else { manager };
        let version = if operation == Operation::Apply { "" } else { version };
        Id { operation, manager: manager.into(), version: version.into(), subresource: subresource.into() }
    }

    /// The order in which Kubernetes, which keeps this as JSON, sorts entries of one second.
    fn sort_key(&self) -> String {
        format!("{}\"{}\"{}", self.manager, self.version, self.subresource)
    }
}

/// Reads managedFields that a client sent. `None` if they are not such as a server writes; none at all
/// are an empty map.
pub(super) fn decode(fields: Option<&Tree>) -> Option<Managers> {
    read(fields.cloned(), |fields| FieldSet::decode(&fields))
}

/// Reads managedFields that [`encode`] wrote, taking the sets as they are: reading their every step again
/// would be most of what a write costs.
pub(super) fn decode_stored(fields: Option<Tree>) -> Option<Managers> {
    read(fields, |fields| match fields {
        Tree::Object(map) => Some(FieldSet(map)),
        _ => None,
    })
}

fn read(fields: Option<Tree>, set: impl Fn(Tree) -> Option<FieldSet>) -> Option<Managers> {
    let entries = match fields {
        None | Some(Tree::Null) => return Some(Managers::new()),
        Some(Tree::Array(entries)) => entries,
        Some(_) => return None,
    };
    let mut managers = Managers::new();
    for entry in entries {
        let Tree::Object(mut entry) = entry else { return None };
        let fields = entry.remove("fieldsV1");
        let text = |key: &str| match entry.get(key) {
            None | Some(Tree::Null) => Some(""),
            Some(v) => v.as_str(),
        };
        let operation = match text("operation")? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        let version = text("apiVersion")?;
        if version.is_empty() || text("fieldsType")? != "FieldsV1" {
            return None;
        }
        let time = match text("time")? {
            "" => None,
            written => Some(Wall::parse_rfc3339(written)?.rfc3339()),
        };
        let fields = match fields {
            None | Some(Tree::Null) => FieldSet::new(),
            Some(fields) => set(fields)?,
        };
        let id = Id {
            operation,
            manager: text("manager")?.into(),
            version: if operation == Operation::Apply { String::new() } else { version.into() },
            subresource: text("subresource")?.into(),
        };
        managers.insert(id, Entry { fields, version: version.into(), time });
    }
    Some(managers)
}

/// The entries as managedFields: appliers first, then by time, manager, version, subresource. `None` if
/// there are none.
pub(super) fn encode(managers: Managers) -> Option<Tree> {
    let mut all: Vec<(Id, Entry)> = managers.into_iter().collect();
    // Texts of one form in UTC sort as the moments they name; none sorts first, as time zero.
    all.sort_by(|(a, x), (b, y)| {
        let key = |id: &Id| (id.operation, id.subresource.clone());
        a.operation
            .cmp(&b.operation)
            .then_with(|| x.time.cmp(&y.time))
            .then_with(|| a.manager.cmp(&b.manager))
            .then_with(|| x.version.cmp(&y.version))
            .then_with(|| key(a).cmp(&key(b)))
    });
    let list: Vec<Tree> = all
        .into_iter()
        .map(|(id, entry)| {
            let mut out = Map::new();
            out.insert("apiVersion".into(), entry.version.into());
            out.insert("fieldsType".into(), "FieldsV1".into());
            out.insert("fieldsV1".into(), entry.fields.encode());
            if !id.manager.is_empty() {
                out.insert("manager".into(), id.manager.into());
            }
            let operation = if id.operation == Operation::Apply { "Apply" } else { "Update" };
            out.insert("operation".into(), operation.into());
            if !id.subresource.is_empty() {
                out.insert("subresource".into(), id.subresource.into());
            }
            if let Some(time) = entry.time {
                out.insert("time".into(), time.into());
            }
            Tree::Object(out)
        })
        .collect();
    (!list.is_empty()).then_some(Tree::Array(list))
}

/// Whether a request asks for the bookkeeping to be thrown away: an empty list, or one empty entry.
pub(super) fn is_reset(fields: Option<&Tree>) -> bool {
    let nothing = |v: &Tree| v.is_null() || v.as_str() == Some("");
    match fields.and_then(Tree::as_array).map(Vec::as_slice) {
        Some([]) => true,
        Some([Tree::Object(one)]) => one.values().all(nothing),
        _ => false,
    }
}

/// Puts the oldest updates under one manager per version until [`UPDATE_MANAGERS_MAX`] are left, if that
/// many have a version in common with another.
pub(super) fn cap(managers: &mut Managers) {
    let mut updates: Vec<Id> = managers.keys().filter(|id| id.operation == Operation::Update).cloned().collect();
    let mut left = updates.len();
    if left <= UPDATE_MANAGERS_MAX {
        return;
    }
    updates.sort_by_cached_key(|id| (managers.get(id).and_then(|e| e.time.clone()), id.sort_key()));
    let mut first_of: BTreeMap<String, Id> = BTreeMap::new();
    let mut gone = BTreeSet::new();
    for id in updates {
        if left <= UPDATE_MANAGERS_MAX {
            break;
        }
        let bucket = Id::new(ANCIENT, Operation::Update, &id.version, "");
        let Some(first) = first_of.get(&id.version) else {
            first_of.insert(id.version.clone(), id);
            continue;
        };
        if !managers.contains_key(&bucket) {
            let Some(entry) = managers.remove(first) else { continue };
            managers.insert(bucket.clone(), entry);
        }
        if id == bucket || !gone.insert(id.clone()) {
            continue;
        }
        let Some(entry) = managers.remove(&id) else { continue };
        left -= 1;
        if let Some(into) = managers.get_mut(&bucket) {
            into.fields.unite(entry.fields);
            // The later of the two, since the list is sorted by time.
            into.time = entry.time;
        }
    }
}
