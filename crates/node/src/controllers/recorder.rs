//! Events that controllers tell: the same thing said again counts up, many alike are told as one, and who
//! says too much is not heard (client-go's event correlator).

use super::Asked;
use crate::correlator::{About, Correlator, Heard};
use crate::errand::{Errand, ErrandId};
use base::{Time, Wall};
use objects::Tree;
use objects::kinds::{self, Kind};
use objects::request::{Body, Options, PatchType, User, Verb};
use objects::status::Status;
use serde_json::json;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// How long two events of one wording are one.
const TOGETHER: Duration = Duration::from_secs(600);
/// How many are remembered of each kind of memory.
const KNOWN_MAX: usize = 512;
/// How many are on their way.
const FLYING_MAX: usize = 16;

/// What makes two events of one component one reason.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Reason {
    component: &'static str,
    uid: String,
    event_type: &'static str,
    reason: &'static str,
}

/// What makes two events one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Wording {
    reason: Reason,
    /// `None`: many of that reason.
    message: Option<String>,
}

struct Told {
    /// The object it is about, as an ObjectReference.
    about: Tree,
    message: String,
    name: Arc<str>,
    count: u64,
    first: Wall,
    last: Wall,
    seen: Time,
    /// It was created, as far as is known.
    exists: bool,
    /// A request about it is under way.
    flying: bool,
    /// There is more to say than was sent.
    waits: bool,
}

/// What there is to tell.
pub(super) struct Said {
    /// Who says it: a controller's name.
    pub component: &'static str,
    /// In whose name it is written.
    pub user: Arc<User>,
    /// The object it is about.
    pub about: Tree,
    pub event_type: &'static str,
    pub reason: &'static str,
    pub message: String,
}

/// The recorder of a cell's controllers.
pub(super) struct Recorder {
    told: BTreeMap<Wording, Told>,
    heard: Correlator,
    users: BTreeMap<&'static str, Arc<User>>,
    flying: BTreeMap<ErrandId, Wording>,
    waiting: VecDeque<Wording>,
    serial: u64,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder {
            told: BTreeMap::new(),
            heard: Correlator::new(KNOWN_MAX),
            users: BTreeMap::new(),
            flying: BTreeMap::new(),
            waiting: VecDeque::new(),
            serial: 0,
        }
    }
}

impl Recorder {
    /// Takes up an event; what goes out comes from [`Recorder::next`].
    pub(super) fn say(&mut self, said: Said, now: Time, wall: Wall) {
        let uid = said.about["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let about = About { component: said.component, uid };
        let heard = self.heard.hear(&about, said.event_type, said.reason, &said.message, now);
        let About { component, uid } = about;
        let reason = Reason { component, uid, event_type: said.event_type, reason: said.reason };
        let (message, wording) = match heard {
            Heard::Not => return,
            Heard::Alone => (said.message.clone(), Wording { reason, message: Some(said.message) }),
            Heard::OneOfMany => {
                (format!("(combined from similar events): {}", said.message), Wording { reason, message: None })
            }
        };
        self.users.insert(said.component, said.user);
        self.serial += 1;
        let name = || -> Arc<str> {
            let name = said.about["metadata"]["name"].as_str().unwrap_or_default();
            // Unique in this process's life and, by the calendar, over all of them.
            format!("{name}.{:x}", wall.0.wrapping_mul(1_000_000).wrapping_add(self.serial % 1_000_000)).into()
        };
        match self.told.get_mut(&wording).filter(|t| now.since(t.seen) <= TOGETHER) {
            Some(told) => {
                told.count += 1;
                (told.last, told.seen, told.message) = (wall, now, message);
            }
            None => {
                let told = Told {
                    about: reference(&said.about),
                    message,
                    name: name(),
                    count: 1,
                    first: wall,
                    last: wall,
                    seen: now,
                    exists: false,
                    flying: false,
                    waits: false,
                };
                self.told.insert(wording.clone(), told);
                trim(&mut self.told, |t| t.seen);
            }
        }
        self.want(wording);
    }

    fn want(&mut self, wording: Wording) {
        let Some(told) = self.told.get_mut(&wording) else { return };
        if std::mem::replace(&mut told.waits, true) || told.flying {
            return;
        }
        self.waiting.push_back(wording);
    }

    /// The next event to send, if one may be sent.
    pub(super) fn next(&mut self, id: ErrandId, own: &str) -> Option<Asked> {
        if self.flying.len() >= FLYING_MAX {
            return None;
        }
        loop {
            let wording = self.waiting.pop_front()?;
            // What was forgotten meanwhile is not told.
            let Some(told) = self.told.get_mut(&wording).filter(|t| t.waits && !t.flying) else { continue };
            let (Some(kind), Some(user)) =
                (kinds::by_kind("", "v1", "Event"), self.users.get(wording.reason.component).cloned())
            else {
                continue;
            };
            (told.waits, told.flying) = (false, true);
            let errand = told.errand(&wording.reason, kind, user, own);
            self.flying.insert(id, wording);
            return Some(Asked { id, errand });
        }
    }

    /// Whether this was an event's; then it is dealt with.
    pub(super) fn answered(&mut self, id: ErrandId, refusal: Option<&Status>) -> bool {
        let Some(wording) = self.flying.remove(&id) else { return false };
        let Some(told) = self.told.get_mut(&wording) else { return true };
        told.flying = false;
        match refusal {
            None => told.exists = true,
            // It has expired: it is told anew, with its count.
            Some(s) if s.code == 404 && told.exists => {
                told.exists = false;
                told.waits = true;
            }
            // Nobody can be told; the next of its kind tries again.
            Some(_) => told.waits = false,
        }
        if std::mem::take(&mut told.waits) {
            self.want(wording);
        }
        true
    }

    /// What is on its way stays known, so that its answer is.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.told.clear();
    }
}

impl Told {
    fn errand(&self, reason: &Reason, kind: &'static Kind, user: Arc<User>, own: &str) -> Errand {
        let namespace: Arc<str> = match self.about["namespace"].as_str() {
            Some(n) if !n.is_empty() => n.into(),
            _ if own.is_empty() => "default".into(),
            _ => own.into(),
        };
        let times = |w: Wall| w.rfc3339();
        let (verb, name, body) = if self.exists {
            let patch = json!({"count": self.count, "lastTimestamp": times(self.last), "message": self.message});
            let bytes = patch.to_string().into_bytes().into();
            (Verb::Patch, Some(self.name.clone()), Body::Patch { kind: PatchType::Merge, bytes })
        } else {
            let tree = json!({"apiVersion": "v1", "kind": "Event",
                "metadata": {"name": *self.name, "namespace": *namespace},
                "involvedObject": self.about, "type": reason.event_type, "reason": reason.reason,
                "message": self.message, "count": self.count,
                "firstTimestamp": times(self.first), "lastTimestamp": times(self.last),
                "source": {"component": reason.component}, "reportingComponent": reason.component,
                "reportingInstance": ""});
            (Verb::Create, None, Body::Object { tree, strict: Vec::new() })
        };
        Errand {
            user,
            verb,
            kind,
            namespace: Some(namespace),
            name,
            subresource: "",
            options: Options { field_manager: super::MANAGER.into(), ..Options::default() },
            body,
        }
    }
}

/// An ObjectReference of an object.
fn reference(object: &Tree) -> Tree {
    let meta = &object["metadata"];
    let mut r = json!({"apiVersion": object["apiVersion"], "kind": object["kind"]});
    for field in ["namespace", "name", "uid", "resourceVersion"] {
        if meta[field].is_string() {
            r[field] = meta[field].clone();
        }
    }
    r
}

/// Forgets what was used longest ago, past the bound.
fn trim<K: Ord + Clone, V>(of: &mut BTreeMap<K, V>, used: impl Fn(&V) -> Time) {
    if of.len() <= KNOWN_MAX {
        return;
    }
    if let Some(oldest) = of.iter().min_by_key(|(_, v)| used(v)).map(|(k, _)| k.clone()) {
        of.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::correlator::{ALIKE_MAX, BURST, REFILL};

    const WALL: Wall = Wall(1_769_846_400_000);

    fn say(r: &mut Recorder, message: &str, now: Time) {
        let about = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web", "namespace": "d", "uid": "u"}});
        let user = crate::errand::controller("replicaset-controller");
        let said = Said {
            component: "replicaset-controller",
            user,
            about,
            event_type: "Normal",
            reason: "SuccessfulCreate",
            message: message.into(),
        };
        r.say(said, now, WALL);
    }

    fn sent(r: &mut Recorder, id: u64) -> Option<(Verb, u64)> {
        let asked = r.next(ErrandId(id), "d")?;
        let count = match &asked.errand.body {
            Body::Object { tree, .. } => tree["count"].as_u64(),
            Body::Patch { bytes, .. } => serde_json::from_slice::<Tree>(bytes).unwrap()["count"].as_u64(),
            Body::None => None,
        };
        Some((asked.errand.verb, count.unwrap()))
    }

    #[test]
    fn the_same_event_counts_up_for_ten_minutes_and_is_told_anew_when_it_has_expired() {
        let mut r = Recorder::default();
        say(&mut r, "a", Time::ZERO);
        assert_eq!(sent(&mut r, 1), Some((Verb::Create, 1)));
        say(&mut r, "a", Time::from_ms(1));
        say(&mut r, "a", Time::from_ms(2));
        assert_eq!(sent(&mut r, 2), None, "its creation is under way");
        assert!(r.answered(ErrandId(1), None));
        assert_eq!(sent(&mut r, 2), Some((Verb::Patch, 3)));
        let gone = Status::not_found(kinds::by_kind("", "v1", "Event").unwrap(), "x");
        r.answered(ErrandId(2), Some(&gone));
        assert_eq!(sent(&mut r, 3), Some((Verb::Create, 3)));
        r.answered(ErrandId(3), None);
        say(&mut r, "a", Time::ZERO + TOGETHER * 2);
        assert_eq!(sent(&mut r, 4), Some((Verb::Create, 1)));
    }

    #[test]
    fn many_alike_are_one_and_too_many_are_none() {
        let mut r = Recorder::default();
        let mut sends = Vec::new();
        for n in 0..100 {
            say(&mut r, &format!("Created pod: {n}"), Time::from_ms(n));
            if let Some(s) = sent(&mut r, n) {
                sends.push(s);
                r.answered(ErrandId(n), None);
            }
        }
        assert_eq!(sends.iter().filter(|(v, _)| *v == Verb::Create).count(), ALIKE_MAX);
        assert_eq!(sends.len(), BURST as usize);
        assert_eq!(sends.last(), Some(&(Verb::Patch, 16)));
        say(&mut r, "later", Time::from_ms(100) + REFILL);
        assert!(sent(&mut r, 200).is_some(), "after a while one more is heard");
    }
}
