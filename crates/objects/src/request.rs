//! A request as values: what a gateway hands to a cell's leader.
//!
//! A gateway fixes everything here that is chance or calendar (`id`, `sent`, `uid`, `suffix`), so that a
//! retry of the same request is the same value. What comes back is a [`crate::decision::Decision`].

use crate::Tree;
use crate::allotment::{Given, Ranges};
use crate::kinds::{Home, Kind};
use crate::rbac::ClusterPolicy;
pub use crate::record::{Key, Meta, Stored};
use base::{RequestId, Revision, Uid, Wall};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

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

impl Verb {
    /// As RBAC spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
        }
    }
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
    /// An object, and what strict decoding found: texts such as `unknown field "dat"`. For a delete, its
    /// DeleteOptions.
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

/// Query parameters of writes and reads.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Options {
    /// `dryRun=All`.
    pub dry_run: bool,
    /// `fieldManager`, or what the user agent implies (the part before the first `/`).
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
    /// `gracePeriodSeconds` of a delete.
    pub grace_period_seconds: Option<i64>,
    /// `propagationPolicy` of a delete; empty if not given.
    pub propagation_policy: String,
    /// `orphanDependents` of a delete (deprecated, still sent).
    pub orphan_dependents: Option<bool>,
    /// Another object of the cell, without which nothing is written. No client can say so: a controller that
    /// adopts does, whose owner may have gone since it looked.
    pub beside: Option<Living>,
    /// What root gave for this very request, which was decided before and needed it. No client can say so: its
    /// gateway does.
    pub given: Option<Arc<Given>>,
}

/// An object that is there and is not being deleted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Living {
    /// Its key.
    pub key: Key,
    /// Its uid.
    pub uid: String,
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
    /// In which namespace, if the kind has one. `None` for a list or watch over all namespaces.
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
    /// Chance for the suffix of a generated name, and for other random names this write makes.
    pub suffix: u64,
}

impl Request {
    /// The namespace whose cell decides this: of the URL or, for a review, of what it asks about (a
    /// namespace's roles are known in its cell alone). `None` for root's and the registries' own.
    pub fn decided_in(&self) -> Option<&str> {
        match (self.kind.home, &self.body) {
            (Home::Root | Home::Registry, _) => None,
            (Home::Nowhere, Body::Object { tree, .. }) if self.namespace.is_none() => {
                let spec = &tree["spec"];
                let asked = spec["resourceAttributes"]["namespace"].as_str().or(spec["namespace"].as_str());
                asked.filter(|n| !n.is_empty())
            }
            _ => self.namespace.as_deref(),
        }
    }
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
    /// Cluster roles and their bindings, made ready once per change of the bundle's RBAC section.
    fn policy(&self) -> &ClusterPolicy;
}

/// What a decision takes besides request and view.
#[derive(Clone, Copy)]
pub struct Env<'a> {
    /// The wall clock at the deciding leader.
    pub now: Wall,
    /// The revision up to which the cell's committed state is known here: what a list made now carries.
    pub revision: Revision,
    /// Settings.
    pub config: &'a Config,
}

/// Settings of the mesh that decisions depend on, the same at every leader under one bundle number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Seconds a pod tolerates `not-ready` and `unreachable` if it does not say (DefaultTolerationSeconds).
    pub default_toleration_seconds: i64,
    /// Issuer and default audience of ServiceAccount tokens.
    pub issuer: String,
    /// Longest lifetime of a ServiceAccount token, in seconds.
    pub max_token_seconds: i64,
    /// Addresses of services, and node ports.
    pub services: Ranges,
    /// How long something may be reserved before the service is there that it was asked for.
    pub intent: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            default_toleration_seconds: 300,
            issuer: "https://kubernetes.default.svc".into(),
            max_token_seconds: 1 << 32,
            services: Ranges::default(),
            intent: Duration::from_secs(60),
        }
    }
}
