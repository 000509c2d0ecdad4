//! Subresources that are acts: binding, eviction, tokens.

use super::delete::DeleteOptions;
use super::{Operation, Outcome, Visit};
use crate::Tree;
use crate::admission;
use crate::decision::{Answer, Decision, Payload, Plan, Reply, Token, Write};
use crate::kinds::tree::{self, Fields};
use crate::kinds::{FieldError, Kind, by_resource};
use crate::owned;
use crate::record::Stored;
use crate::request::Body;
use crate::select::LabelSelector;
use crate::status::{Details, Status, invalid, not_supported, quote, required};
use serde_json::json;

/// Shortest lifetime a token may be asked for, in seconds.
const TOKEN_SECONDS_MIN: i64 = 600;
/// Longest lifetime a token may be asked for, in seconds.
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
/// Storage name of disruption budgets.
const BUDGET: &str = "PodDisruptionBudget.policy";

impl Visit<'_> {
    fn act(&self, kind: &str) -> Outcome<Tree> {
        match &self.req.body {
            Body::Object { tree, .. } => Ok(tree.clone()),
            _ => Err(Box::new(Status::bad_request(format!("the request has no {kind} in its body")))),
        }
    }

    fn succeeded(&mut self) -> Answer {
        let status = Payload::Status(Box::new(Status::success(201, None)));
        Answer { code: 201, warnings: std::mem::take(&mut self.warnings), payload: status }
    }

    /// Binds a pod to a node, once. Also serves `POST bindings`, where the name is the Binding's.
    pub(super) fn bind(&mut self) -> Outcome<Decision> {
        let binding = self.act("Binding")?;
        let meta = binding.at("metadata");
        let name = if self.name().is_empty() { meta.text("name").to_owned() } else { self.name().to_owned() };
        if !meta.text("name").is_empty() && meta.text("name") != name {
            return Err(Box::new(Status::bad_request("name in URL does not match name in Binding object")));
        }
        let target = binding.at("target");
        let mut errs: Vec<FieldError> = Vec::new();
        if !matches!(target.text("kind"), "" | "Node") {
            errs.push(not_supported("target.kind", target.at("kind"), &["Node", "<empty>"]));
        }
        if target.text("name").is_empty() {
            errs.push(required("target.name", ""));
        }
        if !errs.is_empty() {
            return Err(Box::new(Status::invalid_kind("", "Binding", &name, &errs)));
        }
        let pods = pods(self.kind);
        let stored = self.view.get("Pod", &name).ok_or_else(|| Box::new(Status::not_found(pods, &name)))?;
        let mut pod = stored.tree();
        self.check_binding(&name, &pod, meta, &stored)?;
        let now = self.env.now.rfc3339();
        tree::set(tree::child(&mut pod, "spec"), "nodeName", target.text("name"));
        // Where room was being made for it is of no interest any more.
        if let Some(status) = tree::existing(&mut pod, "status").and_then(Tree::as_object_mut) {
            status.remove("nominatedNodeName");
        }
        for field in ["annotations", "labels"] {
            for (k, v) in meta.entries(field) {
                tree::set(tree::child(tree::child(&mut pod, "metadata"), field), k, v.clone());
            }
        }
        let generation = pod.at("metadata").int("generation");
        set_condition(&mut pod, "PodScheduled", "True", None, &now, generation);
        let answer = self.succeeded();
        if self.req.options.dry_run {
            return Ok(Decision::Answer(answer));
        }
        Ok(Decision::Commit(Plan {
            writes: vec![put(pods, &name, &stored, pod)],
            warnings: answer.warnings,
            code: 201,
            reply: Reply::Fixed(answer.payload),
        }))
    }

    fn check_binding(&self, name: &str, pod: &Tree, binding: &Tree, stored: &Stored) -> Outcome<()> {
        let conflict = |why: String| {
            let d = Details { name: name.into(), kind: "pods/binding".into(), ..Details::default() };
            let mut s = Status::conflict(pods(self.kind), name, &why);
            s.message = format!("Operation cannot be fulfilled on pods/binding {}: {why}", quote(name));
            s.details = Some(Box::new(d));
            Err(Box::new(s))
        };
        let uid = binding.text("uid");
        if !uid.is_empty() && uid != pod.at("metadata").text("uid") {
            return conflict(format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                pod.at("metadata").text("uid")
            ));
        }
        let revision = binding.text("resourceVersion");
        if !revision.is_empty() && revision != stored.revision.to_string() {
            return conflict(format!(
                "Precondition failed: ResourceVersion in precondition: {revision}, ResourceVersion in object meta: {}",
                stored.revision
            ));
        }
        if pod.at("metadata").has("deletionTimestamp") {
            return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
        }
        let node = pod.at("spec").text("nodeName");
        if !node.is_empty() {
            return conflict(format!("pod {name} is already assigned to node {}", quote(node)));
        }
        if !pod.at("spec").list("schedulingGates").is_empty() {
            return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
        }
        Ok(())
    }

    /// Evicts a pod: a delete that its disruption budget must allow.
    pub(super) fn evict(&mut self) -> Outcome<Decision> {
        let eviction = self.act("Eviction")?;
        let name = self.name().to_owned();
        let given = eviction.at("metadata").text("name");
        if !given.is_empty() && given != name {
            return Err(Box::new(Status::bad_request("name in URL does not match name in Eviction object")));
        }
        let options = DeleteOptions::of(eviction.at("deleteOptions"));
        let stored = self.stored()?;
        let pod = stored.tree();
        // Before the budget is asked: whoever may not evict learns nothing of it.
        admission::validate(self, Operation::Delete, &pod, Some(&pod))?;
        let budget = self.spend_budget(&name, &pod)?;
        let answer = self.succeeded();
        let mut decision = self.delete_with(&options, Some(answer))?;
        if let Decision::Commit(plan) = &mut decision {
            let key = self.key(&name);
            if let Some(pod) = plan.writes.iter_mut().find(|w| w.key == key).and_then(|w| w.tree.as_mut()) {
                // Whoever looks afterwards tells an eviction from a failure.
                let (now, generation) = (self.env.now.rfc3339(), pod.at("metadata").int("generation"));
                let why = Some(("EvictionByEvictionAPI", "Eviction API: evicting"));
                set_condition(pod, "DisruptionTarget", "True", why, &now, generation);
            }
            plan.writes.extend(budget);
        }
        Ok(decision)
    }

    /// The write that takes one disruption from the pod's budget, if it has a budget that counts it.
    fn spend_budget(&self, name: &str, pod: &Tree) -> Outcome<Option<Write>> {
        let phase = pod.at("status").text("phase");
        if matches!(phase, "Succeeded" | "Failed" | "Pending") || pod.at("metadata").has("deletionTimestamp") {
            return Ok(None);
        }
        let mut found: Vec<(Stored, Tree)> = Vec::new();
        for (_, s) in self.view.list(BUDGET, None) {
            let t = s.tree();
            let selector = LabelSelector::from_tree(t.at("spec").at("selector")).unwrap_or_default();
            if selector.matches_tree(pod.at("metadata").at("labels")) {
                found.push((s, t));
            }
        }
        if found.len() > 1 {
            let why =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Box::new(Status::internal(why)));
        }
        let Some((stored, mut budget)) = found.pop() else { return Ok(None) };
        let own = budget.at("metadata").text("name").to_owned();
        let status = budget.at("status");
        let (healthy, desired, allowed) = (
            status.int("currentHealthy").unwrap_or(0),
            status.int("desiredHealthy").unwrap_or(0),
            status.int("disruptionsAllowed").unwrap_or(0),
        );
        let ready =
            pod.at("status").list("conditions").iter().any(|c| c.text("type") == "Ready" && c.text("status") == "True");
        let policy = budget.at("spec").text("unhealthyPodEvictionPolicy");
        if !ready && (policy == "AlwaysAllow" || (healthy >= desired && desired > 0)) {
            return Ok(None);
        }
        let refuse = |cause: String, retry: u32| {
            let m = "Cannot evict pod as it would violate the pod's disruption budget.";
            Err(Box::new(Status::too_many_requests(m, retry).with_cause("DisruptionBudget", &cause, "")))
        };
        if status.int("observedGeneration").unwrap_or(0) < budget.at("metadata").int("generation").unwrap_or(0) {
            return refuse(format!("The disruption budget {own} is still being processed by the server."), 10);
        }
        if allowed <= 0 {
            return refuse(
                format!("The disruption budget {own} needs {desired} healthy pods and has {healthy} currently"),
                0,
            );
        }
        let now = self.env.now.rfc3339();
        let status = tree::child(&mut budget, "status");
        tree::set(status, "disruptionsAllowed", allowed - 1);
        tree::set(tree::child(status, "disruptedPods"), name, now);
        let kind = by_resource("policy", "v1", "poddisruptionbudgets").unwrap_or(self.kind);
        Ok(Some(put(kind, &own, &stored, budget)))
    }

    /// Checks a TokenRequest; whoever holds the token key signs.
    pub(super) fn token(&mut self) -> Outcome<Decision> {
        let mut request = self.act("TokenRequest")?;
        admission::node_restriction::token(self, &request)?;
        let account = self.stored()?;
        tree::default_to(tree::child(&mut request, "spec"), "expirationSeconds", 3600);
        tree::set(&mut request, "kind", "TokenRequest");
        tree::set(&mut request, "apiVersion", "authentication.k8s.io/v1");
        if !request.at("spec").has("boundObjectRef") {
            tree::remove(tree::child(&mut request, "spec"), "boundObjectRef");
        }
        owned::track_act(self, "io.k8s.api.authentication.v1.TokenRequest", &mut request);
        let seconds = {
            let spec = tree::child(&mut request, "spec");
            if spec.list("audiences").is_empty() {
                tree::set(spec, "audiences", json!([self.env.config.issuer]));
            }
            tree::default_to(spec, "boundObjectRef", Tree::Null);
            spec.int("expirationSeconds").unwrap_or(0)
        };
        let path = "spec.expirationSeconds";
        let mut errs = Vec::new();
        if seconds < TOKEN_SECONDS_MIN {
            errs.push(invalid(path, &json!(seconds), "may not specify a duration less than 10 minutes"));
        }
        if seconds > TOKEN_SECONDS_MAX {
            errs.push(invalid(path, &json!(seconds), "may not specify a duration larger than 2^32 seconds"));
        }
        if !errs.is_empty() {
            return Err(Box::new(Status::invalid_kind("authentication.k8s.io", "TokenRequest", "", &errs)));
        }
        let (name, namespace) = (self.name().to_owned(), self.namespace().to_owned());
        let (bound, node) = self.bound_object(&name, request.at("spec").at("boundObjectRef"))?;
        let audiences = request.at("spec").list("audiences").iter().map(|a| tree::text(a).to_owned()).collect();
        let uid = account.meta.uid.to_string();
        let meta = tree::child(&mut request, "metadata");
        tree::set(meta, "name", name.as_str());
        tree::set(meta, "namespace", namespace.as_str());
        tree::set(meta, "uid", self.req.uid.to_string());
        tree::set(meta, "creationTimestamp", self.env.now.rfc3339());
        Ok(Decision::Token(Token {
            namespace,
            service_account: name,
            uid,
            audiences,
            seconds: seconds.min(self.env.config.max_token_seconds),
            bound,
            node,
            request,
            warnings: std::mem::take(&mut self.warnings),
        }))
    }

    /// The object a token is bound to, which must be there and of this account.
    fn bound_object(&self, account: &str, reference: &Tree) -> Outcome<(Option<Bound>, Option<Host>)> {
        if reference.is_null() {
            return Ok((None, None));
        }
        let (kind, name, uid) = (reference.text("kind"), reference.text("name"), reference.text("uid"));
        let plural = match (reference.text("apiVersion"), kind) {
            ("v1", "Pod") => "pods",
            ("v1", "Secret") => "secrets",
            ("v1", "Node") => "nodes",
            (version, kind) => {
                let (group, version) = version.split_once('/').unwrap_or(("", version));
                return Err(Box::new(Status::bad_request(format!(
                    "cannot bind token to object of type {group}/{version}, Kind={kind}"
                ))));
            }
        };
        let row = by_resource("", "v1", plural).unwrap_or(self.kind);
        let missing = || Box::new(Status::not_found(row, name));
        let object = match plural {
            "nodes" => self.view.shared().get("Node", name).map(|n| (*n).clone()).ok_or_else(missing)?,
            _ => self.view.get(kind, name).ok_or_else(missing)?.tree(),
        };
        let own = object.at("metadata").text("uid").to_owned();
        if !uid.is_empty() && uid != own {
            return Err(Box::new(Status::conflict(
                row,
                name,
                &format!(
                    "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
                ),
            )));
        }
        let mut node = None;
        if plural == "pods" {
            if object.at("spec").text("serviceAccountName") != account {
                return Err(Box::new(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {} to pod running with different serviceaccount name.",
                    quote(account)
                ))));
            }
            let host = object.at("spec").text("nodeName");
            if !host.is_empty() {
                let uid = self.view.shared().get("Node", host);
                let uid = uid.map(|n| n.at("metadata").text("uid").to_owned()).unwrap_or_default();
                node = Some((host.to_owned(), uid));
            }
        }
        Ok((Some((kind.to_owned(), name.to_owned(), own)), node))
    }
}

/// Kind, name and uid.
type Bound = (String, String, String);
/// A node's name and uid.
type Host = (String, String);

/// Sets a condition of a pod, with its reason and message, its transition noted if the status changes.
fn set_condition(pod: &mut Tree, ty: &str, value: &str, why: Option<(&str, &str)>, now: &str, generation: Option<i64>) {
    let status = tree::child(pod, "status");
    let mut all = status.list("conditions").to_vec();
    let mut new = json!({"type": ty, "status": value, "lastProbeTime": null, "lastTransitionTime": now});
    if let Some(g) = generation {
        tree::set(&mut new, "observedGeneration", g);
    }
    if let Some((reason, message)) = why {
        tree::set(&mut new, "reason", reason);
        tree::set(&mut new, "message", message);
    }
    match all.iter_mut().find(|c| c.text("type") == ty) {
        Some(old) => {
            if old.text("status") == value {
                tree::keep(&mut new, old, "lastTransitionTime");
            }
            *old = new;
        }
        None => all.push(new),
    }
    tree::set(status, "conditions", all);
}

fn put(kind: &'static Kind, name: &str, stored: &Stored, tree: Tree) -> Write {
    Write {
        key: crate::record::Key { storage: kind.storage.into(), name: name.into() },
        expected: Some(stored.revision),
        kind,
        tree: Some(tree),
    }
}

fn pods(fallback: &'static Kind) -> &'static Kind {
    by_resource("", "v1", "pods").unwrap_or(fallback)
}
