//! YAML in and out, as Kubernetes' YAML library understands it: YAML 1.1's words for true and false,
//! octal and binary integers, merge keys, keys that are no strings; only the first document of a stream.
//!
//! Tokens are a library's work; what a plain scalar means is ours, because YAML 1.2 libraries differ from
//! `sigs.k8s.io/yaml` in just that: there `y` is true and `010` is eight.

use super::json::Error;
use super::node::Node;
use super::{Decoded, MAX_DEPTH, scalar};
use crate::Tree;
use crate::schema::{Schema, TypeId};
use base64::Engine;
use granit_parser::{Event, Parser, ScalarStyle, ScanError, Tag};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What anchors and aliases may add to a document, in bytes: the size of the largest body.
const MAX_ALIASED: usize = 3 << 20;

/// Reads YAML of any type. Of a key given twice the last counts.
///
/// # Errors
/// [`Error::Syntax`] if it does not parse, nests deeper than [`MAX_DEPTH`], or its aliases would swell
/// it beyond 3 MiB; worded `yaml: line 3: …`.
pub fn parse(bytes: &[u8]) -> Result<Tree, Error> {
    let (node, _) = document(bytes).map_err(Error::Syntax)?;
    super::json::untyped(node).map_err(Error::Type)
}

/// Reads YAML of a type, as [`super::json::decode`] reads JSON.
///
/// # Errors
/// As [`parse`], and [`Error::Type`] if a value is not what the schema says.
pub fn decode(schema: &Schema, ty: TypeId, bytes: &[u8]) -> Result<Decoded, Error> {
    let (node, duplicates) = document(bytes).map_err(Error::Syntax)?;
    let mut decoded = super::typed::decode(schema, ty, node).map_err(Error::Type)?;
    if let Some(text) = duplicates {
        decoded.strict.insert(0, text);
    }
    Ok(decoded)
}

/// The YAML of a tree: keys sorted, blocks, lists not indented, texts quoted where YAML 1.1 would take
/// them for something else.
pub fn encode(tree: &Tree) -> String {
    let options = serde_saphyr::ser_options! { compact_list_indent: true, prefer_block_scalars: true, min_fold_chars: usize::MAX };
    let mut out = String::new();
    // A tree has string keys only and a string takes every write, so nothing here can fail.
    let written = serde_saphyr::to_fmt_writer_with_options(&mut out, tree, options);
    debug_assert!(written.is_ok());
    out
}

/// The first document, and what is wrong with its keys if any is given twice.
pub(crate) fn document(bytes: &[u8]) -> Result<(Node<'_>, Option<String>), String> {
    let text = std::str::from_utf8(bytes).map_err(|_| String::from("yaml: invalid leading UTF-8 octet"))?;
    if text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r' | '\u{85}')) {
        return Err(String::from("yaml: control characters are not allowed"));
    }
    Builder::default().build(text)
}

/// A finished value with what it would cost to copy it.
#[derive(Clone)]
struct Measured<'a> {
    node: Node<'a>,
    depth: usize,
    bytes: usize,
}

/// A collection not yet closed.
struct Open<'a> {
    anchor: usize,
    depth: usize,
    bytes: usize,
    kind: OpenKind<'a>,
}

enum OpenKind<'a> {
    List(Vec<Node<'a>>),
    Map {
        entries: Vec<(Cow<'a, str>, Node<'a>)>,
        /// Where each key is among them.
        places: BTreeMap<Cow<'a, str>, usize>,
        /// Values of `<<`.
        merged: Vec<Node<'a>>,
        /// A key whose value is still to come.
        key: Option<Key<'a>>,
    },
}

enum Key<'a> {
    Text(Cow<'a, str>),
    Merge,
}

#[derive(Default)]
struct Builder<'a> {
    open: Vec<Open<'a>>,
    anchors: BTreeMap<usize, Measured<'a>>,
    aliased: usize,
    duplicates: Vec<String>,
}

impl<'a> Builder<'a> {
    fn build(mut self, text: &'a str) -> Result<(Node<'a>, Option<String>), String> {
        let mut root = Node::Null;
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|e| words(&e, text))?;
            let line = span.start.line();
            let done = match event {
                Event::DocumentEnd => break,
                Event::Scalar(s, style, anchor, tag) => {
                    if style == ScalarStyle::Plain && tag.is_none() && s == "<<" && self.wants_key() {
                        self.key(Key::Merge, String::new(), line);
                        continue;
                    }
                    let bytes = s.len() + 16;
                    let node = resolve(s, style, tag.as_deref())?;
                    Some((anchor, Measured { node, depth: 0, bytes }))
                }
                Event::Alias(id) => {
                    let Some(m) = self.anchors.get(&id).cloned() else {
                        let name = span.slice(text).unwrap_or("").trim_start_matches('*');
                        return Err(format!("yaml: anchor '{name}' value contains itself"));
                    };
                    self.copied(m.bytes)?;
                    Some((0, m))
                }
                Event::SequenceStart(_, anchor, _) => {
                    self.enter(anchor, OpenKind::List(Vec::new()))?;
                    None
                }
                Event::MappingStart(_, anchor, _) => {
                    let (entries, places) = (Vec::new(), BTreeMap::new());
                    self.enter(anchor, OpenKind::Map { entries, places, merged: Vec::new(), key: None })?;
                    None
                }
                Event::SequenceEnd | Event::MappingEnd => self.open.pop().map(close).transpose()?,
                _ => None,
            };
            if let Some((anchor, value)) = done {
                if anchor != 0 {
                    // Kept for its aliases, of which there may be none: anchors within anchors keep each level anew.
                    self.copied(value.bytes)?;
                    self.anchors.insert(anchor, value.clone());
                }
                if let Some(v) = self.place(value, line)? {
                    root = v;
                }
            }
        }
        let duplicates = (!self.duplicates.is_empty())
            .then(|| format!("yaml: unmarshal errors:\n  {}", self.duplicates.join("\n  ")));
        Ok((root, duplicates))
    }

    /// Counts a copy.
    fn copied(&mut self, bytes: usize) -> Result<(), String> {
        self.aliased += bytes;
        match self.aliased > MAX_ALIASED {
            true => Err(String::from("yaml: document contains excessive aliasing")),
            false => Ok(()),
        }
    }

    fn enter(&mut self, anchor: usize, kind: OpenKind<'a>) -> Result<(), String> {
        if self.open.len() >= MAX_DEPTH {
            return Err(format!("yaml: exceeded max depth of {MAX_DEPTH}"));
        }
        self.open.push(Open { anchor, depth: 0, bytes: 16, kind });
        Ok(())
    }

    fn wants_key(&self) -> bool {
        matches!(self.open.last(), Some(Open { kind: OpenKind::Map { key: None, .. }, .. }))
    }

    /// Notes a key; `shown` is how errors print it.
    fn key(&mut self, new: Key<'a>, shown: String, line: usize) {
        if let Some(Open { kind: OpenKind::Map { places, key, .. }, .. }) = self.open.last_mut() {
            if let Key::Text(k) = &new
                && places.contains_key(k)
            {
                self.duplicates.push(format!("line {line}: key {shown} already set in map"));
            }
            *key = Some(new);
        }
    }

    /// Puts a value where it belongs; gives it back if it is the document.
    fn place(&mut self, value: Measured<'a>, line: usize) -> Result<Option<Node<'a>>, String> {
        let nested = self.open.len();
        let wants_key = self.wants_key();
        let Some(open) = self.open.last_mut() else { return Ok(Some(value.node)) };
        if nested + value.depth > MAX_DEPTH {
            return Err(format!("yaml: exceeded max depth of {MAX_DEPTH}"));
        }
        open.depth = open.depth.max(value.depth + 1);
        open.bytes += value.bytes;
        if wants_key {
            let quoted = matches!(value.node, Node::Text(_));
            let key = key_text(value.node)?;
            let shown = if quoted { format!("{key:?}") } else { key.to_string() };
            self.key(Key::Text(key), shown, line);
            return Ok(None);
        }
        match &mut open.kind {
            OpenKind::List(items) => items.push(value.node),
            OpenKind::Map { entries, places, merged, key } => match key.take() {
                Some(Key::Text(k)) => match places.get(&k).and_then(|at| entries.get_mut(*at)) {
                    Some((_, old)) => *old = value.node,
                    None => {
                        places.insert(k.clone(), entries.len());
                        entries.push((k, value.node));
                    }
                },
                Some(Key::Merge) => merged.push(value.node),
                None => {}
            },
        }
        Ok(None)
    }
}

/// A closed collection, merge keys resolved: what the map says itself wins.
fn close(open: Open<'_>) -> Result<(usize, Measured<'_>), String> {
    let node = match open.kind {
        OpenKind::List(items) => Node::List(items),
        OpenKind::Map { mut entries, mut places, merged, .. } => {
            for m in merged {
                let sources = match m {
                    Node::List(items) => items,
                    other => vec![other],
                };
                for s in sources {
                    let Node::Map(from) = s else {
                        return Err(String::from("yaml: map merge requires map or sequence of maps as the value"));
                    };
                    for (k, v) in from {
                        if !places.contains_key(&k) {
                            places.insert(k.clone(), entries.len());
                            entries.push((k, v));
                        }
                    }
                }
            }
            Node::Map(entries)
        }
    };
    Ok((open.anchor, Measured { node, depth: open.depth, bytes: open.bytes }))
}

/// A key as JSON has it: numbers and booleans become their text.
fn key_text(node: Node<'_>) -> Result<Cow<'_, str>, String> {
    match node {
        Node::Text(s) | Node::Number(s) => Ok(s),
        Node::Bool(b) => Ok(Cow::Borrowed(if b { "true" } else { "false" })),
        Node::Null => Err(String::from("unsupported map key of type: null")),
        Node::List(_) | Node::Map(_) => Err(String::from("yaml: invalid map key")),
    }
}

/// What a scalar means.
fn resolve<'a>(s: Cow<'a, str>, style: ScalarStyle, tag: Option<&Tag>) -> Result<Node<'a>, String> {
    let tag = match tag {
        None if style != ScalarStyle::Plain => return Ok(Node::Text(s)),
        None => "",
        Some(t) => match t.suffix_in_namespace("tag:yaml.org,2002:").as_deref() {
            Some("binary") => {
                let bytes = scalar::BASE64.decode(s.replace(['\n', ' '], ""));
                let text = bytes.ok().and_then(|b| String::from_utf8(b).ok());
                return text
                    .map(|t| Node::Text(t.into()))
                    .ok_or_else(|| String::from("yaml: !!binary value contains invalid base64 data"));
            }
            Some("int") => "int",
            Some("float") => "float",
            Some("bool") => "bool",
            Some("null") => "null",
            _ => return Ok(Node::Text(s)),
        },
    };
    let node = plain(&s)?.unwrap_or(Node::Text(s.clone()));
    let fits = matches!(
        (tag, &node),
        ("", _) | ("float" | "int", Node::Number(_)) | ("bool", Node::Bool(_)) | ("null", Node::Null)
    );
    if !fits {
        return Err(format!(
            "yaml: cannot decode !!{} `{s}` as a !!{tag}",
            if node.kind() == "string" { "str" } else { node.kind() }
        ));
    }
    Ok(node)
}

/// A plain scalar that is no text, by YAML 1.1 as Go's library has it.
fn plain(s: &str) -> Result<Option<Node<'static>>, String> {
    Ok(Some(match s {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Node::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Node::Bool(false),
        "" | "~" | "null" | "Null" | "NULL" => Node::Null,
        ".nan" | ".NaN" | ".NAN" => return Err(String::from("json: unsupported value: NaN")),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Err(String::from("json: unsupported value: +Inf"));
        }
        "-.inf" | "-.Inf" | "-.INF" => return Err(String::from("json: unsupported value: -Inf")),
        _ => return Ok(numeric(s).map(|n| Node::Number(n.into()))),
    }))
}

/// The JSON text of a number in one of YAML 1.1's forms, without its base-60 ones, which Go's library
/// does not read either.
fn numeric(s: &str) -> Option<String> {
    let first = *s.as_bytes().first()?;
    if !(first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.')) {
        return None;
    }
    let digits = s.replace('_', "");
    let (sign, body) = match digits.strip_prefix('-') {
        Some(b) => ("-", b),
        None => ("", digits.strip_prefix('+').unwrap_or(&digits)),
    };
    let radix = |n: &str, radix| {
        u64::from_str_radix(n, radix).ok().filter(|_| n.starts_with(|c: char| c.is_ascii_alphanumeric()))
    };
    let lower = body.to_ascii_lowercase();
    let integer = match lower.as_bytes() {
        [b'0', b'x', ..] => radix(&lower[2..], 16),
        [b'0', b'o', ..] => radix(&lower[2..], 8),
        [b'0', b'b', ..] => radix(&lower[2..], 2),
        [b'0', _, ..] => radix(&lower[1..], 8),
        _ => radix(&lower, 10),
    };
    if let Some(n) = integer {
        return Some(if n == 0 { String::from("0") } else { format!("{sign}{n}") });
    }
    let mantissa = body.split(['e', 'E']).next().unwrap_or("");
    let is_float = mantissa.bytes().all(|c| c.is_ascii_digit() || c == b'.')
        && mantissa.bytes().filter(|c| *c == b'.').count() <= 1
        && mantissa.bytes().any(|c| c.is_ascii_digit());
    let d: f64 = is_float.then(|| digits.parse().ok()).flatten().filter(|d: &f64| d.is_finite())?;
    scalar::number(d).map(|n| n.to_string())
}

/// A scanner's error in the words of Go's library where it has some.
fn words(e: &ScanError, text: &str) -> String {
    let info = e.info();
    // "while parsing a block mapping, did not find expected key"
    let info = info
        .split_once(", ")
        .map_or(info.as_str(), |(context, rest)| if context.starts_with("while") { rest } else { &info });
    let line = e.marker().line().max(1);
    let open = text.trim_end().ends_with(['[', '{', ',']);
    let words = match info {
        _ if info.contains("tab") || info.starts_with("unexpected character") => {
            "found character that cannot start any token"
        }
        _ if info.contains("mapping values are not allowed") => "mapping values are not allowed in this context",
        "unclosed bracket '['" | "unclosed bracket '{'" if open => "did not find expected node content",
        "unclosed bracket '['" => "did not find expected ',' or ']'",
        "unclosed bracket '{'" => "did not find expected ',' or '}'",
        "misplaced bracket" => "did not find expected node content",
        "unclosed quote" => "found unexpected end of stream",
        "simple key expected ':'" => "could not find expected ':'",
        _ if info.contains("unknown anchor") => {
            let rest = e.marker().byte_offset().and_then(|at| text.get(at..)).unwrap_or("").trim_start_matches('*');
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == '-').collect();
            return format!("yaml: unknown anchor '{name}' referenced");
        }
        other => other,
    };
    format!("yaml: line {line}: {words}")
}
