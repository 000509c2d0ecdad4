//! Everything a node holds is renewed before it expires, and a failure to renew ends nothing that is good.
#![allow(clippy::unwrap_used, missing_docs)]

mod scratch;

use base::{CellId, Uid, Wall};
use identity::upkeep::TRIES_AGAIN_AFTER;
use identity::{GatewayNames, Identity, IssuerScope, Upkeep};
use scratch::Scratch;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

const NOW: Wall = Wall(1_769_846_400_000);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn start(data: &Scratch) -> (Arc<Identity>, Upkeep) {
    let identity = Arc::new(Identity::found(data.path(), Some("quiet-otter.mesh"), None, NOW).unwrap());
    let upkeep = Upkeep::start(identity.clone(), CellId(Uid(7)), GatewayNames::default(), NOW).unwrap();
    (identity, upkeep)
}

#[test]
fn half_a_year_of_calls_leaves_nothing_to_expire() {
    let data = Scratch::new();
    let (identity, upkeep) = start(&data);
    let (cell, web) = (CellId(Uid(9)), IssuerScope::Namespace("web".into()));
    upkeep.issuer(cell, &web, NOW).unwrap();
    let (mut now, mut calls) = (NOW, 0);
    while now < NOW + DAY * 180 {
        let (next, failures) = upkeep.renew(now);
        assert!(failures.is_empty(), "{failures:?}");
        assert!(next > now, "{now:?}");
        // Just before the next call, everything is good still.
        assert!(upkeep.gateway().lifetime().covers(next), "{next:?}");
        assert!(identity.svid().unwrap().lifetime.covers(next), "{next:?}");
        assert!(upkeep.issuer(cell, &web, now).unwrap().lifetime().covers(next), "{next:?}");
        assert_eq!(upkeep.wants(now), [], "a founder needs nobody");
        calls += 1;
        // An SVID is renewed twice an hour: now and then the machine sleeps, or this would take long.
        now = if calls % 20 == 0 { next + DAY * 5 } else { next };
    }
    assert_eq!(upkeep.issuer(cell, &web, now).unwrap().number(), 2, "renewed after 60 and 120 days");
    assert_eq!(identity.tokens().trusted().len(), 2, "rotated after 90 days");
}

#[test]
fn a_clock_set_back_makes_new_certificates() {
    let data = Scratch::new();
    let (_, upkeep) = start(&data);
    let back = NOW - Duration::from_secs(12 * 3600);
    assert!(!upkeep.gateway().lifetime().covers(back));
    let (_, failures) = upkeep.renew(back);
    assert!(failures.is_empty(), "{failures:?}");
    assert!(upkeep.gateway().lifetime().covers(back));
}

#[test]
fn what_cannot_be_renewed_is_told_tried_again_and_used_while_it_is_good() {
    let data = Scratch::new();
    let (_, upkeep) = start(&data);
    let held = upkeep.issuer(CellId(Uid(7)), &IssuerScope::Registry, NOW).unwrap();
    fs::remove_dir_all(data.path().join("identity")).unwrap();
    let late = NOW + DAY * 61;
    let (next, failures) = upkeep.renew(late);
    assert!(!failures.is_empty());
    assert!(next <= late + TRIES_AGAIN_AFTER);
    assert!(held.lifetime().covers(late));
    upkeep.forget(CellId(Uid(7))).unwrap();
}
