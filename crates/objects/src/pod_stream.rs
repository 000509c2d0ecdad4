//! Which container of a pod a log, exec, attach or port-forward is about, decided on the pod as stored.
//!
//! The refusals are worded as kube-apiserver (registry/core/pod) and the kubelet word them: kubectl shows
//! them as they are.

use crate::Tree;
use crate::status::Status;

/// A refusal.
type Refused<T> = Result<T, Box<Status>>;

/// The container meant, by name: the one asked for, or the only one there is.
///
/// # Errors
/// There is no such container, or there are several to choose from.
pub fn container(pod: &Tree, asked: &str) -> Refused<String> {
    let pod_name = text(&pod["metadata"]["name"]);
    let names = |list: &str| -> Vec<&str> { items(&pod["spec"][list]).iter().map(|c| text(&c["name"])).collect() };
    let (main, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    if !asked.is_empty() {
        if [&main, &init, &ephemeral].iter().any(|l| l.contains(&asked)) {
            return Ok(asked.to_owned());
        }
        return refuse(format!("container {asked} is not valid for pod {pod_name}"));
    }
    if let [only] = main.as_slice() {
        return Ok((*only).to_owned());
    }
    let mut why = format!("a container name must be specified for pod {pod_name}, choose one of: [{}]", main.join(" "));
    if !init.is_empty() {
        why += &format!(" or one of the init containers: [{}]", init.join(" "));
    }
    if !ephemeral.is_empty() {
        why += &format!(" or one of the ephemeral containers: [{}]", ephemeral.join(" "));
    }
    refuse(why)
}

/// The runtime's name for the container whose log is wanted: the one that runs or ran last, or with
/// `previous` the one before it.
///
/// # Errors
/// It has not started, or has had no life before this one.
pub fn log_of(pod: &Tree, name: &str, previous: bool) -> Refused<String> {
    let pod_name = text(&pod["metadata"]["name"]);
    let status = status_of(pod, name);
    let (state, last) = (&status["state"], &status["lastState"]["terminated"]["containerID"]);
    let id = if previous {
        last
    } else {
        let now = [&state["running"], &state["terminated"]].iter().any(|s| !s.is_null());
        // One that never started has no id of its own; what can be shown is its last life.
        let own = if now { &status["containerID"] } else { last };
        if text(own).is_empty() { last } else { own }
    };
    if let Some(id) = bare_id(id) {
        return Ok(id);
    }
    if previous {
        return refuse(format!("previous terminated container {name:?} in pod {pod_name:?} not found"));
    }
    let waits = match text(&state["waiting"]["reason"]) {
        "" => " - no logs yet",
        "ErrImagePull" => ": image can't be pulled",
        "ImagePullBackOff" => ": trying and failing to pull image",
        reason => &format!(": {reason}"),
    };
    refuse(format!("container {name:?} in pod {pod_name:?} is waiting to start{waits}"))
}

/// The runtime's name for the container that a process is to run in, or that is attached to.
///
/// # Errors
/// It does not run.
pub fn running(pod: &Tree, name: &str) -> Refused<String> {
    let phase = text(&pod["status"]["phase"]);
    if matches!(phase, "Succeeded" | "Failed") {
        return refuse(format!("cannot exec into a container in a completed pod; current phase is {phase}"));
    }
    on_a_node(pod)?;
    let status = status_of(pod, name);
    match bare_id(&status["containerID"]).filter(|_| !status["state"]["running"].is_null()) {
        Some(id) => Ok(id),
        None => refuse(format!("container not found ({name:?})")),
    }
}

/// The node that runs the pod.
///
/// # Errors
/// It has none yet.
pub fn on_a_node(pod: &Tree) -> Refused<&str> {
    match text(&pod["spec"]["nodeName"]) {
        "" => refuse(format!("pod {} does not have a host assigned", text(&pod["metadata"]["name"]))),
        node => Ok(node),
    }
}

/// What a status says of a container, wherever it is listed; null if nothing yet.
fn status_of<'a>(pod: &'a Tree, name: &str) -> &'a Tree {
    static NOTHING: Tree = Tree::Null;
    ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"]
        .iter()
        .flat_map(|list| items(&pod["status"][list]))
        .find(|s| s["name"] == name)
        .unwrap_or(&NOTHING)
}

/// `containerd://abc` without the runtime's name.
fn bare_id(id: &Tree) -> Option<String> {
    let (_, id) = id.as_str()?.split_once("://")?;
    Some(id.to_owned()).filter(|id| !id.is_empty())
}

fn refuse<T>(why: String) -> Refused<T> {
    Err(Box::new(Status::bad_request(why)))
}

fn text(tree: &Tree) -> &str {
    tree.as_str().unwrap_or_default()
}

fn items(tree: &Tree) -> &[Tree] {
    tree.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn pod() -> Tree {
        json!({"metadata": {"name": "p"},
            "spec": {"nodeName": "n", "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]},
            "status": {"phase": "Running", "containerStatuses": [
                {"name": "a", "containerID": "containerd://a2", "state": {"running": {}}, "lastState": {"terminated": {"containerID": "containerd://a1"}}},
                {"name": "b", "state": {"waiting": {"reason": "ContainerCreating"}}}],
              "initContainerStatuses": [{"name": "i", "containerID": "containerd://i1", "state": {"terminated": {}}}]}})
    }

    #[test]
    fn several_containers_must_be_chosen_from_and_the_only_one_is_meant() {
        let mut p = pod();
        assert_eq!(
            container(&p, "").unwrap_err().message,
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
        assert_eq!(container(&p, "x").unwrap_err().message, "container x is not valid for pod p");
        assert_eq!(container(&p, "i").unwrap(), "i");
        p["spec"]["containers"] = json!([{"name": "only"}]);
        assert_eq!(container(&p, "").unwrap(), "only");
    }

    #[test]
    fn a_log_is_of_this_life_or_the_last_and_one_that_waits_says_for_what() {
        let p = pod();
        assert_eq!(log_of(&p, "a", false).unwrap(), "a2");
        assert_eq!(log_of(&p, "a", true).unwrap(), "a1");
        assert_eq!(log_of(&p, "i", false).unwrap(), "i1");
        let refused = |name, previous| log_of(&p, name, previous).unwrap_err().message;
        assert_eq!(refused("b", false), "container \"b\" in pod \"p\" is waiting to start: ContainerCreating");
        assert_eq!(refused("b", true), "previous terminated container \"b\" in pod \"p\" not found");
        let mut p = p.clone();
        p["status"]["containerStatuses"][0]["state"] = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        assert_eq!(log_of(&p, "a", false).unwrap(), "a1");
    }

    #[test]
    fn a_process_runs_only_in_a_container_that_runs() {
        let mut p = pod();
        assert_eq!(running(&p, "a").unwrap(), "a2");
        assert_eq!(running(&p, "b").unwrap_err().message, "container not found (\"b\")");
        p["status"]["phase"] = json!("Succeeded");
        assert!(running(&p, "a").unwrap_err().message.ends_with("current phase is Succeeded"));
    }
}
