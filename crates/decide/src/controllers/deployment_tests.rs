//! A Deployment beside its ReplicaSets, driven until nothing changes: the plans are carried out on a
//! small world whose pods become available as soon as they are made, or never.

#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;

const NOW: Wall = Wall(1_769_846_400_000);

struct World {
    deployment: Tree,
    sets: Vec<Tree>,
    /// Whether pods of an image become available.
    healthy: fn(&str) -> bool,
    now: Wall,
    /// The fewest available and the most pods there ever were, and all events.
    fewest: i64,
    most: i64,
    events: Vec<String>,
}

impl World {
    fn new(replicas: i64, strategy: Tree) -> World {
        World {
            deployment: json!({"apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "web", "namespace": "d", "uid": "dep", "generation": 1},
                "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "strategy": strategy,
                    "progressDeadlineSeconds": 600, "revisionHistoryLimit": 2,
                    "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]}}}}),
            sets: Vec::new(),
            healthy: |_| true,
            now: NOW,
            fewest: i64::MAX,
            most: 0,
            events: Vec::new(),
        }
    }

    fn image(&mut self, image: &str) {
        self.deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
        let g = count(&self.deployment["metadata"]["generation"]);
        self.deployment["metadata"]["generation"] = json!(g + 1);
    }

    fn total(&self, field: &str) -> i64 {
        self.sets.iter().map(|s| count(&s["status"][field])).sum()
    }

    /// Carries out one plan; `false` if it was empty.
    fn once(&mut self) -> bool {
        let p = planned(&self.deployment, &self.sets, self.now);
        let busy = !p.actions.is_empty();
        for a in p.actions {
            match a {
                Action::Create { mut tree } => {
                    tree["metadata"]["uid"] = json!(format!("rs{}", self.sets.len() + self.events.len()));
                    tree["metadata"]["creationTimestamp"] = json!(self.now.rfc3339());
                    self.sets.push(tree);
                }
                Action::Update { tree } => {
                    let s = self.sets.iter_mut().find(|s| s["metadata"]["uid"] == tree["metadata"]["uid"]).unwrap();
                    *s = tree;
                }
                Action::UpdateStatus { tree } => self.deployment = tree,
                Action::Delete { target, .. } => self.sets.retain(|s| s["metadata"]["uid"] != target.uid.as_str()),
                Action::Event { message, .. } => self.events.push(message),
                other => panic!("{other:?}"),
            }
        }
        for s in &mut self.sets {
            let n = count(&s["spec"]["replicas"]);
            let well = (self.healthy)(text(&s["spec"]["template"]["spec"]["containers"][0]["image"]));
            s["status"] = json!({"replicas": n, "readyReplicas": if well { n } else { 0 }, "availableReplicas": if well { n } else { 0 }});
        }
        if self.deployment["status"]["availableReplicas"].as_i64().is_some() {
            self.fewest = self.fewest.min(self.total("availableReplicas"));
        }
        self.most = self.most.max(self.total("replicas"));
        self.now = self.now + Duration::from_secs(1);
        busy
    }

    fn settle(&mut self) {
        let rounds = (0..100).take_while(|_| self.once()).count();
        assert!(rounds < 100, "the controller never comes to rest");
    }

    fn sizes(&self) -> Vec<(String, i64)> {
        self.sets
            .iter()
            .map(|s| {
                (
                    text(&s["spec"]["template"]["spec"]["containers"][0]["image"]).to_owned(),
                    count(&s["spec"]["replicas"]),
                )
            })
            .collect()
    }

    fn condition(&self, which: &str) -> String {
        let c = items(&self.deployment["status"]["conditions"])
            .iter()
            .find(|c| c["type"] == which)
            .cloned()
            .unwrap_or(Tree::Null);
        format!("{} {}", text(&c["status"]), text(&c["reason"]))
    }
}

/// The plan of a Deployment beside these ReplicaSets, whose pods are not looked at.
fn planned(deployment: &Tree, sets: &[Tree], now: Wall) -> Plan {
    let is_taken = |name: &str| sets.iter().any(|s| s["metadata"]["name"] == name);
    plan(deployment, &Beside { sets, pods: &[], is_taken: &is_taken, refused: None }, now)
}

fn rolling(surge: Tree, unavailable: Tree) -> Tree {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

#[test]
fn a_rolling_update_keeps_to_its_surge_and_its_availability() {
    let mut w = World::new(10, rolling(json!("25%"), json!("25%")));
    w.settle();
    assert_eq!(w.sizes(), [("v1".to_owned(), 10)]);
    w.image("v2");
    w.settle();
    assert_eq!(w.sizes(), [("v1".to_owned(), 0), ("v2".to_owned(), 10)]);
    assert!(w.fewest >= 8 && w.most <= 13, "fewest {} most {}", w.fewest, w.most);
    assert_eq!(w.condition("Progressing"), "True NewReplicaSetAvailable");
    assert_eq!(w.condition("Available"), "True MinimumReplicasAvailable");
    assert_eq!(w.deployment["metadata"]["annotations"][REVISION], "2");
}

#[test]
fn a_broken_template_stops_the_rollout_and_is_reported_at_its_deadline() {
    let mut w = World::new(4, rolling(json!(1), json!(1)));
    w.healthy = |image| image != "broken";
    w.settle();
    w.image("broken");
    w.settle();
    assert_eq!(w.sizes(), [("v1".to_owned(), 3), ("broken".to_owned(), 2)]);
    w.now = w.now + Duration::from_secs(601);
    w.settle();
    assert_eq!(w.condition("Progressing"), "False ProgressDeadlineExceeded");
    w.image("v1");
    w.settle();
    assert_eq!(w.sizes(), [("v1".to_owned(), 4), ("broken".to_owned(), 0)]);
    assert_eq!(w.deployment["metadata"]["annotations"][REVISION], "3");
    assert_eq!(w.sets[0]["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"], "1");
}

#[test]
fn the_list_of_revisions_forgets_the_oldest() {
    let mut w = World::new(1, rolling(json!(1), json!(0)));
    w.settle();
    for flip in 0..1200 {
        w.image(if flip % 2 == 0 { "v2" } else { "v1" });
        w.settle();
    }
    let last = w.deployment["metadata"]["annotations"][REVISION].as_str().unwrap().to_owned();
    assert_eq!(last, "1201");
    let history = w.sets[0]["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"].as_str().unwrap();
    assert!((1900..=2000).contains(&history.len()), "{}", history.len());
    assert!(history.ends_with(",1197,1199"), "{history}");
}

#[test]
fn recreate_removes_every_old_pod_before_the_first_new_one() {
    let mut w = World::new(3, json!({"type": "Recreate"}));
    w.settle();
    w.image("v2");
    w.fewest = i64::MAX;
    w.settle();
    assert_eq!(w.sizes(), [("v1".to_owned(), 0), ("v2".to_owned(), 3)]);
    assert_eq!((w.fewest, w.most), (0, 3));
}

#[test]
fn a_paused_deployment_scales_and_does_not_roll() {
    let mut w = World::new(3, rolling(json!(1), json!(0)));
    w.settle();
    w.deployment["spec"]["paused"] = json!(true);
    w.image("v2");
    w.deployment["spec"]["replicas"] = json!(5);
    w.settle();
    assert_eq!(w.sizes(), [("v1".to_owned(), 5)]);
    assert_eq!(w.condition("Progressing"), "Unknown DeploymentPaused");
    w.deployment["spec"]["paused"] = json!(false);
    w.settle();
    assert_eq!(w.sizes(), [("v1".to_owned(), 0), ("v2".to_owned(), 5)]);
}

#[test]
fn a_change_of_size_in_a_rollout_is_shared_in_proportion() {
    let mut w = World::new(10, rolling(json!(3), json!(2)));
    w.healthy = |image| image != "v2";
    w.settle();
    w.image("v2");
    w.settle();
    assert_eq!(w.sizes(), [("v1".to_owned(), 8), ("v2".to_owned(), 5)]);
    w.deployment["spec"]["replicas"] = json!(15);
    w.once();
    assert_eq!(w.sizes(), [("v1".to_owned(), 11), ("v2".to_owned(), 7)]);
}

#[test]
fn a_change_of_size_is_shared_before_a_new_template_rolls_out() {
    let mut w = World::new(4, rolling(json!(1), json!(1)));
    w.settle();
    w.image("v2");
    w.deployment["spec"]["replicas"] = json!(8);
    w.once();
    assert_eq!(w.sizes(), [("v1".to_owned(), 8)]);
    w.settle();
    assert_eq!(w.sizes(), [("v1".to_owned(), 0), ("v2".to_owned(), 8)]);
}

#[test]
fn a_deployment_without_a_deadline_says_nothing_of_its_progress() {
    let mut w = World::new(2, rolling(json!(1), json!(0)));
    w.settle();
    assert_eq!(w.condition("Progressing"), "True NewReplicaSetAvailable");
    w.deployment["spec"]["progressDeadlineSeconds"] = json!(i32::MAX);
    w.settle();
    assert!(items(&w.deployment["status"]["conditions"]).iter().all(|c| c["type"] != "Progressing"));
    assert_eq!(w.condition("Available"), "True MinimumReplicasAvailable");
}

#[test]
fn numbers_beyond_any_count_are_survived() {
    // Whoever may write a ReplicaSet or a Deployment writes these.
    for said in ["9223372036854775807", "9223372036854775806", "-9223372036854775808", "99999999999999999999"] {
        let mut w = World::new(2, rolling(json!(format!("{said}%")), json!(format!("{said}%"))));
        w.settle();
        w.sets[0]["metadata"]["annotations"][REVISION] = json!(said);
        w.sets[0]["metadata"]["annotations"][MAX] = json!(said);
        w.deployment["status"]["collisionCount"] = json!(i64::MAX);
        w.settle();
        w.image("v2");
        w.settle();
        assert_eq!(w.sizes(), [("v1".to_owned(), 0), ("v2".to_owned(), 2)], "{said}");
    }
    assert_eq!(share(&json!("9223372036854775807%"), 100, true), i64::from(i32::MAX));
    assert_eq!(share(&json!("-5%"), 100, false), 0);
}

#[test]
fn no_more_old_sets_are_kept_than_the_history_limit_says() {
    let mut w = World::new(1, rolling(json!(1), json!(0)));
    for image in ["v1", "v2", "v3", "v4", "v5"] {
        w.image(image);
        w.settle();
    }
    assert_eq!(w.sizes(), [("v3".to_owned(), 0), ("v4".to_owned(), 0), ("v5".to_owned(), 1)]);
}

#[test]
fn sets_of_others_are_not_touched_and_orphans_are_adopted() {
    let mut w = World::new(1, rolling(json!(1), json!(0)));
    w.settle();
    let mut orphan = w.sets[0].clone();
    orphan["metadata"]["ownerReferences"] = json!([]);
    let p = planned(&w.deployment, &[orphan], NOW);
    assert!(
        matches!(&p.actions[..], [Action::Patch { patch, .. }] if patch["metadata"]["ownerReferences"][0]["uid"] == "dep")
    );
    let mut stray = w.sets[0].clone();
    stray["metadata"]["labels"]["app"] = json!("debug");
    let p = planned(&w.deployment, &[stray], NOW);
    assert!(
        matches!(&p.actions[..], [Action::Patch { patch, .. }] if patch["metadata"]["ownerReferences"][0]["$patch"] == "delete")
    );
}

#[test]
fn a_name_that_another_template_has_counts_a_collision_and_the_next_name_is_free() {
    let mut w = World::new(1, rolling(json!(1), json!(0)));
    w.settle();
    let mut foreign = w.sets[0].clone();
    foreign["metadata"]["ownerReferences"][0]["uid"] = json!("other");
    let p = planned(&w.deployment, std::slice::from_ref(&foreign), NOW);
    let [Action::UpdateStatus { tree }] = &p.actions[..] else { panic!("{:?}", p.actions) };
    assert_eq!(tree["status"]["collisionCount"], 1);
    let p = planned(tree, std::slice::from_ref(&foreign), NOW);
    let Action::Create { tree } = &p.actions[0] else { panic!("{:?}", p.actions) };
    assert_ne!(tree["metadata"]["name"], foreign["metadata"]["name"]);
}

#[test]
fn a_deployment_that_is_going_makes_nothing_and_its_status_stays_true() {
    let mut w = World::new(2, rolling(json!(1), json!(0)));
    w.settle();
    w.deployment["metadata"]["deletionTimestamp"] = json!(NOW.rfc3339());
    w.image("v2");
    w.sets.clear();
    let p = planned(&w.deployment, &w.sets, NOW);
    assert!(matches!(&p.actions[..], [Action::UpdateStatus { tree }] if tree["status"]["replicas"].is_null()));
}

#[test]
fn a_finished_rollout_stays_finished_when_a_pod_is_lost() {
    let mut w = World::new(2, rolling(json!(1), json!(0)));
    w.settle();
    w.healthy = |_| false;
    w.once();
    w.settle();
    assert_eq!(w.condition("Progressing"), "True NewReplicaSetAvailable");
    assert_eq!(w.condition("Available"), "False MinimumReplicasUnavailable");
}

#[test]
fn pods_that_cannot_be_made_are_told_by_the_deployment_too() {
    let mut w = World::new(1, rolling(json!(1), json!(0)));
    w.settle();
    w.sets[0]["status"]["conditions"] =
        json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "no"}]);
    let p = planned(&w.deployment, &w.sets, NOW);
    let Some(Action::UpdateStatus { tree }) = p.actions.last() else { panic!("{:?}", p.actions) };
    assert!(items(&tree["status"]["conditions"]).iter().any(|c| c["reason"] == "FailedCreate"));
}
