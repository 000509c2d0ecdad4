//! Request bodies: read within bounds, unpacked, and decoded as far as can be without the stored object.

use crate::handle::Head;
use crate::negotiate::{self, Format};
use crate::port::Refusal;
use crate::resource::Target;
use crate::server::Limits;
use crate::status;
use bytes::{Bytes, BytesMut};
use flate2::read::GzDecoder;
use http::Request;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use objects::Tree;
use objects::request::{Body, PatchType, Verb};
use objects::status::Reason;
use std::io::Read as _;

/// Reads and decodes the body that a request's verb calls for.
///
/// # Errors
/// 413 beyond the limit, 415 for a type unknown, 400 for what does not decode, 408 for a client that
/// stops in the middle. Nothing has been done in any of these cases.
pub(crate) async fn read(
    request: Request<Incoming>,
    head: &Head,
    target: &Target,
    patch: Option<PatchType>,
    limits: Limits,
) -> Result<Body, Refusal> {
    match target.verb {
        Verb::Get | Verb::List | Verb::Watch => Ok(Body::None),
        Verb::Patch => {
            let bytes = bytes(request, head, limits).await?;
            let Some(kind) = patch else { return Err(status::patch_type_unknown()) };
            Ok(Body::Patch { kind, bytes })
        }
        Verb::Delete | Verb::DeleteCollection => {
            let format = content_type(head)?;
            let bytes = bytes(request, head, limits).await?;
            if bytes.is_empty() {
                return Ok(Body::None);
            }
            object(&bytes, format, Expected { group: "", version: "v1", kind: "DeleteOptions", any_version: true })
        }
        Verb::Create | Verb::Update => {
            let format = content_type(head)?;
            let bytes = bytes(request, head, limits).await?;
            let (group, version, kind) =
                target.sub.and_then(|s| s.gvk).unwrap_or((target.kind.group, target.kind.version, target.kind.kind));
            object(&bytes, format, Expected { group, version, kind, any_version: false })
        }
    }
}

fn content_type(head: &Head) -> Result<Format, Refusal> {
    negotiate::content(head.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()))
}

/// The body's bytes, unpacked, at most `limits.body_bytes`.
async fn bytes(request: Request<Incoming>, head: &Head, limits: Limits) -> Result<Bytes, Refusal> {
    let limit = limits.body_bytes;
    let too_large = || status::too_large(limit);
    let said = head.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    if said.is_some_and(|n| usize::try_from(n).map_or(true, |n| n > limit)) {
        return Err(too_large());
    }
    let mut incoming = request.into_body();
    let mut all = BytesMut::new();
    loop {
        let frame = tokio::time::timeout(limits.read, incoming.frame()).await.map_err(|_| {
            status::failure(408, Reason::Timeout, "the request's body did not arrive in time; nothing was done")
        })?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|e| status::bad_request(format!("unable to read request body: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if all.len().saturating_add(data.len()) > limit {
            return Err(too_large());
        }
        all.extend_from_slice(&data);
    }
    match head.headers.get(CONTENT_ENCODING).and_then(|v| v.to_str().ok()) {
        None | Some("" | "identity") => Ok(all.freeze()),
        Some("gzip") => unpack(&all, limit),
        Some(other) => Err(status::failure(
            415,
            Reason::UnsupportedMediaType,
            format!("the body of the request has the Content-Encoding {other:?}; understood are gzip and identity"),
        )),
    }
}

fn unpack(packed: &[u8], limit: usize) -> Result<Bytes, Refusal> {
    let mut out = Vec::new();
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    GzDecoder::new(packed)
        .take(bound)
        .read_to_end(&mut out)
        .map_err(|e| status::bad_request(format!("unable to unpack the request body: {e}")))?;
    if out.len() > limit { Err(status::too_large(limit)) } else { Ok(out.into()) }
}

/// What a body must be.
#[derive(Clone, Copy)]
struct Expected {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    /// Every version says the same (DeleteOptions).
    any_version: bool,
}

impl Expected {
    fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.into() } else { format!("{}/{}", self.group, self.version) }
    }
}

fn object(bytes: &[u8], format: Format, expected: Expected) -> Result<Body, Refusal> {
    let unrecognized = |why: String| {
        status::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): couldn't get version/kind; {why}",
            expected.kind
        ))
    };
    let mut tree: Tree = match format {
        Format::Json => serde_json::from_slice(bytes).map_err(|e| {
            let shown = if bytes.is_empty() {
                "<empty>".into()
            } else {
                String::from_utf8_lossy(bytes.get(..100).unwrap_or(bytes))
            };
            let why = if e.is_eof() { "unexpected end of JSON input".to_owned() } else { e.to_string() };
            unrecognized(format!("json parse error: {why} ({shown})"))
        })?,
        Format::Yaml | Format::Protobuf => return Err(status::body_type_unknown(&[Format::Json.media_type()])),
    };
    let Some(map) = tree.as_object_mut() else {
        return Err(unrecognized("json parse error: json: cannot unmarshal into Go value of type struct".into()));
    };
    let version = expected.api_version();
    // What is left out is what the URL says.
    let text = |map: &objects::Map, key: &str| map.get(key).and_then(Tree::as_str).unwrap_or_default().to_owned();
    let (said_version, said_kind) = (text(map, "apiVersion"), text(map, "kind"));
    if said_version.is_empty() {
        map.insert("apiVersion".into(), version.clone().into());
    }
    if said_kind.is_empty() {
        map.insert("kind".into(), expected.kind.into());
    }
    let shown_kind = if said_kind.is_empty() { expected.kind } else { &said_kind };
    let shown_version = if said_version.is_empty() { &version } else { &said_version };
    let right_version = expected.any_version || *shown_version == version;
    if shown_kind == expected.kind && right_version {
        return Ok(Body::Object { tree, strict: Vec::new() });
    }
    if objects::kinds::by_api_version(shown_version, shown_kind).is_none() {
        return Err(status::bad_request(format!(
            "{shown_kind} in version {shown_version:?} cannot be handled as a {}: no kind {shown_kind:?} is registered for version {shown_version:?} in scheme \"pkg/runtime/scheme.go:111\"",
            expected.kind
        )));
    }
    if shown_kind == expected.kind {
        return Err(status::bad_request(format!(
            "the API version in the data ({shown_version}) does not match the expected API version ({version})"
        )));
    }
    Err(status::bad_request(format!(
        "{shown_kind} in version {shown_version:?} cannot be handled as a {}: converting ({shown_version}.{shown_kind}) to ({version}.{}): unknown conversion",
        expected.kind, expected.kind
    )))
}

/// A tree's bytes in a format.
pub(crate) fn encode(tree: &Tree, format: Format, pretty: bool) -> Bytes {
    let mut out = match (format, pretty) {
        (_, true) => serde_json::to_vec_pretty(tree).unwrap_or_default(),
        (_, false) => objects::record::encode(tree).into(),
    };
    out.push(b'\n');
    out.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write as _;

    const CONFIG_MAP: Expected = Expected { group: "", version: "v1", kind: "ConfigMap", any_version: false };

    fn refused(bytes: &[u8]) -> String {
        object(bytes, Format::Json, CONFIG_MAP).unwrap_err().message
    }

    #[test]
    fn a_body_that_is_not_what_the_path_says_is_refused_in_kubernetes_words() {
        assert_eq!(
            refused(b""),
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)"
        );
        assert!(refused(b"{not json").starts_with("the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: "));
        assert_eq!(
            refused(br#"{"apiVersion":"v2","kind":"ConfigMap"}"#),
            "ConfigMap in version \"v2\" cannot be handled as a ConfigMap: no kind \"ConfigMap\" is registered for version \"v2\" in scheme \"pkg/runtime/scheme.go:111\""
        );
        assert!(
            refused(br#"{"apiVersion":"v1","kind":"Pod"}"#)
                .starts_with("Pod in version \"v1\" cannot be handled as a ConfigMap")
        );
    }

    #[test]
    fn what_a_body_leaves_out_the_path_fills_in() {
        let Body::Object { tree, .. } = object(b"{}", Format::Json, CONFIG_MAP).unwrap() else { panic!("no object") };
        assert_eq!(tree, serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap"}));
    }

    #[test]
    fn json_nested_without_end_is_refused_and_overflows_nothing() {
        let deep = [b"[".repeat(20_000), b"]".repeat(20_000)].concat();
        assert!(refused(&deep).contains("json parse error"));
    }

    #[test]
    fn a_zip_bomb_is_too_large() {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gz.write_all(&vec![0; 10 << 20]).unwrap();
        let packed = gz.finish().unwrap();
        assert!(packed.len() < 20_000);
        assert_eq!(unpack(&packed, 3 << 20).unwrap_err().message, "Request entity too large: limit is 3145728");
    }
}
