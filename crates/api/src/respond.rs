//! Answers as HTTP: media types, compression, and lists written piece by piece.

use crate::negotiate::{self, Format};
use crate::port::Refusal;
use crate::render;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, VARY, WARNING};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Frame;
use objects::Tree;
use std::io::{self, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A body on its way out.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// From this size on an answer is worth compressing.
pub(crate) const COMPRESS_BYTES: usize = 128 << 10;
/// What a connection keeps of an answer that its client has not taken yet, and writes at once.
pub(crate) const WRITTEN_BYTES: usize = 128 << 10;
/// Pieces in which a list is written: large enough for few system calls, small enough that a connection holds little.
/// One, with an object more and its length in front, is written as a whole: what is beyond would be a record, a system
/// call and a reader's awakening of its own.
const PIECE_BYTES: usize = WRITTEN_BYTES - (8 << 10);

/// An answer without a body.
pub(crate) fn empty(code: u16) -> Response<Body> {
    build(code, None, Empty::new().map_err(|never| match never {}).boxed_unsync())
}

/// An answer of these bytes.
pub(crate) fn bytes(code: u16, media_type: &'static str, body: Bytes) -> Response<Body> {
    let length = body.len();
    let mut r = build(code, Some(media_type), Full::new(body).map_err(|never| match never {}).boxed_unsync());
    r.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    r
}

/// An answer of JSON bytes.
pub(crate) fn json(code: u16, body: Bytes) -> Response<Body> {
    bytes(code, Format::Json.media_type(), body)
}

/// An answer in words.
pub(crate) fn text(code: u16, body: &str) -> Response<Body> {
    let mut r = bytes(code, "text/plain; charset=utf-8", Bytes::copy_from_slice(body.as_bytes()));
    r.headers_mut().insert(http::header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    r
}

/// A tree in a format.
///
/// # Errors
/// 500 if it cannot be said in that format.
pub(crate) fn tree(code: u16, tree: &Tree, format: Format, pretty: bool) -> Result<Response<Body>, Refusal> {
    Ok(bytes(code, format.media_type(), render::encode(tree, format, pretty)?))
}

/// A refusal, in the best of the formats the client accepts, or in JSON if it accepts none.
pub(crate) fn refusal(refusal: &Refusal, accept: Option<&str>) -> Response<Body> {
    let format = negotiate::accept(accept, true).map(|a| a.format).unwrap_or_default();
    let status = refusal.to_tree();
    let mut r = tree(refusal.code, &status, format, false)
        .unwrap_or_else(|_| json(refusal.code, objects::record::encode(&status)));
    if let Some(seconds) = refusal.details.as_ref().map(|d| d.retry_after_seconds).filter(|s| *s > 0) {
        r.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    r
}

/// Writes `Warning: 299 - "…"` headers.
pub(crate) fn warn(headers: &mut HeaderMap, warnings: &[String]) {
    for text in warnings {
        let mut quoted = String::with_capacity(text.len() + 8);
        quoted.push_str("299 - \"");
        for c in text.chars() {
            match c {
                '"' | '\\' => quoted.extend(['\\', c]),
                // Headers have no control characters; a line break would be another header.
                c if c.is_control() => quoted.push(' '),
                c => quoted.push(c),
            }
        }
        quoted.push('"');
        if let Ok(v) = HeaderValue::from_bytes(quoted.as_bytes()) {
            headers.append(WARNING, v);
        }
    }
}

/// Makes the pieces of a body that may be long. The next piece is at least a few bytes; `None` ends.
pub(crate) trait Pieces: Send + 'static {
    /// Appends to `out`; false once nothing is left.
    fn more(&mut self, out: &mut Vec<u8>) -> bool;
}

/// Writes a body piece by piece, compressed if it is long, the client far, and gzip understood.
pub(crate) fn stream(
    code: u16,
    media_type: &'static str,
    mut pieces: impl Pieces + Unpin,
    near: bool,
    request: &HeaderMap,
) -> Response<Body> {
    let mut first = Vec::with_capacity(4096);
    let mut more = true;
    while more && first.len() <= COMPRESS_BYTES {
        more = pieces.more(&mut first);
    }
    let compress = !near && accepts_gzip(request);
    if !(more || compress && first.len() > COMPRESS_BYTES) {
        return bytes(code, media_type, first.into());
    }
    let gzip = compress.then(|| GzEncoder::new(Vec::with_capacity(PIECE_BYTES), Compression::fast()));
    let body = Streamed { pieces, first: Some(first), gzip, more };
    let mut r = build(code, Some(media_type), UnsyncBoxBody::new(body));
    if compress {
        r.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        r.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    r
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let gzip = parts.next().is_some_and(|n| n.eq_ignore_ascii_case("gzip"));
        gzip && !parts.any(|p| p.strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q <= 0.0)))
    })
}

struct Streamed<P> {
    pieces: P,
    first: Option<Vec<u8>>,
    gzip: Option<GzEncoder<Vec<u8>>>,
    more: bool,
}

impl<P: Pieces + Unpin> hyper::body::Body for Streamed<P> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        loop {
            let mut raw = match this.first.take() {
                Some(first) => first,
                None if this.more => Vec::with_capacity(PIECE_BYTES + 4096),
                None => {
                    // What the compressor still holds is the last piece.
                    return Poll::Ready(match this.gzip.take().map(GzEncoder::finish) {
                        Some(Ok(rest)) => Some(Ok(Frame::data(rest.into()))),
                        Some(Err(e)) => Some(Err(e)),
                        None => None,
                    });
                }
            };
            while this.more && raw.len() < PIECE_BYTES {
                this.more = this.pieces.more(&mut raw);
            }
            let Some(gzip) = &mut this.gzip else { return Poll::Ready(Some(Ok(Frame::data(raw.into())))) };
            if let Err(e) = gzip.write_all(&raw) {
                return Poll::Ready(Some(Err(e)));
            }
            if gzip.get_ref().len() >= PIECE_BYTES {
                let out = std::mem::take(gzip.get_mut());
                return Poll::Ready(Some(Ok(Frame::data(out.into()))));
            }
        }
    }
}

pub(crate) fn build(code: u16, media_type: Option<&'static str>, body: Body) -> Response<Body> {
    let mut r = Response::new(body);
    *r.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(m) = media_type {
        r.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(m));
    }
    r
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Read as _;

    struct Numbers(u32, u32);
    impl Pieces for Numbers {
        fn more(&mut self, out: &mut Vec<u8>) -> bool {
            out.extend_from_slice(format!("{:08}\n", self.0).as_bytes());
            self.0 += 1;
            self.0 < self.1
        }
    }

    fn expected(n: u32) -> Vec<u8> {
        let mut out = Vec::new();
        let mut all = Numbers(0, n);
        while all.more(&mut out) {}
        out
    }

    async fn collect(r: Response<Body>) -> Vec<u8> {
        r.into_body().collect().await.unwrap().to_bytes().to_vec()
    }

    #[tokio::test]
    async fn a_short_list_has_a_length_and_a_long_one_is_streamed_whole() {
        let none = HeaderMap::new();
        let r = stream(200, "application/json", Numbers(0, 100), false, &none);
        assert_eq!(r.headers()[CONTENT_LENGTH], "900");
        assert_eq!(collect(r).await, expected(100));
        let r = stream(200, "application/json", Numbers(0, 100_000), true, &none);
        assert!(r.headers().get(CONTENT_LENGTH).is_none());
        assert_eq!(collect(r).await, expected(100_000));
    }

    #[tokio::test]
    async fn only_a_long_answer_to_a_far_client_that_understands_gzip_is_compressed() {
        let mut gzip = HeaderMap::new();
        gzip.insert(ACCEPT_ENCODING, HeaderValue::from_static("br, gzip;q=0.5"));
        let mut refused = HeaderMap::new();
        refused.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip;q=0"));
        for (n, near, headers, want) in [
            (100_000, false, &gzip, true),
            (100_000, true, &gzip, false),
            (100_000, false, &refused, false),
            (100, false, &gzip, false),
            // Just beyond the bound, all of it already made.
            (14_564, false, &gzip, true),
        ] {
            let r = stream(200, "application/json", Numbers(0, n), near, headers);
            assert_eq!(r.headers().contains_key(CONTENT_ENCODING), want, "{n} {near} {headers:?}");
            let mut body = collect(r).await;
            if want {
                let mut plain = Vec::new();
                flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
                body = plain;
            }
            assert!(body == expected(n));
        }
    }

    #[test]
    fn a_warning_is_quoted_and_stays_one_header() {
        let mut h = HeaderMap::new();
        warn(&mut h, &["unknown field \"dat\"".into(), "a\r\nb".into()]);
        let all: Vec<_> = h.get_all(WARNING).iter().map(|v| v.to_str().unwrap()).collect();
        assert_eq!(all, [r#"299 - "unknown field \"dat\"""#, r#"299 - "a  b""#]);
    }
}
