//! The schema tables: what fields a type has, and how Kubernetes treats each.
//!
//! The facts come from `data/schema.json` (derived by `cargo xtask schema` from Kubernetes 1.37's
//! OpenAPI documents, protobuf layouts and Go struct tags) and are compiled in. A CRD's structural
//! schema becomes the same types at run time, so nothing downstream knows where a type came from.

mod layout;
mod read;

pub use layout::{Holds, Slot};

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Index of a type in its [`Schema`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TypeId(pub u32);

/// A set of types that refer to one another by [`TypeId`].
#[derive(Debug, Default)]
pub struct Schema {
    /// All types; a [`TypeId`] is an index here.
    pub types: Vec<Type>,
    /// Structs by their name in Kubernetes' documents.
    names: BTreeMap<String, TypeId>,
    /// Types of whole bodies by group, version and kind; lists and the API's own conversation among them.
    kinds: BTreeMap<(String, String, String), TypeId>,
}

/// The table as compiled in.
pub(crate) const FACTS: &[u8] = include_bytes!("../../../../data/schema.json");

/// The types of Kubernetes 1.37's stable groups and of the API's own conversation (Status,
/// DeleteOptions, Table, WatchEvent, …). Read once, in about five milliseconds and under one megabyte.
pub fn builtin() -> &'static Schema {
    static BUILTIN: LazyLock<Schema> = LazyLock::new(|| read::table(FACTS));
    &BUILTIN
}

impl Schema {
    /// The type an id stands for. The id must be of this schema.
    pub fn get(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
    }

    /// The struct of a name such as `io.k8s.api.core.v1.PodSpec`.
    pub fn by_name(&self, name: &str) -> Option<TypeId> {
        self.names.get(name).copied()
    }

    /// The type of a body: `("apps", "v1", "Deployment")`, `("", "v1", "PodList")`.
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<TypeId> {
        self.kinds.get(&(group.to_owned(), version.to_owned(), kind.to_owned())).copied()
    }

    /// Every kind with its type, by group, version and kind.
    pub fn kinds(&self) -> impl Iterator<Item = (&str, &str, &str, TypeId)> {
        self.kinds.iter().map(|((g, v, k), t)| (g.as_str(), v.as_str(), k.as_str(), *t))
    }

    /// The struct an id stands for, if it is one.
    pub fn object(&self, id: TypeId) -> Option<&ObjectType> {
        match self.get(id) {
            Type::Object(o) => Some(o),
            _ => None,
        }
    }

    /// The field of a struct, if `id` is one and has it.
    pub fn field(&self, id: TypeId, json: &str) -> Option<&Field> {
        self.object(id)?.field(json)
    }

    /// The type one step below: of a struct's field, a map's value, a list's item (whatever `key` is).
    pub fn child(&self, id: TypeId, key: &str) -> Option<TypeId> {
        match self.get(id) {
            Type::Object(o) => o.field(key).map(|f| f.ty),
            Type::Map { value } => Some(*value),
            Type::List { item, .. } => Some(*item),
            Type::Scalar(_) | Type::Any | Type::SchemaOr { .. } => None,
        }
    }

    /// Adds a type; for schemas made at run time.
    pub fn add(&mut self, ty: Type) -> TypeId {
        let id = TypeId(u32::try_from(self.types.len()).unwrap_or(u32::MAX));
        if let Type::Object(o) = &ty {
            self.names.insert(o.name.clone(), id);
        }
        self.types.push(ty);
        id
    }
}

/// What a value may be and how it is merged.
#[derive(Debug)]
pub enum Type {
    /// A leaf.
    Scalar(Scalar),
    /// A struct with known fields.
    Object(ObjectType),
    /// A map from strings to values of one type (labels, data).
    Map {
        /// Type of the values.
        value: TypeId,
    },
    /// A list.
    List {
        /// Type of the items.
        item: TypeId,
        /// In protobuf a message whose field 1 repeats the items (`ExtraValue`), because a map's value
        /// cannot be repeated.
        wrapped: bool,
    },
    /// A CRD's JSON schema or something shorter (`JSONSchemaPropsOrBool` and its sisters).
    SchemaOr {
        /// `JSONSchemaProps`.
        schema: TypeId,
        /// What else it may be.
        alternative: Alternative,
    },
    /// Anything at all, kept as it is (RawExtension, JSON, FieldsV1). In protobuf a message with the
    /// JSON text in field 1.
    Any,
}

/// What a [`Type::SchemaOr`] may be besides a schema.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alternative {
    /// A list of schemas.
    Schemas,
    /// true or false.
    Bool,
    /// A list of strings.
    Strings,
}

/// A leaf's type, as protobuf and validation need it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scalar {
    /// UTF-8 text.
    String,
    /// true or false.
    Bool,
    /// 32 bits, signed.
    Int32,
    /// 64 bits, signed.
    Int64,
    /// IEEE double.
    Double,
    /// Base64 text in JSON, bytes in protobuf.
    Bytes,
    /// RFC 3339, whole seconds; null when unset (`metav1.Time`).
    Time,
    /// RFC 3339 with six decimals (`metav1.MicroTime`).
    MicroTime,
    /// A resource quantity.
    Quantity,
    /// An integer or a text (`intstr.IntOrString`).
    IntOrString,
}

/// A struct.
#[derive(Debug, Default)]
pub struct ObjectType {
    /// Its name in Kubernetes' documents: `io.k8s.api.core.v1.PodSpec`.
    pub name: String,
    /// Its protobuf message: `k8s.io.api.core.v1.PodSpec`; empty if it has none.
    pub proto: String,
    /// Its fields, sorted by JSON name.
    pub fields: Vec<Field>,
    /// `x-kubernetes-map-type: atomic`: owned and replaced as one.
    pub atomic: bool,
    /// Fields that are not listed are kept (`x-kubernetes-preserve-unknown-fields`); never so for
    /// built-in types.
    pub open: bool,
    /// Its protobuf message's fields in the order they are written; empty if it has none.
    pub layout: Vec<Slot>,
    /// The indexes of its fields in the order of the Go struct, in which Go's encoder writes them.
    pub order: Vec<usize>,
}

impl ObjectType {
    /// The field of a JSON name.
    pub fn field(&self, json: &str) -> Option<&Field> {
        self.fields.binary_search_by(|f| f.name.as_str().cmp(json)).ok().map(|i| &self.fields[i])
    }

    /// The last part of its name: `PodSpec`.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }
}

/// How a list's items are told apart under server-side apply.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum ListKind {
    /// Replaced and owned as one.
    #[default]
    Atomic,
    /// Scalars, each at most once.
    Set,
    /// Objects told apart by these keys. A key's default (`protocol: TCP`) is in its field.
    Map(Vec<String>),
}

/// What a strategic merge patch does with a field.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PatchRule {
    /// `patchStrategy` contains `merge`: lists are merged (by `merge_key`, or as sets of scalars).
    pub merge: bool,
    /// `patchStrategy` contains `replace`: a struct is replaced, not merged.
    pub replace: bool,
    /// `patchStrategy` contains `retainKeys`.
    pub retain_keys: bool,
    /// `patchMergeKey`.
    pub merge_key: Option<String>,
}

/// What becomes of a field's zero value (`""`, 0, false, an empty list or map) in canonical JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Zero {
    /// It is not the same as absence and is kept as sent: Go's pointers, every field of a CRD. In
    /// protobuf such a field is on the wire only if present; the others' scalars and structs always are.
    Kept,
    /// Like [`Zero::Kept`], but absence is written as null: Go's pointers without `omitempty` (a
    /// Deployment's selector).
    Null,
    /// It is left out: Go's `omitempty`.
    #[default]
    Dropped,
    /// It is always written, absent ones too, lists and maps then as null: Go without `omitempty`, and
    /// structs (`spec: {}`), which Go never leaves out.
    Written,
}

/// A field of a struct.
#[derive(Debug)]
pub struct Field {
    /// JSON name.
    pub name: String,
    /// Type of the value.
    pub ty: TypeId,
    /// Protobuf number; 0 if it has none.
    pub number: u32,
    /// Protobuf numbers of the messages around it that JSON does not show (Go's embedded structs: a
    /// volume's `emptyDir` is field 2 of field 2). Almost always empty.
    pub via: Vec<u32>,
    /// What becomes of the zero value.
    pub zero: Zero,
    /// Listed under `required`.
    pub required: bool,
    /// For lists: how items are told apart.
    pub list: ListKind,
    /// For maps and structs: `x-kubernetes-map-type: atomic` on this use.
    pub atomic: bool,
    /// `x-kubernetes-map-type: granular` on this use: not atomic although its type is (a
    /// PersistentVolume's `claimRef`).
    pub granular: bool,
    /// Strategic merge.
    pub patch: PatchRule,
    /// A default the schema itself carries and that counts (list-map keys such as `protocol`); Go's zero
    /// values, which the documents also list as defaults, are not here. Defaulting in general is the
    /// kinds' business.
    pub default: Option<serde_json::Value>,
    /// The values allowed, as the documents list them; empty if any.
    pub values: Vec<String>,
}

#[cfg(test)]
mod tests;
