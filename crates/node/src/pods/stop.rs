//! Containers being stopped: hook first, sidecars after all they serve, then the signal with what is left
//! of the grace.
//!
//! Source: the kubelet's `kuberuntime_container.go` (`killContainer`) and `kuberuntime_termination_order.go`.

use super::Cx;
use super::events::{Events, Type};
use super::handler::{Hook, hook, hooked};
use super::ops::What;
use super::pod::Pod;
use super::seen::{Expect, has_ended, is_running};
use super::spec::{self, List, containers, is_sidecar};
use base::runtime::{Answer, Failure, Op, Why};
use base::{Now, Time, Wall};
use objects::kinds::tree::Fields;
use std::time::Duration;

/// Not even a pod that is deleted by force gets less.
const GRACE_MIN: Duration = Duration::from_secs(2);
/// After a stop that failed it is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// So many requests to stop one container may be under way, each with a shorter grace than the one before.
const ASKED_MOST: u8 = 2;

/// Why a container is stopped while its pod goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reason {
    /// Its pod ends, or it is of another definition now.
    Other,
    Liveness,
    Startup,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Stage {
    /// Its hook runs.
    Hook,
    /// Its hook is to wait.
    Sleep(Time),
    /// It waits for those it serves.
    Turn,
    /// The runtime was asked.
    Stopping,
    /// The runtime failed; it is asked again then.
    Failed(Time),
}

/// A container being stopped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Kill {
    name: String,
    stage: Stage,
    began: Time,
    /// When its grace ends.
    until: Time,
    /// Requests that the runtime has not answered.
    asked: u8,
    /// What the runtime was last asked ends no sooner than this.
    asked_until: Time,
}

impl Kill {
    /// The container's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Pod {
    /// How long a container is given, before anything else is known.
    fn grace(&self, name: &str, reason: Reason) -> Duration {
        let seconds = |s: i64| Duration::from_secs(u64::try_from(s).unwrap_or(0));
        if self.verdict.as_ref().is_some_and(|v| v.at_once) {
            return GRACE_MIN;
        }
        if let Some(s) = self.tree.at("metadata").int("deletionGracePeriodSeconds") {
            return seconds(s);
        }
        let probe = match reason {
            Reason::Other => None,
            Reason::Liveness => Some("livenessProbe"),
            Reason::Startup => Some("startupProbe"),
        };
        let own = probe.and_then(|p| spec::find(&self.tree, name)?.1.at(p).int("terminationGracePeriodSeconds"));
        let grace = own.or_else(|| self.tree.at("spec").int("terminationGracePeriodSeconds"));
        grace.map_or(GRACE_MIN, seconds)
    }

    /// What is left of the grace of a pod that is deleted. It runs from the deletion and not from when this
    /// daemon heard of it, or each restart of the daemon would give all of it anew.
    fn left(&self, now: Now) -> Duration {
        match Wall::parse_rfc3339(self.tree.at("metadata").text("deletionTimestamp")) {
            // The object names the second in which the grace is over.
            Some(second) => (second + Duration::from_secs(1)).since(now.wall).max(GRACE_MIN),
            None => Duration::MAX,
        }
    }

    /// Begins to stop a container that runs, if it is not being stopped already. A grace that has become
    /// shorter since cuts what is left.
    pub(super) fn stop(&mut self, cx: &mut Cx<'_>, id: &str, reason: Reason, message: &str) {
        let Some(name) = self.view.container(id).map(|c| c.name.clone()) else { return };
        let grace = self.grace(&name, reason);
        let now = cx.now.mono;
        if let Some(kill) = self.kills.get_mut(id) {
            let until = kill.began + grace;
            if until < kill.until {
                kill.until = until;
                // The runtime takes a second request beside the first, and the shorter grace counts. However
                // often it is shortened after that, one more is made, when it is over.
                if kill.stage == Stage::Stopping && kill.asked < ASKED_MOST {
                    self.signal(cx, id, now);
                }
            }
            return;
        }
        // It may have ended since it was seen.
        if !self.is_settled() {
            return;
        }
        let grace = grace.min(self.left(cx.now));
        let message = match message {
            "" => format!("Stopping container {name}"),
            m => m.to_owned(),
        };
        let path = spec::field_path(&self.tree, &name);
        Events::record(cx, &self.tree, &path, Type::Normal, "Killing", &message);
        let kill = Kill {
            name: name.clone(),
            stage: Stage::Turn,
            began: now,
            until: now + grace,
            asked: 0,
            asked_until: Time::NEVER,
        };
        self.kills.insert(id.to_owned(), kill);
        let tree = self.tree.clone();
        let Some((_, container)) = spec::find(&tree, &name) else { return };
        let handler = container.at("lifecycle").at("preStop");
        if handler.is_null() || grace.is_zero() {
            return;
        }
        let stage = match hook(id, container, handler, self.address(cx), Some(grace)) {
            Ok(Hook::Ask(op)) => {
                cx.shared.ops.ask(&self.uid, What::PreStop(id.to_owned()), *op, cx.fx);
                Stage::Hook
            }
            Ok(Hook::Sleep(time)) => Stage::Sleep(now + time),
            Err(_) => {
                Events::record(cx, &self.tree, &path, Type::Warning, "FailedPreStopHook", "PreStopHook failed");
                Stage::Turn
            }
        };
        if let Some(kill) = self.kills.get_mut(id) {
            kill.stage = stage;
        }
    }

    /// A hook came back.
    pub(super) fn pre_stopped(&mut self, cx: &mut Cx<'_>, id: &str, result: Result<Answer, Failure>) {
        let tree = self.tree.clone();
        let Some(kill) = self.kills.get_mut(id).filter(|k| k.stage == Stage::Hook) else { return };
        kill.stage = Stage::Turn;
        let Some((_, container)) = spec::find(&tree, &kill.name) else { return };
        if hooked(&tree, container, container.at("lifecycle").at("preStop"), result).is_err() {
            let path = spec::field_path(&tree, &kill.name);
            Events::record(cx, &tree, &path, Type::Warning, "FailedPreStopHook", "PreStopHook failed");
        }
    }

    /// Goes on with what is being stopped.
    pub(super) fn stopping(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.mono;
        let ids: Vec<String> = self.kills.keys().cloned().collect();
        for id in ids {
            // Who has ended by itself need not be stopped.
            if self.is_settled() && self.view.container(&id).is_none_or(has_ended) {
                self.kills.remove(&id);
                continue;
            }
            let Some(kill) = self.kills.get(&id).cloned() else { continue };
            match kill.stage {
                Stage::Hook if now < kill.until => self.wake_at(kill.until),
                Stage::Sleep(until) if now < until.min(kill.until) => self.wake_at(until.min(kill.until)),
                Stage::Turn if now < kill.until && !self.is_its_turn(&kill.name) => self.wake_at(kill.until),
                Stage::Failed(until) if now < until => self.wake_at(until),
                Stage::Stopping if kill.until >= kill.asked_until || kill.asked > ASKED_MOST => {}
                Stage::Stopping if now < kill.until => self.wake_at(kill.until),
                _ => self.signal(cx, &id, now),
            }
        }
    }

    fn signal(&mut self, cx: &mut Cx<'_>, id: &str, now: Time) {
        let Some(kill) = self.kills.get_mut(id) else { return };
        kill.stage = Stage::Stopping;
        kill.asked += 1;
        kill.asked_until = kill.until;
        let grace = kill.until.since(now).max(GRACE_MIN);
        let op = Op::StopContainer { id: id.to_owned(), grace };
        cx.shared.ops.ask(&self.uid, What::Stop(id.to_owned()), op, cx.fx);
    }

    /// Whether all that a sidecar serves has ended: the containers, and the sidecars that start after it.
    fn is_its_turn(&self, name: &str) -> bool {
        let Some((list, container)) = spec::find(&self.tree, name) else { return true };
        if !is_sidecar(list, container) || !self.is_ending_all() {
            return true;
        }
        let runs = |name: &str| self.view.newest(name).is_some_and(is_running);
        let after = containers(&self.tree, List::Init).iter().skip_while(|c| c.text("name") != name).skip(1);
        let served = after.filter(|c| is_sidecar(List::Init, c)).chain(containers(&self.tree, List::Main));
        !served.map(|c| c.text("name")).any(runs)
    }

    /// Whether everything is being stopped, rather than one container to be restarted.
    fn is_ending_all(&self) -> bool {
        self.view.live().all(|c| self.kills.contains_key(&c.id))
    }

    /// A stop came back.
    pub(super) fn stopped(&mut self, cx: &mut Cx<'_>, id: &str, result: Result<Answer, Failure>) {
        let failed = match result {
            Ok(_) => None,
            Err(failure) if failure.why == Why::NotFound => None,
            Err(failure) => Some((failure.why, failure.message)),
        };
        match failed {
            None => {
                self.kills.remove(id);
                self.mark(cx, Expect::Stopped(id.to_owned()));
            }
            Some((why, message)) => {
                if let Some(kill) = self.kills.get_mut(id) {
                    kill.asked = kill.asked.saturating_sub(1);
                    kill.stage = Stage::Failed(cx.now.mono + AGAIN);
                }
                self.mark(cx, Expect::Anything);
                if why == Why::NoRuntime {
                    return;
                }
                let message =
                    format!("error killing pod: failed to \"KillContainer\" with KillContainerError: \"{message}\"");
                Events::record(cx, &self.tree, "", Type::Warning, "FailedKillPod", &message);
            }
        }
    }
}
