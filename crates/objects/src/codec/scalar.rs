//! Leaves whose text has a form: what is accepted, the canonical text, and Kubernetes' words for the rest.

use base::Quantity;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

/// Go's `base64.StdEncoding`: padding required, stray low bits of the last digit ignored.
pub(super) const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// Base64 in its canonical form; Go ignores line breaks in it.
pub(super) fn base64(text: &str) -> Result<String, String> {
    let joined;
    let text = if text.contains(['\r', '\n']) {
        joined = text.replace(['\r', '\n'], "");
        &joined
    } else {
        text
    };
    match BASE64.decode(text) {
        Ok(bytes) => Ok(BASE64.encode(bytes)),
        Err(e) => {
            let at = match e {
                base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => text.len() / 4 * 4,
            };
            Err(format!("illegal base64 data at input byte {at}"))
        }
    }
}

/// A quantity as Kubernetes writes it.
pub(super) fn quantity(text: &str) -> Result<String, String> {
    Quantity::written(text.trim()).map(std::borrow::Cow::into_owned).map_err(|e| e.to_string())
}

/// A double, as an integer where it is one: Go writes 5, not 5.0.
pub(super) fn double(text: &str) -> Option<serde_json::Number> {
    let d: f64 = text.parse().ok().filter(|d: &f64| d.is_finite())?;
    number(d)
}

/// The same for a double at hand; `None` for what JSON cannot say.
pub(super) fn number(d: f64) -> Option<serde_json::Number> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if d.fract() == 0.0 && d.abs() < EXACT {
        return Some((d as i64).into());
    }
    serde_json::Number::from_f64(d)
}

const TIME: &str = "2006-01-02T15:04:05Z07:00";
const MICRO_TIME: &str = "2006-01-02T15:04:05.000000Z07:00";

/// `metav1.Time`: any offset and any decimals are read; UTC and whole seconds are written.
pub(super) fn time(text: &str) -> Result<String, String> {
    match OffsetDateTime::parse(text, &Rfc3339) {
        Ok(t) => Ok(write_time(t)),
        Err(_) => Err(unparsed(text, TIME, false)),
    }
}

/// `metav1.MicroTime`: six decimals, in and out.
pub(super) fn micro_time(text: &str) -> Result<String, String> {
    let decimals =
        text.get(19..).and_then(|t| t.strip_prefix('.')).map(|t| t.bytes().take_while(u8::is_ascii_digit).count());
    match OffsetDateTime::parse(text, &Rfc3339) {
        Ok(t) if decimals == Some(6) => Ok(write_micro_time(t)),
        _ => Err(unparsed(text, MICRO_TIME, true)),
    }
}

/// A moment as `metav1.Time` is written.
pub(super) fn write_time(t: OffsetDateTime) -> String {
    let t = t.to_offset(UtcOffset::UTC);
    let (y, mo, d, h, mi, s) = (t.year(), u8::from(t.month()), t.day(), t.hour(), t.minute(), t.second());
    format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}Z")
}

/// A moment as `metav1.MicroTime` is written.
pub(super) fn write_micro_time(t: OffsetDateTime) -> String {
    let mut s = write_time(t);
    s.pop();
    s.push_str(&format!(".{:06}Z", t.microsecond()));
    s
}

/// Go's `time.ParseError` for a text that is no time of a layout: where the first of the layout's
/// elements is not found, or which part is out of range.
fn unparsed(text: &str, layout: &str, micro: bool) -> String {
    const ELEMENTS: [&str; 11] = ["2006", "-", "01", "-", "02", "T", "15", ":", "04", ":", "05"];
    let mut rest = text;
    let fail = |rest: &str, element: &str| {
        format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {element:?}")
    };
    for (i, element) in ELEMENTS.into_iter().enumerate() {
        let digits = element.as_bytes()[0].is_ascii_digit();
        let found = match rest.as_bytes().get(..element.len()) {
            Some(b) if digits => b.iter().all(u8::is_ascii_digit),
            Some(b) => b == element.as_bytes(),
            None => false,
        };
        if !found {
            return fail(rest, element);
        }
        let (part, after) = rest.split_at(element.len());
        let n: u32 = part.parse().unwrap_or(0);
        let range = match i {
            2 if !(1..=12).contains(&n) => "month",
            6 if n > 23 => "hour",
            8 if n > 59 => "minute",
            10 if n > 59 => "second",
            _ => "",
        };
        if !range.is_empty() {
            return format!("parsing time {text:?}: {range} out of range");
        }
        rest = after;
    }
    let decimals = rest.strip_prefix('.').map_or(0, |r| r.bytes().take_while(u8::is_ascii_digit).count());
    if micro && decimals < 6 {
        return fail(rest, ".000000");
    }
    let decimals = if micro { 6 } else { decimals };
    if decimals > 0 {
        rest = &rest[decimals + 1..];
    }
    let zone = match rest.as_bytes() {
        [b'Z', ..] => 1,
        [b'+' | b'-', a, b, b':', c, d, ..] if [a, b, c, d].iter().all(|x| x.is_ascii_digit()) => 6,
        _ => return fail(rest, "Z07:00"),
    };
    match &rest[zone..] {
        "" => format!("parsing time {text:?}: day out of range"),
        extra => format!("parsing time {text:?}: extra text: {extra:?}"),
    }
}
