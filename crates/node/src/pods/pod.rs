//! One pod on this node: its object, what is seen of it, what is being done about it.

use super::Cx;
use super::backoff::{Backoffs, Retry};
use super::probes::Probes;
use super::report::Report;
use super::seen::{Expect, Mark, View};
use super::spec;
use super::start::Start;
use super::stop::Kill;
use super::usage::Usage;
use super::volumes::Volumes;
use base::{CellId, Now, Revision, Time, Wall};
use objects::Tree;
use objects::kinds::tree::Fields;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Why a pod ended whose containers did not decide it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Verdict {
    pub(super) reason: String,
    pub(super) message: String,
    /// Its containers are given no time of their own.
    pub(super) at_once: bool,
}

/// A pod.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) uid: Arc<str>,
    pub(super) cell: CellId,
    /// The newest object known.
    pub(super) tree: Arc<Tree>,
    pub(super) revision: Revision,
    /// Its cell has told of it. Until then it is run on as it was found, and nothing is said of it.
    pub(super) known: bool,
    /// Its cell says that there is none (any more).
    pub(super) gone: bool,
    /// It is not run, or no longer, and why.
    pub(super) verdict: Option<Verdict>,
    pub(super) view: View,
    /// Acts whose outcome is still to be seen.
    pub(super) marks: Vec<Mark>,
    /// An act on the sandbox, the volumes, or the whole is under way.
    pub(super) busy: bool,
    /// The container being started.
    pub(super) start: Option<Start>,
    /// How many starts were begun: an answer to one given up is not taken for another's.
    pub(super) starts: u64,
    /// The containers being stopped, by id.
    pub(super) kills: BTreeMap<String, Kill>,
    /// Containers to be stopped as soon as they are seen, and the words for it.
    pub(super) condemned: BTreeMap<String, String>,
    /// It was said that its sandbox is replaced.
    pub(super) told_changed: bool,
    /// Sandboxes that were stopped. One that merely is not ready has its addresses and ports still: it ended by itself,
    /// or with the machine.
    pub(super) stopped: BTreeSet<String>,
    /// Containers being removed.
    pub(super) removing: BTreeSet<String>,
    /// Its volumes in memory have been given back.
    pub(super) emptied: bool,
    /// All of it has been removed from the machine.
    pub(super) removed: bool,
    /// Nobody is interested any more.
    pub(super) dead: bool,
    /// It has been said that it ended.
    pub(super) ended: bool,
    pub(super) volumes: Volumes,
    pub(super) usage: Usage,
    /// Waits between restarts of a container, by its name.
    pub(super) crash: Backoffs,
    /// Waits between pulls of an image, by its name.
    pub(super) pull: Backoffs,
    /// What the last pull of an image failed for.
    pub(super) pull_errors: BTreeMap<String, String>,
    /// Why a container waits: reason and message, until it starts.
    pub(super) waiting: BTreeMap<String, (&'static str, String)>,
    /// A container is not tried before then.
    pub(super) not_before: BTreeMap<String, Time>,
    /// When containers ended, by id.
    pub(super) ends: BTreeMap<String, Time>,
    /// The last end of a container that its back-off has counted, by name.
    pub(super) counted: BTreeMap<String, String>,
    /// The last end of a container whose back-off was told in an event, by name.
    pub(super) told_backoff: BTreeMap<String, String>,
    /// The sandbox could not be made, or an act on the whole failed.
    pub(super) retry: Retry,
    pub(super) probes: Probes,
    /// What containers said at their end, by id; `None` while it is being read.
    pub(super) words: BTreeMap<String, Option<String>>,
    pub(super) report: Report,
    /// When to look at it again.
    pub(super) wake: Time,
}

impl Pod {
    pub(super) fn new(uid: Arc<str>, cell: CellId, tree: Arc<Tree>, now: Time) -> Pod {
        Pod {
            uid,
            cell,
            tree,
            revision: Revision::default(),
            known: false,
            gone: false,
            verdict: None,
            view: View::default(),
            marks: Vec::new(),
            busy: false,
            start: None,
            starts: 0,
            kills: BTreeMap::new(),
            condemned: BTreeMap::new(),
            told_changed: false,
            stopped: BTreeSet::new(),
            removing: BTreeSet::new(),
            emptied: false,
            removed: false,
            dead: false,
            ended: false,
            volumes: Volumes::new(now),
            usage: Usage::default(),
            crash: Backoffs::default(),
            pull: Backoffs::default(),
            pull_errors: BTreeMap::new(),
            waiting: BTreeMap::new(),
            not_before: BTreeMap::new(),
            ends: BTreeMap::new(),
            counted: BTreeMap::new(),
            told_backoff: BTreeMap::new(),
            retry: Retry::default(),
            probes: Probes::default(),
            words: BTreeMap::new(),
            report: Report::default(),
            wake: Time::NEVER,
        }
    }

    /// Asks to be looked at by then.
    pub(super) fn wake_at(&mut self, at: Time) {
        self.wake = self.wake.min(at);
    }

    /// An act on the runtime has come back: it has to be seen what came of it.
    pub(super) fn mark(&mut self, cx: &mut Cx<'_>, expect: Expect) {
        self.marks.push(Mark::new(cx.now, expect));
        cx.shared.look = true;
    }

    /// Whether all that was done has been seen.
    pub(super) fn is_settled(&self) -> bool {
        self.marks.is_empty()
    }

    /// Its object is being deleted.
    pub(super) fn is_deleting(&self) -> bool {
        self.tree.at("metadata").has("deletionTimestamp")
    }

    /// Whether its status, as its cell has it, says that it has ended for good.
    pub(super) fn is_told_ended(&self) -> bool {
        decide::pod::is_finished(&self.tree)
    }

    /// Whether nothing of it shall run any more.
    pub(super) fn is_ending(&self, now: Now) -> bool {
        self.gone
            || self.verdict.is_some()
            || self.is_deleting()
            || self.is_told_ended()
            || self.report.has_ended()
            || self.deadline().is_some_and(|d| d <= now.wall)
    }

    /// When it is to end, if it may run so long only (`activeDeadlineSeconds`).
    pub(super) fn deadline(&self) -> Option<Wall> {
        let seconds = self.tree.at("spec").int("activeDeadlineSeconds")?;
        let start = Wall::parse_rfc3339(self.report.status(&self.tree).text("startTime"))?;
        Some(start + Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    }

    /// The pod's address: the one probes ask.
    pub(super) fn address(&self, cx: &Cx<'_>) -> Option<IpAddr> {
        self.addresses(cx).first().copied()
    }

    /// The pod's addresses, in the order of the node's families.
    pub(super) fn addresses(&self, cx: &Cx<'_>) -> Vec<IpAddr> {
        if spec::host_network(&self.tree) {
            return cx.shared.facts.addresses.clone();
        }
        self.view.active().map(|s| cx.shared.facts.by_family(&s.addresses)).unwrap_or_default()
    }

    /// What the status last said of a container.
    pub(super) fn told(&self, name: &str) -> Option<&Tree> {
        let status = self.report.status(&self.tree);
        ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"]
            .into_iter()
            .find_map(|l| status.list(l).iter().find(|s| s.text("name") == name))
    }

    /// How many containers of a name there were before the one that is made next.
    pub(super) fn next_attempt(&self, name: &str) -> u32 {
        let seen = self.view.containers.iter().filter(|c| c.name == name).map(|c| c.attempt + 1).max();
        // The runtime may have lost what it had.
        let told = self.told(name).filter(|s| !s.text("containerID").is_empty() || s.at("lastState").has("terminated"));
        let told = told.and_then(|s| u32::try_from(s.int("restartCount")? + 1).ok());
        seen.max(told).unwrap_or(0)
    }
}
