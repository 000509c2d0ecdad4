//! Two answers compared: ours, and the one that was observed.

use objects::Tree;
use serde_json::json;

/// Makes equal what differs from run to run: uids, times, revisions, addresses, ports, random suffixes.
pub(crate) fn normalise(key: &str, tree: &mut Tree) {
    match tree {
        Tree::Object(map) => {
            for (k, v) in map.iter_mut() {
                normalise(k, v);
            }
        }
        Tree::Array(items) => items.iter_mut().for_each(|v| normalise(key, v)),
        Tree::String(text) => *text = normal_text(key, text),
        Tree::Number(_) if key == "nodePort" || key == "healthCheckNodePort" => *tree = json!(30000),
        _ => {}
    }
}

fn normal_text(key: &str, text: &str) -> String {
    match key {
        "uid"
        | "resourceVersion"
        | "creationTimestamp"
        | "deletionTimestamp"
        | "time"
        | "token"
        | "expirationTimestamp"
        | "lastTransitionTime"
        | "lastUpdateTime" => return format!("<{key}>"),
        // Ages count from the request that made the object.
        "cells" if text.ends_with('s') && text.trim_end_matches('s').parse::<u64>().is_ok() => return "<age>".into(),
        "clusterIP" | "clusterIPs" if text != "None" => return "<ip>".into(),
        _ => {}
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some(i) = rest.char_indices().map(|(i, _)| i).find(|&i| is_uid(&rest[i..])) {
        out.push_str(&rest[..i]);
        out.push_str("<uid>");
        rest = &rest[i + 36..];
    }
    out.push_str(rest);
    for prefix in ["gen-", "kube-api-access-"] {
        if let Some(i) = out.find(prefix)
            && out.len() == i + prefix.len() + 5
        {
            out.truncate(i + prefix.len());
        }
    }
    // In the text of a whole object, which is quoted.
    for key in ["resourceVersion", "creationTimestamp", "time"] {
        let begin = format!("{key}\\\":\\\"");
        let mut parts = out.split(&begin).map(str::to_owned);
        let first = parts.next().unwrap_or_default();
        let rest = parts.map(|part| format!("{begin}<{key}>{}", part.find("\\\"").map_or("", |end| &part[end..])));
        out = std::iter::once(first).chain(rest).collect();
    }
    out = out.replace("9000000000000000000", "99999999999");
    // Which revision is current differs.
    if let Some(i) = out.find(", current: ") {
        out.truncate(i);
    }
    out
}

fn is_uid(text: &str) -> bool {
    text.get(..36).is_some_and(|t| t.parse::<base::Uid>().is_ok())
}

/// What differs, a line each.
pub(crate) fn diff(path: &str, ours: &Tree, theirs: &Tree, out: &mut String) {
    match (ours, theirs) {
        (Tree::Object(a), Tree::Object(b)) => {
            for (k, v) in a {
                match b.get(k) {
                    Some(w) => diff(&format!("{path}.{k}"), v, w, out),
                    None => out.push_str(&format!("  {path}.{k}: ours alone: {}\n", short(v))),
                }
            }
            for (k, w) in b.iter().filter(|(k, _)| !a.contains_key(*k)) {
                out.push_str(&format!("  {path}.{k}: theirs alone: {}\n", short(w)));
            }
        }
        (Tree::Array(a), Tree::Array(b)) if a.len() == b.len() => {
            for (i, (v, w)) in a.iter().zip(b).enumerate() {
                diff(&format!("{path}[{i}]"), v, w, out);
            }
        }
        (a, b) if a == b => {}
        (a, b) => out.push_str(&format!("  {path}: ours {}\n    theirs {}\n", short(a), short(b))),
    }
}

fn short(tree: &Tree) -> String {
    tree.to_string().chars().take(400).collect()
}
