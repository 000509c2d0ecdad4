//! The bundle, as a whole and as what changed.

use super::{assert_golden, samples::r};
use crate::bundle::{Bundle, Change, SECTIONS};
use crate::wire::bundle::{Have, KEPT_MAX, Shelf, Taking, Telling, Took};
use base::{Chance, Revision};
use bytes::Bytes;
use objects::Tree;
use objects::rbac::{self, Attributes};
use objects::request::{Shared, Stored, User, View};
use serde_json::json;
use std::sync::Arc;

fn with(bundle: &Bundle, number: u64, storage: &str, name: &str, tree: Option<Tree>) -> Arc<Bundle> {
    Arc::new(bundle.with(r(number), [Change { storage, name, tree }]))
}

fn shown(bundle: &Bundle) -> String {
    let mut out = format!("{:?}\n", bundle.number());
    for (storage, name, tree) in bundle.records() {
        out += &format!("{storage}/{name} {tree}\n");
    }
    out
}

fn frames(mut telling: Telling) -> Vec<Bytes> {
    std::iter::from_fn(|| telling.next_frame()).collect()
}

/// A cell that holds nothing, with a bundle.
struct Alone<'a>(&'a Bundle);

impl View for Alone<'_> {
    fn get(&self, _: &str, _: &str) -> Option<Stored> {
        None
    }
    fn list<'a>(&'a self, _: &str, _: Option<&str>) -> Box<dyn Iterator<Item = (Arc<str>, Stored)> + 'a> {
        Box::new(std::iter::empty())
    }
    fn shared(&self) -> &dyn Shared {
        self.0
    }
}

/// What comes of the frames.
fn take(taking: &mut Taking, frames: &[Bytes]) -> Took {
    let mut took = Took::More;
    for frame in frames {
        assert!(matches!(took, Took::More), "whole before its last frame");
        took = taking.frame(frame).unwrap();
    }
    took
}

#[test]
fn what_changed_makes_exactly_what_the_whole_would_have_made() {
    for seed in 0..30 {
        let mut chance = Chance::from_u64(seed);
        let mut shelf = Shelf::default();
        let mut taking = Taking::new(Arc::default());
        let mut bundle = Arc::new(Bundle::default());
        for number in 1..60 {
            let storage = *chance.pick(SECTIONS).unwrap();
            let name = format!("n-{}", chance.below(8));
            let tree = (!chance.happens(300_000)).then(|| json!({"metadata": {"name": name}, "v": chance.below(4)}));
            bundle = with(&bundle, number, storage, &name, tree);
            shelf.put(bundle.clone());
            // Now and then several are missed, or everything is lost.
            if chance.happens(20_000) {
                taking = Taking::new(Arc::default());
            }
            if chance.happens(500_000) {
                continue;
            }
            let telling = shelf.tell(taking.have()).unwrap();
            assert!(matches!(take(&mut taking, &frames(telling)), Took::New(_)));
            let mut whole = Taking::new(Arc::default());
            take(&mut whole, &frames(Telling::whole(&bundle)));
            assert_eq!(shown(taking.held()), shown(&bundle));
            assert_eq!(shown(whole.held()), shown(&bundle));
            assert!(shelf.tell(taking.have()).is_none(), "there is nothing newer");
        }
    }
}

#[test]
fn rights_are_made_ready_of_what_changed() {
    let role = json!({"metadata": {"name": "reader"}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["configmaps"]}]});
    let binding = json!({"metadata": {"name": "ann"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "ann"}]});
    let empty = Bundle::default();
    let one = with(&empty, 1, "ClusterRole.rbac.authorization.k8s.io", "reader", Some(role));
    let two = with(&one, 2, "ClusterRoleBinding.rbac.authorization.k8s.io", "ann", Some(binding));
    let three = with(&two, 3, "ClusterRoleBinding.rbac.authorization.k8s.io", "ann", None);
    let mut shelf = Shelf::default();
    let mut taking = Taking::new(Arc::default());
    let ann = User { name: "ann".into(), ..User::default() };
    let mut q = super::samples::request(objects::request::Verb::Get, objects::request::Body::None);
    q.kind = objects::kinds::by_kind("", "v1", "ConfigMap").unwrap();
    (q.subresource, q.user) = ("".into(), Arc::new(ann));
    let mut may = Vec::new();
    for bundle in [one, two, three] {
        shelf.put(bundle.clone());
        let telling = shelf.tell(taking.have()).unwrap();
        take(&mut taking, &frames(telling));
        let allowed = |b: &Bundle| rbac::allowed(&q.user, &Attributes::of(&q), &Alone(b));
        assert_eq!(allowed(taking.held()), allowed(&bundle));
        may.push(allowed(taking.held()));
    }
    assert_eq!(may, [false, true, false]);
}

#[test]
fn a_change_that_does_not_fit_what_is_held_asks_for_the_whole() {
    let one = with(&Bundle::default(), 1, "Namespace", "a", Some(json!(1)));
    let two = with(&one, 2, "Namespace", "b", Some(json!(2)));
    let three = with(&two, 3, "Namespace", "a", None);
    let mut taking = Taking::new(one.clone());
    let changed = frames(Telling::changed(&two, &three));
    let Took::Misfit(have) = take(&mut taking, &changed) else { panic!("it was taken") };
    assert_eq!((have, shown(taking.held())), (Have { number: r(1), whole: true }, shown(&one)));
    let mut shelf = Shelf::default();
    [one, two, three.clone()].into_iter().for_each(|b| shelf.put(b));
    take(&mut taking, &frames(shelf.tell(have).unwrap()));
    assert_eq!(shown(taking.held()), shown(&three));
    assert!(matches!(take(&mut taking, &changed), Took::Known), "late");
}

#[test]
fn one_who_is_far_behind_or_has_what_nobody_knows_is_told_the_whole() {
    let mut shelf = Shelf::default();
    let mut bundle = Arc::new(Bundle::default());
    for n in 1..200 {
        bundle = with(&bundle, n * 2, "Namespace", &format!("n-{n}"), Some(json!({"n": n})));
        shelf.put(bundle.clone());
    }
    let length = |number: u64| frames(shelf.tell(Have { number: r(number), whole: false }).unwrap()).concat().len();
    let whole = length(0);
    assert_eq!((length(2), length(399 - 2)), (whole, whole));
    assert!(length(396) < 100 && length(398 - 2 * KEPT_MAX as u64) < whole);
    assert_eq!(length(398 - 2 * (KEPT_MAX as u64 + 1)), whole);
    assert!(shelf.tell(Have { number: Revision::MAX, whole: false }).is_none());
    shelf.put(Arc::default());
    assert_eq!(shelf.newest().number(), r(398), "an older one is passed over");
}

#[test]
fn a_large_bundle_comes_in_pieces_and_within_a_bound() {
    let text = "x".repeat(1_000);
    let names: Vec<String> = (0..2_000).map(|n| format!("n-{n:05}")).collect();
    let change = |n| Change { storage: "Namespace", name: n, tree: Some(json!({"t": text})) };
    let bundle = Bundle::default().with(r(9), names.iter().map(|n| change(n.as_str())));
    let sent = frames(Telling::whole(&bundle));
    assert!(sent.len() > 7 && sent.iter().all(|f| f.len() < (256 << 10) + 2_000));
    let mut taking = Taking::new(Arc::default());
    take(&mut taking, &sent);
    assert_eq!(shown(taking.held()), shown(&bundle));
    let mut small = Taking::new(Arc::default()).at_most(1 << 20);
    assert!(sent.iter().any(|f| small.frame(f).is_err()));
    assert_eq!(small.held().number(), Revision::ZERO);
}

#[test]
fn frames_of_a_bundle_that_are_damaged_or_out_of_turn_change_nothing() {
    let one = with(&Bundle::default(), 1, "Namespace", "a", Some(json!({"a": ["b", 1.5]})));
    let two = with(&one, 2, "Namespace", "b", Some(json!(2)));
    let sent = frames(Telling::whole(&two));
    for n in 0..sent.len() {
        for cut in 0..sent[n].len() {
            let mut taking = Taking::new(one.clone());
            sent[..n].iter().for_each(|f| drop(taking.frame(f)));
            assert!(taking.frame(&sent[n].slice(..cut)).is_err(), "frame {n} cut at {cut}");
            assert_eq!(taking.held().number(), r(1));
        }
        let mut taking = Taking::new(one.clone());
        let others: Vec<_> = (0..sent.len()).filter(|o| *o != n).map(|o| taking.frame(&sent[o])).collect();
        assert!(others.iter().any(Result::is_err) || n == sent.len() - 1, "frame {n} is missing");
        assert_eq!(taking.held().number(), r(1));
        // A new stream begins anew.
        let have = taking.have();
        assert_eq!(have, Have { number: r(1), whole: false });
        assert!(matches!(take(&mut taking, &sent), Took::New(b) if b.number() == r(2)));
    }
}

#[test]
fn a_bundle_has_the_bytes_it_always_had() {
    let one = with(
        &Bundle::default(),
        1,
        "Namespace",
        "a",
        Some(json!({"metadata": {"name": "a"}, "n": [1, -1, 0.5, true, null]})),
    );
    let two = with(&one, 2, "Namespace", "b", Some(json!({"metadata": {"name": "b"}})));
    let three = with(&two, 3, "Namespace", "a", None);
    let all = [Have { number: r(5), whole: true }.encode()]
        .into_iter()
        .chain(frames(Telling::whole(&two)))
        .chain(frames(Telling::changed(&two, &three)));
    assert_golden(all, include_str!("../../../tests/golden/wire/bundles-v1.hex"));
}
