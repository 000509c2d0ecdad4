//! The end of a namespace: its contents go, pods first, and when nothing is left root may remove it
//! (KEP-5080).

use super::{Action, Plan, Refused, Target, text};
use crate::pod::items;
use base::Wall;
use objects::Tree;
use objects::kinds::Kind;
use serde_json::json;

/// The finalizer that stands for the contents.
pub const FINALIZER: &str = "kubernetes";

/// What there is in a namespace.
pub struct Content<'a> {
    /// How many there are of each kind; none of a kind is not said.
    pub remaining: &'a [(&'static Kind, usize)],
    /// How many objects each finalizer holds.
    pub finalizers: &'a [(&'a str, usize)],
    /// Objects that are not being deleted: pods, as long as there are any, then all others.
    pub living: Vec<Target>,
    /// Whether the cell is bound to know that the namespace is going: nothing can come after this.
    pub is_bound: bool,
}

/// What a namespace that is going needs. `tell`: whether to say in its status how far it is.
pub fn plan(namespace: &Tree, content: &Content<'_>, tell: bool, refused: Option<&Refused>, now: Wall) -> Plan {
    let mut plan = Plan::default();
    if !super::is_terminating(namespace) || !items(&namespace["spec"]["finalizers"]).iter().any(|f| f == FINALIZER) {
        return plan;
    }
    if tell || refused.is_some() {
        let mut tree = namespace.clone();
        conditions(&mut tree["status"], content, refused, now);
        if tree != *namespace {
            plan.actions.push(Action::UpdateStatus { tree });
        }
        if refused.is_some() {
            return plan;
        }
    }
    if content.remaining.is_empty() && content.is_bound {
        plan.because(format!("{} is empty", text(&namespace["metadata"]["name"])));
        let mut tree = namespace.clone();
        if let Some(all) = tree["spec"]["finalizers"].as_array_mut() {
            all.retain(|f| f != FINALIZER);
        }
        plan.actions.push(Action::Finalize { tree });
    }
    plan.actions.extend(content.living.iter().map(|target| Action::Delete {
        target: target.clone(),
        revision: None,
        propagation: "Background",
        grace: None,
    }));
    plan
}

/// The conditions of `status`, with kube-controller-manager's reasons and words.
fn conditions(status: &mut Tree, content: &Content<'_>, refused: Option<&Refused>, now: Wall) {
    let joined = |mut all: Vec<String>| {
        all.sort();
        all.join(", ")
    };
    let remaining = content.remaining.iter();
    let remaining =
        joined(remaining.map(|(k, n)| format!("{}.{} has {n} resource instances", k.plural, k.group)).collect());
    let held = content.finalizers.iter();
    let held = joined(held.map(|(f, n)| format!("{f} in {n} resource instances")).collect());
    let failed = refused.map(|r| format!("Failed to delete all resource types, 1 remaining: {}", r.message));
    let told = |all: String, before: &str| (!all.is_empty()).then(|| format!("{before}: {all}"));
    for (ty, fault, reason, ok_reason, ok) in [
        ("NamespaceDeletionDiscoveryFailure", None, "", "ResourcesDiscovered", "All resources successfully discovered"),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            "",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure",
            failed,
            "ContentDeletionFailed",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "NamespaceContentRemaining",
            told(remaining, "Some resources are remaining"),
            "SomeResourcesRemain",
            "ContentRemoved",
            "All content successfully removed",
        ),
        (
            "NamespaceFinalizersRemaining",
            told(held, "Some finalizers are remaining"),
            "SomeFinalizersRemain",
            "ContentRemoved",
            "All content successfully removed",
        ),
    ] {
        let (value, reason, message) = match fault {
            Some(message) => ("True", reason, message),
            None => ("False", ok_reason, ok.to_owned()),
        };
        put(status, json!({"type": ty, "status": value, "reason": reason, "message": message}), now);
    }
}

/// Sets a condition; its transition time stays if its status does.
fn put(status: &mut Tree, mut condition: Tree, now: Wall) {
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(all) = status["conditions"].as_array_mut() else { return };
    condition["lastTransitionTime"] = json!(now.rfc3339());
    match all.iter_mut().find(|c| c["type"] == condition["type"]) {
        Some(old) => {
            if old["status"] == condition["status"] {
                condition["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            *old = condition;
        }
        None => all.push(condition),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::controllers::Act;
    use objects::kinds::by_kind;

    const NOW: Wall = Wall(1_769_846_400_000);

    fn going() -> Tree {
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "d", "deletionTimestamp": NOW.rfc3339()},
            "spec": {"finalizers": ["kubernetes", "example.com/hold"]}, "status": {"phase": "Terminating"}})
    }

    fn content<'a>(remaining: &'a [(&'static Kind, usize)], living: usize, is_bound: bool) -> Content<'a> {
        let target =
            |n: usize| Target { api_version: "v1".into(), kind: "Pod".into(), name: n.to_string(), uid: n.to_string() };
        Content { remaining, finalizers: &[], living: (0..living).map(target).collect(), is_bound }
    }

    #[test]
    fn what_lives_is_deleted_and_an_empty_namespace_loses_its_finalizer_once_nothing_can_come_after() {
        let pods = [(by_kind("", "v1", "Pod").unwrap(), 2)];
        let acts = |c: &Content<'_>| -> String {
            let p = plan(&going(), c, false, None, NOW);
            let letter = |a: &Action| match a {
                Action::Delete { propagation: "Background", .. } => 'd',
                Action::Finalize { tree } if tree["spec"]["finalizers"] == json!(["example.com/hold"]) => 'f',
                _ => '?',
            };
            p.actions.iter().map(letter).collect()
        };
        assert_eq!(acts(&content(&pods, 2, true)), "dd");
        assert_eq!(acts(&content(&pods, 0, true)), "");
        assert_eq!(acts(&content(&[], 0, false)), "", "a leader that knows less could still let something in");
        assert_eq!(acts(&content(&[], 0, true)), "f");
        let mut alive = going();
        alive["metadata"]["deletionTimestamp"] = Tree::Null;
        assert_eq!(plan(&alive, &content(&pods, 2, true), true, None, NOW), Plan::default());
    }

    #[test]
    fn conditions_say_what_remains_what_holds_it_and_what_failed() {
        let all = [(by_kind("apps", "v1", "Deployment").unwrap(), 1), (by_kind("", "v1", "Pod").unwrap(), 2)];
        let c = Content { finalizers: &[("x/y", 3)], ..content(&all, 0, true) };
        let refused = Refused { act: Act::Delete, message: "no".into(), taken: false };
        let p = plan(&going(), &c, true, Some(&refused), NOW);
        let [Action::UpdateStatus { tree }] = &p.actions[..] else { panic!("{:?}", p.actions) };
        let said: Vec<(&str, &str)> =
            items(&tree["status"]["conditions"]).iter().map(|c| (text(&c["status"]), text(&c["message"]))).collect();
        assert_eq!(
            said,
            [
                ("False", "All resources successfully discovered"),
                ("False", "All legacy kube types successfully parsed"),
                ("True", "Failed to delete all resource types, 1 remaining: no"),
                (
                    "True",
                    "Some resources are remaining: deployments.apps has 1 resource instances, pods. has 2 resource instances"
                ),
                ("True", "Some finalizers are remaining: x/y in 3 resource instances"),
            ]
        );
        let again = plan(tree, &c, true, Some(&refused), NOW + std::time::Duration::from_secs(9));
        assert_eq!(again.actions, []);
    }
}
