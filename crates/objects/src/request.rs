//! A request as values: what a gateway hands to a cell's leader, and what comes back.
//!
//! A gateway fixes everything here that is chance or calendar (`id`, `sent`, `uid`, `suffix`), so that a
//! retry of the same request is the same value.

use crate::Tree;
use crate::kinds::Kind;
use base::{RequestId, Revision, Uid, Wall};
use bytes::Bytes;
use std::sync::Arc;

/// Who asks, as authentication found it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct User {
    /// `system:serviceaccount:ns:name`, a certificate's common name, …
    pub name: String,
    /// Empty unless the authenticator knows one.
    pub uid: String,
    /// Groups, `system:authenticated` among them.
    pub groups: Vec<String>,
    /// Further facts (`authentication.kubernetes.io/pod-name`, …).
    pub extra: Vec<(String, Vec<String>)>,
}

/// What is to be done, in RBAC's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // they are RBAC's verbs
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

/// A patch's media type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PatchType {
    /// `application/json-patch+json`, RFC 6902.
    Json,
    /// `application/merge-patch+json`, RFC 7386.
    Merge,
    /// `application/strategic-merge-patch+json`.
    Strategic,
    /// `application/apply-patch+yaml`, server-side apply.
    Apply,
}

/// A request's body, decoded as far as a gateway can without knowing the stored object.
#[derive(Clone, Debug)]
pub enum Body {
    /// None was sent.
    None,
    /// An object, and what strict decoding found: texts such as `unknown field "dat"`.
    Object {
        /// The object.
        tree: Tree,
        /// Unknown and duplicate fields, in the order found.
        strict: Vec<String>,
    },
    /// A patch, as sent (YAML already turned into JSON).
    Patch {
        /// Its media type.
        kind: PatchType,
        /// Its bytes.
        bytes: Bytes,
    },
}

/// Query parameters of writes and reads, checked for form by the gateway.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Options {
    /// `dryRun=All`.
    pub dry_run: bool,
    /// `fieldManager`, or what the user agent implies.
    pub field_manager: String,
    /// `fieldValidation`: `Strict`, `Warn` (default), `Ignore`.
    pub field_validation: FieldValidation,
    /// `force` of apply.
    pub force: bool,
    /// `labelSelector`, unparsed.
    pub label_selector: String,
    /// `fieldSelector`, unparsed.
    pub field_selector: String,
    /// `limit`; 0 is none.
    pub limit: u64,
    /// `continue`.
    pub continue_token: String,
    /// `resourceVersion`, unparsed.
    pub resource_version: String,
    /// `resourceVersionMatch`.
    pub resource_version_match: String,
    /// `allowWatchBookmarks`.
    pub bookmarks: bool,
    /// `sendInitialEvents`, if given.
    pub send_initial_events: Option<bool>,
    /// `timeoutSeconds`; 0 is none.
    pub timeout_seconds: u64,
}

/// `fieldValidation`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)] // they are Kubernetes' words
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// A request for one cell.
#[derive(Clone)]
pub struct Request {
    /// The same for every retry.
    pub id: RequestId,
    /// When it was first sent, by the gateway's calendar.
    pub sent: Wall,
    /// Who asks.
    pub user: Arc<User>,
    /// What for.
    pub verb: Verb,
    /// Of what kind.
    pub kind: &'static Kind,
    /// In which namespace, if the kind has one.
    pub namespace: Option<Arc<str>>,
    /// Name in the URL.
    pub name: Option<Arc<str>>,
    /// Subresource in the URL; empty for the object itself.
    pub subresource: Arc<str>,
    /// Query parameters.
    pub options: Options,
    /// Body.
    pub body: Body,
    /// The uid of what this creates.
    pub uid: Uid,
    /// Chance for the suffix of a generated name.
    pub suffix: u64,
}

/// The key of a record in its cell: storage group-kind, then name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key {
    /// [`Kind::storage`].
    pub storage: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

/// A stored object.
#[derive(Clone, PartialEq, Debug)]
pub struct Stored {
    /// The revision of its last change; the same number stands in the bytes.
    pub revision: Revision,
    /// Canonical JSON of the storage version.
    pub json: Bytes,
}

/// What a decision may read: committed state plus the leader's own entries in flight.
pub trait View {
    /// The object of a key.
    fn get(&self, storage: &str, name: &str) -> Option<Stored>;
    /// All objects of a storage group-kind, by name, starting after `after` if given.
    fn list<'a>(&'a self, storage: &str, after: Option<&str>) -> Box<dyn Iterator<Item = (Arc<str>, Stored)> + 'a>;
    /// The same two, of root's objects as the bundle has them (RBAC, classes, namespaces). In root
    /// itself: its own objects.
    fn shared(&self) -> &dyn Shared;
}

/// Root's configuration as a cell knows it.
pub trait Shared {
    /// A cluster-scoped object of the bundle.
    fn get(&self, storage: &str, name: &str) -> Option<Arc<Tree>>;
    /// All of a storage group-kind.
    fn list(&self, storage: &str) -> Vec<Arc<Tree>>;
}
