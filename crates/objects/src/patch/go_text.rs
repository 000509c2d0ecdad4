//! Values as Go prints them, because error texts of Kubernetes contain them.

use crate::Tree;
use serde_json::Number;
use std::fmt::Write;

/// `%v`: `map[image:x]`, `[a b]`, `<nil>`.
pub(super) fn value(v: &Tree) -> String {
    let mut out = String::new();
    write_value(&mut out, v);
    out
}

/// Several lists, as `fmt.Sprint` prints a slice of slices.
pub(super) fn lists(lists: &[&[Tree]]) -> String {
    let all: Vec<String> =
        lists.iter().map(|l| format!("[{}]", l.iter().map(value).collect::<Vec<_>>().join(" "))).collect();
    format!("[{}]", all.join(" "))
}

fn write_value(out: &mut String, v: &Tree) {
    match v {
        Tree::Null => out.push_str("<nil>"),
        Tree::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Tree::Number(n) => out.push_str(&number(n)),
        Tree::String(s) => out.push_str(s),
        Tree::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(' ');
                }
                write_value(out, item);
            }
            out.push(']');
        }
        Tree::Object(map) => {
            out.push_str("map[");
            for (i, (k, item)) in map.iter().enumerate() {
                if i > 0 {
                    out.push(' ');
                }
                let _ = write!(out, "{k}:");
                write_value(out, item);
            }
            out.push(']');
        }
    }
}

/// A number as Go's encoders write it: an integral double has no fraction.
pub(super) fn number(n: &Number) -> String {
    match (n.as_i64(), n.as_u64(), n.as_f64()) {
        (Some(i), _, _) => i.to_string(),
        (_, Some(u), _) => u.to_string(),
        (_, _, Some(f)) if f.fract() == 0.0 && f.abs() < 1e21 => format!("{f:.0}"),
        (_, _, Some(f)) => format!("{f}"),
        _ => n.to_string(),
    }
}

/// `%T` of a decoded JSON value.
pub(super) fn type_name(v: &Tree) -> &'static str {
    match v {
        Tree::Null => "%!s(<nil>)",
        Tree::Bool(_) => "bool",
        Tree::Number(n) if n.is_f64() => "float64",
        Tree::Number(_) => "int64",
        Tree::String(_) => "string",
        Tree::Array(_) => "[]interface {}",
        Tree::Object(_) => "map[string]interface {}",
    }
}

/// What Go's JSON decoder calls a value of the wrong type.
pub(super) fn json_kind(v: &Tree) -> &'static str {
    match v {
        Tree::Null => "null",
        Tree::Bool(_) => "bool",
        Tree::Number(_) => "number",
        Tree::String(_) => "string",
        Tree::Array(_) => "array",
        Tree::Object(_) => "object",
    }
}
