//! Events are forgotten an hour after their last change.

use super::{Action, Plan, Target};
use base::{Revision, Wall};
use std::time::Duration;

/// How long an event is kept after its last change, as kube-apiserver's `--event-ttl`.
pub const KEPT: Duration = Duration::from_secs(3600);
/// At most this many are removed by one plan.
pub const BATCH: usize = 64;
/// How late they may go: so seldom is it looked.
const COARSE: Duration = Duration::from_secs(60);

/// What is to be forgotten of these events, the longest unchanged first.
pub fn plan(events: impl IntoIterator<Item = (Revision, Target)>, now: Wall) -> Plan {
    let mut plan = Plan::default();
    for (revision, target) in events {
        let until = revision.wall() + KEPT;
        if until > now {
            plan.look_again(until + COARSE);
            break;
        }
        if plan.actions.len() == BATCH {
            plan.look_again(now);
            break;
        }
        let revision = Some(revision.to_string());
        plan.actions.push(Action::Delete { target, revision, propagation: "Background", grace: None });
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(count: u64, now: Wall) -> (usize, Option<Wall>) {
        let target =
            |n: u64| Target { api_version: "v1".into(), kind: "Event".into(), name: n.to_string(), uid: n.to_string() };
        // One a second, the first at second 1000.
        let events = (0..count).map(|n| (Revision::end_of(Wall((1000 + n) * 1000)), target(n)));
        let p = plan(events, now);
        (p.actions.len(), p.again)
    }

    #[test]
    fn events_go_an_hour_after_their_last_change_in_batches() {
        let hour = |s: u64| Wall((s + 3600) * 1000);
        assert_eq!(plan_of(10, hour(999)), (0, Some(Wall((1000 + 3660) * 1000))));
        assert_eq!(plan_of(10, hour(1004)), (5, Some(Wall((1005 + 3660) * 1000))));
        assert_eq!(plan_of(200, hour(2000)), (BATCH, Some(hour(2000))));
        assert_eq!(plan_of(0, hour(0)), (0, None));
    }
}
