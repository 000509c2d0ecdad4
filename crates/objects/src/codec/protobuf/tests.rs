#![allow(clippy::unwrap_used)]
use super::*;
use crate::codec::json;
use crate::schema::builtin;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Observed from kube-apiserver 1.37.0 with default settings.
const GOLDEN: &str = include_str!("../../../tests/golden/protobuf.json");

fn type_of(api_version: &str, kind: &str) -> TypeId {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    builtin().by_kind(group, version, kind).unwrap()
}

/// The ControllerRevision's data, `{"a": 1}`, without its space, and the three lengths around it less one.
fn without_space(bytes: &[u8]) -> Vec<u8> {
    let at = bytes.windows(8).position(|w| w == br#"{"a": 1}"#).unwrap();
    let mut out = [&bytes[..at], br#"{"a":1}"#, &bytes[at + 8..]].concat();
    out[at - 1] -= 1;
    out[at - 3] -= 1;
    let raw = MAGIC.len() + 2 + usize::from(out[5]) + 1;
    out[raw] -= 1;
    out
}

#[test]
fn a_message_of_the_real_server_is_read_and_written_back_byte_for_byte() {
    let golden: Tree = serde_json::from_str(GOLDEN).unwrap();
    let mut seen = 0;
    for (path, entry) in golden.as_object().unwrap() {
        let bytes = STANDARD.decode(entry["protobuf_base64"].as_str().unwrap()).unwrap();
        if !bytes.starts_with(MAGIC) {
            continue;
        }
        let e = open(&bytes).unwrap();
        let ty = type_of(e.api_version, e.kind);
        let Decoded { mut tree, strict } = decode(builtin(), ty, e.raw).unwrap();
        assert!(strict.is_empty(), "{path}: {strict:?}");
        tree["apiVersion"] = e.api_version.into();
        tree["kind"] = e.kind.into();
        if let Some(json) = entry.get("json") {
            let typed = json::conform(builtin(), ty, json.clone(), crate::codec::Unknown::Drop).unwrap();
            assert_eq!(&typed.tree, json, "{path}: what the server wrote is canonical");
            let mut json = json.clone();
            // A message has no apiVersion and kind; those of claim templates are a default.
            for claim in
                json.pointer_mut("/spec/volumeClaimTemplates").and_then(Tree::as_array_mut).into_iter().flatten()
            {
                claim.as_object_mut().unwrap().retain(|k, _| k != "apiVersion" && k != "kind");
            }
            assert_eq!(tree, json, "{path}");
        }
        // What stands in a RawExtension is kept with the sender's spaces there, canonical here.
        let bytes = if path.ends_with("controllerrevisions/m") { without_space(&bytes) } else { bytes };
        assert!(encode(builtin(), ty, &tree).unwrap() == bytes, "{path}: the bytes differ");
        seen += 1;
    }
    assert!(seen >= 50);
}

#[test]
fn a_watch_frame_is_the_real_servers() {
    let golden: Tree = serde_json::from_str(GOLDEN).unwrap();
    let bytes = STANDARD.decode(golden["watch stream, one ADDED"]["protobuf_base64"].as_str().unwrap()).unwrap();
    let at = bytes.windows(4).position(|w| w == MAGIC).unwrap();
    assert!(watch_frame("ADDED", &bytes[at..]) == bytes);
}
