//! A node that was expelled, under its id. It rides in the bundle: whoever hears of it speaks with that node no more.

use super::{Reading, check_named, kept, named};
use crate::Tree;
use crate::kinds::{Context, FieldError};
use base::{NodeId, Wall};
use serde_json::json;

/// An expelled node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Revocation {
    /// Which.
    pub node: NodeId,
    /// When.
    pub at: Wall,
    /// The name it had.
    pub name: String,
}

impl Revocation {
    /// Read from its object; `None` if that is damaged.
    pub fn of(object: &Tree) -> Option<Revocation> {
        let (at, name) = read(&mut Reading::of(object))?;
        Some(Revocation { node: named(object)?, at, name })
    }

    /// What its object's `spec` is.
    pub fn spec(&self) -> Tree {
        json!({"at": self.at.rfc3339(), "name": self.name})
    }
}

fn read(r: &mut Reading<'_>) -> Option<(Wall, String)> {
    let at = r.time("at");
    let name = r.parsed("name", "must be the name the node had", |t| Some(t.to_owned()));
    Some((at?, name?))
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

    fn validate_update(&self, new: &Tree, old: &Tree, cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        self.validate(new, cx, errs);
        kept(&["at"], new, old, errs);
    }
}
