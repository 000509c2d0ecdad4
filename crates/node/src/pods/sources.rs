//! ConfigMaps, Secrets and services as pods need them: read from their cell by errand, once for all pods
//! that want the same, and again whenever somebody wants them newer.
//!
//! What was read stays good while its cell cannot be reached: a container restarts on what is known.

use super::Cx;
use super::post::Purpose;
use crate::errand::{Answered, Errand};
use base::Time;
use base64::Engine;
use objects::Tree;
use objects::kinds::by_resource;
use objects::kinds::tree::Fields;
use objects::request::{Body, Options, Verb};
use objects::status::Status;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What nobody has asked for in so long is forgotten.
const KEPT: Duration = Duration::from_secs(600);

/// What kind of thing is read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Source {
    ConfigMap,
    Secret,
    /// All services of the namespace.
    Services,
}

/// One thing that is read.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Key {
    pub(super) source: Source,
    pub(super) namespace: Arc<str>,
    /// Empty for a list.
    pub(super) name: Arc<str>,
}

/// What reading came to.
#[derive(Clone, Debug)]
pub(super) enum Got {
    /// The object.
    Have(Arc<Tree>),
    /// There is none.
    Missing,
    /// It could not be read, and has never been.
    Refused(String),
}

#[derive(Debug, Default)]
struct Entry {
    got: Option<(Time, Got)>,
    /// When the errand under way was sent.
    asked: Option<Time>,
    /// Somebody wants it as it was then or later.
    wanted: Option<Time>,
    /// Pods that wait.
    waiting: BTreeSet<Arc<str>>,
    used: Time,
}

/// All that is read.
#[derive(Debug, Default)]
pub(super) struct Sources {
    entries: BTreeMap<Key, Entry>,
}

impl Sources {
    /// What reading came to, if it was asked for at `since` or later. Otherwise it is asked for, and the
    /// pod told when there is an answer.
    pub(super) fn get(cx: &mut Cx<'_>, pod: &Arc<str>, key: &Key, since: Time) -> Option<Got> {
        let now = cx.now.mono;
        let entry = cx.shared.sources.entries.entry(key.clone()).or_default();
        entry.used = now;
        if let Some((asked, got)) = &entry.got
            && *asked >= since
        {
            return Some(got.clone());
        }
        entry.waiting.insert(pod.clone());
        match entry.asked {
            Some(asked) if asked >= since => {}
            Some(_) => entry.wanted = entry.wanted.max(Some(since)),
            None => Sources::ask(cx, key),
        }
        None
    }

    /// What is known, however old.
    pub(super) fn known(&self, key: &Key) -> Option<&Got> {
        self.entries.get(key)?.got.as_ref().map(|(_, g)| g)
    }

    fn ask(cx: &mut Cx<'_>, key: &Key) {
        let plural = match key.source {
            Source::ConfigMap => "configmaps",
            Source::Secret => "secrets",
            Source::Services => "services",
        };
        let Some(kind) = by_resource("", "v1", plural) else { return };
        let now = cx.now.mono;
        if let Some(entry) = cx.shared.sources.entries.get_mut(key) {
            entry.asked = Some(now);
            entry.wanted = None;
        }
        let errand = Errand {
            user: cx.shared.user.clone(),
            verb: if key.name.is_empty() { Verb::List } else { Verb::Get },
            kind,
            namespace: Some(key.namespace.clone()),
            name: Some(key.name.clone()).filter(|n| !n.is_empty()),
            subresource: "",
            options: Options::default(),
            body: Body::None,
        };
        cx.shared.post.send(now, Purpose::Source(key.clone()), errand, cx.fx);
    }

    /// An errand came back.
    pub(super) fn answered(cx: &mut Cx<'_>, key: &Key, answer: Answered) {
        let Some(entry) = cx.shared.sources.entries.get_mut(key) else { return };
        let Some(asked) = entry.asked.take() else { return };
        let got = match answer {
            Ok(tree) => match &entry.got {
                // The same object keeps its place, so that who compares need not look inside.
                Some((_, Got::Have(had))) if **had == tree => Got::Have(had.clone()),
                _ => Got::Have(Arc::new(tree)),
            },
            Err(status) if status.code == 404 => Got::Missing,
            Err(status) => match entry.got.take() {
                Some((_, Got::Have(had))) => Got::Have(had),
                _ => Got::Refused(status.message),
            },
        };
        entry.got = Some((asked, got));
        let waiting = std::mem::take(&mut entry.waiting);
        let again = entry.wanted.is_some_and(|w| w > asked);
        if again {
            entry.waiting = waiting.clone();
        }
        cx.shared.dirty.extend(waiting);
        if again {
            Sources::ask(cx, key);
        }
    }

    /// Forgets what nobody uses any more.
    pub(super) fn tidy(&mut self, now: Time) {
        self.entries.retain(|_, e| e.asked.is_some() || now.since(e.used) < KEPT);
    }
}

/// The bytes of base64 text; none if it is none.
pub(super) fn decode(text: &str) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default()
}

/// Whether an object says that it never changes.
pub(super) fn is_immutable(object: &Tree) -> bool {
    object.flag("immutable")
}

/// The answer to an errand that nobody answered.
pub(super) fn overdue() -> Box<Status> {
    Box::new(Status::timeout("the cell has not answered within a minute; it is asked again", 0))
}
