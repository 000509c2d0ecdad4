//! Deployment: one ReplicaSet for each template it has had, and the pace at which the newest takes over.
//!
//! Rolling update, Recreate, pause, proportional scaling, history and conditions as
//! kube-controller-manager's. A rollback is a change of the template back to an old one (kubectl does
//! it): the ReplicaSet of that template is found again and becomes the newest.

use super::replicaset::put_count;
use super::{
    Act, Action, Plan, Pod, Refused, Target, adopt, controller_of, count, is_terminating, labels, owner_reference,
    release, set_condition, text,
};
use crate::pod::items;
use crate::schedule::selector_matches;
use base::Wall;
use objects::Tree;
use serde_json::json;
use std::time::Duration;

const REVISION: &str = "deployment.kubernetes.io/revision";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
const HASH: &str = "pod-template-hash";
/// How long the list of revisions that a ReplicaSet has been before may become: kube-controller-manager's bound.
const HISTORY_BYTES: usize = 2000;

/// What there is beside a Deployment.
pub struct Beside<'a> {
    /// The ReplicaSets it controls and those that nobody does.
    pub sets: &'a [Tree],
    /// The pods of its ReplicaSets.
    pub pods: &'a [&'a Pod],
    /// Whether a ReplicaSet has this name, whosever it is.
    pub is_taken: &'a dyn Fn(&str) -> bool,
    /// The last write in its name, if it was refused.
    pub refused: Option<&'a Refused>,
}

/// What a Deployment needs.
pub fn plan(deployment: &Tree, beside: &Beside<'_>, now: Wall) -> Plan {
    let mut plan = Plan::default();
    let going = is_terminating(deployment);
    let mine = match claim(deployment, beside.sets, &mut plan) {
        // Everything else is decided once they are ours.
        _ if !plan.actions.is_empty() => return plan,
        mine => mine,
    };
    let template = &deployment["spec"]["template"];
    let newest = mine.iter().position(|s| same_template(&s["spec"]["template"], template));
    let paused = deployment["spec"]["paused"] == true;
    let r = Rollout {
        deployment,
        now,
        paused,
        newest: newest.map(|i| mine[i].clone()),
        old: {
            let mut old = mine.clone();
            if let Some(i) = newest {
                old.remove(i);
            }
            old
        },
        beside,
    };
    let refused = beside.refused.filter(|r| r.act == Act::Create && !r.taken);
    if going || refused.is_some() {
        r.status(&mut plan);
        return plan;
    }
    // A change of size comes first: what is there takes its share of it before a new template rolls out.
    let scaling = paused || r.is_scaling(&mine);
    if !scaling && r.newest.is_none() && !r.make_newest(&mine, &mut plan) {
        r.status(&mut plan);
        return plan;
    }
    if r.newest.is_some() {
        r.number(&mut plan);
    }
    if scaling {
        r.scale_in_proportion(&mut plan);
    } else if text(&deployment["spec"]["strategy"]["type"]) == "Recreate" {
        r.recreate(&mut plan);
    } else {
        r.roll(&mut plan);
    }
    r.forget_history(&mut plan);
    r.status(&mut plan);
    plan
}

/// The Deployment's own ReplicaSets, oldest first; those that match and have no controller are adopted,
/// those of its own that no longer match let go.
fn claim(deployment: &Tree, sets: &[Tree], plan: &mut Plan) -> Vec<Tree> {
    let uid = &deployment["metadata"]["uid"];
    let selector = &deployment["spec"]["selector"];
    let going = is_terminating(deployment);
    let mut mine: Vec<Tree> = Vec::new();
    for set in sets {
        let matches = selector_matches(selector, &labels(set));
        match controller_of(set) {
            Some(owner) if owner["uid"] == *uid => {
                if matches || going || is_terminating(set) {
                    mine.push(set.clone());
                } else {
                    plan.because(format!("{} no longer matches the selector", name(set)));
                    plan.actions.push(release(Target::of(set), [text(uid)]));
                }
            }
            None if matches && !is_terminating(set) && !going => {
                plan.because(format!("{} matches and has no controller", name(set)));
                plan.actions.push(adopt(Target::of(set), deployment));
            }
            _ => {}
        }
    }
    mine.sort_by(|a, b| (created(a), name(a)).cmp(&(created(b), name(b))));
    mine
}

struct Rollout<'a> {
    deployment: &'a Tree,
    now: Wall,
    paused: bool,
    newest: Option<Tree>,
    /// By age, oldest first.
    old: Vec<Tree>,
    beside: &'a Beside<'a>,
}

impl Rollout<'_> {
    fn replicas(&self) -> i64 {
        self.deployment["spec"]["replicas"].as_i64().unwrap_or(1)
    }

    fn rolling(&self) -> bool {
        text(&self.deployment["spec"]["strategy"]["type"]) != "Recreate"
    }

    fn max_surge(&self) -> i64 {
        if !self.rolling() {
            return 0;
        }
        share(&self.deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"], self.replicas(), true)
    }

    fn max_unavailable(&self) -> i64 {
        if !self.rolling() || self.replicas() == 0 {
            return 0;
        }
        let n = share(&self.deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"], self.replicas(), false);
        // Both zero would never move; validation refuses that as numbers, percentages may still round to it.
        if n == 0 && self.max_surge() == 0 { 1 } else { n.min(self.replicas()) }
    }

    /// The ReplicaSet of a template not seen before. `false`: it must wait, for old pods to end
    /// (Recreate).
    fn make_newest(&self, mine: &[Tree], plan: &mut Plan) -> bool {
        let d = self.deployment;
        if !self.rolling() {
            let running = self.old.iter().any(|s| count(&s["spec"]["replicas"]) > 0) || self.has_old_pods();
            if running {
                self.recreate(plan);
                return false;
            }
        }
        let hash = template_hash(&d["spec"]["template"], d["status"]["collisionCount"].as_u64());
        let name = format!("{}-{hash}", text(&d["metadata"]["name"]));
        if (self.beside.is_taken)(&name) {
            plan.because(format!("{name} is taken by another template: the next name counts one collision more"));
            return false;
        }
        let mut template = d["spec"]["template"].clone();
        put_label(&mut template["metadata"], HASH, &hash);
        let mut selector = d["spec"]["selector"].clone();
        selector["matchLabels"][HASH] = json!(hash);
        let others: i64 = self.old.iter().map(|s| count(&s["spec"]["replicas"])).sum();
        let replicas = if self.rolling() {
            (self.replicas() + self.max_surge() - others).clamp(0, self.replicas())
        } else {
            self.replicas()
        };
        let mut annotations = inherited(d);
        let revision = highest_revision(mine.iter()).saturating_add(1);
        annotations[REVISION] = json!(revision.to_string());
        annotations[DESIRED] = json!(self.replicas().to_string());
        annotations[MAX] = json!((self.replicas() + self.max_surge()).to_string());
        plan.because(format!("no ReplicaSet has the present template: making {name} with {replicas} pods"));
        plan.actions.push(Action::Create {
            tree: json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
                "metadata": {"name": name, "namespace": d["metadata"]["namespace"], "labels": template["metadata"]["labels"],
                    "annotations": annotations, "ownerReferences": [owner_reference(d)]},
                "spec": {"replicas": replicas, "minReadySeconds": d["spec"]["minReadySeconds"].as_i64().unwrap_or(0),
                    "selector": selector, "template": template}}),
        });
        plan.event(d, "Normal", "ScalingReplicaSet", format!("Scaled up replica set {name} from 0 to {replicas}"));
        false
    }

    /// The newest's revision is above all others' (a rollback makes an old one the newest again), and
    /// the Deployment shows it.
    fn number(&self, plan: &mut Plan) {
        let Some(newest) = &self.newest else { return };
        let above = highest_revision(self.old.iter()).saturating_add(1);
        let have = revision(newest);
        let revision = if have < above { above } else { have };
        let mut updated = newest.clone();
        if have < above {
            // kubectl shows which revisions this one has been before.
            let history = "deployment.kubernetes.io/revision-history";
            if have > 0 {
                let before = text(&newest["metadata"]["annotations"][history]);
                let mut seen = if before.is_empty() { have.to_string() } else { format!("{before},{have}") };
                // The oldest go first.
                while seen.len() > HISTORY_BYTES {
                    seen = seen.split_once(',').map(|(_, rest)| rest.to_owned()).unwrap_or_default();
                }
                updated["metadata"]["annotations"][history] = json!(seen);
            }
            updated["metadata"]["annotations"][REVISION] = json!(revision.to_string());
        }
        for (k, v) in inherited(self.deployment).as_object().into_iter().flatten() {
            updated["metadata"]["annotations"][k] = v.clone();
        }
        let min_ready = self.deployment["spec"]["minReadySeconds"].as_i64().unwrap_or(0);
        if updated["spec"]["minReadySeconds"].as_i64().unwrap_or(0) != min_ready {
            updated["spec"]["minReadySeconds"] = json!(min_ready);
        }
        if updated != *newest {
            plan.because(format!("{} is revision {revision}", name(newest)));
            plan.actions.push(Action::Update { tree: updated });
        }
    }

    /// The revision that the Deployment is to show: its newest ReplicaSet's, as this plan leaves it.
    fn revision(&self, plan: &Plan) -> Option<i64> {
        match &self.newest {
            Some(newest) => Some(revision(newest).max(highest_revision(self.old.iter()).saturating_add(1))),
            None => plan.actions.iter().find_map(|a| match a {
                Action::Create { tree } => Some(revision(tree)),
                _ => None,
            }),
        }
    }

    /// The size was changed since the ReplicaSets were last scaled.
    fn is_scaling(&self, mine: &[Tree]) -> bool {
        mine.iter()
            .filter(|s| count(&s["spec"]["replicas"]) > 0)
            .any(|s| text(&s["metadata"]["annotations"][DESIRED]).parse::<i64>().is_ok_and(|d| d != self.replicas()))
    }

    /// Scales all ReplicaSets that have pods by the share they have (so that a change of size in the
    /// midst of a rollout does not decide the rollout), or the only one to the full size.
    fn scale_in_proportion(&self, plan: &mut Plan) {
        let active: Vec<&Tree> =
            self.old.iter().chain(&self.newest).filter(|s| count(&s["spec"]["replicas"]) > 0).collect();
        let only = match active.as_slice() {
            [] => self.newest.as_ref().or(self.old.last()),
            [one] => Some(*one),
            _ => None,
        };
        if let Some(set) = only {
            self.scale(set, self.replicas(), plan);
            return;
        }
        let saturated = self.newest.as_ref().is_some_and(|n| {
            count(&n["spec"]["replicas"]) == self.replicas()
                && count(&n["status"]["availableReplicas"]) == self.replicas()
        });
        if saturated {
            for set in &self.old {
                self.scale(set, 0, plan);
            }
            return;
        }
        if !self.rolling() {
            return;
        }
        let total: i64 = active.iter().map(|s| count(&s["spec"]["replicas"])).sum();
        let allowed = if self.replicas() > 0 { self.replicas() + self.max_surge() } else { 0 };
        let mut to_add = allowed - total;
        // Largest first; when growing, younger of equals first, when shrinking, older.
        let mut order = active.clone();
        order.sort_by(|a, b| {
            let size = count(&b["spec"]["replicas"]).cmp(&count(&a["spec"]["replicas"]));
            size.then(if to_add > 0 { created(b).cmp(created(a)) } else { created(a).cmp(created(b)) })
        });
        let mut sizes: Vec<i64> = Vec::new();
        for set in &order {
            let size = count(&set["spec"]["replicas"]);
            let share = if to_add == 0 { 0 } else { self.fraction(set, size, to_add, allowed) };
            sizes.push((size + share).max(0));
            to_add -= share;
        }
        // What rounding left over goes to the largest.
        if let Some(first) = sizes.first_mut() {
            *first = (*first + to_add).max(0);
        }
        for (set, size) in order.iter().zip(sizes) {
            self.scale(set, size, plan);
        }
    }

    fn fraction(&self, set: &Tree, size: i64, to_add: i64, allowed: i64) -> i64 {
        let before: i64 = text(&set["metadata"]["annotations"][MAX]).parse().unwrap_or(0);
        let before = if before > 0 { before } else { self.replicas().max(1) };
        let share = (size as f64 * allowed as f64 / before as f64).round() as i64 - size;
        if to_add > 0 { share.clamp(0, to_add) } else { share.clamp(to_add, 0) }
    }

    /// Recreate: every old pod is gone before the first new one is made.
    fn recreate(&self, plan: &mut Plan) {
        let mut scaled = false;
        for set in &self.old {
            if count(&set["spec"]["replicas"]) > 0 {
                self.scale(set, 0, plan);
                scaled = true;
            }
        }
        if !scaled
            && !self.has_old_pods()
            && let Some(newest) = &self.newest
        {
            self.scale(newest, self.replicas(), plan);
        }
    }

    fn has_old_pods(&self) -> bool {
        self.beside.pods.iter().any(|p| {
            !p.is_finished() && p.controller().is_some_and(|o| self.old.iter().any(|s| s["metadata"]["uid"] == o))
        })
    }

    /// Rolling update: the newest up as far as the surge allows, the old down as far as enough stay
    /// available.
    fn roll(&self, plan: &mut Plan) {
        let Some(newest) = &self.newest else { return };
        let size = |s: &Tree| count(&s["spec"]["replicas"]);
        let total: i64 = self.old.iter().map(size).sum::<i64>() + size(newest);
        let want = self.replicas();
        if size(newest) > want {
            self.scale(newest, want, plan);
            return;
        }
        if size(newest) < want {
            let room = want + self.max_surge() - total;
            if room > 0 {
                self.scale(newest, size(newest) + room.min(want - size(newest)), plan);
                return;
            }
        }
        let old_total: i64 = self.old.iter().map(size).sum();
        if old_total == 0 {
            return;
        }
        let available = |s: &Tree| count(&s["status"]["availableReplicas"]);
        let min_available = want - self.max_unavailable();
        // Pods of the newest that are not available may become so: they count as lost for now.
        let mut may_go = total - min_available - (size(newest) - available(newest));
        if may_go <= 0 {
            return;
        }
        // Those that serve nobody first, then the oldest.
        let mut sizes: Vec<i64> = self.old.iter().map(size).collect();
        for (s, n) in self.old.iter().zip(&mut sizes) {
            let sick = (*n - available(s)).min(may_go).max(0);
            *n -= sick;
            may_go -= sick;
        }
        let all_available: i64 = self.old.iter().chain([newest]).map(available).sum();
        let mut surplus = all_available - min_available;
        for n in &mut sizes {
            let go = (*n).min(surplus).max(0);
            *n -= go;
            surplus -= go;
        }
        for (s, n) in self.old.iter().zip(sizes) {
            self.scale(s, n, plan);
        }
    }

    fn scale(&self, set: &Tree, to: i64, plan: &mut Plan) {
        let from = count(&set["spec"]["replicas"]);
        let mut updated = set.clone();
        updated["spec"]["replicas"] = json!(to);
        put_annotation(&mut updated["metadata"], DESIRED, &self.replicas().to_string());
        put_annotation(&mut updated["metadata"], MAX, &(self.replicas() + self.max_surge()).to_string());
        if updated == *set {
            return;
        }
        // An update of the same set planned just before is completed rather than contradicted.
        let earlier = plan.actions.iter_mut().find_map(|a| match a {
            Action::Update { tree } if tree["metadata"]["uid"] == set["metadata"]["uid"] => Some(tree),
            _ => None,
        });
        match earlier {
            Some(tree) => {
                tree["spec"]["replicas"] = json!(to);
                for key in [DESIRED, MAX] {
                    tree["metadata"]["annotations"][key] = updated["metadata"]["annotations"][key].clone();
                }
            }
            None => plan.actions.push(Action::Update { tree: updated }),
        }
        if from != to {
            let direction = if to > from { "up" } else { "down" };
            let said = format!("Scaled {direction} replica set {} from {from} to {to}", name(set));
            plan.because(said.clone());
            plan.event(self.deployment, "Normal", "ScalingReplicaSet", said);
        }
    }

    /// Old ReplicaSets without pods are kept for rollbacks, as many as `revisionHistoryLimit` says.
    fn forget_history(&self, plan: &mut Plan) {
        let limit =
            usize::try_from(self.deployment["spec"]["revisionHistoryLimit"].as_i64().unwrap_or(10)).unwrap_or(0);
        let complete = self.newest.as_ref().is_some_and(|n| self.is_complete(n));
        let idle: Vec<&Tree> = self
            .old
            .iter()
            .filter(|s| {
                count(&s["spec"]["replicas"]) == 0
                    && count(&s["status"]["replicas"]) == 0
                    && count(&s["metadata"]["generation"]) <= count(&s["status"]["observedGeneration"])
                    && !is_terminating(s)
            })
            .collect();
        if !(complete || self.paused) || idle.len() <= limit {
            return;
        }
        let mut by_revision = idle.clone();
        by_revision.sort_by_key(|s| revision(s));
        for set in by_revision.into_iter().take(idle.len() - limit) {
            plan.because(format!("{} is past the revision history limit of {limit}", name(set)));
            plan.delete(Target::of(set));
        }
    }

    fn is_complete(&self, newest: &Tree) -> bool {
        let of = |field: &str| count(&newest["status"][field]);
        let others: i64 = self.old.iter().map(|s| count(&s["status"]["replicas"])).sum();
        of("replicas") == self.replicas() && of("availableReplicas") >= self.replicas() && others == 0
    }

    fn status(&self, plan: &mut Plan) {
        let d = self.deployment;
        let all = || self.old.iter().chain(&self.newest);
        let sum = |field: &str| -> i64 { all().map(|s| count(&s["status"][field])).sum() };
        let updated = self.newest.as_ref().map_or(0, |n| count(&n["status"]["replicas"]));
        let (total, ready, available) = (sum("replicas"), sum("readyReplicas"), sum("availableReplicas"));
        let mut status = if d["status"].is_object() { d["status"].clone() } else { json!({}) };
        let unavailable = (all().map(|s| count(&s["spec"]["replicas"])).sum::<i64>() - available).max(0);
        for (field, n) in [
            ("replicas", total),
            ("updatedReplicas", updated),
            ("readyReplicas", ready),
            ("availableReplicas", available),
            ("unavailableReplicas", unavailable),
        ] {
            put_count(&mut status, field, n);
        }
        if all().all(|s| s["status"]["terminatingReplicas"].is_i64()) {
            status["terminatingReplicas"] = json!(sum("terminatingReplicas"));
        }
        if self.collides(plan) {
            status["collisionCount"] =
                json!(count(&d["status"]["collisionCount"]).saturating_add(1).min(i64::from(i32::MAX)));
        }
        let enough = available >= self.replicas() - self.max_unavailable();
        set_condition(
            &mut status,
            if enough {
                json!({"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable", "message": "Deployment has minimum availability."})
            } else {
                json!({"type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable", "message": "Deployment does not have minimum availability."})
            },
            self.now,
        );
        self.progress(&mut status, plan);
        self.failure(&mut status);
        status["observedGeneration"] = d["metadata"]["generation"].clone();
        let mut tree = d.clone();
        tree["status"] = status;
        // An update of the status may change annotations and, unlike any other, counts no generation.
        if let Some(revision) = self.revision(plan).filter(|_| !is_terminating(d)) {
            put_annotation(&mut tree["metadata"], REVISION, &revision.to_string());
        }
        if tree != *d {
            plan.actions.push(Action::UpdateStatus { tree });
        }
    }

    /// The newest ReplicaSet is to be made and its name is another's.
    fn collides(&self, plan: &Plan) -> bool {
        let d = self.deployment;
        let hash = || template_hash(&d["spec"]["template"], d["status"]["collisionCount"].as_u64());
        self.newest.is_none()
            && !self.paused
            && !is_terminating(d)
            && plan.actions.is_empty()
            && (self.beside.is_taken)(&format!("{}-{}", name(d), hash()))
    }

    /// The condition ReplicaFailure: as a ReplicaSet has it, the newest before all others.
    fn failure(&self, status: &mut Tree) {
        let of = |s: &Tree| items(&s["status"]["conditions"]).iter().find(|c| c["type"] == "ReplicaFailure").cloned();
        match self.newest.iter().chain(&self.old).find_map(of) {
            Some(mut c) => {
                let at = c["lastTransitionTime"].clone();
                c["lastUpdateTime"] = at;
                set_condition(status, c, self.now);
            }
            None => {
                if let Some(all) = status["conditions"].as_array_mut() {
                    all.retain(|c| c["type"] != "ReplicaFailure");
                }
            }
        }
    }

    /// The condition Progressing: made, moving, done, or stuck past `progressDeadlineSeconds`.
    fn progress(&self, status: &mut Tree, plan: &mut Plan) {
        let d = self.deployment;
        let Some(deadline) = d["spec"]["progressDeadlineSeconds"].as_u64().filter(|s| *s < i32::MAX as u64) else {
            // The most there can be means none: there is nothing to be late for.
            if !self.paused
                && let Some(all) = status["conditions"].as_array_mut()
            {
                all.retain(|c| c["type"] != "Progressing");
            }
            return;
        };
        let have = items(&d["status"]["conditions"])
            .iter()
            .find(|c| c["type"] == "Progressing")
            .cloned()
            .unwrap_or(Tree::Null);
        let progressing = |reason: &str, message: String| json!({"type": "Progressing", "status": "True", "reason": reason, "message": message});
        if self.paused {
            // That the rollout was stuck stays to be seen.
            if have["reason"] != "DeploymentPaused" && have["reason"] != "ProgressDeadlineExceeded" {
                set_condition(
                    status,
                    json!({"type": "Progressing", "status": "Unknown", "reason": "DeploymentPaused", "message": "Deployment is paused"}),
                    self.now,
                );
            }
            return;
        }
        if have["reason"] == "DeploymentPaused" {
            set_condition(
                status,
                json!({"type": "Progressing", "status": "Unknown", "reason": "DeploymentResumed", "message": "Deployment is resumed"}),
                self.now,
            );
            return;
        }
        let Some(newest) = &self.newest else {
            let planned = plan.actions.iter().find_map(|a| match a {
                Action::Create { tree } => Some(name(tree).to_owned()),
                _ => None,
            });
            if let Some(set) = planned {
                let message = format!("Created new replica set \"{set}\"");
                set_condition(status, progressing("NewReplicaSetCreated", message), self.now);
            } else if let Some(refused) = self.beside.refused.filter(|r| r.act == Act::Create && !r.taken) {
                let hash = template_hash(&d["spec"]["template"], d["status"]["collisionCount"].as_u64());
                let message = format!("Failed to create new replica set \"{}-{hash}\": {}", name(d), refused.message);
                plan.event(d, "Warning", "ReplicaSetCreateError", message.clone());
                set_condition(
                    status,
                    json!({"type": "Progressing", "status": "False", "reason": "ReplicaSetCreateError", "message": message}),
                    self.now,
                );
            }
            return;
        };
        // A finished rollout stays finished, whatever becomes of its pods.
        if count(&status["replicas"]) == count(&status["updatedReplicas"]) && have["reason"] == "NewReplicaSetAvailable"
        {
            return;
        }
        if self.is_complete(newest) {
            let message = format!("ReplicaSet \"{}\" has successfully progressed.", name(newest));
            set_condition(status, progressing("NewReplicaSetAvailable", message), self.now);
            return;
        }
        let of = |s: &Tree, field: &str| count(&s[field]);
        let old_of = |s: &Tree| of(s, "replicas") - of(s, "updatedReplicas");
        let moved = of(status, "updatedReplicas") > of(&d["status"], "updatedReplicas")
            || old_of(status) < old_of(&d["status"])
            || of(status, "readyReplicas") > of(&d["status"], "readyReplicas")
            || of(status, "availableReplicas") > of(&d["status"], "availableReplicas");
        let message = format!("ReplicaSet \"{}\" is progressing.", name(newest));
        if moved || have.is_null() || have["reason"] == "NewReplicaSetAvailable" {
            // Progress renews the time, which the deadline counts from.
            if let Some(cs) = status["conditions"].as_array_mut() {
                cs.retain(|c| c["type"] != "Progressing");
            }
            let mut c = progressing("ReplicaSetUpdated", message);
            if have["status"] == "True" {
                c["lastTransitionTime"] = have["lastTransitionTime"].clone();
            }
            set_condition(status, c, self.now);
            plan.look_again(self.now + Duration::from_secs(deadline));
            return;
        }
        let since = Wall::parse_rfc3339(text(&have["lastUpdateTime"])).unwrap_or(self.now);
        if have["reason"] == "ProgressDeadlineExceeded" {
            return;
        }
        let until = since + Duration::from_secs(deadline);
        if self.now >= until {
            let message = format!("ReplicaSet \"{}\" has timed out progressing.", name(newest));
            set_condition(
                status,
                json!({"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": message}),
                self.now,
            );
        } else {
            plan.look_again(until);
        }
    }
}

fn name(object: &Tree) -> &str {
    text(&object["metadata"]["name"])
}

fn created(object: &Tree) -> &str {
    // RFC 3339 of one length sorts as text.
    text(&object["metadata"]["creationTimestamp"])
}

/// The number of a ReplicaSet's template; 0 if it has none, or one after which none could come: anybody who
/// may annotate it can write that.
fn revision(set: &Tree) -> i64 {
    let said = text(&set["metadata"]["annotations"][REVISION]).parse().ok();
    said.filter(|r| (0..i64::MAX).contains(r)).unwrap_or(0)
}

fn highest_revision<'a>(sets: impl Iterator<Item = &'a Tree>) -> i64 {
    sets.map(revision).max().unwrap_or(0)
}

/// A number, or a percentage of `of`; as many as a count can be, at most.
fn share(value: &Tree, of: i64, up: bool) -> i64 {
    let n = match value {
        Tree::String(s) => {
            let percent: i64 = s.trim_end_matches('%').parse().unwrap_or(0);
            let hundredths = percent.saturating_mul(of);
            if up { hundredths.saturating_add(99) / 100 } else { hundredths / 100 }
        }
        other => count(other),
    };
    n.clamp(0, i64::from(i32::MAX))
}

/// Whether two pod templates are one but for the hash label.
fn same_template(a: &Tree, b: &Tree) -> bool {
    let bare = |t: &Tree| {
        let mut t = t.clone();
        if let Some(l) = t["metadata"]["labels"].as_object_mut() {
            l.remove(HASH);
        }
        if let Some(m) = t["metadata"].as_object_mut() {
            m.retain(|k, v| k != "creationTimestamp" && !v.is_null());
        }
        t
    };
    bare(a) == bare(b)
}

/// A short name for a template, as the suffix of its ReplicaSet and the value of `pod-template-hash`:
/// FNV-1a over its canonical JSON and the number of collisions so far, in letters that spell no word
/// (apimachinery's SafeEncodeString). It only has to be stable and differ; that two releases give one
/// template two names is harmless, since ReplicaSets are found by their templates.
fn template_hash(template: &Tree, collisions: Option<u64>) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut h: u32 = 0x811c_9dc5;
    let mut eat = |bytes: &[u8]| {
        for b in bytes {
            h = (h ^ u32::from(*b)).wrapping_mul(0x0100_0193);
        }
    };
    eat(template.to_string().as_bytes());
    if let Some(n) = collisions {
        eat(&n.to_le_bytes());
    }
    h.to_string().bytes().map(|d| char::from(LETTERS[usize::from(d) % LETTERS.len()])).collect()
}

/// The Deployment's annotations that its ReplicaSets get, too.
fn inherited(deployment: &Tree) -> Tree {
    let own = [
        REVISION,
        "kubectl.kubernetes.io/last-applied-configuration",
        DESIRED,
        MAX,
        "deployment.kubernetes.io/revision-history",
        "deprecated.deployment.rollback.to",
    ];
    let all = deployment["metadata"]["annotations"].as_object().into_iter().flatten();
    Tree::Object(all.filter(|(k, _)| !own.contains(&k.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect())
}

fn put_label(metadata: &mut Tree, key: &str, value: &str) {
    if !metadata.is_object() {
        *metadata = json!({});
    }
    if !metadata["labels"].is_object() {
        metadata["labels"] = json!({});
    }
    metadata["labels"][key] = json!(value);
}

fn put_annotation(metadata: &mut Tree, key: &str, value: &str) {
    if !metadata["annotations"].is_object() {
        metadata["annotations"] = json!({});
    }
    metadata["annotations"][key] = json!(value);
}

#[cfg(test)]
#[path = "deployment_tests.rs"]
mod tests;
