//! The schema tables' reader: what fields a type has, and how Kubernetes treats each.
//!
//! The facts come from `data/schema.json` (derived by `cargo xtask schema` from Kubernetes 1.37's
//! OpenAPI and protobuf documents) and are compiled in. A CRD's structural schema becomes the same
//! types at run time, so nothing downstream knows where a type came from.

/// Index of a type in its [`Schema`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TypeId(pub u32);

/// A set of types that refer to one another by [`TypeId`].
#[derive(Debug)]
pub struct Schema {
    /// All types; a [`TypeId`] is an index here.
    pub types: Vec<Type>,
}

impl Schema {
    /// The type an id stands for.
    pub fn get(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
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
    },
    /// Anything at all, kept as it is (RawExtension, JSON, FieldsV1).
    Any,
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
    /// `metav1.Duration`: Go's text form in JSON, nanoseconds in protobuf.
    Duration,
    /// A resource quantity.
    Quantity,
    /// An integer or a text (`intstr.IntOrString`).
    IntOrString,
}

/// A struct.
#[derive(Debug)]
pub struct ObjectType {
    /// Its name in Kubernetes' documents: `io.k8s.api.core.v1.PodSpec`.
    pub name: String,
    /// Its protobuf message: `k8s.io.api.core.v1.PodSpec`; empty if it has none.
    pub proto: String,
    /// Its fields, sorted by JSON name.
    pub fields: Vec<Field>,
    /// `x-kubernetes-map-type: atomic`: owned and replaced as one.
    pub atomic: bool,
}

impl ObjectType {
    /// The field of a JSON name.
    pub fn field(&self, json: &str) -> Option<&Field> {
        self.fields.binary_search_by(|f| f.name.as_str().cmp(json)).ok().map(|i| &self.fields[i])
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
    /// `patchStrategy` contains `retainKeys`.
    pub retain_keys: bool,
    /// `patchMergeKey`.
    pub merge_key: Option<String>,
}

/// A field of a struct.
#[derive(Debug)]
pub struct Field {
    /// JSON name.
    pub name: String,
    /// Protobuf number; 0 if it has none.
    pub number: u32,
    /// Type of the value.
    pub ty: TypeId,
    /// Listed under `required`.
    pub required: bool,
    /// Always written, even when it is the zero value (Go without `omitempty`), as seen in real answers.
    pub always: bool,
    /// For lists: how items are told apart.
    pub list: ListKind,
    /// For maps and structs: `x-kubernetes-map-type: atomic` on this use.
    pub atomic: bool,
    /// Strategic merge.
    pub patch: PatchRule,
    /// A default the schema itself carries and that counts (list-map keys such as `protocol`).
    pub default: Option<serde_json::Value>,
}
