//! Protobuf layouts (`generated.proto` with comments stripped): messages, field numbers and types.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::Path;

/// A field of a message.
#[derive(Debug, Clone)]
pub(super) struct ProtoField {
    pub(super) repeated: bool,
    /// Value type of a map, if it is one.
    pub(super) map: bool,
    /// `string`, `int32`, …, or the full name of a message.
    pub(super) ty: String,
}

/// Messages by full name, each with its fields by number.
pub(super) type Messages = BTreeMap<String, BTreeMap<u32, ProtoField>>;

/// Reads every `.proto` file of a directory.
pub(super) fn read(dir: &Path) -> Result<Messages> {
    let mut out = Messages::new();
    for e in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = e?.path();
        if path.extension().is_some_and(|x| x == "proto") {
            parse(&std::fs::read_to_string(&path)?, &mut out).with_context(|| path.display().to_string())?;
        }
    }
    Ok(out)
}

fn parse(text: &str, out: &mut Messages) -> Result<()> {
    let mut package = String::new();
    let mut message: Option<String> = None;
    for line in text.lines() {
        let code = line.trim().trim_end_matches(';');
        if let Some(p) = code.strip_prefix("package ") {
            package = p.to_owned();
        } else if let Some(m) = code.strip_prefix("message ") {
            let name = format!("{package}.{}", m.trim_end_matches('{').trim());
            out.insert(name.clone(), BTreeMap::new());
            message = Some(name);
        } else if code == "}" {
            message = None;
        } else if let Some(m) = &message
            && !code.is_empty()
            && !code.starts_with("reserved")
        {
            let (left, number) = code.split_once('=').context("a field without a number")?;
            let number: u32 = number.split('[').next().unwrap_or("").trim().parse()?;
            let left = left.trim();
            let full = |t: &str| match t.strip_prefix('.') {
                Some(t) => t.to_owned(),
                None if t.chars().next().is_some_and(char::is_uppercase) => format!("{package}.{t}"),
                None => t.to_owned(),
            };
            let field = if let Some(rest) = left.strip_prefix("map<") {
                let (kv, _) = rest.split_once('>').context("a map that does not end")?;
                let (_, v) = kv.split_once(',').context("a map without a value type")?;
                ProtoField { repeated: false, map: true, ty: full(v.trim()) }
            } else {
                let mut w = left.split_whitespace();
                let (label, ty) = (w.next().unwrap_or(""), w.next().unwrap_or(""));
                if !["optional", "repeated"].contains(&label) {
                    bail!("a field that is neither optional nor repeated: {code}");
                }
                ProtoField { repeated: label == "repeated", map: false, ty: full(ty) }
            };
            out.get_mut(m).context("message")?.insert(number, field);
        }
    }
    Ok(())
}
