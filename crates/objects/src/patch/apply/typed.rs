//! Trees seen through their types: what a place in an object is to server-side apply, how a list's items
//! are told apart, what a new object has before anyone sets anything.

use super::path::{write_json, write_key};
use crate::schema::{Field, ListKind, ObjectType, Scalar, Schema, Type, TypeId, Zero};
use crate::{Map, Tree};
use std::borrow::Cow;

/// A place in an object.
#[derive(Clone, Copy)]
pub(super) enum Place<'s> {
    /// Of this type, used by this field.
    Typed { ty: TypeId, field: Option<&'s Field> },
    /// Without a schema: maps are maps, lists are owned as one.
    Deduced,
}

/// What a place is to server-side apply.
pub(super) enum Shape<'s> {
    /// A leaf.
    Scalar(Scalar),
    /// A struct; owned as one if atomic.
    Struct { ty: &'s ObjectType, atomic: bool },
    /// A map whose values are of one type; owned as one if atomic.
    Map { value: Place<'s>, atomic: bool },
    /// A list.
    List { item: Place<'s>, kind: &'s ListKind },
    /// Whatever it is, it is owned as one.
    Any,
    /// Whatever it is tells.
    Deduced,
}

const ATOMIC: ListKind = ListKind::Atomic;

impl<'s> Place<'s> {
    /// The place of a whole object; no type means none is known.
    pub(super) fn root(ty: Option<TypeId>) -> Place<'s> {
        ty.map_or(Place::Deduced, |ty| Place::Typed { ty, field: None })
    }

    pub(super) fn shape(self, schema: &'s Schema) -> Shape<'s> {
        let Place::Typed { ty, field } = self else { return Shape::Deduced };
        let atomic = field.is_some_and(|f| f.atomic);
        let granular = field.is_some_and(|f| f.granular);
        let inner = |ty: TypeId| Place::Typed { ty, field: None };
        match schema.get(ty) {
            Type::Scalar(s) => Shape::Scalar(*s),
            Type::Object(ty) => Shape::Struct { ty, atomic: atomic || (ty.atomic && !granular) },
            Type::Map { value } => Shape::Map { value: inner(*value), atomic },
            Type::List { item, .. } => Shape::List { item: inner(*item), kind: field.map_or(&ATOMIC, |f| &f.list) },
            Type::Any | Type::SchemaOr { .. } => Shape::Any,
        }
    }
}

impl<'s> Shape<'s> {
    /// The place of a key below; none for a key the struct does not have, or where keys mean nothing.
    pub(super) fn at(&self, key: &str) -> Option<Place<'s>> {
        match self {
            Shape::Struct { ty, .. } => match ty.field(key) {
                Some(field) => Some(field_place(field)),
                None => ty.open.then_some(Place::Deduced),
            },
            Shape::Map { value, .. } => Some(*value),
            Shape::Deduced => Some(Place::Deduced),
            Shape::Scalar(_) | Shape::List { .. } | Shape::Any => None,
        }
    }

    /// The place of a step as FieldsV1 writes it.
    pub(super) fn at_step(&self, step: &str) -> Option<Place<'s>> {
        match (self, step.strip_prefix("f:")) {
            (Shape::List { item, kind }, None) if **kind != ListKind::Atomic => Some(*item),
            (_, Some(key)) => self.at(key),
            _ => None,
        }
    }

    /// Whether a key is a field that the schema names, rather than a key of a map.
    pub(super) fn names(&self, key: &str) -> bool {
        matches!(self, Shape::Struct { ty, .. } if ty.field(key).is_some())
    }

    /// Whether it is owned and replaced as one, whatever it holds.
    pub(super) fn is_atomic(&self) -> bool {
        match self {
            Shape::Struct { atomic, .. } | Shape::Map { atomic, .. } => *atomic,
            Shape::List { kind, .. } => **kind == ListKind::Atomic,
            Shape::Any | Shape::Scalar(_) => true,
            Shape::Deduced => false,
        }
    }
}

/// The place of a struct's field.
fn field_place(field: &Field) -> Place<'_> {
    Place::Typed { ty: field.ty, field: Some(field) }
}

/// Nothing, null, or a map or list with nothing in it.
pub(super) fn is_hollow(v: Option<&Tree>) -> bool {
    match v {
        None | Some(Tree::Null) => true,
        Some(Tree::Object(m)) => m.is_empty(),
        Some(Tree::Array(l)) => l.is_empty(),
        Some(_) => false,
    }
}

/// Equal, numbers by value: 1 is 1.0.
pub(super) fn equal(a: &Tree, b: &Tree) -> bool {
    match (a, b) {
        (Tree::Number(x), Tree::Number(y)) => x == y || (x.is_f64() || y.is_f64()) && x.as_f64() == y.as_f64(),
        (Tree::Array(x), Tree::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| equal(x, y)),
        (Tree::Object(x), Tree::Object(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|((k, x), (l, y))| k == l && equal(x, y))
        }
        _ => a == b,
    }
}

/// The step that leads to an item of a set or a keyed list, or why there is none.
pub(super) fn item_step(
    schema: &Schema,
    kind: &ListKind,
    item_place: Place<'_>,
    item: &Tree,
) -> Result<String, Cow<'static, str>> {
    match kind {
        ListKind::Atomic => Err("invalid indexing of non-associative list".into()),
        ListKind::Set => match item {
            Tree::Object(_) => Err("associative list without keys has an element that's a map type".into()),
            Tree::Array(_) => Err("not supported: associative list with lists as elements".into()),
            Tree::Null => Err("associative list without keys has an element that's an explicit null".into()),
            value => {
                let mut step = String::from("v:");
                write_json(&mut step, value);
                Ok(step)
            }
        },
        ListKind::Map(keys) => {
            let map = match item {
                Tree::Object(map) => map,
                Tree::Null => return Err("associative list with keys may not have a null element".into()),
                _ => return Err("associative list with keys may not have non-map elements".into()),
            };
            let ty = match item_place.shape(schema) {
                Shape::Struct { ty, .. } => Some(ty),
                _ => None,
            };
            let value = |key: &'_ str| map.get(key).or_else(|| ty.and_then(|t| t.field(key)?.default.as_ref()));
            let mut found: Vec<(&str, &Tree)> =
                keys.iter().filter_map(|key| Some((key.as_str(), value(key)?))).collect();
            if found.is_empty() && !keys.is_empty() {
                let all: Vec<String> = keys.iter().map(|k| crate::status::quote(k)).collect();
                return Err(format!(
                    "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                    all.join(" ")
                )
                .into());
            }
            found.sort_unstable_by_key(|(name, _)| *name);
            let mut step = String::with_capacity(32);
            step.push_str("k:");
            write_key(&mut step, found.into_iter());
            Ok(step)
        }
    }
}

/// An object of a type as it is before anything is set: what Go's zero value has in JSON. Fields that are
/// always written are there and so are never *added* by whoever first gives them a value, which is why
/// `f:spec` carries no `.` in a created Deployment's managedFields, and `f:env` of a container does.
pub(super) fn zero(schema: &Schema, place: Place<'_>) -> Map {
    let Shape::Struct { ty, .. } = place.shape(schema) else { return Map::new() };
    let mut out = Map::new();
    for field in ty.fields.iter().filter(|f| f.zero == Zero::Written) {
        let value = match schema.get(field.ty) {
            Type::Object(_) => Tree::Object(zero(schema, field_place(field))),
            Type::Scalar(Scalar::String) => Tree::from(""),
            Type::Scalar(Scalar::Bool) => Tree::from(false),
            Type::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Double | Scalar::IntOrString) => Tree::from(0),
            Type::Scalar(Scalar::Quantity) => Tree::from("0"),
            _ => Tree::Null,
        };
        out.insert(field.name.clone(), value);
    }
    out
}
