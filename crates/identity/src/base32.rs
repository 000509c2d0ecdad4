//! Bytes as text that people copy, dictate and type: Crockford's base 32 in lower case, five bits a
//! character, without i, l, o and u.

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// How many characters stand for that many bytes.
pub(crate) const fn length(bytes: usize) -> usize {
    (bytes * 8).div_ceil(5)
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(length(bytes.len()));
    let (mut held, mut bits) = (0_u32, 0);
    for byte in bytes {
        held = held << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(digit(held >> bits));
        }
    }
    if bits > 0 {
        text.push(digit(held << (5 - bits)));
    }
    text
}

/// Reads as many whole bytes as the text holds; what is mistaken for another character is taken for it (o for
/// 0, i and l for 1), in either case. Says which character is none. The bits left over come back too: zero
/// in everything [`encode`] wrote.
pub(crate) fn decode(text: &str) -> Result<(Vec<u8>, u32), char> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut held, mut bits) = (0_u32, 0);
    for c in text.chars() {
        held = held << 5 | value(c).ok_or(c)?;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    Ok((bytes, held))
}

fn digit(value: u32) -> char {
    char::from(ALPHABET[(value & 31) as usize])
}

fn value(c: char) -> Option<u32> {
    let c = match c.to_ascii_lowercase() {
        'o' => '0',
        'i' | 'l' => '1',
        c => c,
    };
    ALPHABET.iter().position(|a| char::from(*a) == c).map(|at| at as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_from_what_people_write() {
        for n in 0..20_u8 {
            let bytes: Vec<u8> = (0..n).map(|i| i.wrapping_mul(77)).collect();
            let text = encode(&bytes);
            assert_eq!(text.len(), length(bytes.len()));
            assert_eq!(decode(&text), Ok((bytes, 0)));
        }
        assert_eq!(encode(&[0x00, 0x44, 0x32, 0x14, 0xc7]), "01234567");
        assert_eq!(decode("OlI"), decode("011"));
        assert_eq!(decode("0u"), Err('u'));
    }
}
