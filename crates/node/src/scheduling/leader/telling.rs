//! What people are told of scheduling: why a pod has no node, and that it has one.

use super::{Effect, Leader, Purpose, event_name};
use crate::errand::{Errand, ErrandId};
use crate::scheduling::errands::{About, Said};
use crate::scheduling::leader::waiting::Failure;
use base::{Now, Uid, Wall};
use objects::request::Stored;
use std::sync::Arc;
use std::time::Duration;

/// At most so many errands that only tell people something are under way; what does not fit is told at the
/// next attempt.
pub(super) const TELLING_MAX: usize = 256;
/// An Event that happens again is written when its count has doubled, or after this.
const EVENT_AGAIN: Duration = Duration::from_secs(300);

impl Leader {
    /// An attempt has failed: the pod's status and an Event say why, and it is tried again later.
    pub(super) fn failed(&mut self, now: Now, pod: &Arc<str>, reason: &str, message: &str, fx: &mut Vec<Effect>) {
        self.pods.back_off(now.mono, pod);
        let Some(waiting) = self.pods.get(pod) else { return };
        let nominated = waiting.nominated.and_then(|n| self.name_of(n.0)).unwrap_or_default();
        if let Some(errand) = self.errands.unscheduled(&waiting.tree, (reason, message), nominated, now.wall) {
            self.tell(Purpose::Condition, errand, fx);
        }
        let Some(waiting) = self.pods.get_mut(pod) else { return };
        if let Some(failure) = waiting.failure.as_mut().filter(|f| f.note == message) {
            failure.count += 1;
            let due = failure.count >= 2 * failure.written.0 || now.mono >= failure.written.1 + EVENT_AGAIN;
            if !due {
                return;
            }
            failure.written = (failure.count, now.mono);
            let (event, count) = (failure.event.clone(), failure.count);
            if let Some(errand) = self.errands.event_again(&event, count, now.wall) {
                self.tell(Purpose::AgainEvent { pod: pod.clone(), event }, errand, fx);
            }
            return;
        }
        let event = event_name(pod, self.chance.u64());
        waiting.failure =
            Some(Failure { event: event.clone(), note: message.to_owned(), count: 1, written: (1, now.mono) });
        let about = About { name: pod, uid: waiting.uid, revision: waiting.stored.revision.to_string() };
        let said = Said { warning: true, reason: "FailedScheduling", action: "Scheduling", note: message };
        if let Some(errand) = self.errands.event(&event, &about, &said, now.wall) {
            self.tell(Purpose::NewEvent { pod: pod.clone(), event }, errand, fx);
        }
    }

    /// An Event that happens once.
    pub(super) fn tell_event(
        &mut self,
        now: Wall,
        name: &str,
        uid: Uid,
        pod: &Stored,
        said: &Said<'_>,
        fx: &mut Vec<Effect>,
    ) {
        let event = event_name(name, self.chance.u64());
        let about = About { name, uid, revision: pod.revision.to_string() };
        if let Some(errand) = self.errands.event(&event, &about, said, now) {
            self.tell(Purpose::NewEvent { pod: name.into(), event }, errand, fx);
        }
    }

    /// Asks for something that only tells people something, if not too much of it is under way.
    pub(super) fn tell(&mut self, purpose: Purpose, errand: Errand, fx: &mut Vec<Effect>) {
        if self.telling >= TELLING_MAX {
            if let Purpose::NewEvent { pod, .. } | Purpose::AgainEvent { pod, .. } = purpose
                && let Some(waiting) = self.pods.get_mut(&pod)
            {
                waiting.failure = None;
            }
            return;
        }
        self.telling += 1;
        let id = ErrandId(self.next_errand);
        self.next_errand += 1;
        self.asked.insert(id, purpose);
        fx.push(Effect::Errand { id, errand: Box::new(errand) });
    }
}
