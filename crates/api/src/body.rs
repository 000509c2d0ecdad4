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
use objects::codec::{self, Want};
use objects::request::{Body, PatchType, Verb};
use objects::status::Reason;
use std::io::Read as _;
use tokio::time::Instant;

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
            Ok(Body::Patch { kind, bytes: patch_bytes(kind, bytes)? })
        }
        Verb::Delete | Verb::DeleteCollection => {
            let format = content_type(head)?;
            let bytes = bytes(request, head, limits).await?;
            if bytes.is_empty() {
                return Ok(Body::None);
            }
            object(&bytes, format, ("", "v1", "DeleteOptions"))
        }
        Verb::Create | Verb::Update => {
            let format = content_type(head)?;
            let bytes = bytes(request, head, limits).await?;
            let own = (target.kind.group, target.kind.version, target.kind.kind);
            object(&bytes, format, target.sub.and_then(|s| s.gvk).unwrap_or(own))
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
    let until = Instant::now() + limits.request;
    loop {
        let within = until.min(Instant::now() + limits.read);
        let frame = tokio::time::timeout_at(within, incoming.frame()).await.map_err(|_| {
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

/// Reads a body that must be of this group, version and kind.
fn object(bytes: &[u8], format: Format, (group, version, kind): (&str, &str, &str)) -> Result<Body, Refusal> {
    let schema = objects::schema::builtin();
    let ty = schema.by_kind(group, version, kind).ok_or_else(|| {
        status::internal(format!("there is no schema for {kind} of {group:?} {version}; nothing was done"))
    })?;
    let body = codec::read(schema, Want { group, version, kind, ty }, format.into(), bytes).map_err(Box::new)?;
    Ok(Body::Object { tree: body.tree, strict: body.strict })
}

/// A patch's bytes as JSON; server-side apply's may come as YAML.
fn patch_bytes(kind: PatchType, bytes: Bytes) -> Result<Bytes, Refusal> {
    if kind != PatchType::Apply || bytes.trim_ascii_start().first() == Some(&b'{') {
        return Ok(bytes);
    }
    let tree = codec::yaml::parse(&bytes).map_err(|e| status::bad_request(format!("error encoding patch: {e}")))?;
    Ok(codec::json::encode(&tree).into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write as _;

    const CONFIG_MAP: (&str, &str, &str) = ("", "v1", "ConfigMap");

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
            "ConfigMap in version \"v2\" cannot be handled as a ConfigMap: no kind \"ConfigMap\" is registered for version \"v2\""
        );
        assert!(
            refused(br#"{"apiVersion":"v1","kind":"Pod"}"#)
                .starts_with("Pod in version \"v1\" cannot be handled as a ConfigMap")
        );
    }

    #[test]
    fn what_a_body_leaves_out_the_path_fills_in() {
        let Body::Object { tree, .. } = object(b"{}", Format::Json, CONFIG_MAP).unwrap() else { panic!("no object") };
        assert_eq!(tree, serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}));
    }

    #[test]
    fn json_nested_without_end_is_refused_and_overflows_nothing() {
        let deep = [b"[".repeat(20_000), b"]".repeat(20_000)].concat();
        assert!(refused(&deep).starts_with("the object provided is unrecognized"));
    }

    #[test]
    fn an_apply_patch_may_be_yaml() {
        let got = patch_bytes(PatchType::Apply, Bytes::from_static(b"data:\n  a: '1'\n")).unwrap();
        assert_eq!(got, r#"{"data":{"a":"1"}}"#);
        let e = patch_bytes(PatchType::Apply, Bytes::from_static(b"a: [")).unwrap_err();
        assert!(e.message.starts_with("error encoding patch: yaml: line 1:"), "{}", e.message);
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
