//! Header blocks: pairs of texts, compressed with one zlib stream a direction and a dictionary both sides
//! know.

use super::session::Violation;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Header names (lower case) and values, in order.
pub type Headers = Vec<(String, String)>;

/// The words of the dictionary that stand with their length before them (SPDY/3, section 2.6.10.1).
const WORDS: [&str; 63] = [
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
];
const MORE_WORDS: [&str; 2] = ["keep-alive", "origin"];
/// And the rest of it.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized\
    403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
    Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
    chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,\
    text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

pub(super) fn dictionary() -> Vec<u8> {
    let mut out = Vec::with_capacity(1423);
    for word in WORDS.iter().chain(&MORE_WORDS) {
        out.extend_from_slice(&(word.len() as u32).to_be_bytes());
        out.extend_from_slice(word.as_bytes());
    }
    out.extend_from_slice(TAIL.as_bytes());
    out
}

/// Writes header blocks.
pub(super) struct Deflater(Compress);

impl Deflater {
    pub(super) fn new() -> Deflater {
        let mut z = Compress::new(Compression::best(), true);
        // It can fail only after the stream has begun.
        assert!(z.set_dictionary(&dictionary()).is_ok(), "a new zlib stream takes a dictionary");
        Deflater(z)
    }

    pub(super) fn block(&mut self, headers: &Headers) -> Vec<u8> {
        let mut plain = Vec::new();
        plain.extend_from_slice(&(headers.len() as u32).to_be_bytes());
        for text in headers.iter().flat_map(|(k, v)| [k, v]) {
            plain.extend_from_slice(&(text.len() as u32).to_be_bytes());
            plain.extend_from_slice(text.as_bytes());
        }
        let mut out = Vec::with_capacity(plain.len() + 64);
        let before = self.0.total_in();
        loop {
            let taken = usize::try_from(self.0.total_in() - before).unwrap_or(usize::MAX);
            let rest = plain.get(taken..).unwrap_or_default();
            out.reserve(256);
            // Deflating into memory does not fail; a block that did not fit is told by a full buffer.
            let done = self.0.compress_vec(rest, &mut out, FlushCompress::Sync);
            if done.is_err() || (out.len() < out.capacity() && self.0.total_in() - before == plain.len() as u64) {
                return out;
            }
        }
    }
}

/// Reads header blocks.
pub(super) struct Inflater {
    z: Decompress,
    primed: bool,
}

impl Inflater {
    pub(super) fn new() -> Inflater {
        Inflater { z: Decompress::new(true), primed: false }
    }

    /// The headers of a block, which may unpack to at most `limit` bytes.
    pub(super) fn block(&mut self, packed: &[u8], limit: usize) -> Result<Headers, Violation> {
        let mut plain = Vec::new();
        let mut rest = packed;
        let mut stalled = false;
        while !rest.is_empty() {
            plain.reserve(1024);
            let before = (self.z.total_in(), plain.len());
            match self.z.decompress_vec(rest, &mut plain, FlushDecompress::Sync) {
                Ok(Status::StreamEnd) => return Err(Violation::HeaderBlock),
                Ok(_) => {}
                Err(e) if e.needs_dictionary().is_some() && !self.primed => {
                    self.primed = true;
                    self.z.set_dictionary(&dictionary()).map_err(|_| Violation::HeaderBlock)?;
                }
                Err(_) => return Err(Violation::HeaderBlock),
            }
            let taken = usize::try_from(self.z.total_in() - before.0).unwrap_or(usize::MAX);
            rest = rest.get(taken..).unwrap_or_default();
            if plain.len() > limit {
                return Err(Violation::HeadersTooLarge);
            }
            // No bytes in and none out, twice: it will not move again.
            let still = taken == 0 && plain.len() == before.1;
            if still && stalled {
                return Err(Violation::HeaderBlock);
            }
            stalled = still;
        }
        // The last input may leave output behind that did not fit.
        loop {
            let before = plain.len();
            plain.reserve(1024);
            match self.z.decompress_vec(&[], &mut plain, FlushDecompress::Sync) {
                Ok(_) if plain.len() > before => {}
                _ => break,
            }
            if plain.len() > limit {
                return Err(Violation::HeadersTooLarge);
            }
        }
        pairs(&plain)
    }
}

fn pairs(plain: &[u8]) -> Result<Headers, Violation> {
    fn number(b: &mut &[u8]) -> Result<usize, Violation> {
        let (head, tail) = b.split_first_chunk::<4>().ok_or(Violation::HeaderBlock)?;
        *b = tail;
        usize::try_from(u32::from_be_bytes(*head)).map_err(|_| Violation::HeaderBlock)
    }
    fn text(b: &mut &[u8]) -> Result<String, Violation> {
        let n = number(b)?;
        let (head, tail) = b.split_at_checked(n).ok_or(Violation::HeaderBlock)?;
        *b = tail;
        String::from_utf8(head.to_vec()).map_err(|_| Violation::HeaderBlock)
    }
    let mut b = plain;
    let n = number(&mut b)?;
    // Each pair takes eight bytes at least, so a lie about their number asks for no memory.
    if n > b.len() / 8 {
        return Err(Violation::HeaderBlock);
    }
    let mut out = Headers::with_capacity(n);
    for _ in 0..n {
        let name = text(&mut b)?.to_ascii_lowercase();
        out.push((name, text(&mut b)?));
    }
    if b.is_empty() { Ok(out) } else { Err(Violation::HeaderBlock) }
}
