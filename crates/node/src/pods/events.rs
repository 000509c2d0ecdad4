//! Events about pods, as the kubelet writes them: the same one again is counted, many alike are told as
//! one, and one pod cannot flood its cell.
//!
//! What is alike and what is too much is for [`crate::correlator`] to say. What waits is bounded, and what is
//! dropped is counted.

use super::Cx;
use super::post::Purpose;
use crate::correlator::{About, Correlator, Heard};
use crate::errand::{Answered, Errand};
use base::{Bounded, Time, Wall};
use bytes::Bytes;
use objects::Tree;
use objects::kinds::by_resource;
use objects::kinds::tree::Fields;
use objects::request::{Body, Options, PatchType, Verb};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// At most this many are remembered.
const REMEMBERED: usize = 4096;
/// At most this many are under way.
const UNDER_WAY: usize = 8;
/// What happens to a pod happens in bursts. The first event waits so long for company, so that they are written
/// together, and not each in the way of the next step of the start that it tells of.
const COMPANY: Duration = Duration::from_millis(200);
/// After a refusal that may pass, all wait this long.
const PAUSE: Duration = Duration::from_secs(10);
/// So often one is tried.
const TRIES: u32 = 12;

/// `Normal` or `Warning`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Type {
    Normal,
    Warning,
}

impl Type {
    const fn as_str(self) -> &'static str {
        match self {
            Type::Normal => "Normal",
            Type::Warning => "Warning",
        }
    }
}

/// What makes two events the same.
type Same = (String, String, Type, String, String);

#[derive(Debug)]
struct Event {
    same: Same,
    name: String,
    namespace: Arc<str>,
    about: Tree,
    count: u64,
    first: Wall,
    last: Wall,
    used: Time,
    /// It stands in its cell.
    posted: bool,
    /// It waits or is under way.
    queued: bool,
    /// It has happened again since it was sent.
    again: bool,
    tries: u32,
}

/// The recorder.
#[derive(Debug)]
pub(super) struct Events {
    next: u64,
    events: BTreeMap<u64, Event>,
    numbers: BTreeMap<Same, u64>,
    heard: Correlator,
    turn: Bounded<u64>,
    under_way: usize,
    paused: Time,
    /// Events that nobody will see: the queue was full, or one pod had too many.
    pub(super) dropped: u64,
}

impl Events {
    pub(super) fn new(waiting_max: usize) -> Events {
        Events {
            next: 1,
            events: BTreeMap::new(),
            numbers: BTreeMap::new(),
            heard: Correlator::new(REMEMBERED),
            turn: Bounded::new(waiting_max),
            under_way: 0,
            paused: Time::ZERO,
            dropped: 0,
        }
    }

    /// Something happened to a pod, or to its part at `path`.
    pub(super) fn record(cx: &mut Cx<'_>, pod: &Tree, path: &str, ty: Type, reason: &str, message: &str) {
        let now = cx.now;
        let events = &mut cx.shared.events;
        let uid = pod.at("metadata").text("uid").to_owned();
        // Kubernetes takes 1,024 characters.
        let message: String = message.chars().take(1000).collect();
        let about = About { component: "kubelet", uid };
        let heard = events.heard.hear(&about, ty.as_str(), reason, &message, now.mono);
        let uid = about.uid;
        // The message by which it is told from others alike, and the message shown.
        let (key, message) = match heard {
            Heard::Not => {
                events.dropped += 1;
                return;
            }
            Heard::Alone => (message.clone(), message),
            Heard::OneOfMany => (String::new(), format!("(combined from similar events): {message}")),
        };
        let same = (uid, path.to_owned(), ty, reason.to_owned(), key);
        let number = match events.numbers.get(&same) {
            Some(number) => *number,
            None => events.make(pod, path, same, message.clone(), now.mono, now.wall),
        };
        let Some(event) = events.events.get_mut(&number) else { return };
        event.about["message"] = message.into();
        event.count += 1;
        event.last = now.wall;
        event.used = now.mono;
        event.again = true;
        if !event.queued {
            if events.turn.is_empty() {
                events.paused = events.paused.max(now.mono + COMPANY);
            }
            match events.turn.push(number) {
                Ok(()) => event.queued = true,
                Err(_) => events.dropped += 1,
            }
        }
    }

    fn make(&mut self, pod: &Tree, path: &str, same: Same, message: String, now: Time, wall: Wall) -> u64 {
        if self.events.len() >= REMEMBERED {
            self.forget_oldest();
        }
        let number = self.next;
        self.next += 1;
        let meta = pod.at("metadata");
        let mut involved = json!({
            "kind": "Pod", "namespace": meta.text("namespace"), "name": meta.text("name"), "uid": meta.text("uid"),
            "apiVersion": "v1",
        });
        if !meta.text("resourceVersion").is_empty() {
            involved["resourceVersion"] = meta.at("resourceVersion").clone();
        }
        if !path.is_empty() {
            involved["fieldPath"] = path.into();
        }
        let event = Event {
            // Nanoseconds in Kubernetes; the number keeps apart what happens within one millisecond.
            name: format!("{}.{:x}", meta.text("name"), wall.0 * 1_000_000 + number % 1_000_000),
            namespace: meta.text("namespace").into(),
            about: json!({"involvedObject": involved, "type": same.2.as_str(), "reason": same.3, "message": message}),
            same: same.clone(),
            count: 0,
            first: wall,
            last: wall,
            used: now,
            posted: false,
            queued: false,
            again: false,
            tries: 0,
        };
        self.numbers.insert(same, number);
        self.events.insert(number, event);
        number
    }

    fn forget_oldest(&mut self) {
        let idle = self.events.iter().filter(|(_, e)| !e.queued).min_by_key(|(_, e)| e.used);
        if let Some(number) = idle.map(|(n, _)| *n)
            && let Some(event) = self.events.remove(&number)
        {
            self.numbers.remove(&event.same);
        }
    }

    fn pump(cx: &mut Cx<'_>) {
        let Some(kind) = by_resource("", "v1", "events") else { return };
        while cx.shared.events.under_way < UNDER_WAY && cx.shared.events.paused <= cx.now.mono {
            let node = cx.shared.facts.name.clone();
            let events = &mut cx.shared.events;
            let Some(number) = events.turn.pop() else { break };
            let Some(event) = events.events.get_mut(&number) else { continue };
            events.under_way += 1;
            event.again = false;
            let errand = Errand {
                user: cx.shared.user.clone(),
                verb: if event.posted { Verb::Patch } else { Verb::Create },
                kind,
                namespace: Some(event.namespace.clone()),
                name: event.posted.then(|| event.name.as_str().into()),
                subresource: "",
                options: Options { field_manager: "kubelet".to_owned(), ..Options::default() },
                body: event.body(&node),
            };
            cx.shared.post.send(cx.now.mono, Purpose::Event(number), errand, cx.fx);
        }
    }

    /// An errand came back.
    pub(super) fn answered(cx: &mut Cx<'_>, number: u64, answer: &Answered) {
        let now = cx.now.mono;
        let events = &mut cx.shared.events;
        events.under_way -= 1;
        if let Some(event) = events.events.get_mut(&number) {
            event.queued = false;
            let mut send_again = event.again;
            match answer {
                Ok(_) => {
                    event.posted = true;
                    event.tries = 0;
                }
                Err(status) => {
                    event.tries += 1;
                    match status.code {
                        // Its time has passed, or somebody removed it: it is told anew.
                        404 if event.posted => {
                            event.posted = false;
                            send_again = event.tries < TRIES;
                        }
                        409 if !event.posted => event.posted = true,
                        429 | 500.. if event.tries < TRIES => {
                            events.paused = now + PAUSE;
                            send_again = true;
                        }
                        _ => events.dropped += 1,
                    }
                }
            }
            if send_again {
                match events.turn.push(number) {
                    Ok(()) => event.queued = true,
                    Err(_) => events.dropped += 1,
                }
            }
        }
        Events::pump(cx);
    }

    /// Goes on after a pause.
    pub(super) fn tick(cx: &mut Cx<'_>) {
        Events::pump(cx);
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        (!self.turn.is_empty() && self.under_way < UNDER_WAY).then_some(self.paused)
    }

    pub(super) fn check(&self) {
        assert!(self.under_way <= UNDER_WAY, "{} events are under way", self.under_way);
        assert!(self.events.len() <= REMEMBERED + self.turn.bound(), "{} events are remembered", self.events.len());
    }
}

impl Event {
    fn body(&self, node: &str) -> Body {
        if self.posted {
            let patch =
                json!({"count": self.count, "lastTimestamp": self.last.rfc3339(), "message": self.about["message"]});
            return Body::Patch { kind: PatchType::Strategic, bytes: Bytes::from(patch.to_string()) };
        }
        let mut tree = self.about.clone();
        for (field, value) in [
            ("apiVersion", json!("v1")),
            ("kind", json!("Event")),
            ("metadata", json!({"name": self.name, "namespace": &*self.namespace})),
            ("source", json!({"component": "kubelet", "host": node})),
            ("firstTimestamp", json!(self.first.rfc3339())),
            ("lastTimestamp", json!(self.last.rfc3339())),
            ("count", json!(self.count)),
            ("reportingComponent", json!("kubelet")),
            ("reportingInstance", json!(node)),
        ] {
            tree[field] = value;
        }
        Body::Object { tree, strict: Vec::new() }
    }
}
