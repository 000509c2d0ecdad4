//! The layout of a request: all that a gateway hands to a leader.

use super::codec::{fields, variants};
use base::{RequestId, Uid, Wall};
use objects::allotment::Given;
use objects::kinds::Kind;
use objects::request::{Body, FieldValidation, Key, Living, Options, PatchType, Request, User, Verb};
use std::sync::Arc;

fields!(User { name: String, uid: String, groups: Vec<String>, extra: Vec<(String, Vec<String>)> });
variants!(Verb {
    1 => Get, 2 => List, 3 => Watch, 4 => Create, 5 => Update, 6 => Patch, 7 => Delete, 8 => DeleteCollection,
});
variants!(PatchType { 1 => Json, 2 => Merge, 3 => Strategic, 4 => Apply });
variants!(FieldValidation { 1 => Ignore, 2 => Warn, 3 => Strict });
variants!(Body { 0 => None, 1 => Object { tree, strict }, 2 => Patch { kind, bytes } });
fields!(Living { key: Key, uid: String });
fields!(Options {
    dry_run: bool,
    field_manager: String,
    field_validation: FieldValidation,
    force: bool,
    label_selector: String,
    field_selector: String,
    limit: u64,
    continue_token: String,
    resource_version: String,
    resource_version_match: String,
    bookmarks: bool,
    send_initial_events: Option<bool>,
    timeout_seconds: u64,
    grace_period_seconds: Option<i64>,
    propagation_policy: String,
    orphan_dependents: Option<bool>,
    beside: Option<Living>,
    given: Option<Arc<Given>>,
});
fields!(Request {
    id: RequestId,
    sent: Wall,
    user: Arc<User>,
    verb: Verb,
    kind: &'static Kind,
    namespace: Option<Arc<str>>,
    name: Option<Arc<str>>,
    subresource: Arc<str>,
    options: Options,
    body: Body,
    uid: Uid,
    suffix: u64,
});
