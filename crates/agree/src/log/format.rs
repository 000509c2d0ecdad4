//! The bytes of a segment: a header, then frames, then zeros.
//!
//! ```text
//! segment   header, 4,096 bytes: two copies, at 0 and 2,048, each within one 512-byte sector
//!           frame, frame, …     each at a multiple of 8
//! header    "beemlog\0", version u32, crc32c u32 (of what follows), log u128, segment u64,
//!           length u64, first sequence u64, previous segment u64, its end u64, floor u64, accepted u64
//! frame     "bFr1", crc32c u32 (of the rest of these 48 bytes), crc32c of the body u32,
//!           body length u32, records u32, 0 u32, sequence u64, durable u64, floor u64; body;
//!           zeros up to a multiple of 8
//! body      (length u32, record)…
//! ```
//!
//! Frames are numbered through the whole log. Each says up to which number everything was durable when
//! it was written. That is what tells a torn tail from a hole: a frame that is missing was acknowledged,
//! perhaps, only if a later frame vouches for it. Both checksums begin with the log's id, the segment's
//! number and the frame's offset, so that a block which belongs elsewhere, or to another log, is no frame
//! here; and since nobody outside knows the log's id, no object's content can pass for a frame.
//!
//! A segment's header says where the one before it ended: what lies there beyond is void for ever, so a
//! tail that was once cut cannot grow back. `floor` is the lowest segment still needed.

use alloc::vec::Vec;

/// A segment's header with all its padding; where the first frame lies.
pub(crate) const HEADER_BYTES: u64 = 4096;
/// A frame without its body.
pub(crate) const FRAME_BYTES: usize = 48;
const COPY_AT: usize = 2048;
const COPY_BYTES: usize = 16 + 16 + 7 * 8;
const HEADER_MAGIC: &[u8; 8] = b"beemlog\0";
const FRAME_MAGIC: &[u8; 4] = b"bFr1";
const VERSION: u32 = 1;

/// What a segment says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    /// The log's id: 128 bits of chance, drawn when it was founded.
    pub(crate) log: u128,
    /// Its number.
    pub(crate) segment: u64,
    /// The length it was allocated with: as long as no segment follows, the file is not shorter.
    pub(crate) length: u64,
    /// The number of the first frame it was made for.
    pub(crate) first_sequence: u64,
    /// The segment before it; 0 if it is the first.
    pub(crate) previous: u64,
    /// Where that one ends: what lies beyond is void.
    pub(crate) previous_end: u64,
    /// The lowest segment still needed.
    pub(crate) floor: u64,
    /// Holes before this sequence were reported, and accepted by the operator.
    pub(crate) accepted: u64,
}

/// What the first bytes of a segment turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HeaderRead {
    Valid(Header),
    /// A newer release's.
    Newer(u32),
    /// Zeros: nobody has written it.
    Blank,
    /// Anything else.
    Damaged,
}

impl Header {
    /// The bytes of a segment up to its first frame.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut copy = Vec::with_capacity(COPY_BYTES);
        copy.extend_from_slice(HEADER_MAGIC);
        copy.extend_from_slice(&VERSION.to_le_bytes());
        copy.extend_from_slice(&[0; 4]);
        copy.extend_from_slice(&self.log.to_le_bytes());
        let Header { segment, length, first_sequence, previous, previous_end, floor, accepted, .. } = *self;
        let numbers = [segment, length, first_sequence, previous, previous_end, floor, accepted];
        numbers.iter().for_each(|n| copy.extend_from_slice(&n.to_le_bytes()));
        let crc = crc32c::crc32c(&copy[16..]);
        copy[12..16].copy_from_slice(&crc.to_le_bytes());
        let mut all = copy.clone();
        all.resize(COPY_AT, 0);
        all.extend_from_slice(&copy);
        all.resize(HEADER_BYTES as usize, 0);
        all
    }

    /// Reads the header of segment `segment`; one good copy is enough.
    pub(crate) fn decode(segment: u64, bytes: &[u8]) -> HeaderRead {
        let copies = [0, COPY_AT].map(|at| Header::decode_copy(segment, bytes.get(at..).unwrap_or_default()));
        let valid = copies.iter().find(|c| matches!(c, HeaderRead::Valid(_) | HeaderRead::Newer(_)));
        if let Some(read) = valid {
            return *read;
        }
        let blank = bytes.iter().take(HEADER_BYTES as usize).all(|b| *b == 0);
        if blank { HeaderRead::Blank } else { HeaderRead::Damaged }
    }

    fn decode_copy(segment: u64, bytes: &[u8]) -> HeaderRead {
        if bytes.get(..8) != Some(HEADER_MAGIC.as_slice()) {
            return HeaderRead::Damaged;
        }
        let Some(version) = u32_at(bytes, 8) else { return HeaderRead::Damaged };
        // A newer release may have another layout behind the version, so its checksum says nothing here.
        if version > VERSION {
            return HeaderRead::Newer(version);
        }
        let read = || {
            let (crc, body) = (u32_at(bytes, 12)?, bytes.get(16..COPY_BYTES)?);
            let header = Header {
                log: u128::from_le_bytes(*body.first_chunk()?),
                segment: u64_at(body, 16)?,
                length: u64_at(body, 24)?,
                first_sequence: u64_at(body, 32)?,
                previous: u64_at(body, 40)?,
                previous_end: u64_at(body, 48)?,
                floor: u64_at(body, 56)?,
                accepted: u64_at(body, 64)?,
            };
            (version == VERSION && crc == crc32c::crc32c(body) && header.segment == segment).then_some(header)
        };
        read().map_or(HeaderRead::Damaged, HeaderRead::Valid)
    }
}

/// Where a frame lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) log: u128,
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

impl Place {
    /// What both checksums of a frame begin with.
    fn seed(&self) -> u32 {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.log.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.segment.to_le_bytes());
        bytes[24..].copy_from_slice(&self.offset.to_le_bytes());
        crc32c::crc32c(&bytes)
    }
}

/// What a frame says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Numbers {
    /// Its number in the log.
    pub(crate) sequence: u64,
    /// Every frame up to this number was durable when it was written.
    pub(crate) durable: u64,
    /// The lowest segment still needed.
    pub(crate) floor: u64,
}

/// The length of a frame with a body of `body` bytes.
pub(crate) fn frame_len(body: usize) -> usize {
    (FRAME_BYTES + body).next_multiple_of(8)
}

/// Begins a frame in `buffer`: room for what [`seal_frame`] fills in once the body stands behind it.
pub(crate) fn begin_frame(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize(FRAME_BYTES, 0);
}

/// Ends a frame that [`begin_frame`] began, for this place and no other.
pub(crate) fn seal_frame(buffer: &mut Vec<u8>, place: Place, numbers: Numbers, records: u32) {
    let body = buffer.len() - FRAME_BYTES;
    let seed = place.seed();
    let body_crc = crc32c::crc32c_append(seed, &buffer[FRAME_BYTES..]);
    let mut head = [0; FRAME_BYTES];
    head[..4].copy_from_slice(FRAME_MAGIC);
    head[8..12].copy_from_slice(&body_crc.to_le_bytes());
    head[12..16].copy_from_slice(&u32::try_from(body).expect("a body is bounded by its segment").to_le_bytes());
    head[16..20].copy_from_slice(&records.to_le_bytes());
    head[24..32].copy_from_slice(&numbers.sequence.to_le_bytes());
    head[32..40].copy_from_slice(&numbers.durable.to_le_bytes());
    head[40..48].copy_from_slice(&numbers.floor.to_le_bytes());
    let crc = crc32c::crc32c_append(seed, &head[8..]);
    head[4..8].copy_from_slice(&crc.to_le_bytes());
    buffer[..FRAME_BYTES].copy_from_slice(&head);
    buffer.resize(frame_len(body), 0);
}

/// A frame's head whose checksum is right; its body need not be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    pub(crate) numbers: Numbers,
    /// The body's length.
    pub(crate) body: usize,
    records: u32,
    body_crc: u32,
}

impl Head {
    /// Reads the 48 bytes at the start of `bytes`.
    pub(crate) fn read(place: Place, bytes: &[u8]) -> Option<Head> {
        let head = bytes.get(..FRAME_BYTES)?;
        if head.get(..4) != Some(FRAME_MAGIC.as_slice()) {
            return None;
        }
        if u32_at(head, 4)? != crc32c::crc32c_append(place.seed(), head.get(8..)?) {
            return None;
        }
        Some(Head {
            numbers: Numbers { sequence: u64_at(head, 24)?, durable: u64_at(head, 32)?, floor: u64_at(head, 40)? },
            body: u32_at(head, 12)? as usize,
            records: u32_at(head, 16)?,
            body_crc: u32_at(head, 8)?,
        })
    }

    /// The frame's length with its padding.
    pub(crate) fn len(&self) -> usize {
        frame_len(self.body)
    }
}

/// A whole frame whose checksums are right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) head: Head,
    body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads the frame at the start of `bytes`; `None` if there is none.
    pub(crate) fn read(place: Place, bytes: &'a [u8]) -> Option<Frame<'a>> {
        let head = Head::read(place, bytes)?;
        // Whole means with its padding: a frame is written in one piece.
        let body = bytes.get(..head.len())?.get(FRAME_BYTES..FRAME_BYTES + head.body)?;
        let frame = Frame { head, body };
        let right = head.body_crc == crc32c::crc32c_append(place.seed(), body)
            && frame.records().count() == head.records as usize;
        right.then_some(frame)
    }

    /// The bytes of its records.
    pub(crate) fn records(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = self.body;
        core::iter::from_fn(move || {
            let length = u32_at(rest, 0)? as usize;
            let (record, after) = rest.get(4..)?.split_at_checked(length)?;
            rest = after;
            Some(record)
        })
    }
}

/// The first whole frame of `bytes` (a segment from its beginning) in `from..to` that `wanted` accepts,
/// and its offset.
pub(crate) fn find_frame<'a>(
    log: u128,
    segment: u64,
    bytes: &'a [u8],
    from: usize,
    to: usize,
    wanted: impl Fn(&Head) -> bool,
) -> Option<(usize, Frame<'a>)> {
    let to = to.min(bytes.len());
    let from = from.next_multiple_of(8);
    let words = bytes.get(from..to)?.chunks_exact(8).enumerate();
    words.filter(|(_, word)| word.starts_with(FRAME_MAGIC)).find_map(|(at, _)| {
        let offset = from + at * 8;
        let place = Place { log, segment, offset: offset as u64 };
        let here = bytes.get(offset..to)?;
        if !wanted(&Head::read(place, here)?) {
            return None;
        }
        Some((offset, Frame::read(place, here)?))
    })
}

/// Whether `bytes`, a segment whose log is unknown, hold two things that look like frames one behind the
/// other: more than a first write cut short.
pub(crate) fn looks_used(bytes: &[u8]) -> bool {
    let first = HEADER_BYTES as usize;
    let look = |at: usize| bytes.get(at..).is_some_and(|b| b.starts_with(FRAME_MAGIC));
    let next = u32_at(bytes, first + 12).map_or(first, |body| first.saturating_add(frame_len(body as usize)));
    look(first) && next > first && look(next)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}
