//! Objects in the form a client asked for: as they are, as metadata alone, one by one, in lists, in watches.

use crate::handle::Head;
use crate::negotiate::{self, Accepted, Format, Shape};
use crate::port::{Event, Items, List, Refusal};
use crate::respond::Pieces;
use crate::status;
use crate::watch::Frames;
use base::Revision;
use bytes::Bytes;
use objects::Tree;
use objects::codec;
use objects::kinds::{FieldError, Kind, Subresource};
use objects::schema::{self, TypeId};
use objects::status::Status;
use objects::table::{self, Include};
use serde_json::json;
use serde_json::value::RawValue;

/// A tree's bytes in a format.
///
/// # Errors
/// 500 if protobuf has no message for it.
pub(crate) fn encode(tree: &Tree, format: Format, pretty: bool) -> Result<Bytes, Refusal> {
    match format {
        Format::Json => {
            let mut out = if pretty {
                serde_json::to_vec_pretty(tree).unwrap_or_default()
            } else {
                objects::record::encode(tree).into()
            };
            out.push(b'\n');
            Ok(out.into())
        }
        Format::Yaml => Ok(codec::yaml::encode(tree).into()),
        Format::Protobuf => {
            let schema = schema::builtin();
            let text = |key: &str| tree.get(key).and_then(Tree::as_str).unwrap_or_default();
            let (version, kind) = (text("apiVersion"), text("kind"));
            let ty = message_type(version, kind).ok_or_else(|| {
                status::internal(format!("{kind} of {version} has no protobuf message; ask for application/json"))
            })?;
            Ok(codec::protobuf::encode(schema, ty, tree).map_err(status::internal)?.into())
        }
    }
}

/// The type of a kind, also of those of `meta.k8s.io` that every version has.
fn message_type(api_version: &str, kind: &str) -> Option<TypeId> {
    let schema = schema::builtin();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    schema
        .by_kind(group, version, kind)
        .or_else(|| schema.by_name(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}")))
}

/// How one request's objects are written.
#[derive(Clone)]
pub(crate) struct Renderer {
    kind: &'static Kind,
    accepted: Accepted,
    pretty: bool,
    /// How much of its object a Table's row carries.
    include: Include,
    /// Columns of a Table are said once: with a list, or with a watch's first event.
    with_columns: bool,
}

impl Renderer {
    /// # Errors
    /// 422 for an `includeObject` that is none.
    pub(crate) fn new(
        kind: &'static Kind,
        sub: Option<&'static Subresource>,
        mut accepted: Accepted,
        head: &Head,
    ) -> Result<Renderer, Refusal> {
        let pretty = accepted.pretty
            || accepted.format == Format::Json && negotiate::pretty(head.param("pretty"), head.user_agent());
        if sub.is_some_and(|s| s.gvk.is_some()) && accepted.shape == Shape::Table {
            // The columns are the parent's; a Scale has none.
            accepted.shape = Shape::Object;
        }
        let asked = head.param("includeObject").unwrap_or_default();
        let include = match Include::parse(asked) {
            Some(i) => i,
            None if accepted.shape != Shape::Table => Include::default(),
            None => {
                let wrong = FieldError {
                    reason: "FieldValueInvalid",
                    field: "includeObject".into(),
                    message: format!("Invalid value: {asked:?}: must be 'Metadata', 'Object', 'None', or empty"),
                };
                return Err(Box::new(Status::invalid_kind("meta.k8s.io", "TableOptions", "", &[wrong])));
            }
        };
        Ok(Renderer { kind, accepted, pretty, include, with_columns: true })
    }

    pub(crate) fn pretty(&self) -> bool {
        self.pretty
    }

    pub(crate) fn media_type(&self) -> &'static str {
        self.accepted.format.media_type()
    }

    /// One object, or one Status.
    pub(crate) fn one(&self, tree: Tree) -> Result<Bytes, Refusal> {
        let is_status = tree.get("kind").and_then(Tree::as_str) == Some("Status");
        let shaped = match self.accepted.shape {
            Shape::Table if !is_status => self.table(&tree, true),
            Shape::Metadata if !is_status => metadata_only(&tree, self.meta_version()),
            Shape::MetadataList if !is_status => {
                return Err(status::wrong_form(format!(
                    "you requested PartialObjectMetadataList, but the requested object is not a list ({})",
                    self.kind.kind
                )));
            }
            _ => tree,
        };
        encode(&shaped, self.accepted.format, self.pretty)
    }

    /// How events are written.
    pub(crate) fn frames(self) -> EventFrames {
        EventFrames { renderer: self }
    }

    fn table(&self, object: &Tree, with_columns: bool) -> Tree {
        let mut t = table::table(self.kind, object, self.include, crate::resource::wall(), with_columns);
        if self.accepted.beta
            && let Some(m) = t.as_object_mut()
        {
            m.insert("apiVersion".into(), self.meta_version().into());
        }
        t
    }

    fn meta_version(&self) -> &'static str {
        if self.accepted.beta { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" }
    }

    /// One object of a list, or of a watch, as JSON.
    fn item(&self, json: &[u8], in_list: bool, out: &mut Vec<u8>) {
        match self.accepted.shape {
            Shape::Metadata | Shape::MetadataList => {
                out.extend_from_slice(br#"{"kind":"PartialObjectMetadata","apiVersion":""#);
                out.extend_from_slice(self.meta_version().as_bytes());
                out.extend_from_slice(br#"","metadata":"#);
                out.extend_from_slice(metadata_of(json).map_or("{}", |m| m.get()).as_bytes());
                out.push(b'}');
            }
            Shape::Table if in_list => {
                let whole = self.table(&serde_json::from_slice(json).unwrap_or_default(), false);
                let row = whole.get("rows").and_then(|r| r.get(0)).unwrap_or(&Tree::Null);
                // Writing a tree into memory cannot fail: its keys are texts and a Vec takes all bytes.
                let _ = serde_json::to_writer(out, row);
            }
            Shape::Table => {
                let whole = self.table(&serde_json::from_slice(json).unwrap_or_default(), self.with_columns);
                out.extend_from_slice(&objects::record::encode(&whole));
            }
            _ if in_list => objects::record::list_item(json, out),
            _ => out.extend_from_slice(json),
        }
    }
}

#[derive(serde::Deserialize)]
struct OnlyMetadata<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

fn metadata_of(json: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice::<OnlyMetadata<'_>>(json).ok().map(|o| o.metadata)
}

fn metadata_only(tree: &Tree, version: &str) -> Tree {
    json!({"kind": "PartialObjectMetadata", "apiVersion": version, "metadata": tree.get("metadata").cloned().unwrap_or_else(|| json!({}))})
}

/// A list, piece by piece.
pub(crate) fn list(list: List, renderer: Renderer) -> Result<ListPieces, Refusal> {
    if renderer.accepted.shape == Shape::Metadata {
        return Err(status::wrong_form(format!(
            "you requested PartialObjectMetadata, but the requested object is a list ({}List)",
            renderer.kind.kind
        )));
    }
    let mut metadata = serde_json::Map::new();
    metadata.insert("resourceVersion".into(), list.revision.to_string().into());
    if !list.continue_token.is_empty() {
        metadata.insert("continue".into(), list.continue_token.into());
    }
    if let Some(n) = list.remaining {
        metadata.insert("remainingItemCount".into(), n.into());
    }
    let (kind, version) = match renderer.accepted.shape {
        Shape::MetadataList => ("PartialObjectMetadataList".to_owned(), renderer.meta_version().to_owned()),
        Shape::Table => ("Table".to_owned(), renderer.meta_version().to_owned()),
        _ => (format!("{}List", renderer.kind.kind), renderer.kind.api_version()),
    };
    let metadata = Tree::Object(metadata);
    let items = match renderer.accepted.shape {
        Shape::Table => format!("\"columnDefinitions\":{},\"rows\":", table::columns(renderer.kind)),
        _ => "\"items\":".to_owned(),
    };
    let head = format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",\"metadata\":{metadata},{items}");
    let gvk = format!("{{\"kind\":\"{}\",\"apiVersion\":\"{}\",", renderer.kind.kind, renderer.kind.api_version());
    Ok(ListPieces { head: Some(head), items: list.items, renderer, gvk: gvk.into_bytes(), any: false })
}

/// See [`list`].
pub(crate) struct ListPieces {
    head: Option<String>,
    items: Box<dyn Items>,
    renderer: Renderer,
    /// How an object of the list begins: what its item leaves out.
    gvk: Vec<u8>,
    any: bool,
}

impl ListPieces {
    fn compact(&mut self, out: &mut Vec<u8>) -> bool {
        if let Some(head) = self.head.take() {
            out.extend_from_slice(head.as_bytes());
        }
        let ListPieces { items, renderer, gvk, any, .. } = self;
        let plain = matches!(renderer.accepted.shape, Shape::Object);
        let more = items.write_next(&mut |object| {
            out.push(if *any { b',' } else { b'[' });
            *any = true;
            match object.strip_prefix(&gvk[..]).filter(|_| plain) {
                Some(rest) => {
                    out.push(b'{');
                    out.extend_from_slice(rest);
                }
                None => renderer.item(object, true, out),
            }
        });
        if !more {
            out.extend_from_slice(match (self.any, self.renderer.accepted.shape) {
                (true, _) => b"]}\n",
                // A nil slice in Go: kube-apiserver writes it for these lists and no others.
                (false, Shape::MetadataList) => b"null}\n",
                (false, _) => b"[]}\n",
            });
        }
        more
    }
}

impl Pieces for ListPieces {
    fn more(&mut self, out: &mut Vec<u8>) -> bool {
        if !self.renderer.pretty && self.renderer.accepted.format == Format::Json {
            return self.compact(out);
        }
        // For people's eyes, and in formats that know their length beforehand, a list is made whole.
        let mut whole = Vec::new();
        while self.compact(&mut whole) {}
        let tree: Tree = serde_json::from_slice(&whole).unwrap_or_default();
        match encode(&tree, self.renderer.accepted.format, self.renderer.pretty) {
            Ok(bytes) => out.extend_from_slice(&bytes),
            Err(refusal) => tracing::error!(message = refusal.message, "a list could not be written"),
        }
        false
    }
}

/// Writes events as frames of JSON, a line each.
pub(crate) struct EventFrames {
    renderer: Renderer,
}

impl EventFrames {
    pub(crate) fn media_type(&self) -> &'static str {
        match (self.renderer.accepted.format, self.renderer.accepted.stream) {
            (Format::Protobuf, _) => "application/vnd.kubernetes.protobuf;stream=watch",
            (Format::Json, true) => "application/json;stream=watch",
            (f, _) => f.media_type(),
        }
    }

    /// Appends the frame of an event with this object, in the shape asked for.
    fn object(&mut self, ty: &str, json: &[u8], out: &mut Vec<u8>) {
        let mut shaped = Vec::new();
        self.renderer.item(json, false, &mut shaped);
        self.renderer.with_columns = false;
        self.whole(ty, &shaped, out);
    }

    /// Appends the frame of an event with this object as it is.
    fn whole(&mut self, ty: &str, json: &[u8], out: &mut Vec<u8>) {
        if self.renderer.accepted.format != Format::Protobuf {
            out.extend_from_slice(b"{\"type\":\"");
            out.extend_from_slice(ty.as_bytes());
            out.extend_from_slice(b"\",\"object\":");
            out.extend_from_slice(json);
            out.extend_from_slice(b"}\n");
            return;
        }
        let tree: Tree = serde_json::from_slice(json).unwrap_or_default();
        match encode(&tree, Format::Protobuf, false) {
            Ok(body) => out.extend_from_slice(&codec::protobuf::watch_frame(ty, &body)),
            // The client is told, so that it does not take a gap for silence.
            Err(refusal) => {
                let status = encode(&refusal.to_tree(), Format::Protobuf, false).unwrap_or_default();
                out.extend_from_slice(&codec::protobuf::watch_frame("ERROR", &status));
            }
        }
    }

    fn bookmark(&mut self, revision: Revision, end: bool, out: &mut Vec<u8>) {
        let object = objects::record::encode(&objects::read::bookmark(self.renderer.kind, revision, end));
        self.object("BOOKMARK", &object, out);
    }
}

impl Frames for EventFrames {
    fn frame(&mut self, event: &Event, out: &mut Vec<u8>) {
        match event {
            Event::Added(o) => self.object("ADDED", o, out),
            Event::Modified(o) => self.object("MODIFIED", o, out),
            Event::Deleted(o) => self.object("DELETED", o, out),
            Event::Bookmark(revision) => self.bookmark(*revision, false, out),
            Event::Error(status) => self.whole("ERROR", &status.to_json(), out),
        }
    }

    fn initial_end(&mut self, revision: Revision, out: &mut Vec<u8>) {
        self.bookmark(revision, true, out);
    }
}
