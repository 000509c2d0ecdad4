//! A mesh in memory: one map of records per cell, requests decided and committed at once. No log, no
//! network, no threads: what is left is what `objects` decides.

use base::{Clock, Origin, RequestId, Revision, Uid, Wall};
use objects::allotment::{API_VERSION, Allotment, Given};
use objects::codec;
use objects::decide::decide;
use objects::decision::{Decision, Payload};
use objects::kinds::{self, Kind};
use objects::rbac::{CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ClusterPolicy};
use objects::record::Key;
use objects::request::{
    Body, Config, Env, FieldValidation, Options, PatchType, Request, Shared, Stored, User, Verb, View,
};
use objects::status::Status;
use objects::{Tree, schema, views};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What came back.
pub(crate) struct Response {
    pub(crate) status: u16,
    #[allow(dead_code)] // not every test looks
    pub(crate) warnings: Vec<String>,
    pub(crate) body: Tree,
}

/// One HTTP request of a kind `objects` decides.
pub(crate) struct Call<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) content_type: &'a str,
    pub(crate) user: User,
    /// Bytes of the body; empty for none.
    pub(crate) body: Vec<u8>,
}

#[derive(Default)]
struct Cell {
    records: BTreeMap<Key, Stored>,
}

/// All cells: root under the empty name, namespaces under theirs.
pub(crate) struct Mesh {
    cells: BTreeMap<String, Cell>,
    policy: ClusterPolicy,
    clock: Clock,
    config: Config,
    pub(crate) now: Wall,
    count: u64,
}

struct Seen<'a> {
    mesh: &'a Mesh,
    cell: &'a Cell,
}

impl View for Seen<'_> {
    fn get(&self, storage: &str, name: &str) -> Option<Stored> {
        self.cell.records.get(&Key { storage: storage.into(), name: name.into() }).cloned()
    }
    fn list<'a>(&'a self, storage: &str, after: Option<&str>) -> Box<dyn Iterator<Item = (Arc<str>, Stored)> + 'a> {
        let (storage, after) = (storage.to_owned(), after.map(str::to_owned));
        let from = Key { storage: storage.as_str().into(), name: after.as_deref().unwrap_or("").into() };
        Box::new(
            self.cell
                .records
                .range(from..)
                .take_while(move |(k, _)| *k.storage == *storage)
                .filter(move |(k, _)| after.as_deref().is_none_or(|a| *k.name > *a))
                .map(|(k, s)| (k.name.clone(), s.clone())),
        )
    }
    fn shared(&self) -> &dyn Shared {
        self.mesh
    }
}

impl Shared for Mesh {
    fn get(&self, storage: &str, name: &str) -> Option<Arc<Tree>> {
        let key = Key { storage: storage.into(), name: name.into() };
        self.cells.get("")?.records.get(&key).map(|s| Arc::new(s.tree()))
    }
    fn list(&self, storage: &str) -> Vec<Arc<Tree>> {
        let root = self.cells.get("").into_iter().flat_map(|c| &c.records);
        root.filter(|(k, _)| *k.storage == *storage).map(|(_, s)| Arc::new(s.tree())).collect()
    }
    fn policy(&self) -> &ClusterPolicy {
        &self.policy
    }
}

impl Mesh {
    /// A mesh with the bootstrap objects.
    pub(crate) fn new() -> Mesh {
        let mut mesh = Mesh {
            cells: BTreeMap::from([(String::new(), Cell::default())]),
            policy: ClusterPolicy::default(),
            clock: Clock::new(Origin::mainline(1), Revision::ZERO),
            config: Config::default(),
            now: Wall(1_795_000_000_000),
            count: 0,
        };
        for (kind, tree) in objects::bootstrap::objects() {
            mesh.put(kind, tree);
        }
        mesh.refresh();
        mesh
    }

    /// Puts an object where it belongs, undecided: what controllers would have made.
    pub(crate) fn insert(&mut self, kind: &'static Kind, tree: Tree) {
        self.put(kind, tree);
        self.refresh();
    }

    fn put(&mut self, kind: &'static Kind, mut tree: Tree) {
        let meta = &mut tree["metadata"];
        self.count += 1;
        let uid = Uid::from_chance(u128::from(self.count)).to_string();
        meta["uid"] = uid.into();
        meta["creationTimestamp"] = self.now.rfc3339().into();
        let namespace = meta["namespace"].as_str().unwrap_or_default().to_owned();
        let name = meta["name"].as_str().unwrap_or_default().to_owned();
        if meta["namespace"].is_null() {
            meta.as_object_mut().map(|m| m.remove("namespace"));
        }
        let revision = self.clock.mint(self.now);
        let key = Key { storage: kind.storage.into(), name: name.as_str().into() };
        let cell = self.cells.entry(namespace).or_default();
        cell.records.insert(key, Stored::from_tree(kind, tree, revision));
        if kind.storage == "Namespace" {
            self.open(&name);
        }
    }

    /// A namespace's cell begins with its ServiceAccount and root certificate.
    fn open(&mut self, namespace: &str) {
        let meta = |name: &str| serde_json::json!({"name": name, "namespace": namespace});
        let account = serde_json::json!({"kind": "ServiceAccount", "apiVersion": "v1", "metadata": meta("default")});
        let root = serde_json::json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": meta("kube-root-ca.crt")});
        self.put(kinds::by_resource("", "v1", "serviceaccounts").unwrap(), account);
        self.put(kinds::by_resource("", "v1", "configmaps").unwrap(), root);
    }

    fn refresh(&mut self) {
        let (roles, bindings) = (Shared::list(self, CLUSTER_ROLE), Shared::list(self, CLUSTER_ROLE_BINDING));
        self.policy = ClusterPolicy::new(roles.iter().map(|r| &**r), bindings.iter().map(|b| &**b));
    }

    /// Decides a request and commits what it plans.
    pub(crate) fn call(&mut self, call: Call<'_>) -> Response {
        match self.request(&call) {
            Ok(request) => self.run(request),
            Err(status) => refused(&status),
        }
    }

    fn run(&mut self, request: Request) -> Response {
        let place = request.decided_in().unwrap_or_default().to_owned();
        let empty = Cell::default();
        let env = Env { now: self.now, revision: self.clock.last(), config: &self.config };
        let cell = self.cells.get(&place).unwrap_or(&empty);
        let decision = decide(&request, &Seen { mesh: self, cell }, &env);
        let answer = match decision {
            Decision::Refuse(status) => return refused(&status),
            Decision::Answer(answer) => answer,
            Decision::List(plan) => {
                if let objects::read::At::NotOlderThan(r) | objects::read::At::Exactly(r) = plan.at
                    && r > self.clock.last()
                {
                    return refused(&Status::too_large_resource_version(r.get(), self.clock.last().get()));
                }
                let seen = Seen { mesh: self, cell };
                let list = plan.run(seen.list(request.kind.storage, plan.after.as_deref()), self.clock.last());
                let body = serde_json::from_slice(&list.to_json(request.kind)).unwrap();
                return Response { status: 200, warnings: plan.warnings, body };
            }
            Decision::Watch(_) | Decision::Stream(_) => {
                return Response { status: 200, warnings: vec![], body: Tree::Null };
            }
            // As a gateway does: root is asked, and then the cell again.
            Decision::Reserve(wanted) => {
                let (group, version) = API_VERSION.split_once('/').unwrap();
                self.count += 1;
                let masters = User { groups: vec!["system:masters".into()], ..User::default() };
                let root = Request {
                    id: RequestId(u128::from(self.count)),
                    user: Arc::new(masters),
                    verb: Verb::Create,
                    kind: kinds::by_kind(group, version, "Allotment").unwrap(),
                    namespace: None,
                    name: Some(wanted.uid.as_str().into()),
                    subresource: "reserve".into(),
                    options: Options { dry_run: request.options.dry_run, ..Options::default() },
                    body: Body::Object { tree: wanted.tree(), strict: vec![] },
                    uid: Uid::from_chance(u128::from(self.count) << 80),
                    suffix: self.count.wrapping_mul(0x9e37_79b9_7f4a_7c15),
                    ..request.clone()
                };
                let given = self.run(root);
                if given.status >= 300 {
                    return given;
                }
                let mut again = request;
                let allotment = Allotment::of(&given.body);
                again.options.given = Some(Arc::new(Given { wanted: *wanted, allotment }));
                return self.run(again);
            }
            Decision::Token(token) => token.answer("t".into(), "2026-11-22T20:56:24Z".into()),
            Decision::Commit(plan) => {
                let revisions: Vec<Revision> = plan.writes.iter().map(|_| self.clock.mint(self.now)).collect();
                let (records, answer) = plan.finish(&revisions);
                let mut opened = Vec::new();
                for r in records {
                    let cell = self.cells.entry(place.clone()).or_default();
                    assert_eq!(cell.records.get(&r.key).map(|s| s.revision), r.expected, "{:?}", r.key);
                    match r.object {
                        Some((meta, json)) => {
                            if &*r.key.storage == "Namespace" && r.expected.is_none() {
                                opened.push(r.key.name.to_string());
                            }
                            cell.records.insert(r.key, Stored { revision: r.revision, meta, json });
                        }
                        None => drop(cell.records.remove(&r.key)),
                    }
                }
                for namespace in opened {
                    self.open(&namespace);
                }
                if request.kind.group == "rbac.authorization.k8s.io" {
                    self.refresh();
                }
                answer
            }
        };
        let body = match &answer.payload {
            Payload::Json(b) => serde_json::from_slice(b).unwrap(),
            other => other.tree(),
        };
        Response { status: answer.code, warnings: answer.warnings, body }
    }

    /// The request a call is, as a gateway would make it.
    pub(crate) fn request(&mut self, call: &Call<'_>) -> Result<Request, Box<Status>> {
        let (path, query) = call.path.split_once('?').unwrap_or((call.path, ""));
        let (options, watch) = options(query);
        let mut parts = path.trim_matches('/').split('/');
        let (group, version) = match parts.next() {
            Some("api") => ("", parts.next().unwrap_or_default()),
            _ => (parts.next().unwrap_or_default(), parts.next().unwrap_or_default()),
        };
        let mut rest: Vec<&str> = parts.collect();
        let mut namespace = None;
        if rest.first() == Some(&"namespaces") && rest.len() > 2 && !matches!(rest[2], "status" | "finalize") {
            namespace = Some(Arc::from(rest[1]));
            rest.drain(..2);
        }
        let missing = || Box::new(Status::no_such_resource());
        let kind = kinds::by_resource(group, version, rest.first().copied().unwrap_or_default()).ok_or_else(missing)?;
        let (name, sub) = (rest.get(1).copied(), rest.get(2).copied().unwrap_or_default());
        if !sub.is_empty() && kind.subresource(sub).is_none() {
            return Err(missing());
        }
        let verb = match (call.method, name) {
            ("GET", None) if watch => Verb::Watch,
            ("GET", None) => Verb::List,
            ("GET", Some(_)) => Verb::Get,
            ("POST", None) => Verb::Create,
            ("POST", Some(_)) if !sub.is_empty() => Verb::Create,
            ("PUT", Some(_)) => Verb::Update,
            ("PATCH", Some(_)) => Verb::Patch,
            ("DELETE", None) if namespace.is_some() || !kind.namespaced => Verb::DeleteCollection,
            ("DELETE", Some(_)) => Verb::Delete,
            _ => return Err(Box::new(Status::method_not_allowed())),
        };
        let body = self.body(call, kind, sub, verb)?;
        self.count += 1;
        Ok(Request {
            id: RequestId(u128::from(self.count)),
            sent: self.now,
            user: Arc::new(call.user.clone()),
            verb,
            kind,
            namespace,
            name: name.map(Arc::from),
            subresource: sub.into(),
            options,
            body,
            uid: Uid::from_chance(u128::from(self.count) << 80),
            suffix: self.count.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        })
    }

    fn body(&self, call: &Call<'_>, kind: &'static Kind, sub: &str, verb: Verb) -> Result<Body, Box<Status>> {
        if call.body.is_empty() && !matches!(verb, Verb::Create | Verb::Update | Verb::Patch) {
            return Ok(Body::None);
        }
        if verb == Verb::Patch {
            let kind = match call.content_type {
                "application/json-patch+json" => PatchType::Json,
                "application/merge-patch+json" => PatchType::Merge,
                "application/strategic-merge-patch+json" => PatchType::Strategic,
                "application/apply-patch+yaml" => PatchType::Apply,
                _ => return Err(Box::new(Status::unsupported_media_type(&[]))),
            };
            return Ok(Body::Patch { kind, bytes: call.body.clone().into() });
        }
        let (group, version, name) = match (verb, kind.subresource(sub).and_then(|s| s.gvk)) {
            (Verb::Delete | Verb::DeleteCollection, _) => ("", "v1", "DeleteOptions"),
            (_, Some(gvk)) => gvk,
            _ => (kind.group, kind.version, kind.kind),
        };
        let bad = |m: String| Box::new(Status::bad_request(m));
        let schema = schema::builtin();
        if kinds::by_kind(group, version, name).is_some_and(|k| !k.served && k.group == "beemesh.io") {
            // No client writes these: they come as trees, from the mesh's own nodes.
            let tree = serde_json::from_slice(&call.body).map_err(|e| bad(e.to_string()))?;
            return Ok(Body::Object { tree, strict: Vec::new() });
        }
        let ty = schema.by_kind(group, version, name).ok_or_else(|| bad(format!("no type of {name}")))?;
        let decoded = codec::json::decode(schema, ty, &call.body).map_err(|e| bad(e.to_string()))?;
        let mut tree = decoded.tree;
        let want = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let given = tree["apiVersion"].as_str().unwrap_or(&want).to_owned();
        if given != want {
            return Err(bad(format!(
                "{name} in version \"{given}\" cannot be handled as a {name}: no kind \"{name}\" is registered for version \"{given}\" in scheme \"pkg/runtime/scheme.go:111\""
            )));
        }
        tree["kind"] = name.into();
        tree["apiVersion"] = want.into();
        let _ = views::is_view(kind);
        Ok(Body::Object { tree, strict: decoded.strict })
    }
}

fn refused(status: &Status) -> Response {
    Response { status: status.code, warnings: vec![], body: status.to_tree() }
}

fn options(query: &str) -> (Options, bool) {
    let mut o = Options { field_manager: "golden".into(), ..Options::default() };
    let mut watch = false;
    for (key, value) in query.split('&').filter_map(|p| p.split_once('=')) {
        let value = value.replace("%3D", "=");
        match key {
            "watch" => watch = true,
            "dryRun" => o.dry_run = true,
            "fieldManager" => o.field_manager = value,
            "fieldValidation" => {
                o.field_validation = match value.as_str() {
                    "Strict" => FieldValidation::Strict,
                    "Ignore" => FieldValidation::Ignore,
                    _ => FieldValidation::Warn,
                }
            }
            "force" => o.force = value == "true",
            "labelSelector" => o.label_selector = value,
            "fieldSelector" => o.field_selector = value,
            "limit" => o.limit = value.parse().unwrap_or(0),
            "continue" => o.continue_token = value,
            "resourceVersion" => o.resource_version = value,
            "resourceVersionMatch" => o.resource_version_match = value,
            "allowWatchBookmarks" => o.bookmarks = value == "true",
            "sendInitialEvents" => o.send_initial_events = Some(value == "true"),
            "timeoutSeconds" => o.timeout_seconds = value.parse().unwrap_or(0),
            "propagationPolicy" => o.propagation_policy = value,
            "orphanDependents" => o.orphan_dependents = Some(value == "true"),
            "includeObject" | "command" => {}
            _ => panic!("the harness does not know {key}"),
        }
    }
    (o, watch)
}
