//! Priority: a pod's priority is the number its class says.

use super::Outcome;
use crate::Tree;
use crate::decide::Visit;
use crate::kinds::tree::{self, Fields};
use crate::status::Status;

const CLASS: &str = "PriorityClass.scheduling.k8s.io";
const PREEMPT: &str = "PreemptLowerPriority";

pub(super) fn admit(visit: &Visit<'_>, pod: &mut Tree, old: Option<&Tree>) -> Outcome<()> {
    if let Some(old) = old {
        // A client that does not know these fields must not take them away.
        let spec = tree::child(pod, "spec");
        for f in ["priority", "preemptionPolicy"] {
            if !spec.has(f) && old.at("spec").has(f) {
                tree::keep(spec, old.at("spec"), f);
            }
        }
        return Ok(());
    }
    let name = pod.at("metadata").text("name").to_owned();
    let refuse = |why: String| Err(Box::new(Status::forbidden(visit.kind, &name, &why)));
    let class_name = pod.at("spec").text("priorityClassName").to_owned();
    let (value, policy) = if class_name.is_empty() {
        let classes = visit.view.shared().list(CLASS);
        let default = classes.iter().filter(|c| c.flag("globalDefault")).min_by_key(|c| c.int("value").unwrap_or(0));
        if let Some(c) = default {
            tree::set(tree::child(pod, "spec"), "priorityClassName", c.at("metadata").text("name"));
        }
        default.map_or((0, PREEMPT.to_owned()), |c| of(c))
    } else {
        match visit.view.shared().get(CLASS, &class_name) {
            Some(c) => of(&c),
            None => return refuse(format!("no PriorityClass with name {class_name} was found")),
        }
    };
    let spec = tree::child(pod, "spec");
    if let Some(given) = spec.int("priority").filter(|p| *p != value) {
        return refuse(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
        ));
    }
    let given = spec.text("preemptionPolicy");
    if !given.is_empty() && given != policy {
        return refuse(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        ));
    }
    tree::set(spec, "priority", value);
    tree::set(spec, "preemptionPolicy", policy);
    Ok(())
}

fn of(class: &Tree) -> (i64, String) {
    let policy = class.text("preemptionPolicy");
    (class.int("value").unwrap_or(0), if policy.is_empty() { PREEMPT.into() } else { policy.into() })
}

/// At most one class is the default.
pub(super) fn only_one_default(visit: &Visit<'_>, class: &Tree) -> Outcome<()> {
    if !class.flag("globalDefault") {
        return Ok(());
    }
    let own = class.at("metadata").text("name");
    match visit
        .view
        .shared()
        .list(CLASS)
        .iter()
        .find(|c| c.flag("globalDefault") && c.at("metadata").text("name") != own)
    {
        None => Ok(()),
        Some(other) => Err(Box::new(Status::forbidden(
            visit.kind,
            own,
            &format!(
                "PriorityClass {} is already marked as default. Only one default can exist",
                other.at("metadata").text("name")
            ),
        ))),
    }
}
