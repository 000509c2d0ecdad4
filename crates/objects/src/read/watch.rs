//! Watches.

use super::list::selection;
use super::{check_options, parse_revision};
use crate::Tree;
use crate::kinds::Kind;
use crate::record::{Stored, encode, set_revision};
use crate::request::Options;
use crate::select::Selection;
use crate::status::Status;
use crate::views;
use base::Revision;
use bytes::Bytes;
use serde_json::json;
use std::sync::Arc;

/// Where a watch starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WatchStart {
    /// With all objects of a state at this revision or above ([`Revision::ZERO`]: any; `None`: the newest
    /// committed) as ADDED events, then what follows it.
    State {
        /// How new the state must be.
        not_older_than: Option<Revision>,
        /// Whether a bookmark marks the end of the state (`sendInitialEvents=true`).
        mark: bool,
    },
    /// With what follows a state at this revision or above, whichever is newest.
    Newest(Option<Revision>),
    /// With what follows this revision; 410 if the history no longer reaches back to it.
    After(Revision),
}

/// A watch, authorised and checked.
#[derive(Clone, PartialEq, Debug)]
pub struct WatchPlan {
    /// Where it starts.
    pub start: WatchStart,
    /// Which objects.
    pub selection: Selection,
    /// Whether bookmarks are wanted.
    pub bookmarks: bool,
    /// How long it lasts, in seconds; 0 leaves it to the server.
    pub timeout_seconds: u64,
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: Arc<str>,
}

/// What an event reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // they are Kubernetes' words
pub enum EventType {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

impl EventType {
    /// As written in an event.
    pub const fn as_str(self) -> &'static str {
        match self {
            EventType::Added => "ADDED",
            EventType::Modified => "MODIFIED",
            EventType::Deleted => "DELETED",
            EventType::Bookmark => "BOOKMARK",
            EventType::Error => "ERROR",
        }
    }
}

impl WatchPlan {
    /// Checks a watch's parameters.
    ///
    /// # Errors
    /// 400, 422, and 500 for a revision that is none, in the API server's words.
    pub fn new(kind: &Kind, namespace: Option<&str>, o: &Options) -> Result<WatchPlan, Box<Status>> {
        check_options(o, true)?;
        let selection = selection(kind, o)?;
        let asked = parse_revision(&o.resource_version).map_err(|m| Box::new(Status::bare(m)))?;
        let demand = if o.resource_version.is_empty() { None } else { Some(asked) };
        let start = match o.send_initial_events {
            Some(true) => WatchStart::State { not_older_than: demand, mark: o.bookmarks },
            Some(false) if asked == Revision::ZERO => WatchStart::Newest(demand),
            None if asked == Revision::ZERO => WatchStart::State { not_older_than: demand, mark: false },
            _ => WatchStart::After(asked),
        };
        Ok(WatchPlan {
            start,
            selection,
            bookmarks: o.bookmarks,
            timeout_seconds: o.timeout_seconds,
            namespace: namespace.unwrap_or_default().into(),
        })
    }

    /// What a change means to this watch: an object that comes into the selection is added, one that
    /// leaves it deleted. `None` is nothing.
    pub fn event(&self, name: &str, before: Option<&Stored>, after: Option<&Stored>) -> Option<EventType> {
        self.event_in(&self.namespace, name, before, after)
    }

    /// The same for an object of this namespace, to a watch over all of them.
    pub fn event_in(
        &self,
        namespace: &str,
        name: &str,
        before: Option<&Stored>,
        after: Option<&Stored>,
    ) -> Option<EventType> {
        let meant = |s: Option<&Stored>| s.is_some_and(|s| self.selection.matches(&s.meta, name, namespace));
        match (meant(before), meant(after)) {
            (false, false) => None,
            (false, true) => Some(EventType::Added),
            (true, true) => Some(EventType::Modified),
            (true, false) => Some(EventType::Deleted),
        }
    }

    /// The JSON object of an event, in the version asked for. A DELETED event shows the object as it last
    /// was (in the selection), at the revision of the change.
    pub fn object(
        &self,
        kind: &Kind,
        event: EventType,
        revision: Revision,
        before: Option<&Stored>,
        after: Option<&Stored>,
    ) -> Bytes {
        match (event, before, after) {
            (EventType::Deleted, Some(b), _) => at_revision(kind, b, revision),
            (_, _, Some(a)) => views::bytes_from_storage(kind, &a.json),
            _ => Bytes::from_static(b"null"),
        }
    }

    /// The 410 that ends a watch whose start is no longer in the history.
    pub fn expired(asked: Revision, oldest: Revision) -> Status {
        Status::expired(&format!("too old resource version: {asked} ({oldest})"))
    }
}

/// A removed object as it last was, with the revision of its removal.
fn at_revision(kind: &Kind, stored: &Stored, revision: Revision) -> Bytes {
    let mut tree = views::from_storage(kind, stored.tree());
    set_revision(&mut tree, Some(revision));
    encode(&tree)
}

/// The object of a bookmark: nothing but a revision, and at the end of the initial state its mark.
pub fn bookmark(kind: &Kind, revision: Revision, end_of_state: bool) -> Tree {
    let mut meta = json!({"resourceVersion": revision.to_string()});
    if end_of_state {
        meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    json!({"kind": kind.kind, "apiVersion": views::api_version(kind), "metadata": meta})
}

/// The object of an ERROR event.
pub fn error_event(status: &Status) -> Tree {
    status.to_tree()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::kinds::by_resource;

    fn kind() -> &'static Kind {
        by_resource("", "v1", "configmaps").unwrap()
    }

    fn stored(labels: Tree, revision: u64) -> Stored {
        let tree = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "x", "labels": labels}});
        Stored::from_tree(kind(), tree, Revision::from_u64(revision).unwrap())
    }

    #[test]
    fn an_object_enters_and_leaves_a_selection_as_added_and_deleted() {
        let options = Options { label_selector: "a=b".into(), ..Options::default() };
        let plan = WatchPlan::new(kind(), Some("ns"), &options).unwrap();
        let (inside, outside) = (stored(json!({"a": "b"}), 5), stored(json!({}), 6));
        for (before, after, want) in [
            (None, Some(&inside), Some(EventType::Added)),
            (None, Some(&outside), None),
            (Some(&inside), Some(&inside), Some(EventType::Modified)),
            (Some(&inside), Some(&outside), Some(EventType::Deleted)),
            (Some(&outside), Some(&inside), Some(EventType::Added)),
            (Some(&inside), None, Some(EventType::Deleted)),
            (Some(&outside), None, None),
        ] {
            assert_eq!(plan.event("x", before, after), want);
        }
        let gone =
            plan.object(kind(), EventType::Deleted, Revision::from_u64(9).unwrap(), Some(&inside), Some(&outside));
        let gone: Tree = serde_json::from_slice(&gone).unwrap();
        assert_eq!(gone["metadata"], json!({"name": "x", "labels": {"a": "b"}, "resourceVersion": "9"}));
    }

    #[test]
    fn a_watch_starts_where_its_parameters_say() {
        let five = Revision::from_u64(5).unwrap();
        let start = |rv: &str, initial: Option<bool>, bookmarks: bool| {
            let match_ = if initial.is_some() { "NotOlderThan" } else { "" };
            let options = Options {
                resource_version: rv.into(),
                resource_version_match: match_.into(),
                send_initial_events: initial,
                bookmarks,
                ..Options::default()
            };
            WatchPlan::new(kind(), Some("ns"), &options).map(|p| p.start)
        };
        let state = |not_older_than, mark| Ok(WatchStart::State { not_older_than, mark });
        assert_eq!(start("", None, false), state(None, false));
        assert_eq!(start("0", None, false), state(Some(Revision::ZERO), false));
        assert_eq!(start("5", None, true), Ok(WatchStart::After(five)));
        assert_eq!(start("", Some(true), true), state(None, true));
        assert_eq!(start("5", Some(true), true), state(Some(five), true));
        assert_eq!(start("", Some(false), true), Ok(WatchStart::Newest(None)));
        assert_eq!(start("5", Some(false), true), Ok(WatchStart::After(five)));
        assert_eq!(start("x", None, false).unwrap_err().code, 500);
    }
}
