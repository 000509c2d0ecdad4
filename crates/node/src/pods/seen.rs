//! What is seen of one pod at the runtime, and when that can be relied on.
//!
//! Answers say what was done, never what is. After each act that changes the runtime a [`Mark`] stands
//! until a sight comes that was taken after it and shows what it brought about; until then nothing is
//! decided on what was seen before.

use base::runtime::{ContainerState, Seen, SeenContainer, SeenSandbox};
use base::{Now, Time, Wall};
use std::collections::BTreeMap;
use std::time::Duration;

/// A sight that is later than the act by so much shows what came of it, whatever it is.
const CERTAIN: Duration = Duration::from_secs(2);
/// A sight from further in the future than this was taken before the calendar was put back.
const AHEAD: Duration = Duration::from_millis(200);
/// After so long on the steady clock any sight is later than the act, however the calendar jumps.
const LONG: Duration = Duration::from_secs(30);

/// A pod's sandboxes and containers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct View {
    /// The newest first.
    pub(super) sandboxes: Vec<SeenSandbox>,
    /// The newest of each name first.
    pub(super) containers: Vec<SeenContainer>,
}

/// What a sight shows of a pod, in a view's order.
#[derive(Default)]
pub(super) struct Sight<'a> {
    sandboxes: Vec<&'a SeenSandbox>,
    containers: Vec<&'a SeenContainer>,
}

impl<'a> Sight<'a> {
    /// What belongs to each pod, by uid.
    pub(super) fn of_all(seen: &'a Seen) -> BTreeMap<&'a str, Sight<'a>> {
        let mut sights: BTreeMap<&str, Sight<'_>> = BTreeMap::new();
        let mut owners: BTreeMap<&str, &str> = BTreeMap::new();
        for s in &seen.sandboxes {
            owners.insert(&s.id, &s.pod.uid);
            sights.entry(&s.pod.uid).or_default().sandboxes.push(s);
        }
        for c in &seen.containers {
            if let Some(uid) = owners.get(c.sandbox.as_str()) {
                sights.entry(uid).or_default().containers.push(c);
            }
        }
        sights.values_mut().for_each(Sight::sort);
        sights
    }

    /// What belongs to one pod.
    pub(super) fn of_one(seen: &'a Seen, uid: &str) -> Sight<'a> {
        let sandboxes: Vec<&SeenSandbox> = seen.sandboxes.iter().filter(|s| s.pod.uid == uid).collect();
        let ours = |c: &&SeenContainer| sandboxes.iter().any(|s| s.id == c.sandbox);
        let mut sight = Sight { containers: seen.containers.iter().filter(ours).collect(), sandboxes };
        sight.sort();
        sight
    }

    fn sort(&mut self) {
        self.sandboxes.sort_by(|a, b| b.attempt.cmp(&a.attempt).then(b.created.cmp(&a.created)));
        self.containers.sort_by(|a, b| b.attempt.cmp(&a.attempt).then_with(|| b.id.cmp(&a.id)));
    }

    /// Whether it shows nothing new.
    pub(super) fn is(&self, view: &View) -> bool {
        self.sandboxes.iter().copied().eq(&view.sandboxes) && self.containers.iter().copied().eq(&view.containers)
    }

    pub(super) fn view(&self) -> View {
        View {
            sandboxes: self.sandboxes.iter().copied().cloned().collect(),
            containers: self.containers.iter().copied().cloned().collect(),
        }
    }
}

/// Whether a container runs, as far as is known.
pub(super) fn is_running(c: &SeenContainer) -> bool {
    matches!(c.state, ContainerState::Running { .. })
}

/// Whether a container has ended.
pub(super) fn has_ended(c: &SeenContainer) -> bool {
    matches!(c.state, ContainerState::Exited { .. })
}

/// The exit code of a container that has ended.
pub(super) fn code(c: &SeenContainer) -> Option<i64> {
    match &c.state {
        ContainerState::Exited { code, .. } => Some(i64::from(*code)),
        _ => None,
    }
}

impl View {
    /// The newest sandbox, if it is ready.
    pub(super) fn active(&self) -> Option<&SeenSandbox> {
        self.sandboxes.first().filter(|s| s.ready)
    }

    /// The newest container of a name.
    pub(super) fn newest(&self, name: &str) -> Option<&SeenContainer> {
        self.containers.iter().find(|c| c.name == name)
    }

    /// The newest container of a name in the active sandbox.
    pub(super) fn active_container(&self, name: &str) -> Option<&SeenContainer> {
        let sandbox = self.active()?;
        self.containers.iter().find(|c| c.name == name && c.sandbox == sandbox.id)
    }

    /// Containers that run, or of which nobody knows, in a sandbox that is still there to hold them.
    pub(super) fn live(&self) -> impl Iterator<Item = &SeenContainer> {
        self.containers.iter().filter(|c| matches!(c.state, ContainerState::Running { .. } | ContainerState::Unknown))
    }

    pub(super) fn container(&self, id: &str) -> Option<&SeenContainer> {
        self.containers.iter().find(|c| c.id == id)
    }
}

/// What an act is to be seen to have brought about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Expect {
    /// Nothing in particular: it failed, say.
    Anything,
    Sandbox(String),
    Container(String),
    /// No longer merely created.
    Started(String),
    /// No longer running.
    Stopped(String),
    Gone(String),
    /// No longer ready.
    Unready(String),
}

/// An act after which the runtime has to be seen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Mark {
    at: Now,
    expect: Expect,
}

impl Mark {
    pub(super) fn new(at: Now, expect: Expect) -> Mark {
        Mark { at, expect }
    }

    /// Whether a sight taken at `asked`, and come in now, shows what became of the act.
    pub(super) fn is_met(&self, asked: Wall, now: Now, view: &View) -> bool {
        if now.mono.since(self.at.mono) >= LONG {
            return true;
        }
        // A calendar that was put back makes an old sight look new: it then lies in the future.
        if asked < self.at.wall || asked > now.wall + AHEAD {
            return false;
        }
        asked >= self.at.wall + CERTAIN || self.shows(view)
    }

    fn shows(&self, view: &View) -> bool {
        match &self.expect {
            Expect::Anything => true,
            Expect::Sandbox(id) => view.sandboxes.iter().any(|s| s.id == *id),
            Expect::Container(id) => view.container(id).is_some(),
            Expect::Started(id) => {
                view.container(id).is_some_and(|c| !matches!(c.state, ContainerState::Created { .. }))
            }
            Expect::Stopped(id) => !view.container(id).is_some_and(is_running),
            Expect::Gone(id) => view.container(id).is_none() && !view.sandboxes.iter().any(|s| s.id == *id),
            Expect::Unready(id) => !view.sandboxes.iter().any(|s| s.id == *id && s.ready),
        }
    }

    pub(super) fn since(&self) -> Time {
        self.at.mono
    }
}
