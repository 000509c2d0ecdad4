//! JSON patch, RFC 6902, with the bounds and the lenience of a Kubernetes API server.
//!
//! Nothing is put where the document would nest deeper than a body may ([`MAX_DEPTH`]): a short patch of
//! moves can build a document of any depth, which nobody could walk, print or drop.
//!
//! Three departures from the RFC are Kubernetes': a negative index counts from a list's end, `replace`
//! of a key that an object does not have adds it, and `add` cannot replace the whole document. Clients
//! have come to rely on the first two.

use super::{depth, go_text};
use crate::codec::MAX_DEPTH;
use crate::status::Status;
use crate::{Map, Tree};

/// Operations one patch may have.
pub const OPERATIONS_MAX: usize = 10_000;
/// Bytes of JSON all `copy` operations of one patch may write together: a few operations that copy a
/// document into itself would otherwise fill the memory.
pub const COPIED_BYTES_MAX: usize = 3 << 20;
/// List items all operations of one patch may shift, by inserting or removing before them: ten thousand
/// inserts at the head of the longest list that fits into a request would keep a cell busy for minutes.
pub const SHIFTED_ITEMS_MAX: usize = 20_000_000;
/// Values all operations of one patch may have measured for their depth: moving a large value to and fro
/// ten thousand times would otherwise do the same.
pub const MEASURED_VALUES_MAX: usize = 20_000_000;

/// Applies `patch` to `doc`, and says which fields of its operations mean nothing, in the words of
/// strict decoding.
///
/// 400 if it is not a list of operations, 413 if it has too many, 422 (with no word why, as Kubernetes
/// answers) if one cannot be applied; `doc` is then half changed and to be thrown away.
pub fn apply(doc: &mut Tree, patch: &Tree) -> Result<Vec<String>, Status> {
    let (operations, strict) = decode(patch)?;
    if operations.len() > OPERATIONS_MAX {
        return Err(Status::too_large(&format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
            operations.len()
        )));
    }
    let mut spent = Spent::default();
    for operation in operations {
        run(doc, operation, &mut spent).ok_or_else(Status::unprocessable_patch)?;
    }
    Ok(strict)
}

fn decode(patch: &Tree) -> Result<(Vec<&Map>, Vec<String>), Status> {
    let bad = |v: &Tree, of: &str| {
        Status::bad_request(format!(
            "error decoding patch: json: cannot unmarshal {} into Go {of}",
            go_text::json_kind(v)
        ))
    };
    let list = match patch {
        Tree::Array(list) => list.as_slice(),
        Tree::Null => &[],
        other => return Err(bad(other, "value of type []handlers.jsonPatchOp")),
    };
    let mut operations = Vec::with_capacity(list.len());
    let mut strict = Vec::new();
    for (i, item) in list.iter().enumerate() {
        let Tree::Object(operation) = item else { return Err(bad(item, "value of type handlers.jsonPatchOp")) };
        for (key, value) in operation {
            match key.as_str() {
                "op" | "path" | "from" if !value.is_string() && !value.is_null() => {
                    return Err(bad(value, &format!("struct field jsonPatchOp.{key} of type string")));
                }
                "op" | "path" | "from" | "value" => {}
                _ => strict.push(format!("json patch unknown field \"[{i}].{key}\"")),
            }
        }
        operations.push(operation);
    }
    Ok((operations, strict))
}

/// What a patch's operations have cost so far.
#[derive(Default)]
struct Spent {
    copied_bytes: usize,
    shifted_items: usize,
    measured_values: usize,
}

impl Spent {
    fn shift(&mut self, items: usize) -> Option<()> {
        self.shifted_items += items;
        (self.shifted_items <= SHIFTED_ITEMS_MAX).then_some(())
    }

    /// Whether the document stays as shallow as a body when `value` lies at `path`.
    fn fits(&mut self, path: &str, value: &Tree) -> Option<()> {
        let steps = path.bytes().filter(|b| *b == b'/').count();
        // What a patch brings was read by a parser with a bound of its own, and what the document has was
        // let in here: the recursion is shallow.
        let deepest = steps + depth(value, &mut self.measured_values);
        (deepest <= MAX_DEPTH && self.measured_values <= MEASURED_VALUES_MAX).then_some(())
    }
}

fn run(doc: &mut Tree, operation: &Map, spent: &mut Spent) -> Option<()> {
    let text = |key: &str| operation.get(key).and_then(Tree::as_str);
    let value = || operation.get("value").unwrap_or(&Tree::Null);
    let path = text("path")?;
    match text("op")? {
        "add" => add(doc, path, value().clone(), spent),
        "remove" => remove(doc, path, spent).map(drop),
        "replace" if path.is_empty() => {
            let whole = value();
            (whole.is_object() || whole.is_array()).then(|| *doc = whole.clone())
        }
        "replace" => {
            spent.fits(path, value())?;
            match container(doc, path)? {
                (Tree::Object(map), key) => {
                    map.insert(key, value().clone());
                    Some(())
                }
                (Tree::Array(list), key) => {
                    let i = index(&key, list.len())?;
                    *list.get_mut(i)? = value().clone();
                    Some(())
                }
                _ => None,
            }
        }
        "move" => {
            let moved = remove(doc, text("from")?, spent)?;
            add(doc, path, moved, spent)
        }
        "copy" => {
            let copy = get(doc, text("from")?)?.clone();
            spent.copied_bytes += copy.to_string().len();
            if spent.copied_bytes > COPIED_BYTES_MAX {
                return None;
            }
            add(doc, path, copy, spent)
        }
        "test" if path.is_empty() => (doc == value()).then_some(()),
        "test" => {
            // A key that is not there equals null.
            let found = match container(doc, path)? {
                (Tree::Object(map), key) => map.get(&key).unwrap_or(&Tree::Null),
                (Tree::Array(list), key) => list.get(index(&key, list.len())?)?,
                _ => return None,
            };
            (found == value()).then_some(())
        }
        _ => None,
    }
}

fn add(doc: &mut Tree, path: &str, value: Tree, spent: &mut Spent) -> Option<()> {
    spent.fits(path, &value)?;
    match container(doc, path)? {
        (Tree::Object(map), key) => {
            map.insert(key, value);
        }
        (Tree::Array(list), key) if key == "-" => list.push(value),
        (Tree::Array(list), key) => {
            let i = index(&key, list.len() + 1)?;
            if i > list.len() {
                return None;
            }
            spent.shift(list.len() - i)?;
            list.insert(i, value);
        }
        _ => return None,
    }
    Some(())
}

fn remove(doc: &mut Tree, path: &str, spent: &mut Spent) -> Option<Tree> {
    match container(doc, path)? {
        (Tree::Object(map), key) => map.remove(&key),
        (Tree::Array(list), key) => {
            let i = index(&key, list.len())?;
            spent.shift(list.len().checked_sub(i + 1)?)?;
            Some(list.remove(i))
        }
        _ => None,
    }
}

fn get<'d>(doc: &'d mut Tree, path: &str) -> Option<&'d Tree> {
    match container(doc, path)? {
        (Tree::Object(map), key) => map.get(&key),
        (Tree::Array(list), key) => list.get(index(&key, list.len())?),
        _ => None,
    }
}

/// What holds the last step of a path, and that step.
fn container<'d>(doc: &'d mut Tree, path: &str) -> Option<(&'d mut Tree, String)> {
    let (parents, last) = path.strip_prefix('/').map(|p| p.rsplit_once('/').unwrap_or(("", p)))?;
    let has_parents = path.len() > last.len() + 1;
    let mut at = doc;
    for step in parents.split('/').filter(|_| has_parents) {
        let step = unescape(step);
        at = match at {
            Tree::Object(map) => map.get_mut(&step)?,
            Tree::Array(list) => {
                let i = index(&step, list.len())?;
                list.get_mut(i)?
            }
            _ => return None,
        };
    }
    Some((at, unescape(last)))
}

/// RFC 6901: `~1` is `/`, `~0` is `~`; in this order, or `~01` would become `/`.
fn unescape(step: &str) -> String {
    if step.contains('~') { step.replace("~1", "/").replace("~0", "~") } else { step.to_owned() }
}

/// An index, counted from the end if negative.
fn index(step: &str, len: usize) -> Option<usize> {
    let i: i64 = step.parse().ok()?;
    if i < 0 { len.checked_sub(usize::try_from(i.unsigned_abs()).ok()?) } else { usize::try_from(i).ok() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn operations_do_what_rfc_6902_says() {
        let cases = [
            (json!({"foo":"bar"}), json!([{"op":"add","path":"/baz","value":"qux"}]), json!({"baz":"qux","foo":"bar"})),
            (
                json!({"foo":["bar","baz"]}),
                json!([{"op":"add","path":"/foo/1","value":"qux"}]),
                json!({"foo":["bar","qux","baz"]}),
            ),
            (json!({"foo":["bar"]}), json!([{"op":"add","path":"/foo/-","value":["x"]}]), json!({"foo":["bar",["x"]]})),
            (json!({"foo":["bar"]}), json!([{"op":"add","path":"/foo/1","value":"x"}]), json!({"foo":["bar","x"]})),
            (json!({"baz":"qux","foo":"bar"}), json!([{"op":"remove","path":"/baz"}]), json!({"foo":"bar"})),
            (
                json!({"foo":["bar","qux","baz"]}),
                json!([{"op":"remove","path":"/foo/1"}]),
                json!({"foo":["bar","baz"]}),
            ),
            (
                json!({"foo":["bar","qux","baz"]}),
                json!([{"op":"remove","path":"/foo/-1"}]),
                json!({"foo":["bar","qux"]}),
            ),
            (json!({"baz":"qux"}), json!([{"op":"replace","path":"/baz","value":"boo"}]), json!({"baz":"boo"})),
            (json!({"baz":"qux"}), json!([{"op":"replace","path":"/new","value":1}]), json!({"baz":"qux","new":1})),
            (
                json!({"a":{"b":1},"c":{}}),
                json!([{"op":"move","from":"/a/b","path":"/c/d"}]),
                json!({"a":{},"c":{"d":1}}),
            ),
            (
                json!({"foo":["all","grass","cows","eat"]}),
                json!([{"op":"move","from":"/foo/1","path":"/foo/3"}]),
                json!({"foo":["all","cows","eat","grass"]}),
            ),
            (json!({"a":{"b":1}}), json!([{"op":"copy","from":"/a","path":"/c"}]), json!({"a":{"b":1},"c":{"b":1}})),
            (
                json!({"a/b":1,"m~n":2}),
                json!([{"op":"test","path":"/a~1b","value":1},{"op":"test","path":"/m~0n","value":2}]),
                json!({"a/b":1,"m~n":2}),
            ),
            (json!({"~1":10}), json!([{"op":"test","path":"/~01","value":10}]), json!({"~1":10})),
            (json!({"a":1}), json!([{"op":"test","path":"/b","value":null}]), json!({"a":1})),
            (json!({"a":1}), json!([{"op":"replace","path":"","value":{"b":2}}]), json!({"b":2})),
            (json!({"":{"":1}}), json!([{"op":"replace","path":"//","value":2}]), json!({"":{"":2}})),
            (json!({"a":1}), json!(null), json!({"a":1})),
        ];
        for (doc, patch, want) in cases {
            let mut got = doc.clone();
            assert_eq!(apply(&mut got, &patch), Ok(vec![]), "{doc} patched with {patch}");
            assert_eq!(got, want, "{doc} patched with {patch}");
        }
    }

    #[test]
    fn what_cannot_be_applied_is_422_without_a_word_why() {
        let doc = json!({"data":{"x":"1"},"l":["a"]});
        for patch in [
            json!([{"op":"test","path":"/data/x","value":"no"}]),
            json!([{"op":"jump","path":"/data"}]),
            json!([{"op":"remove","path":"/none"}]),
            json!([{"op":"add","path":"/none/x","value":1}]),
            json!([{"op":"add","path":"","value":{}}]),
            json!([{"op":"add","path":"/l/2","value":1}]),
            json!([{"op":"add","path":"/l/x","value":1}]),
            json!([{"op":"replace","path":"/l/1","value":1}]),
            json!([{"op":"remove","path":"/l/-2"}]),
            json!([{"op":"move","from":"/none","path":"/data"}]),
            json!([{"op":"replace","path":"","value":1}]),
            json!([{"path":"/data"}]),
            json!([{"op":"add"}]),
        ] {
            let e = apply(&mut doc.clone(), &patch).unwrap_err();
            let want = json!({"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"the server rejected our request due to an error in our request","reason":"Invalid","details":{},"code":422});
            assert_eq!(e.to_tree(), want, "{patch}");
        }
    }

    #[test]
    fn what_is_no_list_of_operations_is_400() {
        let text = |patch: Tree| apply(&mut json!({}), &patch).unwrap_err().message;
        assert_eq!(
            text(json!({})),
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"
        );
        assert_eq!(
            text(json!(["x"])),
            "error decoding patch: json: cannot unmarshal string into Go value of type handlers.jsonPatchOp"
        );
        assert_eq!(
            text(json!([{"op":1}])),
            "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string"
        );
    }

    #[test]
    fn bounds_are_kept() {
        let many: Vec<Tree> = (0..=OPERATIONS_MAX).map(|_| json!({"op":"test","path":"/a","value":1})).collect();
        let e = apply(&mut json!({"a":1}), &Tree::Array(many)).unwrap_err();
        assert_eq!(e.code, 413);
        assert_eq!(
            e.message,
            "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001"
        );
        // Each copy doubles the document.
        let doubling: Vec<Tree> = (0..40).map(|i| json!({"op":"copy","from":"/a","path":format!("/a/{i}")})).collect();
        assert_eq!(apply(&mut json!({"a":{"x":"y"}}), &Tree::Array(doubling)).unwrap_err().code, 422);
        let long: Vec<Tree> = vec![json!(0); 300_000];
        let inserts: Vec<Tree> = (0..100).map(|_| json!({"op":"add","path":"/l/0","value":1})).collect();
        assert_eq!(apply(&mut json!({"l": long}), &Tree::Array(inserts)).unwrap_err().code, 422);
    }

    #[test]
    fn no_operation_nests_deeper_than_a_body_may() {
        let nest = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!({"k": inner}));
        let below = |levels: usize| "/k".repeat(levels);
        // Values that are moved into one another and back: without a bound, 100 levels deeper each time.
        let mut swelling = vec![json!({"op":"add","path":"/a","value":{"k":1}})];
        for _ in 0..200 {
            swelling.push(json!({"op":"add","path":"/b","value":nest(100)}));
            swelling.push(json!({"op":"move","from":"/a","path":format!("/b{}/a", below(99))}));
            swelling.push(json!({"op":"move","from":"/b","path":"/a"}));
        }
        assert_eq!(apply(&mut json!({}), &Tree::Array(swelling)).unwrap_err().code, 422);
        let deeper = |op: &str| json!([{"op":op,"from":"/c","path":format!("/a{}", below(60)),"value":nest(60)}]);
        for op in ["add", "replace", "copy", "move"] {
            let mut doc = json!({"a": nest(60), "c": nest(60)});
            assert_eq!(apply(&mut doc, &deeper(op)).unwrap_err().code, 422, "{op}");
            let mut doc = json!({"a": nest(60), "c": nest(59)});
            let fits = json!([{"op":op,"from":"/c","path":format!("/a{}", below(60)),"value":nest(59)}]);
            assert_eq!(apply(&mut doc, &fits), Ok(vec![]), "{op}");
        }
        // Measuring has its bound, too.
        let mut doc = json!({"a": vec![0; 100_000], "b": {}});
        let to_and_fro = (0..400).map(|i| match i % 2 {
            0 => json!({"op":"move","from":"/a","path":"/b/a"}),
            _ => json!({"op":"move","from":"/b/a","path":"/a"}),
        });
        assert_eq!(apply(&mut doc, &to_and_fro.collect()).unwrap_err().code, 422);
    }

    #[test]
    fn unknown_fields_of_operations_are_told_to_strict_clients() {
        let strict = apply(&mut json!({"a":1}), &json!([{"op":"remove","path":"/a","vaule":1}])).unwrap();
        assert_eq!(strict, ["json patch unknown field \"[0].vaule\""]);
    }
}
