//! JSON merge patch, RFC 7386.

use super::go_text;
use crate::status::Status;
use crate::{Map, Tree};

/// Merges `patch` into `doc`. 400 if the patch is not an object, since no object would be left.
pub fn apply(doc: &mut Tree, patch: &Tree) -> Result<(), Status> {
    match patch {
        Tree::Object(_) => {
            merge(doc, patch);
            Ok(())
        }
        Tree::Null => Err(Status::bad_request("Invalid JSON Patch")),
        other => Err(Status::bad_request(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            go_text::json_kind(other)
        ))),
    }
}

fn merge(doc: &mut Tree, patch: &Tree) {
    let Tree::Object(patch) = patch else {
        *doc = patch.clone();
        return;
    };
    if !doc.is_object() {
        *doc = Tree::Object(Map::new());
    }
    let Tree::Object(doc) = doc else { return };
    for (key, value) in patch {
        if value.is_null() {
            doc.remove(key);
        } else {
            merge(doc.entry(key.as_str()).or_insert(Tree::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// The smallest merge patch that makes `to` of `from`. A null inside `to` cannot be said in a merge
    /// patch and is taken for absence.
    fn diff(from: &Map, to: &Map) -> Map {
        let mut patch = Map::new();
        for key in from.keys() {
            if to.get(key).is_none_or(Tree::is_null) {
                patch.insert(key.clone(), Tree::Null);
            }
        }
        for (key, new) in to {
            match (from.get(key), new) {
                (Some(old), new) if old == new => {}
                (Some(Tree::Object(old)), Tree::Object(new)) => {
                    patch.insert(key.clone(), Tree::Object(diff(old, new)));
                }
                (_, Tree::Null) => {}
                _ => {
                    patch.insert(key.clone(), new.clone());
                }
            }
        }
        patch
    }

    #[test]
    fn the_cases_of_rfc_7386() {
        let cases = [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!({"e":null}), json!({"a":1}), json!({"a":1,"e":null})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ];
        for (doc, patch, want) in cases {
            let mut got = doc.clone();
            apply(&mut got, &patch).unwrap();
            assert_eq!(got, want, "{doc} patched with {patch}");
        }
    }

    #[test]
    fn a_patch_that_is_no_object_is_refused_as_kubernetes_refuses_it() {
        let e = apply(&mut json!({}), &json!([1])).unwrap_err();
        assert_eq!(e.code, 400);
        assert_eq!(
            e.message,
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
        );
    }

    fn tree() -> impl Strategy<Value = Tree> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Tree::from),
            (0..9i64).prop_map(Tree::from),
            "[a-c]{0,2}".prop_map(Tree::from)
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Tree::from),
                prop::collection::btree_map("[a-d]", inner, 0..4).prop_map(|m| Tree::Object(m.into_iter().collect())),
            ]
        })
    }

    fn object() -> impl Strategy<Value = Map> {
        prop::collection::btree_map("[a-d]", tree(), 0..4).prop_map(|m| m.into_iter().collect())
    }

    proptest! {
        #[test]
        fn the_difference_of_two_objects_makes_one_into_the_other(a in object(), b in object()) {
            let patch = Tree::Object(diff(&a, &b));
            let mut got = Tree::Object(a);
            apply(&mut got, &patch).unwrap();
            prop_assert_eq!(&got, &Tree::Object(b));
            let once = got.clone();
            apply(&mut got, &patch).unwrap();
            prop_assert_eq!(got, once);
        }
    }
}
