//! A ticket as root keeps it: enough to know it again, and nothing to join with.

use super::{NAME, Reading, SPEC, kept};
use crate::Tree;
use crate::kinds::tree::Fields;
use crate::kinds::{Context, FieldError, field};
use base::{NodeId, Wall};
use serde_json::json;

/// A reusable ticket admits at most this many nodes, since root remembers each of them.
pub const USES_MAX: usize = 1024;

/// Root's epoch from its founding on. A root that is recovered without what came last begins another, and tickets of
/// the one before are void.
pub const FIRST_EPOCH: u64 = 1;

/// What root keeps of a ticket, under the ticket's id (32 hexadecimal digits).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TicketRecord {
    /// The public half of its secret.
    pub public_key: [u8; 32],
    /// What a joiner may do at most; some of [`super::ROLES`].
    pub roles: Vec<String>,
    /// The last moment it is good.
    pub expires: Wall,
    /// Whether it admits more than one node.
    pub reusable: bool,
    /// Root's epoch when it was made.
    pub root_epoch: u64,
    /// The nodes that joined with it, first to last; at most [`USES_MAX`].
    pub used_by: Vec<NodeId>,
}

impl TicketRecord {
    /// Read from its object; `None` if that is damaged.
    pub fn of(object: &Tree) -> Option<TicketRecord> {
        read(&mut Reading::of(object))
    }

    /// What its object's `spec` is.
    pub fn spec(&self) -> Tree {
        json!({
            "publicKey": NodeId(self.public_key).to_string(),
            "roles": self.roles,
            "expires": self.expires.rfc3339(),
            "reusable": self.reusable,
            "rootEpoch": self.root_epoch,
            "usedBy": self.used_by.iter().map(NodeId::to_string).collect::<Vec<_>>(),
        })
    }
}

fn read(r: &mut Reading<'_>) -> Option<TicketRecord> {
    // An Ed25519 key is written as a node's is.
    let public_key = r.parsed("publicKey", "must be an Ed25519 key, 64 hexadecimal digits", |t| t.parse().ok());
    let roles = r.roles();
    let expires = r.time("expires");
    let reusable = r.flag("reusable");
    let root_epoch = r.number("rootEpoch");
    let used_by = r.list("usedBy", USES_MAX, "must be a node's id", |t| t.as_str()?.parse().ok());
    if reusable == Some(false) && used_by.as_ref().is_some_and(|u| u.len() > 1) {
        r.refuse("usedBy", "must name one node at most, since the ticket is not reusable");
        return None;
    }
    let NodeId(public_key) = public_key?;
    Some(TicketRecord {
        public_key,
        roles: roles?,
        expires: expires?,
        reusable: reusable?,
        root_epoch: root_epoch?,
        used_by: used_by?,
    })
}

/// What root asks of a ticket's object.
pub(crate) struct Rules;

impl crate::kinds::Rules for Rules {
    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        let name = obj.at("metadata").text("name");
        if name.len() != 32 || !name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            errs.push(field::invalid(&NAME, name, "must be a ticket's id, 32 hexadecimal digits"));
        }
        let mut reading = Reading::of(obj);
        read(&mut reading);
        errs.append(&mut reading.wrong);
    }

    fn validate_update(&self, new: &Tree, old: &Tree, cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        self.validate(new, cx, errs);
        kept(&["publicKey", "roles", "expires", "reusable", "rootEpoch"], new, old, errs);
        if !new.at("spec").list("usedBy").starts_with(old.at("spec").list("usedBy")) {
            errs.push(field::forbidden(&SPEC.child("usedBy"), "who used the ticket may only be added to"));
        }
    }
}
