//! Who begins the cell of a namespace, under the namespace's uid. It rides in the bundle.
//!
//! Root writes it with the Namespace, in one commit, and removes it with it. Only the node it names makes the cell, and only until
//! it is said to be done: a cell is never made anew over what others keep of it, whoever leads root, and whatever a
//! disk has lost.

use super::{NAME, Reading, kept};
use crate::Tree;
use crate::kinds::tree::Fields;
use crate::kinds::{Context, FieldError, field};
use base::{CellId, NodeId, Uid};
use serde_json::json;

/// The beginning of a cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Founding {
    /// The cell.
    pub cell: CellId,
    /// The node that begins it.
    pub node: NodeId,
    /// It has begun, durably.
    pub done: bool,
}

impl Founding {
    /// Read from its object; `None` if that is damaged.
    pub fn of(object: &Tree) -> Option<Founding> {
        let (node, done) = read(&mut Reading::of(object))?;
        Some(Founding { cell: cell(object)?, node, done })
    }

    /// What its object's `spec` is.
    pub fn spec(&self) -> Tree {
        json!({"node": self.node.to_string(), "done": self.done})
    }
}

fn cell(object: &Tree) -> Option<CellId> {
    object.at("metadata").text("name").parse::<Uid>().ok().map(CellId)
}

fn read(r: &mut Reading<'_>) -> Option<(NodeId, bool)> {
    let node = r.node("node");
    let done = r.flag("done");
    Some((node?, done?))
}

/// What root asks of such an object.
pub(crate) struct Rules;

impl crate::kinds::Rules for Rules {
    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        if cell(obj).is_none() {
            errs.push(field::invalid(&NAME, obj.at("metadata").text("name"), "must be a namespace's uid"));
        }
        let mut reading = Reading::of(obj);
        read(&mut reading);
        errs.append(&mut reading.wrong);
    }

    fn validate_update(&self, new: &Tree, old: &Tree, cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        self.validate(new, cx, errs);
        kept(&["node"], new, old, errs);
        if old.at("spec").at("done").as_bool() == Some(true) {
            kept(&["done"], new, old, errs);
        }
    }
}
