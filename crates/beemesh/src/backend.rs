//! What stands behind the gateway: requests go to the cells they belong to, answers come back.

use crate::driver::work::Work;
use crate::driver::{Driver, Settled, clock};
use crate::streams;
use ::mesh::Mesh;
use anyhow::Result;
use api::catalogue::Catalogue;
use api::port::{
    Answer, Backend, BoxFuture, Check, Connect, Connected, Document, List, Probe, Refusal, Reply, TokenKeys, Version,
    Watch,
};
use base::{CellId, Revision};
use bytes::Bytes;
use identity::{BoundObject, Identity, TokenRequest};
use node::bundle::Bundle;
use node::cell::{Change, Kept, Opened, Outcome, Snapshot};
use node::errand::{Answered, Errand};
use node::gateway::across::{self, Start};
use node::gateway::bound::{Bound, Standing};
use node::gateway::{Next, Retry, grant, home, impersonate, reserve};
use objects::decision::Token;
use objects::kinds::{self, Kind};
use objects::openapi;
use objects::rbac::{self, Attributes};
use objects::read::{At, Continue, ListAnswer, ListPlan, Listed, WatchPlan, WatchStart};
use objects::request::{Request, Shared, Stored, User, Verb, View};
use objects::select::Selection;
use objects::status::Status;
use objects::views;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often a watch over all namespaces is begun anew before its client hears of it.
const BEGINNINGS: usize = 5;

/// The gateway's backend on this node.
pub(crate) struct Node {
    driver: Arc<Driver>,
    identity: Arc<Identity>,
    work: Arc<Work>,
    mesh: Arc<Mesh>,
    catalogue: Arc<Catalogue>,
    openapi_index: Vec<(String, String)>,
    openapi: Mutex<BTreeMap<String, Bytes>>,
    standing: Mutex<Standing>,
    host: String,
}

impl Node {
    pub(crate) fn new(
        driver: Arc<Driver>,
        identity: Arc<Identity>,
        work: Arc<Work>,
        mesh: Arc<Mesh>,
        host: String,
    ) -> Node {
        let catalogue = Arc::new(Catalogue::new(kinds::KINDS.iter().filter(|k| k.served)));
        let openapi_index = openapi::index(&|k| k.served);
        Node {
            driver,
            identity,
            work,
            mesh,
            catalogue,
            openapi_index,
            openapi: Mutex::default(),
            standing: Mutex::default(),
            host,
        }
    }

    /// The machines.
    pub(crate) fn driver(&self) -> &Arc<Driver> {
        &self.driver
    }

    /// Who this node is.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// A request of the node's own: the object, or the list, as a tree.
    pub(crate) async fn tree(&self, request: Request) -> Result<objects::Tree, Refusal> {
        match self.answer(request).await? {
            Reply::One(answer) => Ok(answer.payload.tree()),
            Reply::List(mut list) => {
                let mut items: Vec<objects::Tree> = Vec::new();
                while list.items.write_next(&mut |json| items.extend(serde_json::from_slice::<objects::Tree>(json))) {}
                let metadata = serde_json::json!({"resourceVersion": list.revision.get().to_string(),
                    "continue": list.continue_token});
                Ok(serde_json::json!({"metadata": metadata, "items": items}))
            }
        }
    }

    /// A request that a machine of this node makes in its own name.
    pub(crate) async fn errand(&self, errand: &Errand) -> Answered {
        let (id, uid, suffix) = self.driver.request_chance();
        self.tree(errand.request(id, clock::wall(), uid, suffix)).await
    }

    /// A watch that a machine of this node opens in its own name, from a revision on.
    pub(crate) async fn errand_watch(&self, errand: &Errand) -> Result<Watch, Refusal> {
        let (id, uid, suffix) = self.driver.request_chance();
        self.open(errand.request(id, clock::wall(), uid, suffix)).await
    }

    /// Has a request decided by the cell it belongs to, and root asked first for what that needs of it.
    async fn ask(&self, request: Request) -> Settled {
        let refused = |status| Settled { outcome: Outcome::Refused(status), events: None };
        let mut request = Arc::new(request);
        // One patience for all rounds: the cell knows a request for some time only.
        let mut retry = Retry::new(clock::now().mono);
        for _ in 0..reserve::ROUNDS {
            let settled = self.ask_cell(request.clone(), &mut retry).await;
            let Outcome::Reserve(wanted) = settled.outcome else { return settled };
            if clock::now().mono >= retry.until() {
                return refused(reserve::overtaken());
            }
            let question = reserve::question(&request, &wanted, Arc::new(system()));
            let Some(question) = question else { return refused(Box::new(Status::internal("no kind Allotment"))) };
            // Root itself wants nothing of root: this goes no deeper.
            let answered = Box::pin(self.errand(&question)).await;
            match reserve::with_answer(&request, *wanted, answered) {
                Ok(again) => request = Arc::new(again),
                Err(status) => return refused(status),
            }
        }
        refused(reserve::overtaken())
    }

    /// Asks the cell a request belongs to, as often as it takes and may be repeated.
    async fn ask_cell(&self, request: Arc<Request>, retry: &mut Retry) -> Settled {
        let mut changes = self.driver.changes();
        loop {
            changes.borrow_and_update();
            let bundle = self.driver.bundle();
            let id = self.cell_of(&request, &bundle);
            let settled = self.driver.ask_leader(id, request.clone(), retry.until()).await;
            let answered = !matches!(settled.outcome, Outcome::NotLeader);
            // Root does not answer for a namespace that is not known here yet, which says nothing of root.
            let astray = id == self.driver.founding().root && request.kind.home != kinds::Home::Root;
            if answered || !astray {
                self.driver.note(id, answered);
            }
            match retry.next(clock::now().mono, &settled.outcome, || self.driver.absent(id)) {
                Next::Give => return settled,
                Next::Refuse(status) => return Settled { outcome: Outcome::Refused(status), events: None },
                Next::WaitUntil(at) => {
                    let pause = at.since(clock::now().mono);
                    let _ = tokio::time::timeout(pause, changes.changed()).await;
                }
            }
        }
    }

    fn cell_of(&self, request: &Request, bundle: &Bundle) -> CellId {
        let f = self.driver.founding();
        home(request, bundle, f.root, f.registry)
    }

    /// Asks a cell to close `at` and to show a resource as it is there, or what happened to it between `after`
    /// and `at`. `None`: its namespace has ended.
    async fn collect(
        &self,
        cell: CellId,
        storage: &'static str,
        at: Revision,
        after: Option<Revision>,
    ) -> Result<Option<Outcome>, Refusal> {
        let mut retry = Retry::new(clock::now().mono);
        let mut changes = self.driver.changes();
        loop {
            changes.borrow_and_update();
            let root = self.driver.founding().root;
            if cell != root && !self.driver.bundle().cells().iter().any(|(_, c)| *c == cell) {
                return Ok(None);
            }
            let outcome = self.driver.collect_at_leader(cell, storage.into(), at, after, retry.until()).await;
            match (retry.next(clock::now().mono, &outcome, || self.driver.absent(cell)), outcome) {
                (Next::Give, outcome @ (Outcome::Collected(_) | Outcome::Recalled(_))) => return Ok(Some(outcome)),
                (Next::Give, other) => return Err(refusal(other)),
                (Next::Refuse(status), _) => return Err(status),
                (Next::WaitUntil(until), _) => {
                    let pause = until.since(clock::now().mono);
                    let _ = tokio::time::timeout(pause, changes.changed()).await;
                }
            }
        }
    }

    async fn state_at(&self, cell: CellId, storage: &'static str, at: Revision) -> Result<Option<Snapshot>, Refusal> {
        match self.collect(cell, storage, at, None).await? {
            Some(Outcome::Collected(snapshot)) => Ok(Some(snapshot)),
            Some(other) => Err(refusal(other)),
            None => Ok(None),
        }
    }

    async fn between(
        &self,
        cell: CellId,
        storage: &'static str,
        after: Revision,
        at: Revision,
    ) -> Result<Option<Vec<Change>>, Refusal> {
        match self.collect(cell, storage, at, Some(after)).await? {
            Some(Outcome::Recalled(changes)) => Ok(Some(changes)),
            Some(other) => Err(refusal(other)),
            None => Ok(None),
        }
    }

    /// A list over all namespaces: authorised once, at root; every cell shows its part at one revision
    /// that nothing is still to come at or below. `plan` is root's answer.
    async fn list_all(&self, kind: &'static Kind, plan: ListPlan) -> Result<Reply, Refusal> {
        for _ in 0..BEGINNINGS {
            let at = match plan.at {
                At::Latest => Revision::end_of(clock::wall()),
                At::NotOlderThan(asked) => asked.max(Revision::end_of(clock::wall())),
                At::Exactly(asked) => asked,
            };
            match (self.list_at(kind, &plan, at).await?, plan.at) {
                (Some(list), _) => return Ok(list),
                (None, At::Exactly(_)) => {
                    let why = "a namespace has ended since then: list again from the beginning";
                    return Err(Box::new(Status::expired(why)));
                }
                (None, _) => {}
            }
        }
        Err(Box::new(Status::unavailable("namespaces end faster than all of them can be listed; try again")))
    }

    /// `None`: a namespace has ended while it was asked.
    async fn list_at(&self, kind: &'static Kind, plan: &ListPlan, at: Revision) -> Result<Option<Reply>, Refusal> {
        // Root first: the namespaces there are at that revision.
        let root = self.driver.founding().root;
        let Some(namespaces) = self.state_at(root, "Namespace", at).await? else { return Ok(None) };
        let after = plan.after.as_deref().unwrap_or_default();
        let (from, rest) = after.split_once('/').unwrap_or((after, ""));
        let mut items: Vec<Kept> = Vec::new();
        let (mut last, mut left) = (None, 0u64);
        let everything = plan.selection.is_everything();
        for (namespace, then) in namespaces.iter(None).filter(|(n, _)| &**n >= from) {
            // Another of the same name is not the one there was.
            let cell = self.driver.bundle().cell_of(&namespace).filter(|cell| cell.0 == then.meta.uid);
            let Some(cell) = cell else { return Ok(None) };
            let Some(part) = self.state_at(cell, kind.storage, at).await? else { return Ok(None) };
            let begin = (*namespace == *from && !rest.is_empty()).then_some(rest);
            for object in part.lying(begin).filter(|o| everything || o.is_meant(&plan.selection, &namespace)) {
                if plan.limit > 0 && items.len() as u64 >= plan.limit {
                    left += 1;
                    continue;
                }
                if plan.limit > 0 {
                    last = Some(format!("{namespace}/{}", object.name()));
                }
                items.push(object.keep());
            }
        }
        let mut found = ListAnswer { items, revision: at, ..ListAnswer::default() };
        if left > 0
            && let Some(last) = last
        {
            found.continue_token = Continue::after(&last, Some(at)).encode();
            found.remaining = everything.then_some(left);
        }
        Ok(Some(Reply::List(List::of(kind, found, plan.warnings.clone()))))
    }

    async fn answer(&self, request: Request) -> Result<Reply, Refusal> {
        let kind = request.kind;
        let creates_namespace =
            request.verb == Verb::Create && kind.storage == "Namespace" && request.subresource.is_empty();
        let user = request.user.clone();
        match self.ask(request).await.outcome {
            Outcome::Done(answer) if creates_namespace && !user.name.is_empty() => {
                Ok(Reply::One(self.opened(answer).await))
            }
            Outcome::Done(answer) => Ok(Reply::One(answer)),
            Outcome::ListAll(plan) => self.list_all(kind, plan).await,
            Outcome::List { plan, snapshot } => {
                let found = plan.run(snapshot.lying(plan.after.as_deref()), snapshot.revision());
                Ok(Reply::List(List::of(kind, found, plan.warnings)))
            }
            // The same of a cell that is led elsewhere.
            Outcome::Listed { found, warnings } => Ok(Reply::List(List::of(kind, found, warnings))),
            Outcome::Token(token) => self.token(token).map(Reply::One),
            other => Err(refusal(other)),
        }
    }

    fn token(&self, token: Token) -> Result<Answer, Refusal> {
        let object = |o: &(String, String)| BoundObject { name: o.0.clone(), uid: o.1.clone() };
        let bound = |kind: &str| {
            token.bound.as_ref().filter(|b| b.0 == kind).map(|b| BoundObject { name: b.1.clone(), uid: b.2.clone() })
        };
        let wanted = TokenRequest {
            audiences: token.audiences.clone(),
            life: Duration::from_secs(u64::try_from(token.seconds).unwrap_or(3600)),
            warn_after: None,
            namespace: token.namespace.clone(),
            service_account: BoundObject { name: token.service_account.clone(), uid: token.uid.clone() },
            pod: bound("Pod"),
            secret: bound("Secret"),
            node: bound("Node").or_else(|| token.node.as_ref().map(object)),
        };
        let (signed, claims) = self
            .identity
            .tokens()
            .issue(&wanted, clock::wall())
            .map_err(|e| Box::new(Status::internal(&e.to_string())))?;
        let expires = base::Wall(claims.exp.saturating_mul(1000)).rfc3339();
        Ok(token.answer(signed, expires))
    }

    async fn open(&self, request: Request) -> Result<Watch, Refusal> {
        let kind = request.kind;
        let settled = self.ask(request).await;
        let (opened, events) = match (settled.outcome, settled.events) {
            (Outcome::Watch(opened), Some(events)) => (opened, events),
            (Outcome::WatchAll(plan), _) => return self.watch_all(kind, plan).await,
            (other, _) => return Err(refusal(other)),
        };
        let Opened { kind, plan, state, revision, .. } = *opened;
        let marked = matches!(plan.start, WatchStart::State { mark: true, .. });
        let initial = state.map(|snapshot| {
            let mut chosen: Vec<Kept> = Vec::new();
            choose(&snapshot, &plan.selection, &plan.namespace, &mut chosen);
            shown(kind, chosen)
        });
        Ok(Watch { initial, initial_end: marked.then_some(revision), events, warnings: Vec::new() })
    }

    /// A watch over all namespaces. A namespace may end, or a stream fall behind, before it is open: then it
    /// begins anew.
    async fn watch_all(&self, kind: &'static Kind, plan: WatchPlan) -> Result<Watch, Refusal> {
        for _ in 0..BEGINNINGS {
            if let Some(watch) = self.begin_all(kind, &plan).await? {
                return Ok(watch);
            }
        }
        Err(Box::new(Status::unavailable(
            "namespaces come and go faster than a watch over all of them can begin; try again",
        )))
    }

    /// It begins at a moment of the frontier, with the state of every cell at it, or with what happened in each
    /// since the revision it goes on from.
    async fn begin_all(&self, kind: &'static Kind, plan: &WatchPlan) -> Result<Option<Watch>, Refusal> {
        let (start, with_state, marked) = match plan.start {
            WatchStart::State { not_older_than, mark } => (Start::At(not_older_than), true, mark),
            WatchStart::Newest(not_older_than) => (Start::At(not_older_than), false, false),
            WatchStart::After(asked) => (Start::After(asked), false, false),
        };
        let place = self.driver.join_all(kind, start).await?;
        let at = place.begun.at;
        let mut initial: Vec<Kept> = Vec::new();
        if with_state {
            let mut cells: Vec<_> = place.begun.cells.iter().collect();
            cells.sort_by(|a, b| a.1.cmp(&b.1));
            for (cell, namespace) in cells {
                let Some(part) = self.state_at(*cell, kind.storage, at).await? else { return Ok(None) };
                choose(&part, &plan.selection, namespace, &mut initial);
            }
        }
        let mut parts = Vec::new();
        if let Some(after) = place.begun.after {
            let root = self.driver.founding().root;
            let Some(namespaces) = self.between(root, "Namespace", after, at).await? else { return Ok(None) };
            if across::lost_a_namespace(&namespaces) {
                let why = "a namespace has ended since then: list again, and watch from there";
                return Err(Box::new(Status::expired(why)));
            }
            for (cell, namespace) in place.begun.cells.iter() {
                let Some(part) = self.between(*cell, kind.storage, after, at).await? else { return Ok(None) };
                parts.push((*cell, namespace.clone(), part));
            }
        }
        let Some(events) = place.open(kind, plan.clone(), &across::in_order(parts))? else { return Ok(None) };
        Ok(Some(Watch {
            initial: with_state.then(|| shown(kind, initial)),
            initial_end: marked.then_some(at),
            events,
            warnings: Vec::new(),
        }))
    }

    /// Whether something a token is bound to is still there.
    async fn stands(&self, bound: Bound) -> Result<bool, Refusal> {
        let asked = clock::now();
        let standing = || self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stands) = standing().look(asked, &bound) {
            return Ok(stands);
        }
        let Some(errand) = bound.errand(Arc::new(system())) else { return Ok(false) };
        let answered = self.errand(&errand).await;
        standing().take(asked, bound, answered)
    }

    async fn user_of(&self, token: &str) -> Result<User, Refusal> {
        let nobody = || Box::new(Status::unauthorized(""));
        let claims = self.identity.tokens().verify(token, &[], clock::wall()).map_err(|why| {
            tracing::debug!(%why, "a bearer token was refused");
            nobody()
        })?;
        let k = &claims.kubernetes;
        let mut bound = vec![("ServiceAccount", &k.serviceaccount)];
        bound.extend(k.pod.as_ref().map(|o| ("Pod", o)));
        bound.extend(k.secret.as_ref().map(|o| ("Secret", o)));
        // A pod's token says where the pod runs; only one without a pod is bound to the node itself.
        bound.extend(k.node.as_ref().filter(|_| k.pod.is_none()).map(|o| ("Node", o)));
        for (kind, object) in bound {
            let namespace = (kind != "Node").then(|| k.namespace.as_str().into());
            let (name, uid) = (object.name.as_str().into(), object.uid.as_str().into());
            if !self.stands(Bound { kind, namespace, name, uid }).await? {
                return Err(nobody());
            }
        }
        let mut extra =
            vec![("authentication.kubernetes.io/credential-id".to_owned(), vec![format!("JTI={}", claims.jti)])];
        if let Some(p) = &k.pod {
            extra.push(("authentication.kubernetes.io/pod-name".into(), vec![p.name.clone()]));
            extra.push(("authentication.kubernetes.io/pod-uid".into(), vec![p.uid.clone()]));
        }
        if let Some(n) = &k.node {
            extra.push(("authentication.kubernetes.io/node-name".into(), vec![n.name.clone()]));
            extra.push(("authentication.kubernetes.io/node-uid".into(), vec![n.uid.clone()]));
        }
        Ok(User {
            name: claims.sub.clone(),
            uid: k.serviceaccount.uid.clone(),
            groups: vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{}", k.namespace)],
            extra,
        })
    }
}

/// Adds what a selection means of a cell's objects.
fn choose(snapshot: &Snapshot, selection: &Selection, namespace: &str, into: &mut Vec<Kept>) {
    let everything = selection.is_everything();
    let meant = snapshot.lying(None).filter(|o| everything || o.is_meant(selection, namespace));
    into.extend(meant.map(Listed::keep));
}

/// Stored objects in the version asked for, each made when its turn comes.
fn shown(kind: &'static Kind, stored: Vec<Kept>) -> Box<dyn Iterator<Item = Bytes> + Send> {
    Box::new(stored.into_iter().map(|kept| views::bytes_from_storage(kind, kept.json())))
}

/// The node itself, where it asks on nobody's behalf.
pub(crate) fn system() -> User {
    User { name: "system:beemesh".into(), uid: String::new(), groups: vec!["system:masters".into()], extra: Vec::new() }
}

/// What an outcome that is no answer tells the client.
fn refusal(outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::Refused(status) => status,
        Outcome::Busy => Box::new(Status::too_many_requests("too many requests wait for this cell; try again", 1)),
        Outcome::NotLeader => Box::new(Status::unavailable("no leader is known for the cell that decides this")),
        Outcome::Unknown => Box::new(Status::timeout(
            "leadership changed while the request was decided: it may or may not have been executed",
            0,
        )),
        _ => Box::new(Status::internal("the cell answered otherwise than was asked")),
    }
}

/// What is decided on root's configuration alone.
struct Nothing<'a>(&'a Bundle);

impl View for Nothing<'_> {
    fn get(&self, _: &str, _: &str) -> Option<Stored> {
        None
    }
    fn list<'a>(&'a self, _: &str, _: Option<&str>) -> Box<dyn Iterator<Item = (Arc<str>, Stored)> + 'a> {
        Box::new(std::iter::empty())
    }
    fn shared(&self) -> &dyn Shared {
        self.0
    }
}

impl Backend for Node {
    fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.clone()
    }

    fn decide(&self, request: Request) -> BoxFuture<'_, Result<Reply, Refusal>> {
        Box::pin(self.answer(request))
    }

    fn watch(&self, request: Request) -> BoxFuture<'_, Result<Watch, Refusal>> {
        Box::pin(self.open(request))
    }

    fn connect(&self, request: Request, ask: Connect) -> BoxFuture<'_, Result<Connected, Refusal>> {
        Box::pin(async move {
            let stream = match self.ask(request).await.outcome {
                Outcome::Stream(stream) => stream,
                other => return Err(refusal(other)),
            };
            let pod = stream.object.tree();
            // Nothing that runs here is another node's pod, whatever its uid.
            if let Some(node) = pod["spec"]["nodeName"].as_str().filter(|n| !["", self.work.node_name()].contains(n)) {
                let way = streams::Way { backend: self, work: &self.work, mesh: &self.mesh };
                return streams::connect_elsewhere(&way, node, &pod, ask).await;
            }
            let Some(runtime) = self.work.runtime() else {
                return Err(Box::new(Status::unavailable("this node has no container runtime (yet): it runs no pods")));
            };
            streams::connect(runtime, &pod, ask).await
        })
    }

    fn still<'a>(&'a self, request: &'a Request) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(async move {
            let Some(question) = grant::question(request, Arc::new(system())) else { return Ok(()) };
            grant::verdict(request, self.errand(&question).await)
        })
    }

    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<User, Refusal>> {
        Box::pin(self.user_of(token))
    }

    fn impersonate<'a>(&'a self, real: &'a User, wanted: &'a User) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(async move {
            let bundle = self.driver.bundle();
            for a in impersonate::required(wanted) {
                let Err(refused) = rbac::authorize(real, &a, &Nothing(&bundle)) else { continue };
                // The roles of a namespace are known in its cell alone.
                let question = grant::review(real, &a, Arc::new(system())).filter(|_| !a.namespace.is_empty());
                let Some(question) = question else { return Err(refused) };
                if !grant::allows(self.errand(&question).await)? {
                    return Err(refused);
                }
            }
            Ok(())
        })
    }

    fn authorize_path<'a>(
        &'a self,
        user: &'a User,
        verb: &'a str,
        path: &'a str,
    ) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(async move {
            let bundle = self.driver.bundle();
            rbac::authorize(user, &Attributes::path(verb, path), &Nothing(&bundle))
        })
    }

    fn version(&self) -> Version {
        version()
    }

    fn checks(&self, probe: Probe) -> Vec<Check> {
        let f = self.driver.founding();
        let mut checks = vec![Check { name: "ping", ok: true }, Check { name: "log", ok: true }];
        if probe == Probe::Ready {
            checks.push(Check { name: "disk-space", ok: self.driver.has_space() });
            checks.push(Check { name: "root", ok: self.driver.is_led(f.root) });
            checks.push(Check { name: "registry", ok: self.driver.is_led(f.registry) });
        }
        checks
    }

    fn metrics(&self) -> String {
        crate::metrics::text(&self.driver)
    }

    fn openapi_index(&self) -> Vec<(String, String)> {
        self.openapi_index.clone()
    }

    fn openapi(&self, path: &str) -> Option<Document> {
        let hash = self.openapi_index.iter().find(|(p, _)| p == path)?.1.clone();
        let mut kept = self.openapi.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(json) = kept.get(path) {
            return Some(Document { json: json.clone(), hash });
        }
        // Made at the first call and kept: clients keep it, too, as long as its hash stays.
        let json = Bytes::from(openapi::document(path, &|k| k.served)?.to_string());
        kept.insert(path.to_owned(), json.clone());
        Some(Document { json, hash })
    }

    fn token_keys(&self) -> TokenKeys {
        let tokens = self.identity.tokens();
        TokenKeys {
            issuer: tokens.issuer().into(),
            jwks_uri: format!("https://{}/openid/v1/jwks", self.host),
            jwks: tokens.jwks().to_string().into(),
        }
    }
}

/// `/version`. The patch says which beemesh; never a hyphen, which helm reads as a prerelease.
pub(crate) fn version() -> Version {
    Version {
        major: "1".into(),
        minor: "37".into(),
        emulation_major: "1".into(),
        emulation_minor: "37".into(),
        min_compatibility_major: "1".into(),
        min_compatibility_minor: "36".into(),
        git_version: format!("v1.37.0+beemesh.{}", env!("CARGO_PKG_VERSION")),
        git_commit: String::new(),
        git_tree_state: String::new(),
        build_date: "1970-01-01T00:00:00Z".into(),
        go_version: String::new(),
        compiler: "rustc".into(),
        platform: format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    }
}
