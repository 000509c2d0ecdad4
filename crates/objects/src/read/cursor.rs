//! Continue tokens: where a list in pieces goes on.
//!
//! The form is Kubernetes' own (`k8s.io/apiserver/pkg/storage/continue.go`), base64url of
//! `{"v":"meta.k8s.io/v1","rv":REVISION,"start":KEY}`, so that tools which look inside find what they
//! expect. The key is the last name sent with a zero byte after it: the least name above it.

use crate::status::quote;
use base::Revision;
use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    // As lenient as Go's decoder about the bits left over in the last symbol.
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Where a list goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Continue {
    /// The revision all pieces show; `None` goes on with whatever is newest (the token that a 410
    /// carries).
    pub revision: Option<Revision>,
    /// The least key not sent yet: `name\0`, or `namespace/name\0` over all namespaces.
    pub start: String,
}

impl Continue {
    /// The token that goes on after `key`.
    pub fn after(key: &str, revision: Option<Revision>) -> Continue {
        Continue { revision, start: format!("{key}\0") }
    }

    /// The last key sent.
    pub fn last(&self) -> &str {
        self.start.strip_suffix('\0').unwrap_or(&self.start)
    }

    /// As sent to the client.
    pub fn encode(&self) -> String {
        let rv = self.revision.map_or(-1i128, |r| i128::from(r.get()));
        let json = format!(
            "{{\"v\":\"meta.k8s.io/v1\",\"rv\":{rv},\"start\":{}}}",
            serde_json::Value::from(self.start.as_str())
        );
        BASE64.encode(json)
    }

    /// Reads a token.
    ///
    /// # Errors
    /// The text of a 400.
    pub fn decode(token: &str) -> Result<Continue, String> {
        let bad = |why: String| format!("invalid continue token: continue key is not valid: {why}");
        let bytes = BASE64.decode(token).map_err(|e| bad(e.to_string()))?;
        let tree: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| {
            bad(match bytes.first() {
                // Go's words for what is no JSON at all; a byte is printed as the character of its number.
                Some(b) if !b"{[\"-0123456789tfn".contains(b) => {
                    let c = char::from(*b);
                    let shown = if (0x7f..0xa0).contains(b) {
                        format!("\\u{b:04x}")
                    } else {
                        quote(&c.to_string()).trim_matches('"').to_owned()
                    };
                    format!("invalid character '{shown}' looking for beginning of value")
                }
                None => "unexpected end of JSON input".to_owned(),
                _ => e.to_string(),
            })
        })?;
        let version = tree["v"].as_str().unwrap_or_default();
        if version != "meta.k8s.io/v1" {
            return Err(bad(format!("server does not recognize this encoded version {}", quote(version))));
        }
        let revision = match tree["rv"].as_i64().unwrap_or(0) {
            0 => return Err(bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)".into())),
            n => u64::try_from(n).ok().and_then(Revision::from_u64),
        };
        match tree["start"].as_str() {
            Some(start) if !start.is_empty() => Ok(Continue { revision, start: start.to_owned() }),
            _ => Err(bad("encoded start key empty (version meta.k8s.io/v1)".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tokens_have_kubernetes_form_and_read_back() {
        let c = Continue::after("a", Revision::from_u64(5));
        assert_eq!(BASE64.decode(c.encode()).unwrap(), br#"{"v":"meta.k8s.io/v1","rv":5,"start":"a\u0000"}"#);
        assert_eq!(Continue::decode(&c.encode()), Ok(c));
        let newest = Continue::after("a", None);
        assert_eq!(Continue::decode(&newest.encode()), Ok(newest));
    }

    #[test]
    fn what_is_no_token_is_refused_in_kubernetes_words() {
        assert_eq!(
            Continue::decode("garbage").unwrap_err(),
            r"invalid continue token: continue key is not valid: invalid character '\u0081' looking for beginning of value"
        );
        let other = BASE64.encode(r#"{"v":"x","rv":5,"start":"a"}"#);
        assert!(
            Continue::decode(&other).unwrap_err().ends_with("server does not recognize this encoded version \"x\"")
        );
        for bad in [r#"{"v":"meta.k8s.io/v1","start":"a"}"#, r#"{"v":"meta.k8s.io/v1","rv":1}"#, ""] {
            assert!(Continue::decode(&BASE64.encode(bad)).is_err());
        }
    }
}
