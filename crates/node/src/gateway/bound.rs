//! What a ServiceAccount token is bound to: whether it is still there, under the same uid.
//!
//! The cells know. What one said is remembered for [`MEMORY`] (architecture, 9), counted from before it was
//! asked: a token ends that long after its ServiceAccount, pod, Secret or node at the latest. Only a yes is
//! remembered, so that what has just been made is there at once.

use crate::errand::{Answered, Errand};
use base::{Now, Time, Wall};
use core::time::Duration;
use objects::kinds;
use objects::request::{Body, Options, User, Verb};
use objects::status::{Details, Status};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// How long a yes holds.
pub const MEMORY: Duration = Duration::from_secs(10);
/// How many are remembered at most.
pub const MOST: usize = 4096;
/// As in Kubernetes, a token outlives the deletion of what it is bound to by this: what shuts down may still
/// say so.
pub const AFTER_DELETION: Duration = Duration::from_secs(60);

/// One thing a token is bound to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Bound {
    /// `ServiceAccount`, `Pod`, `Secret` or `Node`.
    pub kind: &'static str,
    /// Its namespace, unless it is a node.
    pub namespace: Option<Arc<str>>,
    /// Its name.
    pub name: Arc<str>,
    /// Its uid as the token has it.
    pub uid: Arc<str>,
}

impl Bound {
    /// The question whether it is there.
    pub fn errand(&self, user: Arc<User>) -> Option<Errand> {
        Some(Errand {
            user,
            verb: Verb::Get,
            kind: kinds::by_kind("", "v1", self.kind)?,
            namespace: self.namespace.clone(),
            name: Some(self.name.clone()),
            subresource: "",
            options: Options::default(),
            body: Body::None,
        })
    }
}

/// What is remembered of one.
#[derive(Clone, Copy, Debug)]
struct Known {
    asked: Time,
    /// When it is over, if it is being deleted.
    over: Option<Wall>,
}

/// What was found to be there lately.
#[derive(Clone, Default, Debug)]
pub struct Standing {
    known: BTreeMap<Bound, Known>,
    /// In the order asked; one that was asked again is here twice.
    order: VecDeque<(Time, Bound)>,
}

impl Standing {
    /// Whether it is still there, as far as that is remembered.
    pub fn look(&self, now: Now, bound: &Bound) -> Option<bool> {
        let known = self.known.get(bound).filter(|k| now.mono < k.asked + MEMORY)?;
        Some(known.over.is_none_or(|over| now.wall <= over))
    }

    /// Takes what its cell answered to a question of the moment `asked`. Says whether it is still there.
    ///
    /// # Errors
    /// The cell could not tell. That is no reason to refuse a token for good: clients drop a credential that
    /// is answered with 401. The refusal is certain and may be repeated.
    pub fn take(&mut self, asked: Now, bound: Bound, answered: Answered) -> Result<bool, Box<Status>> {
        let tree = match answered {
            Ok(tree) => tree,
            Err(why) if why.code == 404 => return Ok(false),
            Err(why) => {
                let what = format!("whether the token is still good could not be told: {}", why.message);
                let mut status =
                    if why.code == 429 { Status::too_many_requests(what, 1) } else { Status::unavailable(&what) };
                status.details = Some(Box::new(Details { retry_after_seconds: 1, ..Details::default() }));
                return Err(Box::new(status));
            }
        };
        if tree["metadata"]["uid"] != *bound.uid {
            return Ok(false);
        }
        let deleted = tree["metadata"]["deletionTimestamp"].as_str().and_then(Wall::parse_rfc3339);
        let over = deleted.map(|at| at + AFTER_DELETION);
        if over.is_some_and(|over| over < asked.wall) {
            return Ok(false);
        }
        self.forget(asked.mono);
        self.order.push_back((asked.mono, bound.clone()));
        self.known.insert(bound, Known { asked: asked.mono, over });
        Ok(true)
    }

    fn forget(&mut self, now: Time) {
        while let Some((asked, bound)) = self.order.front() {
            if self.order.len() < MOST && now < *asked + MEMORY {
                break;
            }
            // One that was asked again since stands further back.
            if self.known.get(bound).is_some_and(|k| k.asked <= *asked) {
                self.known.remove(bound);
            }
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn at(seconds: u64) -> Now {
        Now { mono: Time::from_ms(seconds * 1000), wall: Wall((1_000_000 + seconds) * 1000) }
    }

    fn bound(name: &str) -> Bound {
        Bound { kind: "ServiceAccount", namespace: Some("shop".into()), name: name.into(), uid: "u1".into() }
    }

    fn there(uid: &str, deleted: Option<Now>) -> Answered {
        let mut tree = json!({"metadata": {"uid": uid}});
        if let Some(at) = deleted {
            tree["metadata"]["deletionTimestamp"] = at.wall.rfc3339().into();
        }
        Ok(tree)
    }

    #[test]
    fn a_yes_holds_for_ten_seconds_from_before_it_was_asked_and_a_no_is_asked_again() {
        let mut s = Standing::default();
        assert_eq!(s.look(at(0), &bound("web")), None);
        assert!(s.take(at(0), bound("web"), there("u1", None)).unwrap());
        assert_eq!(s.look(at(9), &bound("web")), Some(true));
        assert_eq!(s.look(at(10), &bound("web")), None);
        assert!(!s.take(at(10), bound("web"), there("u2", None)).unwrap(), "another of the same name");
        assert!(
            !s.take(
                at(10),
                bound("web"),
                Err(Box::new(Status::not_found(kinds::by_kind("", "v1", "ServiceAccount").unwrap(), "web")))
            )
            .unwrap()
        );
        assert_eq!(s.look(at(10), &bound("web")), None);
    }

    #[test]
    fn a_token_outlives_a_deletion_by_a_minute_even_where_it_is_remembered() {
        let mut s = Standing::default();
        assert!(s.take(at(55), bound("web"), there("u1", Some(at(0)))).unwrap());
        assert_eq!((s.look(at(60), &bound("web")), s.look(at(61), &bound("web"))), (Some(true), Some(false)));
        assert!(!s.take(at(61), bound("web"), there("u1", Some(at(0)))).unwrap());
    }

    #[test]
    fn a_cell_that_cannot_tell_is_to_be_asked_again_whatever_kept_it() {
        let mut s = Standing::default();
        for (why, code) in [
            (Status::too_many_requests("busy", 1), 429),
            (Status::unavailable("no leader"), 503),
            (Status::timeout("lost", 0), 503),
            (Status::internal("odd"), 503),
        ] {
            let refusal = s.take(at(0), bound("web"), Err(Box::new(why))).unwrap_err();
            assert_eq!((refusal.code, refusal.details.unwrap().retry_after_seconds), (code, 1));
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_newest_of_it_stays() {
        let mut s = Standing::default();
        for n in 0..2 * MOST {
            s.take(at(1), bound(&format!("sa-{n}")), there("u1", None)).unwrap();
            // One that is asked for all the time does not fill the order either.
            s.take(at(1), bound("web"), there("u1", None)).unwrap();
        }
        assert!(s.known.len() <= MOST && s.order.len() <= MOST);
        assert_eq!(s.look(at(2), &bound(&format!("sa-{}", 2 * MOST - 1))), Some(true));
        assert_eq!(s.look(at(2), &bound("web")), Some(true));
        s.take(at(30), bound("late"), there("u1", None)).unwrap();
        assert_eq!((s.known.len(), s.order.len()), (1, 1));
    }
}
