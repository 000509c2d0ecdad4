//! Containers: of each name of a pod at most one lives; it runs where its pod is committed as bound, and runs
//! on until its pod goes; and in the end what runs is what is bound, and is what is told.

use super::award::Award;
use super::{Checked, ensure};
use crate::runtime::Runtime;
use objects::Tree;
use std::collections::BTreeSet;

/// A container has begun to run.
///
/// # Errors
/// Another one of its name runs, or its pod is not bound here by anything committed.
pub fn starts(award: &Award, node: &str, runtime: &Runtime, id: &str) -> Checked {
    let Some(own) = runtime.processes().get(id) else { return Ok(()) };
    let twin = runtime.processes().iter().find(|(i, p)| *i != id && p.pod.uid == own.pod.uid && p.name == own.name);
    ensure("containers", twin.is_none(), || {
        format!("on {node} {id} and {:?} both run as {} of pod {}", twin.map(|t| t.0), own.name, own.pod.name)
    })?;
    let bound = own.pod.uid.parse().ok().and_then(|uid| award.pod(uid)).map(|(pod, _)| bound_to(pod).to_owned());
    ensure("award", bound.as_deref() == Some(node), || {
        format!("{node} runs {} of a pod that is committed as bound to {bound:?}", own.name)
    })
}

/// A container that runs is brought to its end by the node.
///
/// # Errors
/// Its pod is to run here: so is what was started for it. Of pods as they are made here nothing else is a cause:
/// they have no probes, no deadlines, and specs that do not change.
pub fn stops(award: &Award, node: &str, runtime: &Runtime, id: &str) -> Checked {
    let Some((own, name)) = runtime.container(id) else { return Ok(()) };
    let Some((pod, gone)) = own.uid.parse().ok().and_then(|uid| award.pod(uid)) else { return Ok(()) };
    let going = gone || !pod["metadata"]["deletionTimestamp"].is_null() || decide::pod::is_finished(pod);
    ensure("containers", going || bound_to(pod) != node, || {
        format!("{node} stops {name} of pod {} ({}), which is to run there", own.name, own.uid)
    })
}

/// The end of a run, when nothing has happened for long: what a node has is what is bound to it, and the pods'
/// statuses name what runs.
///
/// # Errors
/// It is not.
pub fn settled(award: &Award, node: &str, runtime: &Runtime) -> Checked {
    let here: Vec<&Tree> = award.living().filter(|p| bound_to(p) == node).collect();
    let uids: BTreeSet<&str> = here.iter().map(|p| p["metadata"]["uid"].as_str().unwrap_or_default()).collect();
    let left: Vec<&str> = runtime.left().into_iter().filter(|uid| !uids.contains(uid)).collect();
    ensure("containers", left.is_empty(), || {
        format!("at the end {node} has something of pods that are gone: {left:?}")
    })?;
    for pod in here {
        let (name, uid) = (&pod["metadata"]["name"], pod["metadata"]["uid"].as_str().unwrap_or_default());
        let runs: BTreeSet<String> = runtime
            .processes()
            .iter()
            .filter(|(_, p)| p.pod.uid == uid)
            .map(|(id, p)| format!("{} containerd://{id}", p.name))
            .collect();
        let all = ["containerStatuses", "initContainerStatuses"].iter().flat_map(|list| items(&pod["status"][list]));
        let running = all.filter(|c| c["state"]["running"].is_object());
        let text = |t: &Tree| t.as_str().unwrap_or_default().to_owned();
        let told: BTreeSet<String> =
            running.map(|c| format!("{} {}", text(&c["name"]), text(&c["containerID"]))).collect();
        ensure("containers", runs == told, || {
            format!("at the end {told:?} of pod {name} are said to run, and {runs:?} do")
        })?;
        // As the kubelet has it: a pod that is never restarted and whose sandbox went with the power is not begun anew,
        // and what of it was never started leaves it Pending.
        if pod["spec"]["restartPolicy"] == "Never" && runs.is_empty() && runtime.has_lost(uid) {
            continue;
        }
        // Who has ended a third time waits 20 s, which may be longer than the run.
        let backs_off = |c: &&Tree| c["state"]["waiting"]["reason"] == "CrashLoopBackOff";
        let waits = items(&pod["status"]["containerStatuses"]).filter(backs_off).count();
        let finished = decide::pod::is_finished(pod);
        ensure("containers", finished == (runs.is_empty() && waits == 0), || {
            format!("at the end pod {name} is {}, and {runs:?} run", pod["status"]["phase"])
        })?;
        let ready = items(&pod["status"]["conditions"]).any(|c| c["type"] == "Ready" && c["status"] == "True");
        let phase = text(&pod["status"]["phase"]);
        let whole = runs.len() == items(&pod["spec"]["containers"]).count();
        ensure("containers", finished || (phase == "Running" && ready == whole), || {
            format!("at the end pod {name} is {phase}, ready: {ready}, and {runs:?} run")
        })?;
    }
    Ok(())
}

fn bound_to(pod: &Tree) -> &str {
    pod["spec"]["nodeName"].as_str().unwrap_or_default()
}

fn items(list: &Tree) -> impl Iterator<Item = &Tree> {
    list.as_array().into_iter().flatten()
}
