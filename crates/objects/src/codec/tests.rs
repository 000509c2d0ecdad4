#![allow(clippy::unwrap_used)]
use super::*;
use crate::Map;
use crate::schema::{Alternative, ObjectType, Scalar, Schema, Type, TypeId, builtin};
use base64::Engine;
use proptest::prelude::*;
use serde::Deserialize;

/// Observed from the serializers of k8s.io/apimachinery 0.37.0 in strict mode: bodies, and the object in
/// JSON and protobuf that came of each, or the error.
const ROWS: &str = include_str!("../../tests/golden/decode.jsonl");

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    r#in: In,
    #[serde(default)]
    error: String,
    #[serde(default)]
    strict: Vec<String>,
    json: Option<Tree>,
    #[serde(default)]
    proto: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct In {
    group: String,
    version: String,
    kind: String,
    format: String,
    body: String,
}

/// Where we differ, and why.
const DIFFERENT: &[(&str, &str)] = &[
    ("0001-01-01", "a deletionTimestamp of the year 1 is none; Go writes null, we leave it out"),
    ("  ~: x", "Go prints its own types"),
    (
        r#""items":"x""#,
        "Go takes it for a schema that is neither one nor a list, an empty message in protobuf; here it is null",
    ),
    ("? [a]", "Go prints its own types"),
    (": x", "null as a key is refused later, in other words"),
];

/// What of an error counts: Go's file names and YAML's line numbers do not.
fn first_clause(e: &str) -> String {
    let e = e.split(" in scheme ").next().unwrap();
    match e.split_once("yaml: line ") {
        Some((before, rest)) => format!("{before}yaml: {}", rest.split_once(": ").unwrap().1),
        None => e.to_owned(),
    }
}

#[test]
fn a_body_becomes_what_kubernetes_makes_of_it_or_the_same_error() {
    let mut seen = 0;
    for line in ROWS.lines() {
        let row: Row = serde_json::from_str(line).unwrap();
        let body = row.r#in.body.as_str();
        if DIFFERENT.iter().any(|(part, _)| body == *part || (part.len() > 3 && body.contains(part))) {
            continue;
        }
        let format = if row.r#in.format == "json" { Format::Json } else { Format::Yaml };
        let (group, version, kind) = (row.r#in.group.as_str(), row.r#in.version.as_str(), row.r#in.kind.as_str());
        let ty = builtin().by_kind(group, version, kind).unwrap();
        let want = Want { group, version, kind, ty };
        match read(builtin(), want, format, body.as_bytes()) {
            Err(status) => {
                let (m, e) = (first_clause(&status.message), first_clause(row.error.trim_start_matches("[no kind] ")));
                assert!(!e.is_empty() && m.contains(&e), "{body}\n  want {:?} {:?}\n  got  {m}", row.error, row.json);
                let prefix = if row.error.starts_with("[no kind]") {
                    "the object provided is unrecognized (must be"
                } else {
                    ""
                };
                assert!(status.message.starts_with(prefix), "{}", status.message);
            }
            Ok(got) => {
                assert_eq!(row.error, "", "{body}");
                let mut json = row.json.unwrap();
                json["apiVersion"] = got.tree["apiVersion"].clone();
                json["kind"] = got.tree["kind"].clone();
                assert_eq!((&got.tree, &got.strict), (&json, &row.strict), "{body}");
                // RawExtension's spaces and order are the sender's in Go, canonical here.
                if !body.contains("ControllerRevision") {
                    let bytes = protobuf::encode_message(builtin(), ty, &got.tree).unwrap();
                    let proto = base64::engine::general_purpose::STANDARD.decode(&row.proto).unwrap();
                    assert_eq!(bytes, protobuf::open(&proto).unwrap().raw, "{body}");
                }
            }
        }
        seen += 1;
    }
    assert!(seen > 220, "{seen}");
}

#[test]
fn a_body_of_another_kind_or_version_is_refused() {
    let ty = builtin().by_kind("", "v1", "ConfigMap").unwrap();
    let want = Want { group: "", version: "v1", kind: "ConfigMap", ty };
    let e = |body: &str| read(builtin(), want, Format::Json, body.as_bytes()).unwrap_err();
    assert_eq!(
        e(r#"{"apiVersion":"v2","kind":"ConfigMap"}"#).message,
        r#"ConfigMap in version "v2" cannot be handled as a ConfigMap: no kind "ConfigMap" is registered for version "v2""#
    );
    assert!(
        e(r#"{"apiVersion":"v1","kind":"Pod"}"#)
            .message
            .starts_with(r#"Pod in version "v1" cannot be handled as a ConfigMap: converting"#)
    );
    let hpa = Want { group: "autoscaling", version: "v2", kind: "HorizontalPodAutoscaler", ty };
    let other =
        read(builtin(), hpa, Format::Json, br#"{"apiVersion":"autoscaling/v1","kind":"HorizontalPodAutoscaler"}"#);
    assert_eq!(
        other.unwrap_err().message,
        "the API version in the data (autoscaling/v1) does not match the expected API version (autoscaling/v2)"
    );
}

#[test]
fn delete_options_go_by_any_groups_name() {
    let ty = builtin().by_kind("", "v1", "DeleteOptions").unwrap();
    let want = Want { group: "", version: "v1", kind: "DeleteOptions", ty };
    let body = br#"{"apiVersion":"apps/v1","kind":"DeleteOptions","gracePeriodSeconds":0}"#;
    assert_eq!(read(builtin(), want, Format::Json, body).unwrap().tree["gracePeriodSeconds"], 0);
    assert!(read(builtin(), want, Format::Json, br#"{"apiVersion":"nope/v1","kind":"DeleteOptions"}"#).is_err());
}

#[test]
fn what_nests_too_deeply_is_refused_in_every_format() {
    let json = "[".repeat(20_000);
    assert!(json::parse(json.as_bytes()).unwrap_err().to_string().contains("exceeded max depth"));
    assert!(yaml::parse(json.as_bytes()).unwrap_err().to_string().starts_with("yaml: "));
    let yaml: String = (0..500).map(|i| " ".repeat(i) + "a:\n").collect();
    assert!(yaml::parse(yaml.as_bytes()).unwrap_err().to_string().starts_with("yaml: "));
    // A chain of aliases, each one level deeper than the last.
    let chain: String = (1..500).map(|i| format!("k{i}: &a{i} [*a{}]\n", i - 1)).collect();
    let e = yaml::parse(format!("k0: &a0 x\n{chain}").as_bytes()).unwrap_err();
    assert!(e.to_string().contains("max depth"), "{e}");
    let deep = "{\"a\":".repeat(MAX_DEPTH) + "1" + &"}".repeat(MAX_DEPTH);
    assert!(json::parse(deep.as_bytes()).is_ok());
    // JSONSchemaProps.not.not.not…
    let ty = builtin().by_name("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps").unwrap();
    let mut message = Vec::new();
    for _ in 0..500 {
        let mut outer = vec![0xe2, 0x01];
        let mut n = message.len();
        while n > 0x7f {
            outer.push((n & 0x7f) as u8 | 0x80);
            n >>= 7;
        }
        outer.push(n as u8);
        outer.append(&mut message);
        message = outer;
    }
    assert!(protobuf::decode(builtin(), ty, &message).unwrap_err().to_string().contains("max depth"));
}

#[test]
fn a_yaml_bomb_costs_its_sender_nothing_but_the_request() {
    let mut bomb = String::from("a: &a [\"lol\",\"lol\",\"lol\",\"lol\",\"lol\",\"lol\",\"lol\",\"lol\",\"lol\"]\n");
    for (name, last) in "bcdefghi".chars().zip("abcdefgh".chars()) {
        bomb.push_str(&format!("{name}: &{name} [{}]\n", vec![format!("*{last}"); 9].join(",")));
    }
    assert_eq!(yaml::parse(bomb.as_bytes()).unwrap_err().to_string(), "yaml: document contains excessive aliasing");
    // Each anchor keeps what is inside of it, the anchors inside as well.
    let kept: String = (0..100).map(|i| format!("&a{i} [")).collect();
    let kept = kept + &"a,".repeat(100_000) + &"]".repeat(100);
    assert_eq!(yaml::parse(kept.as_bytes()).unwrap_err().to_string(), "yaml: document contains excessive aliasing");
}

#[test]
fn numbers_stay_what_they_are_or_are_refused() {
    let parse = |s: &str| json::parse(s.as_bytes()).map(|t| String::from_utf8(json::encode(&t)).unwrap());
    for same in ["0", "-1", "9223372036854775807", "-9223372036854775808", "18446744073709551615", "1.5", "0.1"] {
        assert_eq!(parse(same).unwrap(), same);
    }
    assert_eq!(
        parse("18446744073709551616").unwrap_err().to_string(),
        "json: cannot unmarshal number 18446744073709551616 into Go value of type float64"
    );
    assert!(parse("1e400").is_err());
}

#[test]
fn fields_of_a_newer_release_stay_when_asked_to() {
    let ty = builtin().by_kind("", "v1", "ConfigMap").unwrap();
    let tree = serde_json::json!({"kind": "ConfigMap", "metadata": {"name": "a", "new": {"x": [1]}}});
    let kept = json::conform(builtin(), ty, tree.clone(), Unknown::Keep).unwrap();
    assert_eq!(kept.tree, tree);
    assert_eq!(kept.strict, [r#"unknown field "metadata.new""#]);
    let dropped = json::conform(builtin(), ty, tree, Unknown::Drop).unwrap();
    assert_eq!(dropped.tree, serde_json::json!({"kind": "ConfigMap", "metadata": {"name": "a"}}));
}

#[test]
fn a_field_number_nobody_knows_is_reported_not_swallowed() {
    let ty = builtin().by_kind("", "v1", "ConfigMap").unwrap();
    // metadata { name: "x", 99: 1 }, 100: 1
    let raw = [0x0a, 6, 0x0a, 1, b'x', 0x98, 0x06, 1, 0xa0, 0x06, 1];
    let d = protobuf::decode(builtin(), ty, &raw).unwrap();
    assert_eq!(d.strict, [r##"unknown field "metadata.#99""##, r##"unknown field "#100""##]);
    assert_eq!(d.tree["metadata"]["name"], "x");
}

/// Random canonical trees of a type.
fn tree_of(s: &'static Schema, ty: TypeId, depth: u32) -> BoxedStrategy<Tree> {
    let text = "[ -~äß\\n]{0,12}";
    match s.get(ty) {
        Type::Any => {
            prop_oneof![Just(serde_json::json!({"a": [1, null, "x"]})), Just(serde_json::json!({"f:b": {}}))].boxed()
        }
        Type::Scalar(scalar) => match scalar {
            Scalar::String => text.prop_map(Tree::from).boxed(),
            Scalar::Bool => any::<bool>().prop_map(Tree::from).boxed(),
            Scalar::Int32 => any::<i32>().prop_map(Tree::from).boxed(),
            Scalar::Int64 => any::<i64>().prop_map(Tree::from).boxed(),
            Scalar::Double => (-1000i32..1000).prop_map(|n| scalar::number(f64::from(n) / 8.0).unwrap().into()).boxed(),
            Scalar::Bytes => any::<Vec<u8>>().prop_map(|b| scalar::BASE64.encode(b).into()).boxed(),
            Scalar::Time => (0i64..4_000_000_000).prop_map(|t| base::Wall(t as u64 * 1000).rfc3339().into()).boxed(),
            Scalar::MicroTime => {
                (0i64..4_000_000_000_000).prop_map(|t| base::Wall(t as u64).rfc3339_micro().into()).boxed()
            }
            Scalar::Quantity => {
                prop_oneof![Just("1"), Just("100m"), Just("3Gi"), Just("1e3")].prop_map(Tree::from).boxed()
            }
            Scalar::IntOrString => {
                prop_oneof![any::<i32>().prop_map(Tree::from), "[a-z%]{1,5}".prop_map(Tree::from)].boxed()
            }
        },
        Type::Map { value } => prop::collection::btree_map("[a-z./]{1,8}", tree_of(s, *value, depth), 1..3)
            .prop_map(|m| Tree::Object(m.into_iter().collect()))
            .boxed(),
        Type::List { item, .. } => prop::collection::vec(tree_of(s, *item, depth), 1..3).prop_map(Tree::Array).boxed(),
        Type::SchemaOr { alternative: Alternative::Bool, .. } => any::<bool>().prop_map(Tree::from).boxed(),
        Type::SchemaOr { alternative: Alternative::Strings, .. } => Just(serde_json::json!(["a", "b"])).boxed(),
        Type::SchemaOr { schema, .. } => tree_of(s, *schema, depth),
        Type::Object(o) => object_of(s, o, depth),
    }
}

fn object_of(s: &'static Schema, o: &'static ObjectType, depth: u32) -> BoxedStrategy<Tree> {
    if depth == 0 {
        return Just(Tree::Object(Map::new())).boxed();
    }
    let some = prop::collection::vec(0..o.fields.len().max(1), 0..5);
    some.prop_flat_map(move |picked| {
        let fields: Vec<_> = picked
            .into_iter()
            .filter_map(|i| o.fields.get(i))
            .filter(|f| f.number != 0)
            .map(|f| (Just(f.name.clone()), tree_of(s, f.ty, depth - 1)))
            .collect();
        fields.prop_map(|fields| Tree::Object(fields.into_iter().collect()))
    })
    .boxed()
}

fn any_kind() -> impl Strategy<Value = TypeId> {
    let ids: Vec<TypeId> = builtin()
        .kinds()
        .map(|(.., t)| t)
        .filter(|t| builtin().object(*t).is_some_and(|o| !o.proto.is_empty()))
        .collect();
    prop::sample::select(ids)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn json_to_protobuf_and_back_is_the_same_tree((ty, tree) in any_kind().prop_flat_map(|t| (Just(t), tree_of(builtin(), t, 6)))) {
        let s = builtin();
        let canonical = json::conform(s, ty, tree, Unknown::Drop).unwrap();
        prop_assert_eq!(&canonical.strict, &Vec::<String>::new());
        let again = json::decode(s, ty, &json::encode(&canonical.tree)).unwrap();
        prop_assert_eq!(&again.tree, &canonical.tree, "canonical form is a fixed point");
        let bytes = protobuf::encode_message(s, ty, &canonical.tree).unwrap();
        let back = protobuf::decode(s, ty, &bytes).unwrap();
        prop_assert_eq!(&back.tree, &canonical.tree);
        prop_assert_eq!(protobuf::encode_message(s, ty, &back.tree).unwrap(), bytes);
        let yaml = yaml::encode(&canonical.tree);
        prop_assert_eq!(&yaml::parse(yaml.as_bytes()).unwrap(), &canonical.tree, "{}", yaml);
    }

    #[test]
    fn bytes_that_mean_nothing_never_panic(ty in any_kind(), bytes in any::<Vec<u8>>()) {
        let _ = json::decode(builtin(), ty, &bytes);
        let _ = yaml::decode(builtin(), ty, &bytes);
        let _ = protobuf::open(&bytes);
        let _ = protobuf::decode(builtin(), ty, &bytes);
    }

    #[test]
    fn a_damaged_message_never_panics(
        (ty, tree) in any_kind().prop_flat_map(|t| (Just(t), tree_of(builtin(), t, 5))),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let canonical = json::conform(builtin(), ty, tree, Unknown::Drop).unwrap();
        let mut bytes = protobuf::encode_message(builtin(), ty, &canonical.tree).unwrap();
        if !bytes.is_empty() {
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(cut.index(bytes.len()) + 1);
        }
        if let Ok(d) = protobuf::decode(builtin(), ty, &bytes) {
            prop_assert!(protobuf::encode_message(builtin(), ty, &d.tree).is_ok());
        }
    }

    #[test]
    fn json_and_yaml_texts_never_panic(text in "[\\[\\]{}:,\"'a-c0-9 \n&*!|>~<.eE-]{0,60}") {
        let ty = builtin().by_kind("", "v1", "Pod").unwrap();
        let _ = json::decode(builtin(), ty, text.as_bytes());
        let _ = yaml::decode(builtin(), ty, text.as_bytes());
    }
}
