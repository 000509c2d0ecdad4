#![allow(clippy::unwrap_used)]
use super::*;
use base::Uid;

const ME: u8 = 1;

fn id(n: u8) -> NodeId {
    NodeId([n; 32])
}

fn cell(n: u128) -> CellId {
    CellId(Uid::from_chance(n))
}

fn at(ms: u64) -> Time {
    Time::from_ms(1_000_000 + ms)
}

/// A table and what the controllers of each cell know by it.
struct Table {
    leases: Leases,
    told: BTreeMap<CellId, Hosting>,
    tells: usize,
    now: Time,
}

impl Table {
    fn new(members: &[u8]) -> Table {
        let mut t = Table { leases: Leases::new(id(ME)), told: BTreeMap::new(), tells: 0, now: at(0) };
        t.members(members);
        t
    }

    fn step(&mut self, now: Time, input: Input) {
        self.now = now;
        let mut fx = Vec::new();
        self.leases.step(Now { mono: now, wall: Wall(now.as_ms()) }, input, &mut fx);
        self.leases.check();
        for Effect::Tell { cell, hosting } in fx {
            self.told.insert(cell, hosting);
            self.tells += 1;
        }
    }

    fn members(&mut self, members: &[u8]) {
        let members = members.iter().map(|n| (Arc::from(format!("n{n}")), id(*n))).collect();
        self.step(self.now, Input::Members(members));
    }

    /// Time passes: these nodes and this one speak every second, and the table is woken at its deadlines.
    fn until(&mut self, until: Time, speaking: &[u8]) {
        while self.now < until {
            let word = Time::from_ms((self.now.as_ms() / 1000 + 1) * 1000);
            let wake = self.leases.next_deadline().unwrap_or(Time::NEVER);
            let next = word.min(wake).min(until);
            self.step(next, Input::Tick);
            if next == word {
                speaking.iter().chain(&[ME]).for_each(|n| self.step(next, Input::Heard(id(*n))));
            }
        }
    }

    /// Whom the cell may replace, and whom it holds for silent, unheard and returned.
    fn of(&self, cell: CellId) -> (bool, String) {
        let hosting = &self.told[&cell];
        let list = |set: &BTreeSet<Arc<str>>| set.iter().map(|n| &**n).collect::<Vec<_>>().join(" ");
        let Hosts { silent, unheard, returned } = &*hosting.hosts;
        let silent = &silent.keys().cloned().collect();
        (hosting.lapsed, format!("{}/{}/{}", list(silent), list(unheard), list(returned)))
    }
}

fn says(t: &Table, lapsed: bool, sets: &str) {
    assert_eq!(t.of(cell(1)), (lapsed, sets.to_owned()), "at {:?}", t.now);
}

#[test]
fn a_lease_lapses_after_7_6_seconds_and_a_word_renews_it() {
    assert_eq!(LAPSE, Duration::from_millis(7_600));
    let mut t = Table::new(&[1, 2, 3]);
    t.step(at(0), Input::Leads(cell(1)));
    t.until(at(20_000), &[2, 3]);
    says(&t, false, "//");
    // The last word of node 3 came at 20 s.
    t.until(at(27_599), &[2]);
    says(&t, false, "//");
    t.until(at(27_600), &[2]);
    says(&t, true, "n3//");
    assert_eq!(t.told[&cell(1)].hosts.silent["n3"], Wall(at(27_600).as_ms()));
    let tells = t.tells;
    t.until(at(50_000), &[2]);
    assert_eq!(t.tells, tells, "nothing has changed");
    t.step(at(50_100), Input::Heard(id(3)));
    says(&t, true, "//n3");
    t.until(at(110_200), &[2, 3]);
    says(&t, true, "//");
}

#[test]
fn a_new_leader_takes_every_lease_as_renewed_and_still_knows_who_is_silent() {
    let mut t = Table::new(&[1, 2, 3]);
    t.step(at(0), Input::Leads(cell(2)));
    t.until(at(10_000), &[2, 3]);
    t.until(at(30_000), &[2]);
    t.step(at(30_000), Input::Leads(cell(1)));
    says(&t, false, "n3//");
    assert!(t.of(cell(2)).0, "a cell that has been led for long");
    t.until(at(37_599), &[2]);
    says(&t, false, "n3//");
    t.until(at(37_600), &[2]);
    says(&t, true, "n3//");
    // Led anew, and then no more.
    t.step(at(40_000), Input::Leads(cell(1)));
    says(&t, false, "n3//");
    t.step(at(40_100), Input::Over(cell(1)));
    t.until(at(60_000), &[2, 3]);
    says(&t, false, "n3//");
    assert_eq!(t.of(cell(2)), (true, "//n3".to_owned()));
}

#[test]
fn a_node_that_was_never_heard_counts_from_when_it_became_known() {
    let mut t = Table::new(&[1]);
    t.step(at(0), Input::Leads(cell(1)));
    t.until(at(100_000), &[]);
    t.members(&[1, 2, 3]);
    says(&t, true, "/n2 n3/");
    t.until(at(102_000), &[2]);
    says(&t, true, "/n3/");
    t.until(at(107_599), &[2]);
    says(&t, true, "/n3/");
    t.until(at(107_600), &[2]);
    says(&t, true, "n3//");
}

#[test]
fn the_leaders_own_node_never_lapses_and_strangers_are_not_listened_to() {
    let mut t = Table::new(&[1, 2]);
    t.step(at(0), Input::Leads(cell(1)));
    t.until(at(10_000), &[2]);
    for second in 10..30 {
        // Not even when it does not hear itself; whoever is no member says nothing to this.
        t.step(at(second * 1000), Input::Heard(id(9)));
        t.step(at(second * 1000), Input::Heard(id(2)));
    }
    assert_eq!(t.told[&cell(1)].hosts.silent.len(), 0);
}

#[test]
fn whoever_stood_still_does_not_call_the_others_silent_and_forgets_nobody_who_was() {
    let mut t = Table::new(&[1, 2, 3]);
    t.step(at(0), Input::Leads(cell(1)));
    t.until(at(10_000), &[2, 3]);
    t.until(at(20_000), &[2]);
    says(&t, true, "n3//");
    // Suspended for a minute.
    t.step(at(80_000), Input::Tick);
    says(&t, true, "n3//");
    t.until(at(87_599), &[]);
    says(&t, true, "n3//");
    t.until(at(87_600), &[]);
    says(&t, true, "n2 n3//");
}

#[test]
fn a_member_that_left_stays_silent_until_its_pods_are_collected() {
    let mut t = Table::new(&[1, 2, 3]);
    t.step(at(0), Input::Leads(cell(1)));
    t.until(at(10_000), &[2, 3]);
    t.until(at(20_000), &[2]);
    t.members(&[1, 2]);
    t.step(at(20_000), Input::Heard(id(3)));
    says(&t, true, "n3//");
    t.until(at(20_000) + DEPARTED, &[2]);
    says(&t, true, "//");
    // Its name is another's.
    t.members(&[1, 2, 4]);
    t.until(at(640_000), &[2]);
    says(&t, true, "n4//");
    let renamed = [("n1", 1), ("n2", 2), ("n4", 5)].map(|(name, n)| (Arc::from(name), id(n)));
    t.step(t.now, Input::Members(BTreeMap::from(renamed)));
    says(&t, true, "/n4/");
}
