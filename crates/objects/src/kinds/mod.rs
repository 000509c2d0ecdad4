//! The kinds the API serves: one row each, and one small file of rules for those that have some.

use crate::Tree;
use crate::schema::TypeId;

/// Which cell an object of a kind belongs to (architecture: cells `root`, one registry per hive, one per
/// namespace).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Home {
    /// Cluster-scoped objects but Nodes.
    Root,
    /// Nodes (and their Leases).
    Registry,
    /// The cell of the object's namespace.
    Namespace,
    /// Nothing is stored: reviews, bindings, evictions.
    Nowhere,
}

/// A row: one resource of one group-version.
pub struct Kind {
    /// API group; empty for core.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// Kind, CamelCase.
    pub kind: &'static str,
    /// Resource name in URLs.
    pub plural: &'static str,
    /// Singular name, as kubectl accepts it.
    pub singular: &'static str,
    /// `po`, `deploy`, …
    pub short_names: &'static [&'static str],
    /// `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Verbs in discovery's order and spelling.
    pub verbs: &'static [&'static str],
    /// Subresources: `status`, `scale`, `log`, …
    pub subresources: &'static [Subresource],
    /// The storage group-kind, the first part of a record's key: `ConfigMap`, `Deployment.apps`. Two
    /// kinds that are views of one record (the two Events) share it.
    pub storage: &'static str,
    /// Which cell decides it.
    pub home: Home,
    /// Name of its type in the schema: `io.k8s.api.core.v1.ConfigMap`.
    pub type_name: &'static str,
    /// Its own rules.
    pub rules: &'static dyn Rules,
}

/// A subresource's row.
pub struct Subresource {
    /// Last part of its path.
    pub name: &'static str,
    /// Group, version and kind of its body where it differs from the parent's (Scale, Eviction).
    pub gvk: Option<(&'static str, &'static str, &'static str)>,
    /// Verbs in discovery's order and spelling.
    pub verbs: &'static [&'static str],
}

/// One error about one field, as Kubernetes' `field.Error`.
#[derive(Clone, PartialEq, Debug)]
pub struct FieldError {
    /// Reason as in `details.causes[].reason`: `FieldValueRequired`, `FieldValueInvalid`, …
    pub reason: &'static str,
    /// Path: `spec.containers[0].name`.
    pub field: String,
    /// The whole text after the path, as Kubernetes words it: `Invalid value: "x": must be …`.
    pub message: String,
}

/// What a rule may know besides the objects.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The wall clock at the deciding leader.
    pub now: base::Wall,
    /// The subresource written; empty for the object itself.
    pub subresource: &'a str,
}

/// A printed column of `kubectl get`, as in `metav1.TableColumnDefinition`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// `string`, `integer`, `date`, `boolean`.
    pub ty: &'static str,
    /// `name` for the name column, else empty.
    pub format: &'static str,
    /// Help text.
    pub description: &'static str,
    /// 0 always, 1 with `-o wide`.
    pub priority: i32,
}

/// The rules of one kind. Every method has the answer of a kind with no rule of that sort.
pub trait Rules: Sync {
    /// Fills in what the user left out.
    fn default(&self, _obj: &mut Tree) {}
    /// Before create: drops what a client may not set (status), sets generation.
    fn prepare_create(&self, _obj: &mut Tree, _cx: &Context<'_>) {}
    /// Before update of the object or of `cx.subresource`: keeps what this write may not change, counts
    /// generation.
    fn prepare_update(&self, _new: &mut Tree, _old: &Tree, _cx: &Context<'_>) {}
    /// All errors of an object by itself (metadata is checked for every kind elsewhere).
    fn validate(&self, _obj: &Tree, _cx: &Context<'_>, _errs: &mut Vec<FieldError>) {}
    /// All errors of a change: immutable fields and the like, besides [`Rules::validate`]'s.
    fn validate_update(&self, _new: &Tree, _old: &Tree, _cx: &Context<'_>, _errs: &mut Vec<FieldError>) {}
    /// Warnings for the client, as in HTTP Warning headers.
    fn warnings(&self, _new: &Tree, _old: Option<&Tree>, _out: &mut Vec<String>) {}
    /// Field selectors besides `metadata.name` and `metadata.namespace`.
    fn selectable(&self) -> &'static [&'static str] {
        &[]
    }
    /// The value of a selectable field.
    fn select(&self, _obj: &Tree, _field: &str) -> String {
        String::new()
    }
    /// Printed columns; none means the default (Name, Age).
    fn columns(&self) -> &'static [Column] {
        &[]
    }
    /// The cells of one object, in the order of [`Rules::columns`].
    fn cells(&self, _obj: &Tree, _now: base::Wall) -> Vec<Tree> {
        Vec::new()
    }
}

/// A kind without rules of its own.
pub struct Plain;
impl Rules for Plain {}

/// The type a kind's bodies have.
pub fn type_of(_kind: &Kind) -> Option<TypeId> {
    None
}
