//! The trust domain: the mesh's name, fixed at its founding.

use crate::IdentityError;
use std::fmt;
use std::str::FromStr;

/// The name of a mesh, as the SPIFFE ID specification (section 2.1) allows: 1 to 255 of `a-z 0-9 . - _`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// A name like `amber-otter-3fa9.mesh` from eight bytes of chance.
    ///
    /// 2^30 of them exist: enough that two meshes meeting seldom share one, not a secret.
    pub fn from_chance(chance: [u8; 8]) -> TrustDomain {
        let first = FIRST[usize::from(chance[0]) % FIRST.len()];
        let second = SECOND[usize::from(chance[1]) % SECOND.len()];
        TrustDomain(format!("{first}-{second}-{:02x}{:02x}.mesh", chance[2], chance[3]))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<TrustDomain, IdentityError> {
        let refuse = |why| Err(IdentityError::TrustDomain { text: text.to_owned(), why });
        if text.is_empty() {
            return refuse("it is empty");
        }
        if text.len() > 255 {
            return refuse("it is longer than 255 characters");
        }
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'-' | b'_');
        if !text.bytes().all(allowed) {
            return refuse("only a-z, 0-9, '.', '-' and '_' are allowed");
        }
        // SPIFFE allows these; every host-name check of a certificate's URI would refuse them.
        if text.starts_with('.') || text.ends_with('.') || text.contains("..") {
            return refuse("a dot must stand between two other characters");
        }
        Ok(TrustDomain(text.to_owned()))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const FIRST: [&str; 64] = [
    "amber", "ample", "arctic", "autumn", "azure", "bold", "brave", "bright", "brisk", "calm", "cedar", "clear",
    "clever", "coral", "crisp", "curious", "deep", "dusky", "eager", "early", "ember", "fair", "fleet", "fond",
    "frank", "gentle", "glad", "golden", "grand", "hardy", "hazel", "honest", "humble", "ivory", "jolly", "keen",
    "kind", "lively", "lucid", "mellow", "merry", "mighty", "misty", "noble", "olive", "patient", "plain", "proud",
    "quick", "quiet", "rapid", "royal", "rustic", "sage", "silver", "smooth", "spry", "steady", "sunny", "swift",
    "tidal", "vivid", "warm", "wise",
];

const SECOND: [&str; 64] = [
    "acorn", "alder", "aspen", "badger", "beacon", "birch", "bison", "breeze", "brook", "canyon", "cliff", "clover",
    "comet", "crane", "creek", "delta", "dune", "eagle", "falcon", "fern", "finch", "fjord", "forest", "fox", "garnet",
    "glacier", "grove", "harbor", "heron", "hill", "island", "jasper", "lagoon", "lake", "lark", "lily", "lynx",
    "maple", "marsh", "meadow", "mesa", "moss", "oak", "orchard", "otter", "owl", "pebble", "pine", "plover", "pond",
    "raven", "reef", "ridge", "river", "robin", "sparrow", "spruce", "summit", "thistle", "tundra", "valley", "willow",
    "wren", "yarrow",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawn_name_is_one_spiffe_allows() {
        for chance in [[0; 8], [255; 8], [7, 99, 0xab, 0, 1, 2, 3, 4]] {
            let drawn = TrustDomain::from_chance(chance);
            assert_eq!(drawn.as_str().parse::<TrustDomain>().unwrap(), drawn);
            assert!(drawn.as_str().ends_with(".mesh") && drawn.as_str().split('-').count() == 3, "{drawn}");
        }
    }

    #[test]
    fn what_spiffe_forbids_is_refused_with_the_reason() {
        let long = "a".repeat(256);
        for (text, why) in [
            ("", "empty"),
            (long.as_str(), "longer"),
            ("Upper.mesh", "only"),
            ("with space", "only"),
            ("a/b", "only"),
            ("host:8443", "only"),
            ("bücher.mesh", "only"),
            (".mesh", "dot"),
            ("a..b", "dot"),
        ] {
            let said = text.parse::<TrustDomain>().unwrap_err().to_string();
            assert!(said.contains(why), "{text:?}: {said}");
        }
        assert!("example.org".parse::<TrustDomain>().is_ok());
    }
}
