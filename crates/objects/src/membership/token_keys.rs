//! The public halves of the keys a node signs ServiceAccount tokens with, under the node's id. They ride in the bundle,
//! so that every gateway believes the tokens of every node.

use super::{Reading, check_named, named};
use crate::Tree;
use crate::kinds::names;
use crate::kinds::tree::Fields;
use crate::kinds::{Context, FieldError};
use base::{NodeId, Wall};
use serde_json::json;
use std::fmt::Write;

/// A node's keys: the one in use, and the former ones while a token of theirs may be good.
pub const KEYS_MAX: usize = 16;
/// The namespaces one key may sign for.
pub const NAMESPACES_MAX: usize = 8192;

/// An uncompressed point of P-256.
const POINT: usize = 65;

/// One key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenKey {
    /// The public half: an uncompressed P-256 point, 65 bytes.
    pub point: Vec<u8>,
    /// The namespaces it may sign for; `None` means all.
    pub namespaces: Option<Vec<String>>,
    /// Not trusted after this.
    pub until: Option<Wall>,
}

/// A node's keys, the one in use first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenKeys {
    /// Whose.
    pub node: NodeId,
    /// One at least, at most [`KEYS_MAX`].
    pub keys: Vec<TokenKey>,
}

impl TokenKeys {
    /// Read from its object; `None` if that is damaged.
    pub fn of(object: &Tree) -> Option<TokenKeys> {
        let keys = read(&mut Reading::of(object))?;
        Some(TokenKeys { node: named(object)?, keys })
    }

    /// What its object's `spec` is.
    pub fn spec(&self) -> Tree {
        json!({"keys": self.keys.iter().map(TokenKey::tree).collect::<Vec<_>>()})
    }
}

impl TokenKey {
    fn tree(&self) -> Tree {
        let point = self.point.iter().fold(String::new(), |mut hex, byte| {
            // Writing to a String does not fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        let mut tree = json!({"point": point});
        if let Some(namespaces) = &self.namespaces {
            tree["namespaces"] = json!(namespaces);
        }
        if let Some(until) = self.until {
            tree["until"] = json!(until.rfc3339_micro());
        }
        tree
    }

    fn of(tree: &Tree) -> Option<TokenKey> {
        let point = bytes(tree.at("point").as_str()?).filter(|p| p.len() == POINT && p.first() == Some(&4))?;
        let namespaces = match tree.at("namespaces") {
            Tree::Null => None,
            list => {
                let list = list.as_array().filter(|l| l.len() <= NAMESPACES_MAX)?;
                let name = |t: &Tree| t.as_str().filter(|n| names::label(n).is_empty()).map(str::to_owned);
                Some(list.iter().map(name).collect::<Option<_>>()?)
            }
        };
        let until = match tree.at("until") {
            Tree::Null => None,
            text => Some(Wall::parse_rfc3339(text.as_str()?)?),
        };
        Some(TokenKey { point, namespaces, until })
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digit = |b: &u8| char::from(*b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    };
    hex.as_bytes().chunks(2).map(pair).collect()
}

fn read(r: &mut Reading<'_>) -> Option<Vec<TokenKey>> {
    let keys = r.list("keys", KEYS_MAX, "must be a key: its point, and what it may sign for", TokenKey::of)?;
    if keys.is_empty() {
        r.refuse("keys", "must hold one key at least");
        return None;
    }
    Some(keys)
}

/// What root asks of such an object.
pub(crate) struct Rules;

impl crate::kinds::Rules for Rules {
    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        check_named(obj, errs);
        let mut reading = Reading::of(obj);
        read(&mut reading);
        errs.append(&mut reading.wrong);
    }
}
