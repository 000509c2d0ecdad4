//! A patched object as Go prints it in the text that refuses it.
//!
//! Kubernetes applies JSON patches and JSON merge patches to the JSON that Go's encoder makes of the object, with a
//! struct's fields in the order of their declaration. The library that does it (`github.com/evanphx/json-patch`,
//! version 4) takes apart only what the patch walks through, and writes the keys of that in order; everything else
//! is the text it was. A value that a JSON patch adds would be the client's own text; here its keys are in order.

use super::go_text;
use crate::Tree;
use crate::codec::MAX_DEPTH;
use crate::schema::{Schema, TypeId};
use std::collections::BTreeMap;

/// What of a document a patch has taken apart.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Walked {
    /// It and everything in it.
    whole: bool,
    below: BTreeMap<String, Walked>,
}

impl Walked {
    /// By a JSON merge patch.
    pub fn by_merge(patch: &Tree) -> Walked {
        match patch {
            Tree::Object(map) => {
                let below = map.iter().filter(|(_, v)| v.is_object() || v.is_array());
                Walked { whole: false, below: below.map(|(k, v)| (k.clone(), Walked::by_merge(v))).collect() }
            }
            // No list is merged: it is the patch's own, which was looked through for nulls.
            _ => Walked { whole: true, ..Walked::default() },
        }
    }

    /// By a JSON patch that was applied: the way to each of its places, and what it compared or put there. A `from`
    /// that an operation does not read was looked up by nobody, and may be of any length.
    pub fn by_operations(patch: &Tree) -> Walked {
        let mut walked = Walked::default();
        for operation in patch.as_array().into_iter().flatten() {
            let reads_from = matches!(operation["op"].as_str(), Some("move" | "copy"));
            let from = operation["from"].as_str().filter(|_| reads_from);
            for place in operation["path"].as_str().into_iter().chain(from) {
                let mut at = &mut walked;
                for token in place.split('/').skip(1).take(MAX_DEPTH) {
                    at = at.below.entry(token.replace("~1", "/").replace("~0", "~")).or_default();
                }
                at.whole = true;
            }
        }
        walked
    }
}

/// The text of an object of this type that a patch has been applied to.
pub fn text(schema: &Schema, ty: Option<TypeId>, tree: &Tree, walked: &Walked) -> String {
    let mut out = String::new();
    write(schema, ty, tree, Some(walked), &mut out);
    out
}

fn write(schema: &Schema, ty: Option<TypeId>, tree: &Tree, walked: Option<&Walked>, out: &mut String) {
    let below = |key: &str| walked.and_then(|w| if w.whole { Some(w) } else { w.below.get(key) });
    match tree {
        Tree::Object(map) => {
            let object = ty.filter(|_| walked.is_none()).and_then(|ty| schema.object(ty));
            let declared: Vec<&str> =
                object.map_or_else(Vec::new, |o| o.order.iter().map(|i| o.fields[*i].name.as_str()).collect());
            let mut entries: Vec<(&String, &Tree)> = map.iter().collect();
            entries.sort_by_key(|(k, _)| declared.iter().position(|n| n == k).unwrap_or(declared.len()));
            out.push('{');
            for (i, (key, value)) in entries.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_text(key, out);
                out.push(':');
                write(schema, ty.and_then(|ty| schema.child(ty, key)), value, below(key), out);
            }
            out.push('}');
        }
        Tree::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(schema, ty.and_then(|ty| schema.child(ty, "")), item, below(&i.to_string()), out);
            }
            out.push(']');
        }
        Tree::String(text) => write_text(text, out),
        Tree::Number(n) => out.push_str(&go_text::number(n)),
        other => out.push_str(&other.to_string()),
    }
}

/// `encoding/json` writes what could end a script in HTML, or a line in JavaScript, as its number.
fn write_text(text: &str, out: &mut String) {
    for c in Tree::from(text).to_string().chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::schema::builtin;
    use serde_json::json;

    #[test]
    fn a_place_that_nobody_looked_up_is_not_walked() {
        let long = "/".repeat(1 << 20);
        let test = json!([{"op": "test", "path": "/kind", "value": "Pod", "from": long}]);
        assert_eq!(Walked::by_operations(&test), Walked::by_operations(&json!([{"op": "test", "path": "/kind"}])));
        let moved = json!([{"op": "move", "path": "/a", "from": "/b"}]);
        assert_eq!(Walked::by_operations(&moved).below.len(), 2);
    }

    fn shown(kind: &str, tree: &Tree, walked: &Walked) -> String {
        let group = if kind == "Deployment" { "apps" } else { "" };
        text(builtin(), builtin().by_kind(group, "v1", kind), tree, walked)
    }

    #[test]
    fn what_no_patch_touched_has_its_fields_in_the_order_of_their_declaration() {
        let map = json!({"apiVersion": "v1", "data": {"b": "<1>", "a": "2"}, "immutable": true, "kind": "ConfigMap",
            "metadata": {"labels": {"y": "1", "x": "2"}, "name": "a", "namespace": "b",
                "ownerReferences": [{"name": "n", "uid": "u", "kind": "K", "apiVersion": "v1"}]}});
        // The object itself is always taken apart.
        let rest = r#""metadata":{"name":"a","namespace":"b","labels":{"x":"2","y":"1"},"ownerReferences":[{"apiVersion":"v1","kind":"K","name":"n","uid":"u"}]}}"#;
        assert_eq!(
            shown("ConfigMap", &map, &Walked::default()),
            format!(
                r#"{{"apiVersion":"v1","data":{{"a":"2","b":"\u003c1\u003e"}},"immutable":true,"kind":"ConfigMap",{rest}"#
            )
        );
        let list = json!({"items": [map]});
        let rest = rest.trim_end_matches("}}");
        assert_eq!(
            shown("ConfigMapList", &list, &Walked::default()),
            format!(
                r#"{{"items":[{{"kind":"ConfigMap","apiVersion":"v1",{rest}}},"immutable":true,"data":{{"a":"2","b":"\u003c1\u003e"}}}}]}}"#
            )
        );
    }

    #[test]
    fn a_volume_has_its_source_among_its_own_fields() {
        let pod = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}],
            "containers": [{"name": "c", "image": "i", "env": [], "envFrom": [], "args": []}], "dnsPolicy": "Default",
            "restartPolicy": "Always"}});
        assert_eq!(
            shown("Pod", &pod, &Walked::default()),
            r#"{"spec":{"volumes":[{"name":"v","emptyDir":{}}],"containers":[{"name":"c","image":"i","args":[],"envFrom":[],"env":[]}],"restartPolicy":"Always","dnsPolicy":"Default"}}"#
        );
    }

    #[test]
    fn what_a_patch_walked_through_has_its_keys_in_order() {
        let web = json!({"spec": {"replicas": 1, "minReadySeconds": 0, "selector": {},
            "template": {"spec": {"volumes": [], "containers": [{"name": "c", "image": "i"}]}}}});
        let plain = r#"{"spec":{"replicas":1,"selector":{},"template":{"spec":{"volumes":[],"containers":[{"name":"c","image":"i"}]}},"minReadySeconds":0}}"#;
        assert_eq!(shown("Deployment", &web, &Walked::by_merge(&json!({"metadata": {"name": "x"}}))), plain);
        let merged = Walked::by_merge(&json!({"spec": {"template": {"spec": {"dnsPolicy": null}}}}));
        let sorted = r#"{"spec":{"minReadySeconds":0,"replicas":1,"selector":{},"template":{"spec":{"containers":[{"name":"c","image":"i"}],"volumes":[]}}}}"#;
        assert_eq!(shown("Deployment", &web, &merged), sorted);
        let operations = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "i"}]);
        let walked = sorted.replace(r#"{"name":"c","image":"i"}"#, r#"{"image":"i","name":"c"}"#);
        assert_eq!(shown("Deployment", &web, &Walked::by_operations(&operations)), walked);
    }
}
