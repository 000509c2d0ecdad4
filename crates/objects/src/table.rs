//! `kubectl get`: objects as rows of printed cells (`meta.k8s.io/v1` Table).
//!
//! Columns are facts in `data/columns.json`, observed from kube-apiserver 1.37.0; cells are computed as
//! `k8s.io/kubernetes/pkg/printers/internalversion` computes them.

mod cluster;
mod network;
mod storage;
mod workloads;

use crate::kinds::Kind;
use crate::kinds::tree::{Fields, text};
use crate::select::LabelSelector;
use crate::{Tree, views};
use base::Wall;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// How much of each object a row carries (`includeObject`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)] // they are Kubernetes' words
pub enum Include {
    None,
    #[default]
    Metadata,
    Object,
}

impl Include {
    /// Reads the parameter; `None` if it is none of the three.
    pub fn parse(value: &str) -> Option<Include> {
        match value {
            "" | "Metadata" => Some(Include::Metadata),
            "None" => Some(Include::None),
            "Object" => Some(Include::Object),
            _ => None,
        }
    }
}

/// Name, type, format, priority, description.
type Column = (String, String, String, i32, usize);

struct Columns {
    descriptions: Vec<String>,
    resources: BTreeMap<String, Vec<Column>>,
}

static COLUMNS: LazyLock<Columns> = LazyLock::new(|| {
    let facts: Tree = serde_json::from_str(include_str!("../../../data/columns.json")).unwrap_or(Tree::Null);
    let descriptions = facts.list("descriptions").iter().map(|d| text(d).to_owned()).collect();
    let resources = facts
        .entries("resources")
        .filter_map(|(k, v)| Some((k.to_owned(), serde_json::from_value(v.clone()).ok()?)))
        .collect();
    Columns { descriptions, resources }
});

/// The columns of a kind, as `columnDefinitions`.
pub fn columns(kind: &Kind) -> Tree {
    let key = format!("{}/{}/{}", kind.group, kind.version, kind.plural);
    // What prints nothing of its own prints its name and when it was made, as custom resources do.
    let all = COLUMNS.resources.get(&key).or_else(|| COLUMNS.resources.get("/v1/limitranges"));
    let column = |(name, ty, format, priority, d): &Column| {
        json!({"name": name, "type": ty, "format": format, "priority": priority,
            "description": COLUMNS.descriptions.get(*d).map_or("", String::as_str)})
    };
    Tree::Array(all.into_iter().flatten().map(column).collect())
}

/// One object, or the items of a list, as a Table. In a watch the columns come with the first event only.
pub fn table(kind: &Kind, object: &Tree, include: Include, now: Wall, with_columns: bool) -> Tree {
    let mut items: Vec<&Tree> = match object.get("items") {
        Some(Tree::Array(items)) => items.iter().collect(),
        Some(Tree::Null) => Vec::new(),
        _ => vec![object],
    };
    if kind.storage == "FlowSchema.flowcontrol.apiserver.k8s.io" {
        // The order in which they are tried says more than their names.
        items.sort_by_key(|i| (i.at("spec").int("matchingPrecedence"), i.at("metadata").text("name").to_owned()));
    }
    let mut meta = json!({});
    for f in ["resourceVersion", "continue", "remainingItemCount"] {
        if object.at("metadata").has(f) {
            meta[f] = object.at("metadata").at(f).clone();
        }
    }
    let rows: Vec<Tree> = items.into_iter().map(|item| row(kind, item, include, now)).collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta,
        "columnDefinitions": if with_columns { columns(kind) } else { Tree::Null },
        "rows": rows,
    })
}

fn row(kind: &Kind, item: &Tree, include: Include, now: Wall) -> Tree {
    let object = match include {
        Include::None => Tree::Null,
        Include::Metadata => views::partial(item),
        Include::Object => {
            let mut whole = item.clone();
            whole["kind"] = json!(kind.kind);
            whole["apiVersion"] = json!(views::api_version(kind));
            whole
        }
    };
    let mut row = json!({"cells": cells(kind, item, now), "object": object});
    // kubectl wait and others look at a pod's end here.
    let end = match (kind.storage, item.at("status").text("phase")) {
        ("Pod", "Succeeded") => Some(("Succeeded", "The pod has completed successfully.")),
        ("Pod", "Failed") => Some(("Failed", "The pod failed.")),
        _ => None,
    };
    if let Some((reason, message)) = end {
        row["conditions"] = json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]);
    }
    row
}

/// The cells of one object, in the order of its kind's columns.
pub fn cells(kind: &Kind, obj: &Tree, now: Wall) -> Vec<Tree> {
    let p = Printer { kind, obj, now };
    workloads::cells(&p)
        .or_else(|| network::cells(&p))
        .or_else(|| storage::cells(&p))
        .or_else(|| cluster::cells(&p))
        .unwrap_or_else(|| vec![p.name(), p.created()])
}

/// One object being printed.
struct Printer<'a> {
    kind: &'a Kind,
    obj: &'a Tree,
    now: Wall,
}

impl Printer<'_> {
    fn name(&self) -> Tree {
        self.obj.at("metadata").at("name").clone()
    }

    fn spec(&self) -> &Tree {
        self.obj.at("spec")
    }

    fn status(&self) -> &Tree {
        self.obj.at("status")
    }

    fn created(&self) -> Tree {
        self.obj.at("metadata").at("creationTimestamp").clone()
    }

    fn age(&self) -> Tree {
        json!(self.since(self.obj.at("metadata").text("creationTimestamp")))
    }

    fn since(&self, time: &str) -> String {
        match Wall::parse_rfc3339(time) {
            Some(t) => duration(self.now, t),
            None => "<unknown>".into(),
        }
    }

    /// Names and images of a pod template's containers, joined by commas.
    fn containers(&self, spec: &Tree) -> [Tree; 2] {
        let all = |f: &str| spec.list("containers").iter().map(|c| c.text(f)).collect::<Vec<_>>().join(",");
        [json!(all("name")), json!(all("image"))]
    }
}

/// A text, or what stands for none.
fn or<'a>(value: &'a str, none: &'a str) -> Tree {
    json!(if value.is_empty() { none } else { value })
}

fn number(tree: &Tree, field: &str) -> Tree {
    json!(tree.int(field).unwrap_or(0))
}

fn flag(tree: &Tree, field: &str) -> Tree {
    json!(tree.flag(field))
}

fn joined<'a>(items: impl Iterator<Item = &'a str>, sep: &str) -> String {
    items.collect::<Vec<_>>().join(sep)
}

/// A LabelSelector as printed; `<none>` for one that is absent or empty.
fn selector(tree: &Tree) -> Tree {
    let s = LabelSelector::from_tree(tree).map(|s| s.to_string()).unwrap_or_else(|_| "<error>".into());
    or(&s, "<none>")
}

/// Plain pairs as printed.
fn pairs(tree: &Tree) -> Tree {
    let all: Vec<String> = tree.as_object().into_iter().flatten().map(|(k, v)| format!("{k}={}", text(v))).collect();
    or(&all.join(","), "<none>")
}

/// At most `max` texts joined by commas, and how many more there are.
fn few(all: &[String], max: usize) -> String {
    match all.len().checked_sub(max) {
        Some(more) if more > 0 => {
            format!("{} + {more} more...", all.get(..max).unwrap_or_default().join(","))
        }
        _ => all.join(","),
    }
}

/// An integer or a text, as printed.
fn int_or_text(tree: &Tree, none: &str) -> Tree {
    match tree {
        Tree::Number(n) => json!(n.to_string()),
        Tree::String(s) => json!(s),
        _ => json!(none),
    }
}

/// How long ago, as `k8s.io/apimachinery/pkg/util/duration.HumanDuration` puts it.
fn duration(now: Wall, then: Wall) -> String {
    let ms = i128::from(now.0) - i128::from(then.0);
    let (seconds, minutes, hours) = (ms / 1000, ms / 60_000, ms / 3_600_000);
    let two = |a: i128, x: &str, b: i128, y: &str| {
        if b == 0 { format!("{a}{x}") } else { format!("{a}{x}{b}{y}") }
    };
    match (seconds, minutes, hours) {
        (s, ..) if s < -1 => "<invalid>".into(),
        (s, ..) if s < 0 => "0s".into(),
        (s, ..) if s < 120 => format!("{s}s"),
        (s, m, _) if m < 10 => two(m, "m", s % 60, "s"),
        (_, m, _) if m < 180 => format!("{m}m"),
        (_, m, h) if h < 8 => two(h, "h", m % 60, "m"),
        (_, _, h) if h < 48 => format!("{h}h"),
        (_, _, h) if h < 192 => two(h / 24, "d", h % 24, "h"),
        (_, _, h) if h < 24 * 365 * 2 => format!("{}d", h / 24),
        (_, _, h) if h < 24 * 365 * 8 => two(h / 24 / 365, "y", h / 24 % 365, "d"),
        (_, _, h) => format!("{}y", h / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_put_as_kubernetes_puts_them() {
        let s = 1000u64;
        let (m, h, d) = (60 * s, 3600 * s, 24 * 3600 * s);
        for (ms, want) in [
            (0, "0s"),
            (119 * s, "119s"),
            (2 * m, "2m"),
            (9 * m + 59 * s, "9m59s"),
            (10 * m + 5 * s, "10m"),
            (179 * m, "179m"),
            (3 * h, "3h"),
            (7 * h + 30 * m, "7h30m"),
            (47 * h, "47h"),
            (2 * d, "2d"),
            (7 * d + 23 * h, "7d23h"),
            (8 * d, "8d"),
            (729 * d, "729d"),
            (731 * d, "2y1d"),
            (365 * 9 * d, "9y"),
        ] {
            assert_eq!(duration(Wall(ms), Wall(0)), want);
        }
        assert_eq!(duration(Wall(0), Wall(5000)), "<invalid>");
    }
}
