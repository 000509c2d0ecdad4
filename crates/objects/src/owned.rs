//! Who owns which field: the door through which a visit uses server-side apply's bookkeeping.

use crate::Tree;
use crate::decide::Visit;
use crate::kinds::{self, Kind};
use crate::patch::apply::{self, FieldSet, Types, Writer};
use crate::schema::{self, TypeId};
use crate::status::Status;
use crate::views;

/// Notes in `new` who owns what after a write that made it of `old`.
pub(crate) fn track(visit: &Visit<'_>, old: Option<&Tree>, new: &mut Tree) {
    with(visit, |types, writer| apply::track_update(types, old, new, writer));
}

/// The same for the body of an act that is not stored, whose type is not the request's kind's.
pub(crate) fn track_act(visit: &Visit<'_>, type_name: &str, act: &mut Tree) {
    let api_version = act["apiVersion"].as_str().unwrap_or_default().to_owned();
    let kind = act["kind"].as_str().unwrap_or_default().to_owned();
    let types = Types {
        schema: schema::builtin(),
        root: schema::builtin().by_name(type_name),
        api_version: &api_version,
        kind: &kind,
        convert: &|_, _| None,
    };
    apply::track_update(&types, None, act, &writer(visit, &FieldSet::new()));
}

/// Applies a configuration to what there is.
pub(crate) fn apply(visit: &Visit<'_>, live: Option<&Tree>, config: &Tree) -> Result<Tree, Box<Status>> {
    with(visit, |types, writer| apply::apply(types, live, config, writer, visit.req.options.force)).map_err(Box::new)
}

/// A write that changes nothing but times in the record of ownership changes nothing.
pub(crate) fn keep_times_if_equal(new: &mut Tree, old: &Tree) {
    apply::keep_times_if_unchanged(old, new);
}

/// The type of a kind's bodies, if the schema has it.
pub(crate) fn type_of(kind: &Kind) -> Option<TypeId> {
    schema::builtin().by_name(kind.type_name)
}

fn with<T>(visit: &Visit<'_>, f: impl FnOnce(&Types<'_>, &Writer<'_>) -> T) -> T {
    let kind = visit.kind;
    let api_version = views::api_version(kind);
    let convert = |object: &Tree, version: &str| {
        let other = kinds::by_api_version(version, kind.kind).filter(|k| k.storage == kind.storage)?;
        Some((views::from_storage(other, views::to_storage(kind, object.clone())), type_of(other)))
    };
    let types = Types {
        schema: schema::builtin(),
        root: type_of(kind),
        api_version: &api_version,
        kind: kind.kind,
        convert: &convert,
    };
    let reset = apply::reset_fields(kind.storage, &visit.req.subresource, false);
    f(&types, &writer(visit, &reset))
}

fn writer<'a>(visit: &'a Visit<'_>, reset: &'a FieldSet) -> Writer<'a> {
    Writer { manager: &visit.req.options.field_manager, subresource: &visit.req.subresource, now: visit.env.now, reset }
}
