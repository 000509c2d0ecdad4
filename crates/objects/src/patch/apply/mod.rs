//! Server-side apply (KEP-555): configurations of several managers merged into one object, and the
//! record of which manager owns which field, kept for every write from the first.
//!
//! A write that is not an apply takes the fields it changes from whoever had them ([`track_update`]). An
//! apply says all its manager wants ([`apply`]): a field of another manager that it wants otherwise is a
//! conflict, unless it forces; a field it said before and says no more is removed, unless another manager
//! has it too.
//!
//! Trees handed in carry what their kind always writes ([`crate::schema::Zero::Written`])
//! and their defaults, as a decoded object does in Kubernetes; an applied configuration carries only what
//! was sent. Lists, maps and structs are told apart by the schema tables.

mod compare;
mod conflict;
mod fields_of;
mod fieldset;
mod last_applied;
mod managers;
mod merge;
mod path;
mod prune;
mod reconcile;
mod reset;
#[cfg(test)]
mod semantics_tests;
#[cfg(test)]
mod tests;
mod typed;

pub use fieldset::FieldSet;
pub use managers::{Operation, UPDATE_MANAGERS_MAX};
pub use path::Step;
pub use reset::reset_fields;

use crate::schema::{Schema, TypeId};
use crate::status::Status;
use crate::{Map, Tree};
use base::Wall;
use compare::{Difference, compare};
use conflict::Conflicts;
use managers::{Entry, Id, Managers};
use std::borrow::Cow;
use std::collections::BTreeMap;
use typed::Place;

/// Who is said to own what an object had before its fields were tracked.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Converts an object to another apiVersion of its kind, and names its type there. `None` if there is no
/// such version any more; what was owned in it is then owned by nobody.
pub type Convert<'a> = &'a dyn Fn(&Tree, &str) -> Option<(Tree, Option<TypeId>)>;

/// What is known of an object's kind.
#[derive(Clone, Copy)]
pub struct Types<'a> {
    /// The types.
    pub schema: &'a Schema,
    /// The type of the object; none for a custom resource without a schema, whose lists are then owned
    /// as one and whose maps key by key.
    pub root: Option<TypeId>,
    /// `apps/v1`: the version of the trees handed in.
    pub api_version: &'a str,
    /// `Deployment`.
    pub kind: &'a str,
    /// To the other versions of the kind.
    pub convert: Convert<'a>,
}

/// Who writes, through what, and when.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// `fieldManager`, or what the user agent implies; empty is called `unknown`.
    pub manager: &'a str,
    /// The subresource written; empty for the object itself.
    pub subresource: &'a str,
    /// The calendar of the deciding leader.
    pub now: Wall,
    /// What a write through this door does not write: [`reset_fields`].
    pub reset: &'a FieldSet,
}

/// Applies `config` to `live` and returns the resulting object with its managedFields. Without `live` the
/// object comes to be.
///
/// The result is not yet defaulted or validated. If it equals `live` in all but managedFields, only
/// ownership has changed; if it equals it altogether, nothing has.
///
/// 400 if the configuration is of another kind or has managedFields itself; 409 with a cause
/// `FieldManagerConflict` for each field that another manager has and that is wanted otherwise, unless
/// `force`; 500 without a reason, as Kubernetes answers, if it does not fit the schema.
pub fn apply(
    types: &Types<'_>,
    live: Option<&Tree>,
    config: &Tree,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Tree, Status> {
    let decoded = managers::decode_stored(live.and_then(managed_fields).cloned());
    let Some(mut managers) = decoded else {
        return Err(Status::bare("failed to decode managed fields: the stored object's are not readable"));
    };
    if text(config, "/apiVersion") != types.api_version || text(config, "/kind") != types.kind {
        return Err(Status::bad_request(format!("invalid object type: {}", group_version_kind(config))));
    }
    if managed_fields(config).is_some_and(|m| !m.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    let zero;
    let live = match live {
        Some(live) => live,
        None => {
            zero = types.zero();
            &zero
        }
    };
    if managers.is_empty() {
        let id = Id::new(BEFORE_FIRST_APPLY, Operation::Update, types.api_version, writer.subresource);
        update(types, &mut managers, &types.zero(), live, id, writer);
    }
    fields_of::check(types.schema, Place::root(types.root), config, false).map_err(|why| {
        let namespace = text(config, "/metadata/namespace");
        let name = text(config, "/metadata/name");
        let gvk = group_version_kind(config);
        Status::bare(format!("failed to create typed patch object ({namespace}/{name}; {gvk}): {why}"))
    })?;

    if writer.manager != last_applied::MANAGER {
        return lay(types, live, config, managers, writer, force).map_err(Conflicts::into_status);
    }
    let mut object = match lay(types, live, config, managers.clone(), writer, force) {
        Ok(object) => object,
        Err(conflicts) => {
            let Some(own) = last_applied::owned(types, live) else { return Err(conflicts.into_status()) };
            let mut others = conflicts.fields();
            others.subtract(&own);
            if !others.is_empty() {
                return Err(conflicts.without(&own).into_status());
            }
            lay(types, live, config, managers, writer, true).map_err(Conflicts::into_status)?
        }
    };
    last_applied::refresh(&mut object, config);
    Ok(object)
}

/// Records in `new` who owns what, after a create (no `old`), an update or a patch that made `new` of
/// `old`; `new` as it is after defaulting and before admission.
///
/// managedFields that `new` brings along count, so that one can give fields away; an empty list throws
/// the record away, and an object without one is not tracked again before it is applied to. Through a
/// subresource what `new` brings along does not count. A record that cannot be read is never kept.
pub fn track_update(types: &Types<'_>, old: Option<&Tree>, new: &mut Tree, writer: &Writer<'_>) {
    let brought = match new.get_mut("metadata") {
        Some(Tree::Object(meta)) => meta.remove("managedFields"),
        _ => None,
    };
    let record_of_old = old.and_then(managed_fields);
    let of_old = || managers::decode_stored(record_of_old.cloned()).unwrap_or_default();
    let mut managers = if !writer.subresource.is_empty() || brought.is_none() {
        of_old()
    } else if brought.as_ref() == record_of_old {
        managers::decode_stored(brought).unwrap_or_default()
    } else if managers::is_reset(brought.as_ref()) {
        Managers::new()
    } else {
        // A client that does not know the field must not delete the record by leaving it out.
        managers::decode(brought.as_ref()).filter(|m| !m.is_empty()).unwrap_or_else(of_old)
    };
    let created = old.is_none_or(|o| text(o, "/metadata/uid").is_empty());
    if managers.is_empty() && !created {
        return;
    }
    let id = Id::new(writer.manager, Operation::Update, types.api_version, writer.subresource);
    match old {
        Some(old) => update(types, &mut managers, old, new, id, writer),
        None => update(types, &mut managers, &types.zero(), new, id, writer),
    }
    managers::cap(&mut managers);
    set_managed_fields(new, managers);
}

/// Takes back the times in `new`'s managedFields if nothing else distinguishes it from `old`, so that a
/// write that changes nothing commits nothing.
pub fn keep_times_if_unchanged(old: &Tree, new: &mut Tree) {
    fn timeless(entry: &Tree) -> impl Iterator<Item = (&String, &Tree)> {
        entry.as_object().into_iter().flatten().filter(|(k, _)| *k != "time")
    }
    let (Some(Tree::Array(before)), Some(Tree::Array(after))) = (managed_fields(old), managed_fields(new)) else {
        return;
    };
    let same_record = before.len() == after.len() && before.iter().zip(after).all(|(b, a)| timeless(b).eq(timeless(a)));
    if same_record && equal_but_record(old, new) {
        *new = old.clone();
    }
}

impl<'a> Types<'a> {
    /// An object of the kind before anything is set.
    fn zero(&self) -> Tree {
        Tree::Object(typed::zero(self.schema, Place::root(self.root)))
    }

    /// An object in another version, and its place there.
    fn at<'t>(&self, object: &'t Tree, version: &str) -> Option<(Cow<'t, Tree>, Place<'a>)> {
        let own = object.get("apiVersion").and_then(Tree::as_str).unwrap_or(self.api_version);
        if version == own && version == self.api_version {
            return Some((Cow::Borrowed(object), Place::root(self.root)));
        }
        let (converted, root) = (self.convert)(object, version)?;
        let root = if version == self.api_version { self.root } else { root };
        Some((Cow::Owned(converted), Place::root(root)))
    }

    /// What differs between two objects in a version, less what the write does not write.
    fn difference(&self, old: &Tree, new: &Tree, version: &str, reset: &FieldSet) -> Option<Difference> {
        let mut found = if version == self.api_version {
            compare(self.schema, Place::root(self.root), old, new)
        } else {
            let ((old, place), (new, _)) = (self.at(old, version)?, self.at(new, version)?);
            compare(self.schema, place, &old, &new)
        };
        found.changed.subtract_below(reset);
        found.removed.subtract_below(reset);
        Some(found)
    }
}

/// One attempt at an apply: merge, remove what is said no more, see who minds.
fn lay(
    types: &Types<'_>,
    live: &Tree,
    config: &Tree,
    mut managers: Managers,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Tree, Conflicts> {
    let place = Place::root(types.root);
    reconcile::reconcile(types, &mut managers);
    let mut object = without_record(live);
    merge::merge(types.schema, place, &mut object, config);

    let me = Id::new(writer.manager, Operation::Apply, types.api_version, writer.subresource);
    let mut fields = fields_of::fields_of(types.schema, place, config);
    fields.subtract_below(writer.reset);
    let last = managers.remove(&me);
    let time = last.as_ref().and_then(|l| l.time.clone());
    managers.insert(me.clone(), Entry { fields, version: types.api_version.into(), time });
    if let Some(pruned) = last.and_then(|last| prune::prune(types, &object, &managers, &me, &last)) {
        object = pruned;
        // What was emptied is gone, but may have been said to be there, and empty.
        merge::merge(types.schema, place, &mut object, config);
    }

    let differences = Differences::new(types, live, &object, writer.reset);
    differences.take_from_others(&mut managers, Some(&me), force)?;
    let changed = !equal_but_record(live, &object);
    if let Some(mine) = managers.get_mut(&me) {
        mine.fields.subtract(&never_owned());
        if changed {
            mine.time = Some(writer.now.rfc3339());
        }
    }
    managers.retain(|_, entry| !entry.fields.is_empty());
    set_managed_fields(&mut object, managers);
    Ok(object)
}

/// Moves ownership after a write that was not an apply.
fn update(types: &Types<'_>, managers: &mut Managers, old: &Tree, new: &Tree, id: Id, writer: &Writer<'_>) {
    reconcile::reconcile(types, managers);
    let mut differences = Differences::new(types, old, new, writer.reset);
    // An update never conflicts: it takes.
    let _ = differences.take_from_others(managers, None, true);
    managers.retain(|_, entry| !entry.fields.is_empty());
    let mut mine = differences.take_changed();
    mine.subtract(&never_owned());
    if mine.is_empty() {
        return;
    }
    let time = Some(writer.now.rfc3339());
    match managers.get_mut(&id) {
        Some(entry) => {
            entry.fields.unite(mine);
            entry.version = types.api_version.into();
            entry.time = time;
        }
        None => drop(managers.insert(id, Entry { fields: mine, version: types.api_version.into(), time })),
    }
}

/// What a write changed, in every version that somebody owns fields in.
struct Differences<'a> {
    types: &'a Types<'a>,
    old: &'a Tree,
    new: &'a Tree,
    reset: &'a FieldSet,
    here: Difference,
}

impl<'a> Differences<'a> {
    fn new(types: &'a Types<'a>, old: &'a Tree, new: &'a Tree, reset: &'a FieldSet) -> Differences<'a> {
        let here = types.difference(old, new, types.api_version, reset).unwrap_or_default();
        Differences { types, old, new, reset, here }
    }

    fn take_changed(&mut self) -> FieldSet {
        std::mem::take(&mut self.here.changed)
    }

    /// Takes what changed from all but `me`. Unless forced, what they own of it is a conflict. Entries in
    /// versions that are no more are dropped.
    fn take_from_others(&self, managers: &mut Managers, me: Option<&Id>, force: bool) -> Result<(), Conflicts> {
        let mut elsewhere: BTreeMap<String, Option<Difference>> = BTreeMap::new();
        let mut conflicts = Vec::new();
        managers.retain(|id, entry| {
            if Some(id) == me {
                return true;
            }
            let difference = if entry.version == self.types.api_version {
                &self.here
            } else {
                let found = elsewhere
                    .entry(entry.version.clone())
                    .or_insert_with(|| self.types.difference(self.old, self.new, &entry.version, self.reset));
                match found {
                    Some(found) => found,
                    None => return false,
                }
            };
            if !force {
                let both = entry.fields.intersection(&difference.changed);
                if !both.is_empty() {
                    conflicts.push((id.clone(), both));
                }
            }
            entry.fields.subtract(&difference.changed);
            entry.fields.subtract(&difference.removed);
            true
        });
        if conflicts.is_empty() { Ok(()) } else { Err(Conflicts(conflicts)) }
    }
}

/// Fields of every object that nobody is ever said to own.
fn never_owned() -> FieldSet {
    FieldSet::of(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
}

fn managed_fields(object: &Tree) -> Option<&Tree> {
    object.get("metadata")?.get("managedFields")
}

fn set_managed_fields(object: &mut Tree, managers: Managers) {
    let Tree::Object(object) = object else { return };
    let meta = object.entry("metadata").or_insert_with(|| Tree::Object(Map::new()));
    let Tree::Object(meta) = meta else { return };
    match managers::encode(managers) {
        Some(record) => drop(meta.insert("managedFields".into(), record)),
        None => drop(meta.remove("managedFields")),
    }
}

/// A copy without managedFields, which are the larger part of many objects.
fn without_record(object: &Tree) -> Tree {
    let Tree::Object(map) = object else { return object.clone() };
    let copy = |(key, value): (&String, &Tree)| {
        let value = match value {
            Tree::Object(meta) if key == "metadata" => Tree::Object(
                meta.iter().filter(|(k, _)| *k != "managedFields").map(|(k, v)| (k.clone(), v.clone())).collect(),
            ),
            other => other.clone(),
        };
        (key.clone(), value)
    };
    Tree::Object(map.iter().map(copy).collect())
}

/// Whether two objects are equal but for managedFields.
fn equal_but_record(a: &Tree, b: &Tree) -> bool {
    fn all_but<'t>(v: &'t Tree, key: &'static str) -> impl Iterator<Item = (&'t String, &'t Tree)> {
        v.as_object().into_iter().flatten().filter(move |(k, _)| *k != key)
    }
    let meta = |v: &Tree| v.get("metadata").cloned().unwrap_or(Tree::Null);
    let (ma, mb) = (a.get("metadata"), b.get("metadata"));
    let metas = match (ma, mb) {
        (Some(x), Some(y)) => all_but(x, "managedFields").eq(all_but(y, "managedFields")),
        _ => meta(a) == meta(b),
    };
    metas && all_but(a, "metadata").eq(all_but(b, "metadata"))
}

fn text<'t>(object: &'t Tree, pointer: &str) -> &'t str {
    object.pointer(pointer).and_then(Tree::as_str).unwrap_or_default()
}

/// `apps/v1, Kind=Deployment`; the core group is empty: `/v1, Kind=Pod`.
fn group_version_kind(object: &Tree) -> String {
    let (version, kind) = (text(object, "/apiVersion"), text(object, "/kind"));
    let slash = if version.contains('/') { "" } else { "/" };
    format!("{slash}{version}, Kind={kind}")
}
