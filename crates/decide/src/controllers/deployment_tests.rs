//! A Deployment beside its ReplicaSets, driven until nothing changes: the plans are carried out on a
//! small world whose pods become available as soon as they are made, or never.

#![allow(clippy::unwrap_used)]
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
        let p = plan(&self.deployment, &self.sets, &[], self.now);
        let busy = !p.actions.is_empty();
        for a in p.actions {
            match a {
                Action::Create { mut tree } => {
                    tree["metadata"]["uid"] = json!(format!("rs{}", self.sets.len() + self.events.len()));
                    tree["metadata"]["creationTimestamp"] = json!(self.now.rfc3339());
                    self.sets.push(tree);
                }
                Action::Update { tree } if tree["kind"] == "Deployment" => {
                    self.deployment["metadata"] = tree["metadata"].clone()
                }
                Action::Update { tree } => {
                    let s = self.sets.iter_mut().find(|s| s["metadata"]["uid"] == tree["metadata"]["uid"]).unwrap();
                    *s = tree;
                }
                Action::UpdateStatus { tree } => self.deployment["status"] = tree["status"].clone(),
                Action::Delete { uid, .. } => self.sets.retain(|s| s["metadata"]["uid"] != uid.as_str()),
                Action::Event { message, .. } => self.events.push(message),
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
    let p = plan(&w.deployment, &[orphan], &[], NOW);
    assert!(
        matches!(&p.actions[..], [Action::Update { tree }] if tree["metadata"]["ownerReferences"][0]["uid"] == "dep")
    );
    let mut foreign = w.sets[0].clone();
    foreign["metadata"]["ownerReferences"][0]["uid"] = json!("other");
    let p = plan(&w.deployment, &[foreign], &[], NOW);
    assert!(matches!(&p.actions[0], Action::Create { .. }));
}
