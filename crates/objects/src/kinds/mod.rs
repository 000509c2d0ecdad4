//! The kinds the API serves: one row each (`rows`), and one small file of rules for those that have some.
//!
//! A request to write goes through a kind's rules in this order, each a pure function: [`Rules::default`],
//! [`prepare_create`] or [`prepare_update`], (admission), [`validate_create`] or [`validate_update`],
//! [`Rules::warnings`]. Where a kind has several versions each version's rules see that version.
//!
//! Wording and order of errors are those of Kubernetes 1.37, since people and tools search for them.

use crate::Tree;

pub mod address;
pub mod batch;
pub mod claim;
pub mod configmap;
pub mod endpoints;
pub mod event;
pub mod field;
pub mod meta;
pub mod names;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod quota;
pub mod rbac;
pub mod resources;
mod rows;
pub mod selector;
pub mod service;
pub mod small;
pub mod tree;
pub mod workload;

pub use names::NameRule;
use rows::OWN;
pub use rows::{BODIES, KINDS};

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
    /// Verbs in discovery's order and spelling; none if the kind exists only to be named.
    pub verbs: &'static [&'static str],
    /// Subresources, in discovery's order: `status`, `scale`, `log`, …
    pub subresources: &'static [Subresource],
    /// The storage group-kind, the first part of a record's key: `ConfigMap`, `Deployment.apps`. Two
    /// kinds that are views of one record (the two Events) share it.
    pub storage: &'static str,
    /// Which cell decides it.
    pub home: Home,
    /// Name of its type in the schema: `io.k8s.api.core.v1.ConfigMap`.
    pub type_name: &'static str,
    /// Whether the API offers it: its rules are complete. Other rows are here so that what names them
    /// (owner references, RBAC rules, storage keys) can be understood.
    pub served: bool,
    /// Its own rules.
    pub rules: &'static dyn Rules,
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} {}", self.group, self.version, self.kind)
    }
}

impl Kind {
    /// `apiVersion`: `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The kind as errors name it: `Pod`, `Deployment.apps`.
    pub fn qualified_kind(&self) -> String {
        if self.group.is_empty() { self.kind.to_owned() } else { format!("{}.{}", self.kind, self.group) }
    }

    /// The resource as errors name it: `pods`, `deployments.apps`.
    pub fn qualified_resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// A subresource by name.
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }
}

/// The kind of a resource in a URL, served or not.
pub fn by_resource(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    KINDS.iter().chain(OWN).find(|k| k.plural == plural && k.group == group && k.version == version)
}

/// The kind of an object or of a subresource's body, served or not.
pub fn by_kind(group: &str, version: &str, kind: &str) -> Option<&'static Kind> {
    KINDS.iter().chain(OWN).chain(BODIES).find(|k| k.kind == kind && k.group == group && k.version == version)
}

/// The kind of an object by its `apiVersion`, served or not.
pub fn by_api_version(api_version: &str, kind: &str) -> Option<&'static Kind> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    by_kind(group, version, kind)
}

/// The kind in whose version records of a storage group-kind are stored.
pub fn by_storage(storage: &str) -> Option<&'static Kind> {
    KINDS.iter().chain(OWN).find(|k| k.storage == storage)
}

/// Before create: metadata a client may not set, then the kind's own [`Rules::prepare_create`].
pub fn prepare_create(kind: &Kind, obj: &mut Tree, cx: &Context<'_>) {
    kind.rules.prepare_create(obj, cx);
}

/// Before update: generation is the server's, then the kind's own [`Rules::prepare_update`].
pub fn prepare_update(kind: &Kind, new: &mut Tree, old: &Tree, cx: &Context<'_>) {
    tree::keep(tree::child(new, "metadata"), tree::Fields::at(old, "metadata"), "generation");
    kind.rules.prepare_update(new, old, cx);
}

/// All errors of an object about to be created.
pub fn validate_create(kind: &Kind, obj: &Tree, cx: &Context<'_>) -> Vec<FieldError> {
    let mut errs = Vec::new();
    if kind.rules.names() != NameRule::Any {
        meta::validate(kind, obj, &mut errs);
    }
    kind.rules.validate(obj, cx, &mut errs);
    each_once(errs)
}

/// All errors of a change of the object or of `cx.subresource`.
pub fn validate_update(kind: &Kind, new: &Tree, old: &Tree, cx: &Context<'_>) -> Vec<FieldError> {
    let mut errs = Vec::new();
    meta::validate_update(new, old, &mut errs);
    kind.rules.validate_update(new, old, cx, &mut errs);
    each_once(errs)
}

/// An update checks some things twice, and says each fault once.
fn each_once(errs: Vec<FieldError>) -> Vec<FieldError> {
    let mut once: Vec<FieldError> = Vec::with_capacity(errs.len());
    for error in errs {
        if !once.contains(&error) {
            once.push(error);
        }
    }
    once
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

/// The rules of one kind. Every method has the answer of a kind with no rule of that sort.
pub trait Rules: Sync {
    /// Which names its objects may have.
    fn names(&self) -> NameRule {
        NameRule::Subdomain
    }
    /// Fills in what the user left out.
    fn default(&self, _obj: &mut Tree) {}
    /// Before create: drops what a client may not set (status), sets generation.
    fn prepare_create(&self, _obj: &mut Tree, _cx: &Context<'_>) {}
    /// Before update of the object or of `cx.subresource`: keeps what this write may not change, counts
    /// generation.
    fn prepare_update(&self, _new: &mut Tree, _old: &Tree, _cx: &Context<'_>) {}
    /// All errors of an object by itself (metadata is checked for every kind elsewhere).
    fn validate(&self, _obj: &Tree, _cx: &Context<'_>, _errs: &mut Vec<FieldError>) {}
    /// All errors of a change, in Kubernetes' order: those of the new object by itself (where Kubernetes
    /// checks it again) and immutable fields and the like.
    fn validate_update(&self, new: &Tree, _old: &Tree, cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        self.validate(new, cx, errs);
    }
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
}

/// A kind without rules of its own.
pub struct Plain;
impl Rules for Plain {}
