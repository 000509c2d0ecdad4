//! From a document to a typed tree, by the schema: what Go's decoder does to Kubernetes' structs, and
//! what its encoder would write of them again.

use super::node::Node;
use super::{Decoded, scalar};
use crate::schema::{Alternative, Field, ObjectType, Scalar, Schema, Type, TypeId, Zero};
use crate::{Map, Tree};
use std::borrow::Cow;

/// Kubernetes reports no more than this many unknown and duplicate fields of a body.
const MAX_STRICT: usize = 100;

/// What becomes of fields the schema does not know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unknown {
    /// They go, as from every request's body.
    Drop,
    /// They stay as they are: a stored object may have fields of a newer release.
    Keep,
}

/// A step of a path.
enum Step<'n> {
    Field(Cow<'n, str>),
    Key(Cow<'n, str>),
    Index(usize),
}

pub(super) struct Typed<'s, 'n> {
    schema: &'s Schema,
    unknown: Unknown,
    path: Vec<Step<'n>>,
    strict: Vec<String>,
    /// Above 0 inside values that Go decodes by a method of their own, which is never strict.
    quiet: u32,
}

/// Types a document as a request's body.
pub(super) fn decode(schema: &Schema, ty: TypeId, node: Node<'_>) -> Result<Decoded, String> {
    Typed::new(schema, Unknown::Drop).root(ty, node)
}

impl<'s, 'n> Typed<'s, 'n> {
    pub(super) fn new(schema: &'s Schema, unknown: Unknown) -> Self {
        Typed { schema, unknown, path: Vec::new(), strict: Vec::new(), quiet: 0 }
    }

    pub(super) fn root(mut self, ty: TypeId, node: Node<'n>) -> Result<Decoded, String> {
        let tree = self.item(ty, node, "")?;
        Ok(Decoded { tree, strict: self.strict })
    }

    /// A value where there must be one: null is the type's zero value.
    fn item(&mut self, ty: TypeId, node: Node<'n>, owner: &'s str) -> Result<Tree, String> {
        Ok(match self.value(ty, node, owner)? {
            Some(v) => v,
            None => zero(self.schema, ty),
        })
    }

    /// A value; `None` if it is null.
    fn value(&mut self, ty: TypeId, node: Node<'n>, owner: &'s str) -> Result<Option<Tree>, String> {
        if node == Node::Null {
            return Ok(None);
        }
        Ok(Some(match (self.schema.get(ty), node) {
            (Type::Any, node) => super::json::untyped(node)?,
            (Type::Scalar(Scalar::Time | Scalar::MicroTime), Node::Text(s)) if s == "0001-01-01T00:00:00Z" => {
                return Ok(None);
            }
            (Type::Scalar(s), node) => self.scalar(*s, node, owner)?,
            (Type::Object(o), Node::Map(entries)) => self.object(o, entries)?,
            (Type::Map { value }, Node::Map(entries)) => {
                let mut m = Map::new();
                for (k, v) in entries {
                    self.path.push(Step::Key(k.clone()));
                    if m.contains_key(&*k) {
                        self.note("duplicate");
                    }
                    let v = self.item(*value, v, owner)?;
                    self.path.pop();
                    m.insert(k.into_owned(), v);
                }
                Tree::Object(m)
            }
            (Type::List { item, .. }, Node::List(items)) => {
                let mut out = Vec::with_capacity(items.len());
                for (i, v) in items.into_iter().enumerate() {
                    self.path.push(Step::Index(i));
                    out.push(self.item(*item, v, owner)?);
                    self.path.pop();
                }
                Tree::Array(out)
            }
            (Type::SchemaOr { schema, alternative }, node) => {
                self.quiet += 1;
                let v = self.schema_or(*schema, *alternative, node, owner)?;
                self.quiet -= 1;
                v
            }
            (_, node) => return Err(self.wrong(node.kind(), &go_type(self.schema, ty), owner)),
        }))
    }

    fn object(&mut self, o: &'s ObjectType, entries: Vec<(Cow<'n, str>, Node<'n>)>) -> Result<Tree, String> {
        let owner = o.short_name();
        let mut m = Map::new();
        let mut seen: Vec<bool> = vec![false; o.fields.len()];
        for (k, v) in entries {
            let Ok(i) = o.fields.binary_search_by(|f| f.name.as_str().cmp(&k)) else {
                self.path.push(Step::Key(k.clone()));
                if !o.open {
                    self.note("unknown");
                }
                self.path.pop();
                if o.open || self.unknown == Unknown::Keep {
                    m.insert(k.into_owned(), super::json::untyped(v)?);
                }
                continue;
            };
            let f = &o.fields[i];
            self.path.push(Step::Field(k));
            if std::mem::replace(&mut seen[i], true) {
                self.note("duplicate");
            }
            let v = self.value(f.ty, v, owner)?;
            self.path.pop();
            match v {
                Some(v) if f.zero == Zero::Dropped && is_zero(&v) => drop(m.remove(&f.name)),
                // Go decodes a second value into the first: maps are united.
                Some(Tree::Object(new)) if matches!(m.get(&f.name), Some(Tree::Object(_))) => {
                    if let Some(Tree::Object(old)) = m.get_mut(&f.name) {
                        old.extend(new);
                    }
                }
                Some(v) => drop(m.insert(f.name.clone(), v)),
                None => {}
            }
        }
        for (f, seen) in o.fields.iter().zip(seen) {
            if !(seen && m.contains_key(&f.name))
                && let Some(v) = unset(self.schema, f)
            {
                m.insert(f.name.clone(), v);
            }
        }
        Ok(Tree::Object(m))
    }

    fn scalar(&self, s: Scalar, node: Node<'n>, owner: &str) -> Result<Tree, String> {
        let text = |t: String| Ok(Tree::String(t));
        let wrong = |node: &Node<'_>, go: &str| self.wrong(node.kind(), go, owner);
        match (s, node) {
            (Scalar::String, Node::Text(t)) => text(t.into_owned()),
            (Scalar::String, node) => Err(wrong(&node, "string")),
            (Scalar::Bool, Node::Bool(b)) => Ok(Tree::Bool(b)),
            (Scalar::Bool, node) => Err(wrong(&node, "bool")),
            (Scalar::Int32, Node::Number(n)) => match n.parse::<i32>() {
                Ok(i) => Ok(i.into()),
                Err(_) => Err(self.wrong(&format!("number {n}"), "int32", owner)),
            },
            (Scalar::Int32, node) => Err(wrong(&node, "int32")),
            (Scalar::Int64, Node::Number(n)) => match n.parse::<i64>() {
                Ok(i) => Ok(i.into()),
                Err(_) => Err(self.wrong(&format!("number {n}"), "int64", owner)),
            },
            (Scalar::Int64, node) => Err(wrong(&node, "int64")),
            (Scalar::Double, Node::Number(n)) => match scalar::double(&n) {
                Some(d) => Ok(Tree::Number(d)),
                None => Err(self.wrong(&format!("number {n}"), "float64", owner)),
            },
            (Scalar::Double, node) => Err(wrong(&node, "float64")),
            (Scalar::Bytes, Node::Text(t)) => text(scalar::base64(&t)?),
            (Scalar::Bytes, node) => Err(wrong(&node, "[]uint8")),
            (Scalar::Time, Node::Text(t)) => text(scalar::time(&t)?),
            (Scalar::MicroTime, Node::Text(t)) => text(scalar::micro_time(&t)?),
            (Scalar::Time | Scalar::MicroTime, node) => Err(wrong(&node, "string")),
            (Scalar::Quantity, Node::Text(t) | Node::Number(t)) => text(scalar::quantity(&t)?),
            (Scalar::Quantity, node) => text(scalar::quantity(node.kind())?),
            (Scalar::IntOrString, Node::Text(t)) => text(t.into_owned()),
            (Scalar::IntOrString, node) => self.scalar(Scalar::Int32, node, owner),
        }
    }

    fn schema_or(&mut self, schema: TypeId, or: Alternative, node: Node<'n>, owner: &'s str) -> Result<Tree, String> {
        match (or, node) {
            (_, node @ Node::Map(_)) => self.item(schema, node, owner),
            (Alternative::Bool, Node::Bool(b)) => Ok(Tree::Bool(b)),
            (Alternative::Bool, _) => Err(String::from("boolean or JSON schema expected")),
            (Alternative::Schemas, Node::List(items)) if !items.is_empty() => {
                Ok(Tree::Array(items.into_iter().map(|v| self.item(schema, v, owner)).collect::<Result<_, _>>()?))
            }
            (Alternative::Strings, Node::List(items)) if !items.is_empty() => {
                let item = |v| match v {
                    Node::Null => Ok(Tree::String(String::new())),
                    v => self.scalar(Scalar::String, v, owner),
                };
                Ok(Tree::Array(items.into_iter().map(item).collect::<Result<_, _>>()?))
            }
            // Kubernetes' decoder takes anything else for neither, and writes null.
            (Alternative::Schemas | Alternative::Strings, _) => Ok(Tree::Null),
        }
    }

    /// Notes the field at the present path as unknown or duplicate.
    fn note(&mut self, what: &str) {
        if self.quiet > 0 || self.strict.len() >= MAX_STRICT {
            return;
        }
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Field(k) | Step::Key(k) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(k);
                }
                Step::Index(i) => path.push_str(&format!("[{i}]")),
            }
        }
        let note = format!("{what} field {path:?}");
        if !self.strict.contains(&note) {
            self.strict.push(note);
        }
    }

    /// Go's complaint about a value of the wrong type: the innermost struct, then all fields on the way.
    fn wrong(&self, value: &str, go: &str, owner: &str) -> String {
        let fields: Vec<&str> =
            self.path.iter().filter_map(|s| if let Step::Field(k) = s { Some(k.as_ref()) } else { None }).collect();
        if fields.is_empty() {
            return format!("json: cannot unmarshal {value} into Go value of type {go}");
        }
        format!("json: cannot unmarshal {value} into Go struct field {owner}.{} of type {go}", fields.join("."))
    }
}

/// What Go writes for a value that was never set.
pub fn zero(schema: &Schema, ty: TypeId) -> Tree {
    match schema.get(ty) {
        Type::Object(o) => {
            Tree::Object(o.fields.iter().filter_map(|f| Some((f.name.clone(), unset(schema, f)?))).collect())
        }
        Type::Scalar(s) => match s {
            Scalar::String => Tree::String(String::new()),
            Scalar::Bool => Tree::Bool(false),
            Scalar::Int32 | Scalar::Int64 | Scalar::Double | Scalar::IntOrString => Tree::from(0),
            Scalar::Quantity => Tree::from("0"),
            Scalar::Bytes | Scalar::Time | Scalar::MicroTime => Tree::Null,
        },
        Type::Map { .. } | Type::List { .. } | Type::SchemaOr { .. } | Type::Any => Tree::Null,
    }
}

/// What Go writes of a field that was never set, if anything.
fn unset(schema: &Schema, f: &Field) -> Option<Tree> {
    match f.zero {
        Zero::Written => Some(zero(schema, f.ty)),
        Zero::Null => Some(Tree::Null),
        Zero::Kept | Zero::Dropped => None,
    }
}

/// Whether Go's `omitempty` leaves it out.
fn is_zero(v: &Tree) -> bool {
    match v {
        Tree::Null => true,
        Tree::Bool(b) => !b,
        Tree::Number(n) => n.as_f64() == Some(0.0),
        Tree::String(s) => s.is_empty(),
        Tree::Array(a) => a.is_empty(),
        Tree::Object(m) => m.is_empty(),
    }
}

/// A type as Go's errors name it.
fn go_type(schema: &Schema, ty: TypeId) -> String {
    match schema.get(ty) {
        Type::Object(o) => {
            let mut parts = o.name.rsplit('.');
            let (name, package) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
            format!("{package}.{name}")
        }
        Type::List { item, .. } => format!("[]{}", go_type(schema, *item)),
        Type::Map { value } => match schema.get(*value) {
            Type::Scalar(Scalar::Quantity) => String::from("v1.ResourceList"),
            _ => format!("map[string]{}", go_type(schema, *value)),
        },
        Type::Scalar(s) => String::from(match s {
            Scalar::String => "string",
            Scalar::Bool => "bool",
            Scalar::Int32 => "int32",
            Scalar::Int64 => "int64",
            Scalar::Double => "float64",
            Scalar::Bytes => "[]uint8",
            Scalar::Time => "v1.Time",
            Scalar::MicroTime => "v1.MicroTime",
            Scalar::Quantity => "resource.Quantity",
            Scalar::IntOrString => "intstr.IntOrString",
        }),
        Type::SchemaOr { .. } | Type::Any => String::from("interface {}"),
    }
}
