//! A pod's phase and conditions, from the statuses of its containers.
//!
//! Source: the kubelet's `kubelet_pods.go` (`getPhase`) and `status/generate.go`.

use super::seen::View;
use super::spec::{List, containers, is_sidecar, restarts};
use base::Wall;
use objects::Tree;
use objects::kinds::tree::{self, Fields};
use serde_json::json;

/// Conditions that the node decides; all others are somebody else's.
pub(super) const OURS: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// Whether a phase is the last.
pub(super) fn is_terminal(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

fn status_of<'a>(status: &'a Tree, list: List, name: &str) -> Option<&'a Tree> {
    let field = if list == List::Init { "initContainerStatuses" } else { "containerStatuses" };
    status.list(field).iter().find(|s| s.text("name") == name)
}

/// The exit code a status tells of, if it does not run.
fn last_code(status: &Tree) -> Option<i64> {
    [status.at("state"), status.at("lastState")].iter().find_map(|s| s.at("terminated").int("exitCode"))
}

/// The phase. `begun`: a container of `containers` was made in the sandbox there is. `ended`: nothing runs
/// any more, nor will.
pub(super) fn phase(pod: &Tree, status: &Tree, begun: bool, ended: bool) -> String {
    let (mut pending, mut failed) = (false, false);
    let (mut unknown, mut running, mut waiting, mut stopped) = (0, 0, 0, 0);
    let (mut for_good, mut succeeded) = (0, 0);
    for c in containers(pod, List::Init) {
        let s = status_of(status, List::Init, c.text("name"));
        let state = s.map(|s| s.at("state"));
        if is_sidecar(List::Init, c) {
            match (s, state) {
                (Some(s), Some(state)) if state.has("running") => {
                    pending |= !s.flag("started") && !begun;
                    running += 1;
                }
                (_, Some(state)) if state.has("terminated") => {}
                (Some(s), Some(state)) if state.has("waiting") => {
                    if last_code(s).is_none() {
                        pending |= !begun;
                        waiting += 1;
                    }
                }
                _ => {
                    pending |= !begun;
                    unknown += 1;
                }
            }
            continue;
        }
        let code = s.filter(|_| state.is_some_and(|st| !st.has("running"))).and_then(last_code);
        match code {
            None => pending = true,
            Some(0) => {}
            Some(code) => failed |= !restarts(pod, c, code),
        }
    }
    for c in containers(pod, List::Main) {
        let Some(s) = status_of(status, List::Main, c.text("name")) else {
            unknown += 1;
            continue;
        };
        let state = s.at("state");
        match last_code(s) {
            _ if state.has("running") => running += 1,
            Some(code) if state.has("terminated") || state.has("waiting") => {
                stopped += 1;
                for_good += i32::from(!restarts(pod, c, code));
                succeeded += i32::from(code == 0 && state.has("terminated"));
            }
            _ if state.has("waiting") => waiting += 1,
            _ => unknown += 1,
        }
    }
    let all_well = stopped == succeeded;
    let phase = if failed {
        "Failed"
    } else if pending || waiting > 0 {
        "Pending"
    } else if running > 0 && unknown == 0 {
        "Running"
    } else if running == 0 && stopped > 0 && unknown == 0 {
        match (ended || stopped == for_good, all_well) {
            (false, _) => "Running",
            (true, true) => "Succeeded",
            (true, false) => "Failed",
        }
    } else {
        "Pending"
    };
    phase.to_owned()
}

/// What a condition says.
struct Said {
    status: bool,
    reason: &'static str,
    message: String,
}

const TRUE: Said = Said { status: true, reason: "", message: String::new() };

fn no(reason: &'static str, message: String) -> Said {
    Said { status: false, reason, message }
}

/// All conditions: those of others as the object has them, and ours.
pub(super) fn conditions(pod: &Tree, view: &View, status: &Tree, old: &Tree, now: Wall) -> Tree {
    let others = pod.at("status").list("conditions").iter().filter(|c| !OURS.contains(&c.text("type")));
    let mut all: Vec<Tree> = others.cloned().collect();
    let containers_ready = containers_ready(pod, status);
    let ready = ready(pod, &all, &containers_ready);
    for (ty, said) in [
        ("PodReadyToStartContainers", sandbox_ready(view)),
        ("Initialized", initialized(pod, status)),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", TRUE),
    ] {
        let value = if said.status { "True" } else { "False" };
        let mut condition =
            json!({"type": ty, "status": value, "lastProbeTime": null, "lastTransitionTime": now.rfc3339()});
        if let Some(g) = pod.at("metadata").int("generation") {
            condition["observedGeneration"] = g.into();
        }
        if !said.reason.is_empty() {
            condition["reason"] = said.reason.into();
        }
        if !said.message.is_empty() {
            condition["message"] = said.message.into();
        }
        let before = old.list("conditions").iter().find(|c| c.text("type") == ty);
        if let Some(before) = before.filter(|b| b.text("status") == value && b.has("lastTransitionTime")) {
            tree::keep(&mut condition, before, "lastTransitionTime");
        }
        all.push(condition);
    }
    all.into()
}

fn sandbox_ready(view: &View) -> Said {
    let reason = "PodSandboxNotReady";
    if view.sandboxes.iter().filter(|s| s.ready).count() > 1 {
        return no(reason, "multiple pod sandboxes are ready and need to be reconciled".to_owned());
    }
    match view.sandboxes.first() {
        None => no(reason, "no pod sandbox exists".to_owned()),
        Some(s) if !s.ready => no(reason, "pod sandbox is not ready".to_owned()),
        Some(_) => TRUE,
    }
}

/// Names as Go prints a list of them.
fn listed(what: &str, names: &[&str]) -> Option<String> {
    (!names.is_empty()).then(|| format!("containers with {what} status: [{}]", names.join(" ")))
}

fn initialized(pod: &Tree, status: &Tree) -> Said {
    let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
    for c in containers(pod, List::Init) {
        let name = c.text("name");
        match status_of(status, List::Init, name) {
            None => unknown.push(name),
            Some(s) if is_sidecar(List::Init, c) && !s.flag("started") => incomplete.push(name),
            Some(s) if !is_sidecar(List::Init, c) && !s.flag("ready") => incomplete.push(name),
            Some(_) => {}
        }
    }
    if status.text("phase") == "Succeeded" && unknown.is_empty() {
        return Said { status: true, reason: "PodCompleted", message: String::new() };
    }
    let started = |s: &Tree| s.at("state").has("running") || s.at("state").has("terminated");
    if status.list("containerStatuses").iter().any(started) {
        return TRUE;
    }
    let parts: Vec<String> =
        [listed("unknown", &unknown), listed("incomplete", &incomplete)].into_iter().flatten().collect();
    if parts.is_empty() { TRUE } else { no("ContainersNotInitialized", parts.join(", ")) }
}

fn containers_ready(pod: &Tree, status: &Tree) -> Said {
    if !status.has("containerStatuses") {
        return match status.text("phase") {
            "Failed" => no("PodFailed", String::new()),
            _ => no("UnknownContainerStatuses", String::new()),
        };
    }
    let (mut unknown, mut unready) = (Vec::new(), Vec::new());
    let sidecars = containers(pod, List::Init).iter().filter(|c| is_sidecar(List::Init, c)).map(|c| (List::Init, c));
    for (list, c) in sidecars.chain(containers(pod, List::Main).iter().map(|c| (List::Main, c))) {
        match status_of(status, list, c.text("name")) {
            None => unknown.push(c.text("name")),
            Some(s) if !s.flag("ready") => unready.push(c.text("name")),
            Some(_) => {}
        }
    }
    match status.text("phase") {
        "Succeeded" if unknown.is_empty() => return no("PodCompleted", String::new()),
        "Failed" => return no("PodFailed", String::new()),
        _ => {}
    }
    let parts: Vec<String> = [listed("unknown", &unknown), listed("unready", &unready)].into_iter().flatten().collect();
    if parts.is_empty() { TRUE } else { no("ContainersNotReady", parts.join(", ")) }
}

fn ready(pod: &Tree, others: &[Tree], containers_ready: &Said) -> Said {
    if !containers_ready.status {
        return no(containers_ready.reason, containers_ready.message.clone());
    }
    let gate = |g: &Tree| {
        let ty = g.text("conditionType");
        match others.iter().find(|c| c.text("type") == ty) {
            None => Some(format!("corresponding condition of pod readiness gate \"{ty}\" does not exist.")),
            Some(c) if c.text("status") != "True" => {
                Some(format!("the status of pod readiness gate \"{ty}\" is not \"True\", but {}", c.text("status")))
            }
            Some(_) => None,
        }
    };
    let closed: Vec<String> = pod.at("spec").list("readinessGates").iter().filter_map(gate).collect();
    if closed.is_empty() { TRUE } else { no("ReadinessGatesNotReady", closed.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(code: i64) -> Tree {
        json!({"state": {"terminated": {"exitCode": code}}})
    }

    fn runs() -> Tree {
        json!({"state": {"running": {}}, "started": true, "ready": true})
    }

    fn waits() -> Tree {
        json!({"state": {"waiting": {"reason": "ContainerCreating"}}})
    }

    fn backs_off(code: i64) -> Tree {
        json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": code}}})
    }

    fn pod(policy: &str, init: usize, main: usize) -> Tree {
        let named = |what: &str, n: usize| -> Tree { (0..n).map(|i| json!({"name": format!("{what}{i}")})).collect() };
        json!({"metadata": {"generation": 1}, "spec": {"restartPolicy": policy, "initContainers": named("i", init), "containers": named("c", main)}})
    }

    fn status(init: &[Tree], main: &[Tree]) -> Tree {
        let named = |what: &str, all: &[Tree]| -> Tree {
            let name = |(i, s): (usize, &Tree)| {
                let mut s = s.clone();
                s["name"] = format!("{what}{i}").into();
                s
            };
            all.iter().enumerate().map(name).collect()
        };
        json!({"initContainerStatuses": named("i", init), "containerStatuses": named("c", main)})
    }

    #[test]
    fn the_phase_follows_from_the_containers() {
        for (policy, init, main, ended, want) in [
            ("Always", vec![], vec![waits()], false, "Pending"),
            ("Always", vec![], vec![runs(), waits()], false, "Pending"),
            ("Always", vec![], vec![runs(), runs()], false, "Running"),
            ("Always", vec![], vec![runs(), ran(1)], false, "Running"),
            ("Always", vec![], vec![ran(0)], false, "Running"),
            ("Always", vec![], vec![ran(0)], true, "Succeeded"),
            ("Always", vec![], vec![backs_off(1)], false, "Running"),
            ("OnFailure", vec![], vec![ran(0), ran(0)], false, "Succeeded"),
            ("OnFailure", vec![], vec![ran(0), ran(1)], false, "Running"),
            ("Never", vec![], vec![ran(0), ran(1)], false, "Failed"),
            ("Never", vec![], vec![ran(0), runs()], false, "Running"),
            ("Always", vec![waits()], vec![waits()], false, "Pending"),
            ("Always", vec![ran(1)], vec![waits()], false, "Pending"),
            ("Never", vec![ran(1)], vec![waits()], false, "Failed"),
            ("Always", vec![ran(0)], vec![runs()], false, "Running"),
        ] {
            let (pod, status) = (pod(policy, init.len(), main.len()), status(&init, &main));
            assert_eq!(phase(&pod, &status, false, ended), want, "{policy} {status}");
        }
    }

    #[test]
    fn conditions_say_since_when() {
        let (pod, mut status) = (pod("Always", 0, 1), status(&[], &[runs()]));
        status["phase"] = "Running".into();
        let find = |all: &Tree, ty: &str| all.as_array().into_iter().flatten().find(|c| c["type"] == ty).cloned();
        let first = conditions(&pod, &View::default(), &status, &Tree::Null, Wall(1_000_000));
        status["conditions"] = first;
        let mut unready = status.clone();
        unready["containerStatuses"][0]["ready"] = false.into();
        let second = conditions(&pod, &View::default(), &unready, &status, Wall(2_000_000));
        let ready = find(&second, "Ready").unwrap_or_default();
        assert_eq!((&ready["status"], &ready["reason"]), (&json!("False"), &json!("ContainersNotReady")));
        assert_eq!(ready["lastTransitionTime"], "1970-01-01T00:33:20Z");
        let scheduled = find(&second, "PodScheduled").unwrap_or_default();
        assert_eq!(scheduled["lastTransitionTime"], "1970-01-01T00:16:40Z");
    }
}
