//! Kubernetes quantities: `500m`, `1.5Gi`, `12e6`.
//!
//! The rules are those of apimachinery's `resource.Quantity`: a quantity keeps the family of suffixes
//! it was written in (decimal, binary, exponent) and prints in that family's canonical form; finer
//! parts than a nano-unit are rounded up, away from zero. A value is exact up to 1.7 × 10²⁹ units, beyond
//! which it is capped; binary quantities are capped at 2⁶³ − 1 as Kubernetes caps them.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use core::cmp::Ordering;
use core::fmt;
use core::str::FromStr;

/// Nano-units in a unit.
const NANO: i128 = 1_000_000_000;

/// The family of suffixes a quantity is printed with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// `n u m k M G T P E`.
    #[default]
    DecimalSi,
    /// `Ki Mi Gi Ti Pi Ei`.
    BinarySi,
    /// `e3`, `E3`.
    DecimalExponent,
}

/// Why a text is no quantity, in Kubernetes' words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParseQuantityError {
    /// It is not a number followed by a suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The number part is none.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    /// No such suffix.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// A quantity: an amount in nano-units and the family it prints in. Two are equal if their amounts are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

/// The parts of a text: sign, digits before and after the point, suffix.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

/// What a suffix multiplies by.
#[derive(Clone, Copy)]
enum Scale {
    Ten(i32),
    Two(u32),
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Quantity = Quantity { nano: 0, format: Format::DecimalSi };

    /// That many whole units.
    pub const fn new(units: i64, format: Format) -> Quantity {
        Quantity { nano: units as i128 * NANO, format }
    }

    /// That many thousandths.
    pub const fn from_milli(milli: i64) -> Quantity {
        Quantity { nano: milli as i128 * 1_000_000, format: Format::DecimalSi }
    }

    /// Reads a text.
    ///
    /// # Errors
    /// [`ParseQuantityError`], worded as Kubernetes words it.
    pub fn parse(s: &str) -> Result<Quantity, ParseQuantityError> {
        let parts = split(s)?;
        let (scale, mut format) = interpret(parts.suffix).ok_or(ParseQuantityError::Suffix)?;
        let mut nano = magnitude(&parts, scale);
        if format == Format::BinarySi {
            nano = nano.min(i128::from(i64::MAX) * NANO);
            if nano > 0 && nano < NANO {
                format = Format::DecimalSi;
            }
        }
        Ok(Quantity { nano: if parts.negative { -nano } else { nano }, format })
    }

    /// What Kubernetes writes for a quantity sent as `s`. That is the canonical form, except that some
    /// texts are kept as they are: whole binary ones with a number not divisible by 8, and decimal ones
    /// whose digits neither begin with 0 nor end in 000 and whose power of ten is a multiple of three
    /// (`1.500`, `+5`, `1.123456`).
    ///
    /// # Errors
    /// As [`Quantity::parse`].
    pub fn written(s: &str) -> Result<Cow<'_, str>, ParseQuantityError> {
        let q = Quantity::parse(s)?;
        let parts = split(s)?;
        if s == "0" || keeps_its_text(&parts) { Ok(Cow::Borrowed(s)) } else { Ok(Cow::Owned(format!("{q}"))) }
    }

    /// Whole units, rounded away from zero; capped to 64 bits.
    pub fn value(self) -> i64 {
        narrow(round_up(self.nano, NANO))
    }

    /// Thousandths, rounded away from zero; capped to 64 bits.
    pub fn milli_value(self) -> i64 {
        narrow(round_up(self.nano, NANO / 1000))
    }

    /// The amount in nano-units.
    pub const fn nano(self) -> i128 {
        self.nano
    }

    /// The family it prints in.
    pub const fn format(self) -> Format {
        self.format
    }

    /// Whether it is nothing.
    pub const fn is_zero(self) -> bool {
        self.nano == 0
    }

    /// -1, 0 or 1.
    pub const fn signum(self) -> i128 {
        self.nano.signum()
    }

    /// Whether it is a whole number of units.
    pub const fn is_whole(self) -> bool {
        self.nano % NANO == 0
    }

    /// Rounded away from zero to thousandths.
    pub fn rounded_to_milli(self) -> Quantity {
        Quantity { nano: round_up(self.nano, NANO / 1000).saturating_mul(NANO / 1000), ..self }
    }

    /// The sum, in this one's family (the other's if this is zero); `None` on overflow.
    pub fn checked_add(self, other: Quantity) -> Option<Quantity> {
        let format = if self.is_zero() { other.format } else { self.format };
        Some(Quantity { nano: self.nano.checked_add(other.nano)?, format })
    }

    /// The difference, in this one's family (the other's if this is zero); `None` on overflow.
    pub fn checked_sub(self, other: Quantity) -> Option<Quantity> {
        let format = if self.is_zero() { other.format } else { self.format };
        Some(Quantity { nano: self.nano.checked_sub(other.nano)?, format })
    }
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;
    fn from_str(s: &str) -> Result<Quantity, ParseQuantityError> {
        Quantity::parse(s)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.nano == other.nano
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.canonical())
    }
}

impl Quantity {
    fn canonical(self) -> String {
        if self.nano == 0 {
            return String::from("0");
        }
        let small = self.nano.unsigned_abs() < 1024 * NANO.unsigned_abs();
        if self.format == Format::BinarySi && self.is_whole() && !small {
            let mut amount = self.nano / NANO;
            let mut suffix = "";
            for next in ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"] {
                if amount % 1024 != 0 {
                    break;
                }
                amount /= 1024;
                suffix = next;
            }
            return format!("{amount}{suffix}");
        }
        let (mut amount, mut exponent) = (self.nano, -9);
        while amount % 1000 == 0 {
            amount /= 1000;
            exponent += 3;
        }
        let suffix = match (self.format, exponent) {
            (_, 0) => "",
            (Format::DecimalExponent, _) => return format!("{amount}e{exponent}"),
            (_, -9) => "n",
            (_, -6) => "u",
            (_, -3) => "m",
            (_, 3) => "k",
            (_, 6) => "M",
            (_, 9) => "G",
            (_, 12) => "T",
            (_, 15) => "P",
            (_, 18) => "E",
            // There is no suffix; a bare number, as apimachinery prints it here, would be another amount.
            _ => return format!("{amount}e{exponent}"),
        };
        format!("{amount}{suffix}")
    }
}

/// Divides by `unit`, rounding away from zero.
fn round_up(nano: i128, unit: i128) -> i128 {
    nano / unit + if nano % unit == 0 { 0 } else { nano.signum() }
}

fn narrow(v: i128) -> i64 {
    i64::try_from(v).unwrap_or(if v < 0 { i64::MIN } else { i64::MAX })
}

/// Takes a text apart as apimachinery's `parseQuantityString` does: digits may be missing on either
/// side of the point, leading zeros do not count.
fn split(s: &str) -> Result<Parts<'_>, ParseQuantityError> {
    if s.is_empty() {
        return Err(ParseQuantityError::Format);
    }
    let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
    let (negative, rest) = match s.as_bytes().first() {
        Some(b'-') => (true, s.get(1..).unwrap_or("")),
        Some(b'+') => (false, s.get(1..).unwrap_or("")),
        _ => (false, s),
    };
    let rest = rest.trim_start_matches('0');
    let (whole, rest) = rest.split_at(digits(rest));
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    let letters = suffix.bytes().take_while(|b| b"eEinumkKMGTP".contains(b)).count();
    let tail = suffix.get(letters..).unwrap_or("");
    let tail = tail.strip_prefix(['-', '+']).unwrap_or(tail);
    if digits(tail) != tail.len() {
        return Err(ParseQuantityError::Format);
    }
    // A sign or a point alone is zero in apimachinery; a suffix alone is refused by its expression only
    // on paper, and read as zero too.
    Ok(Parts { negative, whole, fraction, suffix })
}

fn interpret(suffix: &str) -> Option<(Scale, Format)> {
    Some(match suffix {
        "n" => (Scale::Ten(-9), Format::DecimalSi),
        "u" => (Scale::Ten(-6), Format::DecimalSi),
        "m" => (Scale::Ten(-3), Format::DecimalSi),
        "" => (Scale::Ten(0), Format::DecimalSi),
        "k" => (Scale::Ten(3), Format::DecimalSi),
        "M" => (Scale::Ten(6), Format::DecimalSi),
        "G" => (Scale::Ten(9), Format::DecimalSi),
        "T" => (Scale::Ten(12), Format::DecimalSi),
        "P" => (Scale::Ten(15), Format::DecimalSi),
        "E" => (Scale::Ten(18), Format::DecimalSi),
        "Ki" => (Scale::Two(10), Format::BinarySi),
        "Mi" => (Scale::Two(20), Format::BinarySi),
        "Gi" => (Scale::Two(30), Format::BinarySi),
        "Ti" => (Scale::Two(40), Format::BinarySi),
        "Pi" => (Scale::Two(50), Format::BinarySi),
        "Ei" => (Scale::Two(60), Format::BinarySi),
        _ => {
            let exponent: i64 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let bound = i64::from(i16::MAX);
            (Scale::Ten(i32::try_from(exponent.clamp(-bound, bound)).ok()?), Format::DecimalExponent)
        }
    })
}

/// The amount in nano-units, rounded up, capped.
fn magnitude(parts: &Parts<'_>, scale: Scale) -> i128 {
    // Digits are consumed from the left; those below the last place kept only decide whether to round up.
    let (ten, two) = match scale {
        Scale::Ten(e) => (e, 0),
        Scale::Two(e) => (0, e),
    };
    let places = i64::try_from(parts.whole.len()).unwrap_or(i64::MAX);
    let mut amount: i128 = 0;
    let mut rest = false;
    // With a binary suffix 2^60 / 10^k is exact down to k = 60, so such digits are gathered as a fraction
    // of the unit first.
    let lowest = if two > 0 { -18 } else { -9 };
    for (i, digit) in parts.whole.bytes().chain(parts.fraction.bytes()).enumerate() {
        let digit = i128::from(digit - b'0');
        let power = places - 1 - i64::try_from(i).unwrap_or(i64::MAX) + i64::from(ten);
        if power < lowest {
            rest |= digit != 0;
            continue;
        }
        let unit = u32::try_from(power - lowest).ok().and_then(|p| 10i128.checked_pow(p));
        let part = match unit {
            _ if digit == 0 => Some(0),
            Some(unit) => digit.checked_mul(unit),
            None => None,
        };
        match part.and_then(|part| amount.checked_add(part)) {
            Some(sum) => amount = sum,
            None => return i128::MAX,
        }
    }
    if two == 0 {
        return amount.saturating_add(i128::from(rest));
    }
    // amount is in 10^-18 of the suffix's unit: whole and fractional part are scaled apart, so that
    // nothing overflows before the cap.
    let atto = NANO * NANO;
    let (whole, fraction) = (amount / atto, amount % atto);
    let factor = 1i128 << two;
    let Some(whole) = whole.checked_mul(factor).and_then(|w| w.checked_mul(NANO)) else { return i128::MAX };
    let product = fraction * factor;
    let fraction = product / NANO + i128::from(product % NANO != 0 || rest);
    whole.saturating_add(fraction)
}

/// Whether apimachinery would print the text it read instead of the canonical form.
fn keeps_its_text(parts: &Parts<'_>) -> bool {
    let Some((scale, _)) = interpret(parts.suffix) else { return false };
    let whole = if parts.whole.is_empty() { "0" } else { parts.whole };
    let length = i32::try_from(whole.len() + parts.fraction.len()).unwrap_or(i32::MAX);
    let shifted = format!("{whole}{}", parts.fraction);
    let Ok(value) = shifted.parse::<i64>() else { return false };
    match scale {
        Scale::Ten(e) => {
            let power = e.saturating_sub(i32::try_from(parts.fraction.len()).unwrap_or(i32::MAX));
            length <= 18 && power >= -9 && power % 3 == 0 && !shifted.ends_with("000") && !shifted.starts_with('0')
        }
        Scale::Two(e) => {
            let room = 14 - length - i32::try_from(e * 3 / 10).unwrap_or(i32::MAX);
            parts.fraction.is_empty() && room >= 0 && value & 7 != 0
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    #[test]
    fn a_quantity_prints_in_its_familys_canonical_form() {
        for (text, canonical) in [
            ("0", "0"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1.5", "1500m"),
            ("100m", "100m"),
            (".5", "500m"),
            ("1.", "1"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("1Gi", "1Gi"),
            ("1000Ki", "1000Ki"),
            ("0.1Ki", "102400m"),
            ("1Ki", "1Ki"),
            ("0.5Ki", "512"),
            ("0.5Mi", "512Ki"),
            ("1000000", "1M"),
            ("1234567", "1234567"),
            ("12e6", "12e6"),
            ("12E6", "12e6"),
            ("1e3", "1e3"),
            ("1e2", "100"),
            ("1e-3", "1e-3"),
            ("5E", "5E"),
            ("1k", "1k"),
            ("-0.5", "-500m"),
            ("+5", "5"),
            ("007", "7"),
            ("0.1n", "1n"),
            ("-0.1n", "-1n"),
            ("1.0000000001", "1000000001n"),
            ("100u", "100u"),
            ("8Ei", "9223372036854775807"),
            ("1000000Ei", "9223372036854775807"),
            ("16Ti", "16Ti"),
            ("0.0001Ki", "102400u"),
            ("9999999999999999999Ki", "9223372036854775807"),
            ("1000E", "1e21"),
            ("1e30000", "170141183460469231731687303715884105727e-9"),
            ("1e-30000", "1e-9"),
            ("00", "0"),
            (".", "0"),
            ("-", "0"),
        ] {
            assert_eq!(Quantity::parse(text).unwrap().to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn some_texts_are_written_back_as_they_came() {
        for (text, written) in [
            ("1.500", "1.500"),
            ("+5", "+5"),
            ("007", "007"),
            ("1.123456", "1.123456"),
            ("0.5", "500m"),
            ("1.5", "1500m"),
            ("1000", "1k"),
            ("100", "100"),
            ("2048Ki", "2Mi"),
            ("1001Ki", "1001Ki"),
            ("1025Mi", "1025Mi"),
            ("10E3", "10E3"),
            ("1000e3", "1e6"),
            ("1024Mi", "1Gi"),
            ("0", "0"),
            ("0.0", "0"),
            ("0m", "0"),
        ] {
            assert_eq!(Quantity::written(text).unwrap(), written, "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused_in_kubernetes_words() {
        for text in ["", "1 Gi", "x", "1.2.3", "1x", "1Gi "] {
            assert_eq!(Quantity::parse(text), Err(ParseQuantityError::Format), "{text}");
        }
        for text in ["--1", "1ee", "1mi", "1g", "1Kim", "1e", "1i5"] {
            let wanted = if text == "1g" { ParseQuantityError::Format } else { ParseQuantityError::Suffix };
            assert_eq!(Quantity::parse(text), Err(wanted), "{text}");
        }
        assert_eq!(
            ParseQuantityError::Format.to_string(),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        );
    }

    #[test]
    fn values_round_away_from_zero() {
        let q = |s: &str| Quantity::parse(s).unwrap();
        assert_eq!((q("1500m").value(), q("-1500m").value(), q("1n").value(), q("1Gi").value()), (2, -2, 1, 1 << 30));
        assert_eq!((q("1500u").milli_value(), q("2").milli_value(), q("100E").value()), (2, 2000, i64::MAX));
        assert_eq!(q("1500u").rounded_to_milli().to_string(), "2m");
    }

    #[test]
    fn sums_keep_the_first_family() {
        let q = |s: &str| Quantity::parse(s).unwrap();
        assert_eq!(q("1Gi").checked_add(q("1k")).unwrap().to_string(), "1073742824");
        assert_eq!(q("1Gi").checked_add(q("1Gi")).unwrap().to_string(), "2Gi");
        assert_eq!(q("0").checked_add(q("1Gi")).unwrap().to_string(), "1Gi");
        assert_eq!(q("1").checked_sub(q("100m")).unwrap().to_string(), "900m");
        assert_eq!(q("1e30000").checked_add(q("1")), None);
        assert!(q("1Gi") > q("1G") && q("1000m") == q("1"));
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back_as_the_same_amount(nano in any::<i64>(), family in 0..3, scale in 0u32..18) {
            let format = [Format::DecimalSi, Format::BinarySi, Format::DecimalExponent][family as usize];
            let q = Quantity { nano: i128::from(nano) * 10i128.pow(scale), format };
            let limit = i128::from(i64::MAX) * NANO;
            prop_assume!(format != Format::BinarySi || q.nano.abs() <= limit);
            let text = q.to_string();
            let back = Quantity::parse(&text).unwrap();
            prop_assert_eq!(back, q);
            // A whole number without a suffix reads back as decimal, whatever family it was of.
            prop_assert_eq!(Quantity { format, ..back }.to_string(), text);
        }

        #[test]
        fn no_text_makes_it_panic(s in "[+-]{0,2}[0-9.]{0,45}[eEinumkKMGTP]{0,3}[+-]?[0-9]{0,12}") {
            let _ = Quantity::parse(&s);
            let _ = Quantity::written(&s);
        }
    }
}
