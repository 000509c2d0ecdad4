//! Every kind's columns and cells, as kube-apiserver 1.37.0 printed them.
#![allow(missing_docs, clippy::unwrap_used)]

use base::Wall;
use objects::table::Include;
use objects::{Tree, kinds, table};
use serde_json::json;

fn kind(path: &str) -> &'static kinds::Kind {
    let path = path.replace("/namespaces/gold", "");
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, version, plural) =
        if parts[0] == "api" { ("", parts[1], parts[2]) } else { (parts[1], parts[2], parts[3]) };
    kinds::by_resource(group, version, plural).unwrap_or_else(|| panic!("no row for {path}"))
}

#[test]
fn columns_are_the_api_servers() {
    let golden: Tree = serde_json::from_str(include_str!("golden/table_columns.json")).unwrap();
    for (path, want) in golden.as_object().unwrap() {
        // Kinds that are no rows yet still have their columns.
        let plural = path.rsplit('/').next().unwrap();
        if !kinds::KINDS.iter().any(|k| k.plural == plural) {
            continue;
        }
        assert_eq!(&table::columns(kind(path)), want, "{path}");
    }
}

#[test]
fn cells_are_the_api_servers() {
    // The tables were taken 79 s after `gold` was made.
    let golden: Tree = serde_json::from_str(include_str!("golden/table_rows.json")).unwrap();
    let gold =
        golden["/api/v1/namespaces"].as_array().unwrap().iter().find(|r| r["object"]["metadata"]["name"] == "gold");
    let created =
        Wall::parse_rfc3339(gold.unwrap()["object"]["metadata"]["creationTimestamp"].as_str().unwrap()).unwrap();
    let mut wrong = Vec::new();
    let mut rows = 0;
    for (path, entries) in golden.as_object().unwrap() {
        let kind = kind(path);
        let entries = entries.as_array().unwrap();
        rows += entries.len();
        let objects: Vec<&Tree> = entries.iter().map(|e| &e["object"]).collect();
        let want: Vec<&Tree> = entries.iter().map(|e| &e["cells"]).collect();
        let list = json!({"metadata": {}, "items": objects});
        // One request after the other: ages were taken within some seconds.
        let tables: Vec<Tree> =
            (77..83).map(|s| table::table(kind, &list, Include::None, Wall(created.0 + s * 1000), false)).collect();
        for (i, want) in want.into_iter().enumerate() {
            if !tables.iter().any(|t| &t["rows"][i]["cells"] == want) {
                wrong.push(format!("{path}\n  ours   {}\n  theirs {want}", tables[2]["rows"][i]["cells"]));
            }
        }
    }
    assert_eq!(rows, 84);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
