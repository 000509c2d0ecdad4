//! A cell as the node sees it: objects, errands decided with the rules of the real API, and the feed of
//! what is bound here.

use base::{CellId, Now, Revision, Uid, Wall};
use node::assignment::Assignment;
use node::errand::{Answered, Errand};
use objects::Tree;
use objects::kinds::{self, Context, by_resource};
use objects::patch::strategic;
use objects::request::{Body, Stored, Verb};
use objects::schema;
use objects::status::Status;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub(crate) const NAMESPACE: &str = "d";

pub(crate) fn cell() -> CellId {
    CellId(Uid::from_chance(7))
}

#[derive(Default)]
pub(crate) struct Api {
    /// By plural and name.
    pub(crate) objects: BTreeMap<(String, String), Tree>,
    revision: u64,
    /// Told to the node in this order.
    pub(crate) feed: VecDeque<Assignment>,
    /// All errands fail with this code.
    pub(crate) down: Option<u16>,
    /// Status patches that the API refused, which none may be.
    pub(crate) refused: Vec<String>,
    /// Every status phase a pod ever had, by name.
    pub(crate) phases: BTreeMap<String, Vec<String>>,
    pub(crate) tokens: u64,
    pub(crate) writes: u64,
}

impl Api {
    fn next(&mut self) -> Revision {
        self.revision += 1;
        Revision::from_u64((1 << 40) + self.revision).unwrap()
    }

    pub(crate) fn put(&mut self, plural: &str, mut tree: Tree) {
        let name = tree["metadata"]["name"].as_str().unwrap().to_owned();
        tree["metadata"]["namespace"] = NAMESPACE.into();
        let revision = self.next();
        tree["metadata"]["resourceVersion"] = revision.to_string().into();
        self.objects.insert((plural.into(), name), tree);
    }

    /// A pod, created with its defaults and bound.
    pub(crate) fn create(&mut self, now: Now, name: &str, spec: Value) -> String {
        let uid = Uid::from_chance(u128::from(self.revision) << 32 | 0xabcd).to_string();
        let mut tree = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": NAMESPACE, "uid": uid, "creationTimestamp": now.wall.rfc3339()},
            "spec": spec,
        });
        let kind = by_resource("", "v1", "pods").unwrap();
        kind.rules.default(&mut tree);
        kinds::prepare_create(kind, &mut tree, &Context { now: now.wall, subresource: "" });
        tree["spec"]["nodeName"] = "here".into();
        tree["status"]["conditions"] =
            json!([{"type": "PodScheduled", "status": "True", "lastTransitionTime": now.wall.rfc3339()}]);
        self.put("pods", tree);
        self.tell(name);
        uid
    }

    pub(crate) fn pod(&self, name: &str) -> Option<&Tree> {
        self.objects.get(&("pods".into(), name.into()))
    }

    pub(crate) fn change(&mut self, name: &str, change: impl FnOnce(&mut Tree)) {
        let mut tree = self.pod(name).unwrap().clone();
        change(&mut tree);
        self.put("pods", tree);
        self.tell(name);
    }

    /// Somebody deletes a pod.
    pub(crate) fn delete(&mut self, now: Now, name: &str, grace: u64) {
        if grace == 0 {
            self.objects.remove(&("pods".into(), name.into()));
            self.tell(name);
            return;
        }
        self.change(name, |tree| {
            tree["metadata"]["deletionTimestamp"] = (now.wall + Duration::from_secs(grace)).rfc3339().into();
            tree["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        });
    }

    fn stored(tree: &Tree) -> Stored {
        let revision: u64 = tree["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        Stored::from_tree(by_resource("", "v1", "pods").unwrap(), tree.clone(), Revision::from_u64(revision).unwrap())
    }

    fn tell(&mut self, name: &str) {
        let stored = self.pod(name).map(Api::stored);
        self.feed.push_back(Assignment {
            cell: cell(),
            namespace: NAMESPACE.into(),
            whole: false,
            pods: vec![(name.into(), stored)],
        });
    }

    /// Everything, as after a start of the node.
    pub(crate) fn whole(&self) -> Assignment {
        let pods = self.objects.iter().filter(|((plural, _), _)| plural == "pods");
        Assignment {
            cell: cell(),
            namespace: NAMESPACE.into(),
            whole: true,
            pods: pods.map(|((_, name), tree)| (Arc::from(name.as_str()), Some(Api::stored(tree)))).collect(),
        }
    }

    pub(crate) fn perform(&mut self, now: Now, errand: &Errand) -> Answered {
        assert_eq!(errand.user.name, "system:node:here");
        if let Some(code) = self.down {
            let mut s = Status::unavailable("the cell does not answer");
            s.code = code;
            return Err(Box::new(s));
        }
        let name = errand.name.as_deref().unwrap_or_default();
        let key = (errand.kind.plural.to_owned(), name.to_owned());
        let missing = || Err(Box::new(Status::not_found(errand.kind, name)));
        match (errand.verb, errand.kind.plural, errand.subresource) {
            (Verb::Get, ..) => self.objects.get(&key).cloned().map_or_else(missing, Ok),
            (Verb::List, plural, _) => {
                let items: Vec<Tree> =
                    self.objects.iter().filter(|((p, _), _)| p == plural).map(|(_, t)| t.clone()).collect();
                Ok(json!({"items": items}))
            }
            (Verb::Create, "serviceaccounts", "token") => {
                let Body::Object { mut tree, .. } = errand.body.clone() else { panic!("no body") };
                self.tokens += 1;
                let seconds = tree["spec"]["expirationSeconds"].as_u64().unwrap();
                let expires = now.wall + Duration::from_secs(seconds);
                tree["status"] =
                    json!({"token": format!("token-{}", self.tokens), "expirationTimestamp": expires.rfc3339()});
                Ok(tree)
            }
            (Verb::Create, "events", _) => {
                let Body::Object { tree, .. } = &errand.body else { panic!("no body") };
                let errors = kinds::validate_create(errand.kind, tree, &Context { now: now.wall, subresource: "" });
                assert!(errors.is_empty(), "{tree}: {errors:?}");
                self.put("events", tree.clone());
                Ok(tree.clone())
            }
            (Verb::Patch, plural, sub) => {
                let Some(old) = self.objects.get(&key).cloned() else { return missing() };
                let Body::Patch { bytes, .. } = &errand.body else { panic!("no patch") };
                let patch: Tree = serde_json::from_slice(bytes).unwrap();
                let mut new = old.clone();
                let schema = schema::builtin();
                let ty = schema.by_name(errand.kind.type_name).unwrap();
                strategic::apply(schema, ty, &mut new, &patch).map_err(Box::new)?;
                if new["metadata"]["uid"] != old["metadata"]["uid"] {
                    return Err(Box::new(Status::conflict(errand.kind, name, "another uid")));
                }
                let cx = Context { now: now.wall, subresource: sub };
                kinds::prepare_update(errand.kind, &mut new, &old, &cx);
                let errors = kinds::validate_update(errand.kind, &new, &old, &cx);
                if !errors.is_empty() {
                    self.refused.push(format!("{name}: {errors:?} in {patch}"));
                    return Err(Box::new(Status::invalid(errand.kind, name, &errors)));
                }
                self.writes += u64::from(plural == "pods");
                if plural == "pods" {
                    let phase = new["status"]["phase"].as_str().unwrap_or_default().to_owned();
                    let all = self.phases.entry(name.to_owned()).or_default();
                    if all.last() != Some(&phase) {
                        all.push(phase);
                    }
                }
                self.put(plural, new);
                if plural == "pods" {
                    self.tell(name);
                }
                Ok(self.objects[&key].clone())
            }
            (Verb::Delete, "pods", _) => {
                let Some(old) = self.objects.get(&key).cloned() else { return missing() };
                let Body::Object { tree, .. } = &errand.body else { panic!("no options") };
                assert_eq!(tree["gracePeriodSeconds"], 0);
                if tree["preconditions"]["uid"] != old["metadata"]["uid"] {
                    return Err(Box::new(Status::conflict(errand.kind, name, "another uid")));
                }
                if old["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty()) {
                    self.change(name, |p| p["metadata"]["deletionGracePeriodSeconds"] = 0.into());
                    return Ok(self.objects[&key].clone());
                }
                self.objects.remove(&key);
                self.tell(name);
                Ok(old)
            }
            other => panic!("an errand nobody expects: {other:?}"),
        }
    }

    /// Events of a pod: reason and message, with their counts.
    pub(crate) fn events(&self, name: &str) -> Vec<(String, String, u64)> {
        let of = |t: &&Tree| t["involvedObject"]["name"] == name;
        let events = self.objects.iter().filter(|((p, _), _)| p == "events").map(|(_, t)| t);
        let mut all: Vec<&Tree> = events.filter(of).collect();
        all.sort_by_key(|t| t["metadata"]["name"].as_str().unwrap().to_owned());
        let text = |v: &Tree| v.as_str().unwrap_or_default().to_owned();
        all.into_iter().map(|t| (text(&t["reason"]), text(&t["message"]), t["count"].as_u64().unwrap())).collect()
    }

    pub(crate) fn reasons(&self, name: &str) -> Vec<String> {
        self.events(name).into_iter().map(|e| e.0).collect()
    }
}

pub(crate) fn condition<'a>(pod: &'a Tree, ty: &str) -> &'a str {
    let all = pod["status"]["conditions"].as_array().unwrap();
    all.iter().find(|c| c["type"] == ty).and_then(|c| c["status"].as_str()).unwrap_or("")
}

pub(crate) fn wall(t: &Tree) -> Wall {
    Wall::parse_rfc3339(t.as_str().unwrap()).unwrap()
}
