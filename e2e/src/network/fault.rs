//! What can be wrong between machines, as values.

use std::time::Duration;

/// A fault between machines, which [`Network::set`](super::Network::set) makes so and
/// [`Network::lift`](super::Network::lift) undoes. Several hold at once: what one cuts stays cut until it is lifted,
/// delays add up, and what one lets pass another may lose.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    from: Ends,
    to: Ends,
    both_ways: bool,
    link: Link,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Ends {
    Named(Vec<String>),
    /// All but the test, which goes on asking.
    Machines,
}

/// How one direction between two ports of a switch is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Link {
    pub(super) cut: bool,
    pub(super) delay: Duration,
    /// So many of a million frames come through.
    pub(super) passing: u32,
}

const MILLION: u32 = 1_000_000;

impl Fault {
    /// Nothing passes between two machines.
    #[must_use]
    pub fn cut(a: &str, b: &str) -> Fault {
        Fault::partition(&[a], &[b])
    }

    /// Nothing passes from the first to the second; the other way everything does.
    #[must_use]
    pub fn one_way(from: &str, to: &str) -> Fault {
        Fault { both_ways: false, ..Fault::cut(from, to) }
    }

    /// Nothing passes between a machine and all others of its network. The test still reaches it.
    #[must_use]
    pub fn isolated(machine: &str) -> Fault {
        Fault { to: Ends::Machines, ..Fault::cut(machine, machine) }
    }

    /// Nothing passes between those on one side and those on the other; on each side everything does.
    #[must_use]
    pub fn partition(one: &[&str], other: &[&str]) -> Fault {
        Fault { from: named(one), to: named(other), both_ways: true, link: Link { cut: true, ..Link::PLAIN } }
    }

    /// Each frame between two machines takes that much longer each way, so that an answer takes twice of it, and of
    /// a hundred that many are lost.
    #[must_use]
    pub fn slow(a: &str, b: &str, each_way: Duration, loss_percent: u32) -> Fault {
        let passing = MILLION.saturating_sub(loss_percent.saturating_mul(MILLION / 100));
        Fault {
            from: named(&[a]),
            to: named(&[b]),
            both_ways: true,
            link: Link { cut: false, delay: each_way, passing },
        }
    }

    /// As [`Fault::slow`], between all machines of the network.
    #[must_use]
    pub fn all_slow(each_way: Duration, loss_percent: u32) -> Fault {
        // In both directions of every pair already, as both sides are all.
        let slow = Fault::slow("", "", each_way, loss_percent);
        Fault { from: Ends::Machines, to: Ends::Machines, both_ways: false, ..slow }
    }

    /// The names in it that are none of these.
    pub(super) fn unknown<'a>(&'a self, names: &[String]) -> Option<&'a str> {
        let all = [&self.from, &self.to].into_iter().flat_map(|ends| match ends {
            Ends::Named(named) => &named[..],
            Ends::Machines => &[],
        });
        all.map(String::as_str).find(|name| !names.iter().any(|n| n == name))
    }

    /// What it does to the way from one name to another.
    fn on(&self, from: &str, to: &str) -> Option<Link> {
        let there = self.from.has(from) && self.to.has(to);
        let back = self.both_ways && self.from.has(to) && self.to.has(from);
        (there || back).then_some(self.link)
    }
}

impl Ends {
    fn has(&self, name: &str) -> bool {
        match self {
            Ends::Named(named) => named.iter().any(|n| n == name),
            Ends::Machines => name != super::TEST,
        }
    }
}

fn named(names: &[&str]) -> Ends {
    Ends::Named(names.iter().map(|name| (*name).to_owned()).collect())
}

impl Link {
    pub(super) const PLAIN: Link = Link { cut: false, delay: Duration::ZERO, passing: MILLION };

    /// The way from one name to another, with all these faults.
    pub(super) fn with(faults: &[Fault], from: &str, to: &str) -> Link {
        faults.iter().filter_map(|fault| fault.on(from, to)).fold(Link::PLAIN, |link, more| Link {
            cut: link.cut || more.cut,
            delay: link.delay + more.delay,
            passing: (u64::from(link.passing) * u64::from(more.passing) / u64::from(MILLION)) as u32,
        })
    }

    /// Whether a frame comes through, by a number drawn for it.
    pub(super) fn passes(&self, drawn: u64) -> bool {
        !self.cut && drawn % u64::from(MILLION) < u64::from(self.passing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = [super::super::TEST, "ant", "bee", "cow"];

    /// The directions that are cut, as `a>b`.
    fn cut(faults: &[Fault]) -> Vec<String> {
        let pairs =
            NAMES.iter().flat_map(|from| NAMES.iter().map(move |to| (from, to))).filter(|(from, to)| from != to);
        pairs.filter(|(from, to)| Link::with(faults, from, to).cut).map(|(from, to)| format!("{from}>{to}")).collect()
    }

    #[test]
    fn each_fault_cuts_what_it_says() {
        let cases: [(&[Fault], &[&str]); 6] = [
            (&[], &[]),
            (&[Fault::cut("ant", "bee")], &["ant>bee", "bee>ant"]),
            (&[Fault::one_way("ant", "bee")], &["ant>bee"]),
            (&[Fault::isolated("bee")], &["ant>bee", "bee>ant", "bee>cow", "cow>bee"]),
            (&[Fault::partition(&["ant", "bee"], &["cow"])], &["ant>cow", "bee>cow", "cow>ant", "cow>bee"]),
            (
                &[Fault::one_way("ant", "bee"), Fault::cut("ant", super::super::TEST)],
                &["test>ant", "ant>test", "ant>bee"],
            ),
        ];
        for (faults, expected) in cases {
            assert_eq!(cut(faults), expected, "{faults:?}");
        }
    }

    #[test]
    fn faults_on_one_way_add_up() {
        let tenth = Duration::from_millis(100);
        let faults = [Fault::all_slow(tenth, 50), Fault::slow("ant", "bee", tenth, 20)];
        let link = |from, to| {
            let link = Link::with(&faults, from, to);
            (link.delay, link.passing)
        };
        assert_eq!(link("bee", "ant"), (2 * tenth, 400_000));
        assert_eq!(link("cow", "ant"), (tenth, 500_000));
        assert_eq!(link("ant", super::super::TEST), (Duration::ZERO, MILLION));
        assert_eq!(Fault::cut("ant", "dog").unknown(&["ant".to_owned()]), Some("dog"));
    }
}
