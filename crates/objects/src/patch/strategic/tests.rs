#![allow(clippy::unwrap_used)]

use super::*;
use crate::schema::builtin;
use proptest::prelude::*;
use serde_json::json;

fn patched(name: &str, doc: Tree, patch: Tree) -> Result<Tree, Status> {
    let mut doc = doc;
    apply(builtin(), builtin().by_name(name).unwrap(), &mut doc, &patch)?;
    Ok(doc)
}

const POD_SPEC: &str = "io.k8s.api.core.v1.PodSpec";
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const DEPLOYMENT_SPEC: &str = "io.k8s.api.apps.v1.DeploymentSpec";
const PDB_SPEC: &str = "io.k8s.api.policy.v1.PodDisruptionBudgetSpec";

#[test]
fn a_patch_does_what_its_directives_say() {
    let cases = [
        // Scalars, nulls, maps.
        (
            POD_SPEC,
            json!({"hostname":"a","subdomain":"s"}),
            json!({"hostname":"b","subdomain":null}),
            json!({"hostname":"b"}),
        ),
        (POD_SPEC, json!({}), json!({"hostname":null}), json!({})),
        (
            META,
            json!({"labels":{"a":"1","b":"2"}}),
            json!({"labels":{"b":null,"c":"3"}}),
            json!({"labels":{"a":"1","c":"3"}}),
        ),
        (META, json!({}), json!({"labels":{"a":"1","b":null}}), json!({"labels":{"a":"1"}})),
        (
            META,
            json!({"labels":{"a":"1"}}),
            json!({"labels":{"$patch":"replace","b":"2"}}),
            json!({"labels":{"b":"2"}}),
        ),
        (META, json!({"labels":{"a":"1"}}), json!({"labels":{"$patch":"delete"}}), json!({"labels":{}})),
        (META, json!({}), json!({"labels":{"$patch":"delete"}}), json!({})),
        (META, json!({"labels":{"a":"1"}}), json!({"$patch":"replace","name":"x"}), json!({"name":"x"})),
        // Lists by merge key: the patch's items first, in its order.
        (
            POD_SPEC,
            json!({"containers":[{"name":"c","image":"busybox"}]}),
            json!({"containers":[{"name":"d","image":"x"}]}),
            json!({"containers":[{"name":"d","image":"x"},{"name":"c","image":"busybox"}]}),
        ),
        (
            POD_SPEC,
            json!({"containers":[{"name":"a","image":"1","tty":true},{"name":"b","image":"1"}]}),
            json!({"containers":[{"name":"b","image":"2"},{"name":"a","tty":null}]}),
            json!({"containers":[{"name":"b","image":"2"},{"name":"a","image":"1"}]}),
        ),
        (
            POD_SPEC,
            json!({"containers":[{"name":"a"},{"name":"b"},{"name":"c"}]}),
            json!({"containers":[{"name":"b","image":"2"}]}),
            json!({"containers":[{"name":"a"},{"name":"b","image":"2"},{"name":"c"}]}),
        ),
        (
            POD_SPEC,
            json!({"containers":[{"name":"a"},{"name":"b"},{"name":"c"}]}),
            json!({"containers":[{"name":"b","$patch":"delete"}]}),
            json!({"containers":[{"name":"a"},{"name":"c"}]}),
        ),
        (
            POD_SPEC,
            json!({"containers":[{"name":"a"},{"name":"b"}]}),
            json!({"containers":[{"name":"d","image":"x"},{"$patch":"replace"}]}),
            json!({"containers":[{"name":"d","image":"x"}]}),
        ),
        (
            POD_SPEC,
            json!({"containers":[{"name":"a","ports":[{"containerPort":80,"protocol":"TCP"}]}]}),
            json!({"containers":[{"name":"a","ports":[{"containerPort":81},{"containerPort":80,"name":"web"}]}]}),
            json!({"containers":[{"name":"a","ports":[{"containerPort":81},{"containerPort":80,"protocol":"TCP","name":"web"}]}]}),
        ),
        // Atomic lists.
        (
            POD_SPEC,
            json!({"tolerations":[{"key":"a"}]}),
            json!({"tolerations":[{"key":"b"}]}),
            json!({"tolerations":[{"key":"b"}]}),
        ),
        (POD_SPEC, json!({"tolerations":[{"key":"a"}]}), json!({"tolerations":[]}), json!({"tolerations":[]})),
        // Lists of scalars as sets.
        (META, json!({"finalizers":["a","b"]}), json!({"finalizers":["c","a"]}), json!({"finalizers":["c","a","b"]})),
        (
            META,
            json!({"finalizers":["a","b"]}),
            json!({"$deleteFromPrimitiveList/finalizers":["a","z"]}),
            json!({"finalizers":["b"]}),
        ),
        (META, json!({}), json!({"$deleteFromPrimitiveList/finalizers":["a"]}), json!({})),
        (
            META,
            json!({"finalizers":["a","b"]}),
            json!({"$deleteFromPrimitiveList/finalizers":["a"],"finalizers":["c"]}),
            json!({"finalizers":["c","b"]}),
        ),
        // Order.
        (
            POD_SPEC,
            json!({"containers":[{"name":"a"},{"name":"b"},{"name":"c"}]}),
            json!({"$setElementOrder/containers":[{"name":"c"},{"name":"b"},{"name":"a"}]}),
            json!({"containers":[{"name":"c"},{"name":"b"},{"name":"a"}]}),
        ),
        (
            POD_SPEC,
            json!({"containers":[{"name":"a"},{"name":"side"},{"name":"b"}]}),
            json!({"$setElementOrder/containers":[{"name":"a"},{"name":"new"},{"name":"b"}],"containers":[{"name":"new","image":"i"}]}),
            json!({"containers":[{"name":"a"},{"name":"new","image":"i"},{"name":"side"},{"name":"b"}]}),
        ),
        (
            POD_SPEC,
            json!({"containers":[{"name":"a"},{"name":"b"}]}),
            json!({"$setElementOrder/containers":[{"name":"b"}],"containers":[{"name":"a","$patch":"delete"}]}),
            json!({"containers":[{"name":"b"}]}),
        ),
        (
            META,
            json!({"finalizers":["a","b"]}),
            json!({"$setElementOrder/finalizers":["b","a","c"],"finalizers":["c"]}),
            json!({"finalizers":["b","a","c"]}),
        ),
        (
            POD_SPEC,
            json!({}),
            json!({"$setElementOrder/containers":[{"name":"a"}],"containers":[{"name":"a","tty":null}]}),
            json!({"containers":[{"name":"a"}]}),
        ),
        (POD_SPEC, json!({}), json!({"$setElementOrder/containers":[{"name":"a"}]}), json!({})),
        // retainKeys.
        (
            DEPLOYMENT_SPEC,
            json!({"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxSurge":1}}}),
            json!({"strategy":{"$retainKeys":["type"],"type":"Recreate"}}),
            json!({"strategy":{"type":"Recreate"}}),
        ),
        (
            POD_SPEC,
            json!({"volumes":[{"name":"v","emptyDir":{}}]}),
            json!({"volumes":[{"name":"v","$retainKeys":["name","hostPath"],"hostPath":{"path":"/"}}]}),
            json!({"volumes":[{"name":"v","hostPath":{"path":"/"}}]}),
        ),
        (
            POD_SPEC,
            json!({}),
            json!({"volumes":[{"name":"v","$retainKeys":["name","hostPath"],"hostPath":{"path":"/"}}]}),
            json!({"volumes":[{"name":"v","hostPath":{"path":"/"}}]}),
        ),
        // A struct that is replaced.
        (
            PDB_SPEC,
            json!({"selector":{"matchLabels":{"a":"b"}}}),
            json!({"selector":{"matchLabels":{"c":"d"}}}),
            json!({"selector":{"matchLabels":{"c":"d"}}}),
        ),
    ];
    for (name, doc, patch, want) in cases {
        assert_eq!(patched(name, doc.clone(), patch.clone()), Ok(want), "{doc} patched with {patch}");
    }
}

#[test]
fn errors_are_worded_as_kubernetes_words_them() {
    let containers = || json!({"containers":[{"name":"a"}]});
    let cases = [
        (
            POD_SPEC,
            containers(),
            json!({"containers":[{"image":"x"}]}),
            500,
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (
            POD_SPEC,
            containers(),
            json!({"containers":[{"image":"x","$patch":"delete"}]}),
            500,
            "map: map[$patch:delete image:x] does not contain declared merge key: name",
        ),
        (
            POD_SPEC,
            containers(),
            json!({"containers":[{"name":"x","$patch":"nope"}]}),
            500,
            "unknown patch type: nope in map: map[$patch:nope name:x]",
        ),
        (
            POD_SPEC,
            containers(),
            json!({"containers":[{"name":"x","$patch":"merge"}]}),
            500,
            "merging lists cannot yet be specified in the patch",
        ),
        (
            META,
            json!({"labels":{}}),
            json!({"labels":{"$patch":"nope","n":1}}),
            500,
            "unknown patch type: nope in map: map[$patch:nope n:1]",
        ),
        (
            POD_SPEC,
            containers(),
            json!({"containers":["x"]}),
            500,
            "list element types are not identical: [[map[name:a]] [x]]",
        ),
        (
            META,
            json!({"finalizers":["a"]}),
            json!({"finalizers":[["a"]]}),
            500,
            "list element types are not identical: [[a] [[a]]]",
        ),
        (
            META,
            json!({"finalizers":[]}),
            json!({"finalizers":[["a"]]}),
            422,
            "the server rejected our request due to an error in our request",
        ),
        (
            DEPLOYMENT_SPEC,
            json!({"strategy":{}}),
            json!({"strategy":{"$retainKeys":"type"}}),
            400,
            "invalid patch format of retainKeys",
        ),
        (
            DEPLOYMENT_SPEC,
            json!({"strategy":{}}),
            json!({"strategy":{"$retainKeys":[],"type":"x"}}),
            400,
            "invalid patch format of retainKeys",
        ),
        (META, json!({}), json!({"$deleteFromPrimitiveList":["a"]}), 400, "invalid patch format of primitive list"),
        (META, json!({}), json!({"$setElementOrder":["a"]}), 400, "invalid patch format of setElementOrder list"),
        (
            META,
            json!({}),
            json!({"$setElementOrder/finalizers":{}}),
            500,
            "expected a []interface {}, but received a map[string]interface {}",
        ),
        (
            POD_SPEC,
            containers(),
            json!({"$setElementOrder/containers":[{"name":"a"},{"name":"b"}],"containers":[{"name":"b"},{"name":"a"}]}),
            500,
            "The order in patch list:\n[map[name:b] map[name:a]]\n doesn't match $setElementOrder list:\n[map[name:a] map[name:b]]\n",
        ),
        (
            META,
            json!({"nope":{}}),
            json!({"nope":{}}),
            500,
            "unable to find api field in struct ObjectMeta for the json field \"nope\"",
        ),
        (META, json!({}), json!([]), 400, "json: cannot unmarshal array into Go value of type map[string]interface {}"),
    ];
    for (name, doc, patch, code, text) in cases {
        let e = patched(name, doc, patch.clone()).unwrap_err();
        assert_eq!((e.code, e.message.as_str()), (code, text), "{patch}");
    }
}

#[test]
fn very_long_lists_are_merged_in_good_time() {
    let names = |from: usize| -> Vec<Tree> { (from..from + 20_000).map(|i| json!(format!("f{i}"))).collect() };
    let merged = patched(META, json!({"finalizers": names(0)}), json!({"finalizers": names(10_000)})).unwrap();
    assert_eq!(merged["finalizers"].as_array().map(Vec::len), Some(30_000));
}

fn container() -> impl Strategy<Value = Tree> {
    ("[a-d]", prop::option::of("[x-z]"), prop::collection::btree_set(80..84u16, 0..3)).prop_map(
        |(name, image, ports)| {
            let ports: Vec<Tree> = ports.into_iter().map(|p| json!({"containerPort": p})).collect();
            json!({"name": name, "image": image, "ports": ports})
        },
    )
}

fn containers() -> impl Strategy<Value = Tree> {
    prop::collection::vec(container(), 0..5).prop_map(|mut list| {
        let mut seen = std::collections::BTreeSet::new();
        list.retain(|c| seen.insert(c["name"].to_string()));
        json!({"containers": list, "nodeSelector": {"a": "b"}})
    })
}

proptest! {
    #[test]
    fn a_patch_applied_twice_does_what_it_did_once(doc in containers(), patch in containers(), gone in "[a-d]") {
        let mut patch = patch;
        if let Some(list) = patch["containers"].as_array_mut() {
            list.retain(|c| c["name"] != json!(gone));
            list.push(json!({"name": gone, "$patch": "delete"}));
        }
        let once = patched(POD_SPEC, doc, patch.clone()).unwrap();
        let twice = patched(POD_SPEC, once.clone(), patch).unwrap();
        prop_assert_eq!(&once, &twice);
        prop_assert!(once["containers"].as_array().is_none_or(|l| l.iter().all(|c| c["name"] != json!(gone))));
    }
}
