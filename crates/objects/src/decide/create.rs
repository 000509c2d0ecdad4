//! Create.

use super::{Operation, Outcome, Visit, default};
use crate::Tree;
use crate::admission;
use crate::decision::Decision;
use crate::kinds::tree::{self, Fields};
use crate::owned;
use crate::status::Status;
use serde_json::json;

/// Characters of generated suffixes: no vowels, none that look alike, as `k8s.io/apimachinery`'s
/// `util/rand` chooses them.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Longest name a suffix may complete.
const MAX_NAME: usize = 63;
/// Characters of a suffix.
const SUFFIX: usize = 5;
/// How many suffixes are tried before the client hears of it.
const TRIES: u64 = 8;

/// A random suffix from chance: five characters.
pub(crate) fn suffix(mut chance: u64) -> String {
    let mut out = String::with_capacity(SUFFIX);
    for _ in 0..SUFFIX {
        let i = (chance % ALPHABET.len() as u64) as usize;
        chance /= ALPHABET.len() as u64;
        out.push(char::from(ALPHABET.get(i).copied().unwrap_or(b'x')));
    }
    out
}

/// Other chance from the same chance (splitmix64), so that one draw of the gateway serves several uses.
pub(crate) fn remix(chance: u64, n: u64) -> u64 {
    let mut z = chance.wrapping_add(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(n + 1));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Visit<'_> {
    pub(super) fn create(&mut self) -> Outcome<Decision> {
        let obj = self.body()?;
        self.create_object(obj, true)
    }

    /// Creates an object: of a create, of an apply or of an update of what did not exist (`manage`
    /// notes the owner of its fields; an apply has done so).
    pub(super) fn create_object(&mut self, mut obj: Tree, manage: bool) -> Outcome<Decision> {
        let namespace = self.namespace().to_owned();
        default(self.kind, &mut obj);
        {
            let meta = tree::child(&mut obj, "metadata");
            match (namespace.is_empty(), meta.text("namespace").is_empty()) {
                (true, _) => tree::remove(meta, "namespace"),
                (false, true) => tree::set(meta, "namespace", namespace.as_str()),
                (false, false) if meta.text("namespace") != namespace => {
                    return Err(Box::new(Status::bad_request(
                        "the namespace of the provided object does not match the namespace sent on the request",
                    )));
                }
                _ => {}
            }
        }
        // What is no number is passed over, as the store does that Kubernetes has.
        let revision_given = crate::read::parse_uint(obj.at("metadata").text("resourceVersion")).is_ok_and(|r| r > 0);
        {
            let now = self.env.now;
            let uid = self.req.uid.to_string();
            let meta = tree::child(&mut obj, "metadata");
            for f in ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"] {
                tree::remove(meta, f);
            }
            tree::set(meta, "uid", uid);
            tree::set(meta, "creationTimestamp", now.rfc3339());
        }
        let taken = self.name_object(&mut obj);
        // What the server itself then prepares and admits is nobody's.
        if manage {
            owned::track(self, None, &mut obj);
        }
        crate::kinds::prepare_create(self.kind, &mut obj, &self.context());
        self.admit(Operation::Create, &mut obj, None)?;
        let name = obj.at("metadata").text("name").to_owned();
        if revision_given {
            return Err(Box::new(Status::bare("resourceVersion should not be set on objects to be created")));
        }
        match taken {
            _ if self.view.get(self.kind.storage, &name).is_none() => {}
            Taken::Generated => return Err(Box::new(Status::generate_name_conflict(self.kind, &name))),
            Taken::Given => return Err(Box::new(Status::already_exists(self.kind, &name))),
        }
        let more = admission::charge(self, Some(&obj), None)?;
        self.commit_object(201, &name, obj, None, more)
    }

    /// Generates a name where one is wanted.
    fn name_object(&self, obj: &mut Tree) -> Taken {
        let meta = tree::child(obj, "metadata");
        let base = meta.text("generateName").to_owned();
        if !meta.text("name").is_empty() || base.is_empty() {
            return Taken::Given;
        }
        let base: String = base.chars().take(MAX_NAME - SUFFIX).collect();
        let mut name = String::new();
        for n in 0..TRIES {
            let chance = if n == 0 { self.req.suffix } else { remix(self.req.suffix, n) };
            name = format!("{base}{}", suffix(chance));
            if self.view.get(self.kind.storage, &name).is_none() {
                break;
            }
        }
        tree::set(meta, "name", json!(name));
        Taken::Generated
    }
}

/// Where a name that is already taken came from.
enum Taken {
    Given,
    Generated,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_use_the_alphabet_and_follow_from_chance() {
        assert_eq!(suffix(0), "bbbbb");
        assert_eq!(suffix(7), suffix(7));
        let s = suffix(remix(7, 1));
        assert!(s.len() == SUFFIX && s.bytes().all(|b| ALPHABET.contains(&b)));
    }
}
