//! A request's body, whatever it came in, against the kind its URL asks for.

use super::json::Error;
use super::node::Node;
use super::{protobuf, typed, yaml};
use crate::Tree;
use crate::schema::{Schema, TypeId};
use crate::status::Status;

/// What a body is written in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

/// The kind a URL asks for.
#[derive(Clone, Copy, Debug)]
pub struct Want<'a> {
    /// API group; empty for core.
    pub group: &'a str,
    /// API version.
    pub version: &'a str,
    /// Kind.
    pub kind: &'a str,
    /// Its type in the schema.
    pub ty: TypeId,
}

/// A body read.
#[derive(Clone, PartialEq, Debug)]
pub struct Body {
    /// The object in canonical form, apiVersion and kind filled in.
    pub tree: Tree,
    /// Unknown and duplicate fields in the order found: `unknown field "spec.dat"`. With
    /// `fieldValidation=Strict` they are [`strict_error`], with `Warn` a warning each.
    pub strict: Vec<String>,
}

/// Reads a body. Missing apiVersion and kind are the wanted ones.
///
/// # Errors
/// 400 BadRequest in Kubernetes' words: it does not parse, names another kind or version, or a value is
/// not what the schema says. Nothing was decided yet, so the object is untouched.
pub fn read(schema: &Schema, want: Want<'_>, format: Format, bytes: &[u8]) -> Result<Body, Status> {
    match format {
        Format::Protobuf => read_protobuf(schema, want, bytes),
        Format::Json | Format::Yaml => read_text(schema, want, format, bytes),
    }
}

/// The answer to a body with unknown or duplicate fields when `fieldValidation=Strict`.
pub fn strict_error(want: Want<'_>, strict: &[String]) -> Status {
    unhandled(want.kind, want.version, want, &format!("strict decoding error: {}", strict.join(", ")))
}

fn read_text(schema: &Schema, want: Want<'_>, format: Format, bytes: &[u8]) -> Result<Body, Status> {
    let unknown = |e: &str| unrecognized(want, e, bytes);
    let parse = |e: String| unknown(&format!("couldn't get version/kind; json parse error: {e}"));
    // Much of what is called YAML is JSON, and JSON is read several times faster.
    let as_json = if format == Format::Json || bytes.trim_ascii_start().starts_with(b"{") {
        Some(super::json::node(bytes))
    } else {
        None
    };
    let (node, duplicates) = match (format, as_json) {
        (Format::Json, Some(node)) => (node.map_err(parse)?, None),
        (_, Some(Ok(node))) => (node, None),
        _ => yaml::document(bytes).map_err(|e| unknown(&e))?,
    };
    const META: &str = "struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }";
    let (mut api_version, mut kind) = ("", "");
    match &node {
        Node::Null => {}
        Node::Map(entries) => {
            for (k, v) in entries {
                let place = match k.as_ref() {
                    "apiVersion" => &mut api_version,
                    "kind" => &mut kind,
                    _ => continue,
                };
                match v {
                    Node::Text(t) => *place = t,
                    Node::Null => {}
                    v => {
                        return Err(parse(format!(
                            "json: cannot unmarshal {} into Go struct field .{k} of type string",
                            v.kind()
                        )));
                    }
                }
            }
        }
        other => return Err(parse(format!("json: cannot unmarshal {} into Go value of type {META}", other.kind()))),
    }
    let named = check_kind(schema, want, api_version, kind, |e| unknown(&e))?;
    let decoded = typed::decode(schema, want.ty, node).map_err(|e| unhandled(&named.kind, &named.version, want, &e))?;
    let mut strict = decoded.strict;
    if let Some(text) = duplicates {
        strict.insert(0, text);
    }
    Ok(Body { tree: name(decoded.tree, named), strict })
}

fn read_protobuf(schema: &Schema, want: Want<'_>, bytes: &[u8]) -> Result<Body, Status> {
    let unknown = |e: String| unrecognized(want, &e, bytes);
    let e = protobuf::open(bytes).map_err(|e| unknown(e.to_string()))?;
    let named = check_kind(schema, want, e.api_version, e.kind, unknown)?;
    let decoded = protobuf::decode(schema, want.ty, e.raw)
        .map_err(|e: Error| unhandled(&named.kind, &named.version, want, &e.to_string()))?;
    Ok(Body { tree: name(decoded.tree, named), strict: decoded.strict })
}

/// What a body calls itself, gaps filled from what is wanted.
struct Named {
    api_version: String,
    version: String,
    kind: String,
}

fn check_kind(
    schema: &Schema,
    want: Want<'_>,
    api_version: &str,
    kind: &str,
    unknown: impl Fn(String) -> Status,
) -> Result<Named, Status> {
    let (group, version) = match api_version.split_once('/') {
        None => ("", api_version),
        Some((_, version)) if version.contains('/') => {
            return Err(unknown(format!("unexpected GroupVersion string: {api_version}")));
        }
        Some(parts) => parts,
    };
    let (group, version) = if api_version.is_empty() { (want.group, want.version) } else { (group, version) };
    let kind = if kind.is_empty() { want.kind } else { kind };
    let api_version = |g: &str, v: &str| if g.is_empty() { v.to_owned() } else { format!("{g}/{v}") };
    let named = Named { api_version: api_version(group, version), version: version.to_owned(), kind: kind.to_owned() };
    if (group, version, kind) == (want.group, want.version, want.kind) {
        return Ok(named);
    }
    // Every group version has these under its own name.
    let everywhere = ["DeleteOptions", "CreateOptions", "UpdateOptions", "PatchOptions"].contains(&kind);
    if everywhere && kind == want.kind && schema.kinds().any(|(g, v, ..)| (g, v) == (group, version)) {
        return Ok(named);
    }
    if schema.by_kind(group, version, kind).is_none() {
        let e = format!("no kind {kind:?} is registered for version {:?}", named.api_version);
        return Err(unhandled(kind, version, want, &e));
    }
    if kind != want.kind {
        let e = format!("converting ({version}.{kind}) to ({}.{}): unknown conversion", want.version, want.kind);
        return Err(unhandled(kind, version, want, &e));
    }
    Err(Status::bad_request(format!(
        "the API version in the data ({}) does not match the expected API version ({})",
        named.api_version,
        api_version(want.group, want.version)
    )))
}

fn name(mut tree: Tree, named: Named) -> Tree {
    if let Tree::Object(m) = &mut tree {
        m.insert(String::from("apiVersion"), named.api_version.into());
        m.insert(String::from("kind"), named.kind.into());
    }
    tree
}

fn unhandled(kind: &str, version: &str, want: Want<'_>, e: &str) -> Status {
    Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {}: {e}", want.kind))
}

fn unrecognized(want: Want<'_>, e: &str, body: &[u8]) -> Status {
    const SHOWN: usize = 30;
    let more = if body.len() > SHOWN { " ..." } else { "" };
    let head = &body[..body.len().min(SHOWN)];
    let shown = match body.first() {
        None => String::from("<empty>"),
        Some(b'{') => String::from_utf8_lossy(head).into_owned(),
        Some(_) => head.iter().map(|b| format!("{b:02x}")).collect(),
    };
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {e} ({shown}{more})",
        want.kind
    ))
}
