//! Objects in the form a client asked for: as they are, as metadata alone, one by one, in lists, in watches.

use crate::handle::Head;
use crate::negotiate::{self, Accepted, Format, Shape};
use crate::port::{Event, List, Refusal};
use crate::respond::{self, Pieces};
use crate::status;
use crate::watch::Frames;
use base::Revision;
use bytes::Bytes;
use objects::Tree;
use objects::kinds::{Kind, Subresource};
use serde_json::json;
use serde_json::value::RawValue;

/// How one request's objects are written.
#[derive(Clone)]
pub(crate) struct Renderer {
    kind: &'static Kind,
    accepted: Accepted,
    pretty: bool,
}

impl Renderer {
    pub(crate) fn new(
        kind: &'static Kind,
        _sub: Option<&'static Subresource>,
        accepted: Accepted,
        head: &Head,
    ) -> Renderer {
        let pretty = accepted.pretty
            || accepted.format == Format::Json && negotiate::pretty(head.param("pretty"), head.user_agent());
        Renderer { kind, accepted, pretty }
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
            Shape::Metadata if !is_status => metadata_only(&tree, self.meta_version()),
            Shape::MetadataList if !is_status => {
                return Err(status::wrong_form(format!(
                    "you requested PartialObjectMetadataList, but the requested object is not a list ({})",
                    self.kind.kind
                )));
            }
            _ => tree,
        };
        Ok(respond::encode(&shaped, self.accepted.format, self.pretty))
    }

    /// How events are written.
    pub(crate) fn frames(self) -> EventFrames {
        EventFrames { renderer: self }
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
        _ => (format!("{}List", renderer.kind.kind), renderer.kind.api_version()),
    };
    let head = format!(
        "{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",\"metadata\":{},\"items\":",
        Tree::Object(metadata)
    );
    Ok(ListPieces { head: Some(head), items: list.items, renderer, any: false })
}

/// See [`list`].
pub(crate) struct ListPieces {
    head: Option<String>,
    items: Box<dyn Iterator<Item = Bytes> + Send>,
    renderer: Renderer,
    any: bool,
}

impl ListPieces {
    fn compact(&mut self, out: &mut Vec<u8>) -> bool {
        if let Some(head) = self.head.take() {
            out.extend_from_slice(head.as_bytes());
        }
        match self.items.next() {
            Some(object) => {
                out.push(if self.any { b',' } else { b'[' });
                self.any = true;
                self.renderer.item(&object, true, out);
                true
            }
            None => {
                out.extend_from_slice(match (self.any, self.renderer.accepted.shape) {
                    (true, _) => b"]}\n",
                    // A nil slice in Go: kube-apiserver writes it for these lists and no others.
                    (false, Shape::MetadataList) => b"null}\n",
                    (false, _) => b"[]}\n",
                });
                false
            }
        }
    }
}

impl Pieces for ListPieces {
    fn more(&mut self, out: &mut Vec<u8>) -> bool {
        if !self.renderer.pretty && self.renderer.accepted.format == Format::Json {
            return self.compact(out);
        }
        // For people's eyes, and in YAML, a list is made whole.
        let mut whole = Vec::new();
        while self.compact(&mut whole) {}
        let tree: Tree = serde_json::from_slice(&whole).unwrap_or_default();
        out.extend_from_slice(&respond::encode(&tree, self.renderer.accepted.format, self.renderer.pretty));
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

    fn line(&mut self, ty: &str, write: impl FnOnce(&Renderer, &mut Vec<u8>), out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(ty.as_bytes());
        out.extend_from_slice(b"\",\"object\":");
        write(&self.renderer, out);
        out.extend_from_slice(b"}\n");
    }

    fn bookmark(&mut self, revision: Revision, end: bool, out: &mut Vec<u8>) {
        let object = objects::record::encode(&objects::read::bookmark(self.renderer.kind, revision, end));
        self.line("BOOKMARK", |r, out| r.item(&object, false, out), out);
    }
}

impl Frames for EventFrames {
    fn frame(&mut self, event: &Event, out: &mut Vec<u8>) {
        match event {
            Event::Added(o) => self.line("ADDED", |r, out| r.item(o, false, out), out),
            Event::Modified(o) => self.line("MODIFIED", |r, out| r.item(o, false, out), out),
            Event::Deleted(o) => self.line("DELETED", |r, out| r.item(o, false, out), out),
            Event::Bookmark(revision) => self.bookmark(*revision, false, out),
            Event::Error(status) => {
                let status = respond::encode(&status.to_tree(), Format::Json, false);
                self.line("ERROR", |_, out| out.extend_from_slice(status.trim_ascii_end()), out);
            }
        }
    }

    fn initial_end(&mut self, revision: Revision, out: &mut Vec<u8>) {
        self.bookmark(revision, true, out);
    }
}
