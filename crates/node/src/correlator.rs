//! Which events are told one by one, which as one of many alike, and which not at all, so that nobody floods a
//! cell with them. The rules, and their numbers, are client-go's (`tools/record/events_cache.go`).

use base::Time;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Events that differ in their words only are alike for this long after the last of them.
pub(crate) const ALIKE_WITHIN: Duration = Duration::from_secs(600);
/// From so many different wordings on, those that are alike are told as one.
pub(crate) const ALIKE_MAX: usize = 10;
/// So many events about one object a component may tell at once, and one more each time this has passed.
pub(crate) const BURST: u32 = 25;
/// See [`BURST`].
pub(crate) const REFILL: Duration = Duration::from_secs(300);

/// Who says something of what.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct About {
    /// The component: `kubelet`, a controller's name.
    pub(crate) component: &'static str,
    /// The uid of the object.
    pub(crate) uid: String,
}

/// How an event is to be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Heard {
    /// By itself.
    Alone,
    /// Together with all that are alike.
    OneOfMany,
    /// Not at all: its component has said too much of the object.
    Not,
}

/// What was said lately. What is remembered is bounded; what was said longest ago is forgotten first.
#[derive(Debug)]
pub(crate) struct Correlator {
    most: usize,
    alike: BTreeMap<(About, &'static str, String), (Time, BTreeSet<String>)>,
    /// Tokens spent, and when that was last brought up to date.
    spent: BTreeMap<About, (Time, u32)>,
}

impl Correlator {
    /// Remembers at most `most` objects, and as many reasons.
    pub(crate) fn new(most: usize) -> Correlator {
        Correlator { most, alike: BTreeMap::new(), spent: BTreeMap::new() }
    }

    /// An event of a type (`Normal`, `Warning`) is said, with a reason and in these words.
    pub(crate) fn hear(&mut self, about: &About, ty: &'static str, reason: &str, words: &str, now: Time) -> Heard {
        if !self.may_speak(about, now) {
            return Heard::Not;
        }
        let key = (about.clone(), ty, reason.to_owned());
        room(&mut self.alike, self.most, &key);
        let (last, said) = self.alike.entry(key).or_insert((now, BTreeSet::new()));
        if now.since(*last) > ALIKE_WITHIN {
            said.clear();
        }
        *last = now;
        if said.len() + 1 >= ALIKE_MAX && !said.contains(words) {
            return Heard::OneOfMany;
        }
        said.insert(words.to_owned());
        Heard::Alone
    }

    fn may_speak(&mut self, about: &About, now: Time) -> bool {
        room(&mut self.spent, self.most, about);
        let (since, spent) = self.spent.entry(about.clone()).or_insert((now, 0));
        let earned = now.since(*since).as_nanos() / REFILL.as_nanos();
        if earned > 0 {
            *spent = spent.saturating_sub(u32::try_from(earned).unwrap_or(u32::MAX));
            *since = now;
        }
        let may = *spent < BURST;
        *spent = (*spent + 1).min(BURST);
        may
    }
}

/// Makes room for one that is new.
fn room<K: Ord + Clone, V>(of: &mut BTreeMap<K, (Time, V)>, most: usize, new: &K) {
    if of.len() < most || of.contains_key(new) {
        return;
    }
    if let Some(oldest) = of.iter().min_by_key(|(_, (used, _))| *used).map(|(k, _)| k.clone()) {
        of.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(uid: &str) -> About {
        About { component: "kubelet", uid: uid.to_owned() }
    }

    #[test]
    fn the_tenth_wording_is_one_of_many_until_nothing_alike_was_said_for_a_while() {
        let mut c = Correlator::new(100);
        let say = |c: &mut Correlator, n: u64, at: u64| {
            c.hear(&about("u"), "Normal", "Pulled", &format!("image {n}"), Time::from_ms(at * 1000))
        };
        assert!((0..9).all(|n| say(&mut c, n, n) == Heard::Alone));
        assert_eq!((say(&mut c, 9, 10), say(&mut c, 3, 11), say(&mut c, 10, 12)), {
            (Heard::OneOfMany, Heard::Alone, Heard::OneOfMany)
        });
        assert_eq!(c.hear(&about("u"), "Warning", "Pulled", "image 11", Time::from_ms(13_000)), Heard::Alone);
        assert_eq!(say(&mut c, 12, 612), Heard::OneOfMany);
        assert_eq!(say(&mut c, 13, 1213), Heard::Alone);
    }

    #[test]
    fn who_says_too_much_of_one_object_is_heard_again_after_a_while_and_others_always() {
        let mut c = Correlator::new(100);
        let mut heard = |uid: &str, at: Time| c.hear(&about(uid), "Normal", "r", "words", at) != Heard::Not;
        assert_eq!((0..100).filter(|_| heard("u", Time::ZERO)).count(), 25);
        assert!(heard("v", Time::ZERO));
        let later = Time::ZERO + REFILL * 2;
        assert_eq!((0..100).filter(|_| heard("u", later)).count(), 2);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut c = Correlator::new(8);
        for n in 0..100 {
            c.hear(&about(&format!("{n}")), "Normal", "r", "words", Time::from_ms(n));
        }
        assert_eq!((c.alike.len(), c.spent.len()), (8, 8));
        assert!(c.spent.contains_key(&about("99")));
    }
}
