//! Sets of fields, in the very form Kubernetes writes them: FieldsV1.
//!
//! A set is a trie whose steps are strings: `f:NAME` a field or map key, `k:{..}` the item of a list with
//! these keys, `v:..` the item of a set with this value, `i:N` the item at an index. A step is a member if
//! its map is empty or contains `.`; otherwise it only leads to members. So a set is kept as the tree it is
//! stored as: reading it costs nothing, and what an operation does not touch it does not copy.
//!
//! Sources: KEP-555 (server-side apply), `metav1.FieldsV1`.

use super::path::Step;
use crate::{Map, Tree};
use std::cmp::Ordering;

/// A set of fields. No step leads nowhere: removing the last member below a step removes the step.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct FieldSet(pub(super) Map);

/// The mark that a step with further steps below is itself a member.
pub(super) const SELF: &str = ".";

/// Deepest set that is read: what a request of 128 levels can name.
const DEPTH_MAX: usize = 128;

impl FieldSet {
    /// The set with no fields.
    pub fn new() -> FieldSet {
        FieldSet(Map::new())
    }

    /// A set of paths of field names.
    pub fn of(paths: &[&[&str]]) -> FieldSet {
        let mut set = FieldSet::new();
        for path in paths {
            let steps: Vec<String> = path.iter().map(|name| format!("f:{name}")).collect();
            set.insert(&steps);
        }
        set
    }

    /// Reads FieldsV1. Steps of unknown sorts are dropped, as Kubernetes drops them; keys and values are
    /// brought to the form in which they are compared. `None` if it is no FieldsV1.
    pub fn decode(fields: &Tree) -> Option<FieldSet> {
        fn node(map: &Map, depth: usize) -> Option<Map> {
            if depth > DEPTH_MAX {
                return None;
            }
            let mut out = Map::new();
            for (key, below) in map {
                let Tree::Object(below) = below else { return None };
                if key == SELF {
                    out.insert(SELF.to_owned(), empty());
                    continue;
                }
                match Step::parse(key) {
                    Ok(step) => {
                        let below = node(below, depth + 1)?;
                        // Two spellings of one step are one step.
                        match out.entry(step.encode()) {
                            serde_json::map::Entry::Vacant(v) => drop(v.insert(Tree::Object(below))),
                            serde_json::map::Entry::Occupied(mut o) => {
                                if let Tree::Object(there) = o.get_mut() {
                                    unite(there, below);
                                }
                            }
                        }
                    }
                    Err(super::path::Unreadable::Unknown) => {}
                    Err(super::path::Unreadable::Malformed) => return None,
                }
            }
            // A `.` beside nothing says what the empty map says.
            if out.len() == 1 && out.contains_key(SELF) {
                out.clear();
            }
            Some(out)
        }
        let Tree::Object(map) = fields else { return None };
        let mut set = node(map, 0)?;
        set.remove(SELF);
        Some(FieldSet(set))
    }

    /// As FieldsV1.
    pub fn encode(self) -> Tree {
        Tree::Object(self.0)
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the field that these steps lead to. What lies above it is not added.
    pub fn insert<S: AsRef<str>>(&mut self, path: &[S]) {
        let Some((last, parents)) = path.split_last() else { return };
        let mut at = &mut self.0;
        for step in parents {
            let below = at.entry(step.as_ref()).or_insert_with(|| {
                // Not yet a member: filled before this function ends.
                Tree::Object(Map::from_iter([(String::new(), Tree::Null)]))
            });
            let Tree::Object(below) = below else { return };
            if below.is_empty() {
                below.insert(SELF.to_owned(), empty());
            }
            below.remove("");
            at = below;
        }
        match at.get_mut(last.as_ref()) {
            Some(Tree::Object(below)) if !below.is_empty() => drop(below.insert(SELF.to_owned(), empty())),
            _ => drop(at.insert(last.as_ref().to_owned(), empty())),
        }
    }

    /// Whether the field that these steps lead to is in it.
    pub fn has<S: AsRef<str>>(&self, path: &[S]) -> bool {
        let mut at = &self.0;
        let Some((last, parents)) = path.split_last() else { return false };
        for step in parents {
            let Some(below) = below(at, step.as_ref()) else { return false };
            at = below;
        }
        at.get(last.as_ref()).is_some_and(is_member)
    }

    /// Adds all of `other`.
    pub fn unite(&mut self, other: FieldSet) {
        unite(&mut self.0, other.0);
    }

    /// Removes all of `other`; what lies below a member of `other` stays.
    pub fn subtract(&mut self, other: &FieldSet) {
        subtract(&mut self.0, &other.0);
    }

    /// Removes all of `other` and all that lies below.
    pub fn subtract_below(&mut self, other: &FieldSet) {
        fn walk(set: &mut Map, other: &Map) {
            for (step, theirs) in other {
                let Tree::Object(theirs) = theirs else { continue };
                if is_member_map(theirs) {
                    set.remove(step);
                } else if let Some(Tree::Object(ours)) = set.get_mut(step) {
                    let member = is_member_map(ours);
                    ours.remove(SELF);
                    walk(ours, theirs);
                    settle(set, step, member);
                }
            }
        }
        if !self.is_empty() {
            walk(&mut self.0, &other.0);
        }
    }

    /// What is in both.
    pub fn intersection(&self, other: &FieldSet) -> FieldSet {
        fn walk(a: &Map, b: &Map) -> Map {
            let mut out = Map::new();
            for (step, a) in a {
                let (Tree::Object(a), Some(Tree::Object(b))) = (a, b.get(step)) else { continue };
                if step == SELF {
                    continue;
                }
                let mut below = walk(a, b);
                let member = is_member_map(a) && is_member_map(b);
                if below.is_empty() && !member {
                    continue;
                }
                if member && !below.is_empty() {
                    below.insert(SELF.to_owned(), empty());
                }
                out.insert(step.clone(), Tree::Object(below));
            }
            out
        }
        FieldSet(walk(&self.0, &other.0))
    }

    /// Whether all of it is in `other`.
    pub fn is_subset(&self, other: &FieldSet) -> bool {
        fn walk(a: &Map, b: &Map) -> bool {
            a.iter().filter(|(step, _)| *step != SELF).all(|(step, a)| {
                let (Tree::Object(a), Some(Tree::Object(b))) = (a, b.get(step)) else { return false };
                (!is_member_map(a) || is_member_map(b)) && walk(a, b)
            })
        }
        walk(&self.0, &other.0)
    }

    /// All members, in Kubernetes' order: those directly below a step before those further down; fields
    /// before keys before values before indices.
    pub fn paths(&self) -> Vec<Vec<Step>> {
        fn walk(map: &Map, prefix: &mut Vec<Step>, out: &mut Vec<Vec<Step>>) {
            let mut steps: Vec<(Step, &Map)> = map
                .iter()
                .filter(|(step, _)| *step != SELF)
                .filter_map(|(step, below)| Some((Step::parse(step).ok()?, below.as_object()?)))
                .collect();
            steps.sort_by(|(a, _), (b, _)| a.compare(b));
            for (step, below) in &steps {
                if is_member_map(below) {
                    let mut path = prefix.clone();
                    path.push(step.clone());
                    out.push(path);
                }
            }
            for (step, below) in steps {
                prefix.push(step);
                walk(below, prefix, out);
                prefix.pop();
            }
        }
        let mut out = Vec::new();
        walk(&self.0, &mut Vec::new(), &mut out);
        debug_assert!(out.iter().all(|p| p.first().is_some_and(|s| s.compare(s) == Ordering::Equal)));
        out
    }
}

pub(super) fn empty() -> Tree {
    Tree::Object(Map::new())
}

pub(super) fn is_member(node: &Tree) -> bool {
    node.as_object().is_some_and(is_member_map)
}

pub(super) fn is_member_map(node: &Map) -> bool {
    node.is_empty() || node.contains_key(SELF)
}

/// The steps below a step; `None` if there are none.
pub(super) fn below<'m>(map: &'m Map, step: &str) -> Option<&'m Map> {
    map.get(step).and_then(Tree::as_object).filter(|m| !m.is_empty())
}

/// Puts a step back in order whose mark was taken off and whose children may have gone.
fn settle(set: &mut Map, step: &str, member: bool) {
    let Some(Tree::Object(node)) = set.get_mut(step) else { return };
    match (node.is_empty(), member) {
        (true, false) => drop(set.remove(step)),
        (false, true) => drop(node.insert(SELF.to_owned(), empty())),
        _ => {}
    }
}

fn unite(set: &mut Map, other: Map) {
    for (step, theirs) in other {
        match set.get_mut(&step) {
            None => drop(set.insert(step, theirs)),
            Some(Tree::Object(ours)) => {
                let Tree::Object(theirs) = theirs else { continue };
                let member = is_member_map(ours) || is_member_map(&theirs);
                ours.remove(SELF);
                unite(ours, theirs);
                ours.remove(SELF);
                settle(set, &step, member);
            }
            Some(_) => {}
        }
    }
}

fn subtract(set: &mut Map, other: &Map) {
    if set.is_empty() {
        return;
    }
    for (step, theirs) in other {
        let (Tree::Object(theirs), Some(Tree::Object(ours))) = (theirs, set.get_mut(step)) else { continue };
        if step == SELF {
            continue;
        }
        let member = is_member_map(ours) && !is_member_map(theirs);
        ours.remove(SELF);
        subtract(ours, theirs);
        settle(set, step, member);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use std::collections::BTreeSet;

    fn set(fields: Tree) -> FieldSet {
        FieldSet::decode(&fields).unwrap()
    }

    #[test]
    fn a_parent_is_a_member_only_with_its_mark() {
        let s = set(json!({"f:a": {".": {}, "f:b": {}}, "f:c": {"f:d": {}}, "f:e": {".": {}}}));
        assert!(s.has(&["f:a"]) && s.has(&["f:a", "f:b"]) && s.has(&["f:c", "f:d"]) && s.has(&["f:e"]));
        assert!(!s.has(&["f:c"]) && !s.has(&["f:x"]) && !s.has::<&str>(&[]));
        assert_eq!(s.encode(), json!({"f:a": {".": {}, "f:b": {}}, "f:c": {"f:d": {}}, "f:e": {}}));
    }

    #[test]
    fn steps_are_brought_to_one_form_and_unknown_ones_dropped() {
        let s = set(
            json!({"k:{\"protocol\":\"TCP\", \"port\":80.0}": {}, "v: \"a<b\"": {}, "x:y": {}, "i:3": {}, "f:": {}}),
        );
        assert_eq!(
            s.encode(),
            json!({"k:{\"port\":80,\"protocol\":\"TCP\"}": {}, "v:\"a\\u003cb\"": {}, "i:3": {}, "f:": {}})
        );
        for bad in [json!([]), json!({"f:a": 1}), json!({"k:{": {}}), json!({"i:x": {}}), json!({"a": {}})] {
            assert_eq!(FieldSet::decode(&bad), None, "{bad}");
        }
    }

    #[test]
    fn members_are_listed_parents_first_and_keys_by_value() {
        let s = set(
            json!({"f:l": {"k:{\"p\":10}": {"f:x": {}}, "k:{\"p\":9}": {".": {}, "f:x": {}}}, "f:z": {}, "v:1": {}, "i:0": {}}),
        );
        let all: Vec<String> = s.paths().iter().map(|p| p.iter().map(Step::to_string).collect()).collect();
        assert_eq!(all, [".z", "[=1]", "[0]", ".l[p=9]", ".l[p=9].x", ".l[p=10].x"]);
    }

    #[test]
    fn subtracting_below_takes_the_children_too() {
        let mut s = set(json!({"f:status": {".": {}, "f:a": {}}, "f:m": {"f:l": {"f:a": {}}, "f:n": {}}}));
        s.subtract_below(&FieldSet::of(&[&["status"], &["m", "l"]]));
        assert_eq!(s.encode(), json!({"f:m": {"f:n": {}}}));
    }

    type Paths = BTreeSet<Vec<&'static str>>;
    fn paths() -> impl Strategy<Value = Paths> {
        let step = prop::sample::select(vec!["f:a", "f:b", "k:{\"n\":1}", "v:true"]);
        prop::collection::btree_set(prop::collection::vec(step, 1..4), 0..8)
    }
    fn build(paths: &Paths) -> FieldSet {
        let mut s = FieldSet::new();
        paths.iter().for_each(|p| s.insert(p));
        s
    }

    proptest! {
        #[test]
        fn sets_behave_as_sets_of_paths(a in paths(), b in paths()) {
            let (sa, sb) = (build(&a), build(&b));
            prop_assert_eq!(FieldSet::decode(&sa.clone().encode()), Some(sa.clone()));
            prop_assert_eq!(sa.paths().len(), a.len());
            let mut u = sa.clone();
            u.unite(sb.clone());
            prop_assert_eq!(u, build(&a.union(&b).cloned().collect()));
            let mut d = sa.clone();
            d.subtract(&sb);
            prop_assert_eq!(d, build(&a.difference(&b).cloned().collect()));
            prop_assert_eq!(sa.intersection(&sb), build(&a.intersection(&b).cloned().collect()));
            prop_assert_eq!(sa.is_subset(&sb), a.is_subset(&b));
            let below: Paths = a.iter().filter(|p| !(1..=p.len()).any(|n| b.contains(&p[..n]))).cloned().collect();
            let mut r = sa;
            r.subtract_below(&sb);
            prop_assert_eq!(r, build(&below));
        }
    }
}
