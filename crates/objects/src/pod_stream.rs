//! Which container of a pod a log, exec, attach or port-forward is about, decided on the pod as stored and on
//! what the runtime shows.
//!
//! A container is found by the pod's uid and its own name. What a status says of it is used for words
//! only: whoever may write the status could otherwise name the container of another pod.
//!
//! The refusals are worded as kube-apiserver (registry/core/pod) and the kubelet word them: kubectl shows
//! them as they are.

use crate::Tree;
use crate::status::Status;
use base::runtime::{ContainerState, Seen, SeenContainer};
use std::collections::BTreeSet;

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
/// `previous` the one before it. While a container waits to be started again, the life it had last is
/// both.
///
/// # Errors
/// It has not started, or has had no life before this one.
pub fn log_of(pod: &Tree, name: &str, previous: bool, seen: &Seen) -> Refused<String> {
    let pod_name = text(&pod["metadata"]["name"]);
    let state = &status_of(pod, name)["state"];
    let mut lives = lives(pod, name, seen);
    lives.retain(|c| !matches!(c.state, ContainerState::Created { .. }));
    let over = |c: &SeenContainer| matches!(c.state, ContainerState::Exited { .. });
    let waits = !state["waiting"].is_null() && lives.first().is_some_and(|c| over(c));
    if let Some(c) = lives.get(usize::from(previous && !waits)) {
        return Ok(c.id.clone());
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
pub fn running(pod: &Tree, name: &str, seen: &Seen) -> Refused<String> {
    let phase = text(&pod["status"]["phase"]);
    if matches!(phase, "Succeeded" | "Failed") {
        return refuse(format!("cannot exec into a container in a completed pod; current phase is {phase}"));
    }
    on_a_node(pod)?;
    let runs = |c: &&SeenContainer| matches!(c.state, ContainerState::Running { .. });
    match lives(pod, name, seen).into_iter().find(runs) {
        Some(c) => Ok(c.id.clone()),
        None => refuse(format!("container not found ({name:?})")),
    }
}

/// All containers that the runtime has of this name in this pod, the latest first.
fn lives<'s>(pod: &Tree, name: &str, seen: &'s Seen) -> Vec<&'s SeenContainer> {
    let uid = text(&pod["metadata"]["uid"]);
    let sandboxes: BTreeSet<&str> =
        seen.sandboxes.iter().filter(|s| !uid.is_empty() && s.pod.uid == uid).map(|s| s.id.as_str()).collect();
    let mut lives: Vec<&SeenContainer> =
        seen.containers.iter().filter(|c| c.name == name && sandboxes.contains(c.sandbox.as_str())).collect();
    lives.sort_by_key(|c| std::cmp::Reverse(c.attempt));
    lives
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
    use base::Wall;
    use base::runtime::{PodName, SeenSandbox};
    use serde_json::json;

    fn pod() -> Tree {
        json!({"metadata": {"name": "p", "uid": "u"},
            "spec": {"nodeName": "n", "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]},
            "status": {"phase": "Running", "containerStatuses": [
                {"name": "a", "state": {"running": {}}},
                {"name": "b", "state": {"waiting": {"reason": "ContainerCreating"}}}],
              "initContainerStatuses": [{"name": "i", "state": {"terminated": {}}}]}})
    }

    /// Pod `u` with `a` in its second life, `b` made and not started, and `i` done; beside it a pod `v`.
    fn seen() -> Seen {
        let sandbox = |uid: &str| SeenSandbox {
            id: format!("s-{uid}"),
            pod: PodName { uid: uid.into(), ..PodName::default() },
            ..SeenSandbox::default()
        };
        let container = |uid: &str, name: &str, attempt: u32, state: ContainerState| SeenContainer {
            id: format!("{uid}-{name}{attempt}"),
            sandbox: format!("s-{uid}"),
            name: name.into(),
            attempt,
            state,
            ..SeenContainer::default()
        };
        let running = ContainerState::Running { since: Wall(1) };
        let created = ContainerState::Created { at: Wall(1) };
        Seen {
            sandboxes: vec![sandbox("u"), sandbox("v")],
            containers: vec![
                container("u", "a", 0, exited()),
                container("u", "a", 1, running.clone()),
                container("u", "b", 0, created),
                container("u", "i", 0, exited()),
                container("v", "a", 7, running.clone()),
                container("v", "b", 7, running),
            ],
            ..Seen::default()
        }
    }

    fn exited() -> ContainerState {
        ContainerState::Exited {
            started: Wall(1),
            finished: Wall(2),
            code: 1,
            reason: String::new(),
            message: String::new(),
        }
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
        let (mut p, mut there) = (pod(), seen());
        assert_eq!(log_of(&p, "a", false, &there).unwrap(), "u-a1");
        assert_eq!(log_of(&p, "a", true, &there).unwrap(), "u-a0");
        assert_eq!(log_of(&p, "i", false, &there).unwrap(), "u-i0");
        let refused = |name, previous| log_of(&p, name, previous, &there).unwrap_err().message;
        assert_eq!(refused("b", false), "container \"b\" in pod \"p\" is waiting to start: ContainerCreating");
        assert_eq!(refused("b", true), "previous terminated container \"b\" in pod \"p\" not found");
        p["status"]["containerStatuses"][0]["state"] = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        there.containers[1].state = exited();
        assert_eq!(log_of(&p, "a", false, &there).unwrap(), "u-a1");
        assert_eq!(log_of(&p, "a", true, &there).unwrap(), "u-a1");
    }

    #[test]
    fn a_process_runs_only_in_a_container_that_runs() {
        let (mut p, mut there) = (pod(), seen());
        assert_eq!(running(&p, "a", &there).unwrap(), "u-a1");
        assert_eq!(running(&p, "b", &there).unwrap_err().message, "container not found (\"b\")");
        there.containers[1].state = exited();
        assert_eq!(running(&p, "a", &there).unwrap_err().message, "container not found (\"a\")");
        p["status"]["phase"] = json!("Succeeded");
        assert!(running(&p, "a", &seen()).unwrap_err().message.ends_with("current phase is Succeeded"));
    }

    #[test]
    fn a_status_that_names_another_pods_container_opens_nothing() {
        let mut p = pod();
        for i in 0..2 {
            p["status"]["containerStatuses"][i]["containerID"] = json!("containerd://v-b7");
            p["status"]["containerStatuses"][i]["state"] = json!({"running": {}});
            p["status"]["containerStatuses"][i]["lastState"]["terminated"]["containerID"] = json!("containerd://v-b7");
        }
        assert_eq!(running(&p, "a", &seen()).unwrap(), "u-a1");
        running(&p, "b", &seen()).unwrap_err();
        assert_eq!(log_of(&p, "a", true, &seen()).unwrap(), "u-a0");
        log_of(&p, "b", false, &seen()).unwrap_err();
        // Nor does a pod without a uid.
        p["metadata"] = json!({"name": "p"});
        running(&p, "a", &seen()).unwrap_err();
    }
}
