//! The steps of a path into an object, as FieldsV1 writes them and as messages print them.

use crate::patch::go_text;
use crate::status::quote;
use crate::{Map, Tree};
use std::cmp::Ordering;
use std::fmt;

/// One step.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// A field or a map's key.
    Field(String),
    /// The item of a list that has these values in these fields, sorted by name.
    Key(Map),
    /// The item of a set.
    Value(Tree),
    /// The item at an index.
    Index(i64),
}

/// Why a step cannot be read.
pub(super) enum Unreadable {
    /// It is of a sort this release does not know.
    Unknown,
    /// It is not written as its sort is.
    Malformed,
}

impl Step {
    /// Reads `f:name`, `k:{..}`, `v:..`, `i:N`.
    pub(super) fn parse(step: &str) -> Result<Step, Unreadable> {
        let (sort, rest) = step.split_at_checked(2).ok_or(Unreadable::Malformed)?;
        let json = || serde_json::from_str::<Tree>(rest).map_err(|_| Unreadable::Malformed);
        match sort {
            "f:" => Ok(Step::Field(rest.to_owned())),
            "k:" => match json()? {
                Tree::Object(map) => Ok(Step::Key(map)),
                _ => Err(Unreadable::Malformed),
            },
            "v:" => Ok(Step::Value(json()?)),
            "i:" => rest.parse().map(Step::Index).map_err(|_| Unreadable::Malformed),
            _ if sort.ends_with(':') => Err(Unreadable::Unknown),
            _ => Err(Unreadable::Malformed),
        }
    }

    /// As FieldsV1 writes it.
    pub(super) fn encode(&self) -> String {
        match self {
            Step::Field(name) => format!("f:{name}"),
            Step::Key(map) => {
                let mut out = String::from("k:");
                write_key(&mut out, map.iter().map(|(k, v)| (k.as_str(), v)));
                out
            }
            Step::Value(v) => {
                let mut out = String::from("v:");
                write_json(&mut out, v);
                out
            }
            Step::Index(i) => format!("i:{i}"),
        }
    }

    /// Kubernetes' order: fields, keys, values, indices; numbers by value.
    pub(super) fn compare(&self, other: &Step) -> Ordering {
        match (self, other) {
            (Step::Field(a), Step::Field(b)) => a.cmp(b),
            (Step::Key(a), Step::Key(b)) => {
                let pairs = a.iter().zip(b).map(|((ak, av), (bk, bv))| ak.cmp(bk).then_with(|| order(av, bv)));
                pairs.into_iter().find(|o| o.is_ne()).unwrap_or(a.len().cmp(&b.len()))
            }
            (Step::Value(a), Step::Value(b)) => order(a, b),
            (Step::Index(a), Step::Index(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Step::Field(_) => 0,
            Step::Key(_) => 1,
            Step::Value(_) => 2,
            Step::Index(_) => 3,
        }
    }
}

/// As messages print it: `.name`, `[name="c"]`, `[="x"]`, `[0]`.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Field(name) => write!(f, ".{name}"),
            Step::Key(map) => {
                let all: Vec<String> = map.iter().map(|(k, v)| format!("{k}={}", shown(v))).collect();
                write!(f, "[{}]", all.join(","))
            }
            Step::Value(v) => write!(f, "[={}]", shown(v)),
            Step::Index(i) => write!(f, "[{i}]"),
        }
    }
}

/// Writes the item's keys as `{"containerPort":80,"protocol":"TCP"}`; names are to come sorted.
pub(super) fn write_key<'k>(out: &mut String, keys: impl Iterator<Item = (&'k str, &'k Tree)>) {
    out.push('{');
    for (i, (name, value)) in keys.enumerate() {
        if i > 0 {
            out.push(',');
        }
        write_text(out, name);
        out.push(':');
        write_json(out, value);
    }
    out.push('}');
}

/// Writes JSON as Go does: integral doubles without a fraction, `<`, `>` and `&` escaped.
pub(super) fn write_json(out: &mut String, v: &Tree) {
    match v {
        Tree::String(s) => write_text(out, s),
        Tree::Number(n) => out.push_str(&go_text::number(n)),
        Tree::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_json(out, item);
            }
            out.push(']');
        }
        Tree::Object(map) => write_key(out, map.iter().map(|(k, v)| (k.as_str(), v))),
        Tree::Null => out.push_str("null"),
        Tree::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
    }
}

fn write_text(out: &mut String, s: &str) {
    use fmt::Write;
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

fn shown(v: &Tree) -> String {
    match v {
        Tree::String(s) => quote(s),
        Tree::Null => "null".to_owned(),
        Tree::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(",")),
        Tree::Object(map) => map.iter().map(|(k, v)| format!("{k}={}", shown(v))).collect(),
        other => go_text::value(other),
    }
}

fn order(a: &Tree, b: &Tree) -> Ordering {
    let rank = |v: &Tree| match v {
        Tree::Number(_) => 0,
        Tree::String(_) => 1,
        Tree::Bool(_) => 2,
        Tree::Array(_) => 3,
        Tree::Object(_) => 4,
        Tree::Null => 5,
    };
    match (a, b) {
        (Tree::Number(a), Tree::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => a.as_f64().unwrap_or(0.0).total_cmp(&b.as_f64().unwrap_or(0.0)),
        },
        (Tree::String(a), Tree::String(b)) => a.cmp(b),
        (Tree::Bool(a), Tree::Bool(b)) => a.cmp(b),
        (Tree::Array(_), Tree::Array(_)) | (Tree::Object(_), Tree::Object(_)) => a.to_string().cmp(&b.to_string()),
        _ => rank(a).cmp(&rank(b)),
    }
}
