//! A node of the mesh as root keeps it, under its name: names are reserved by being made.

use super::{MEMBER, NAME, Reading, kept};
use crate::Tree;
use crate::decide::Visit;
use crate::kinds::names;
use crate::kinds::tree::Fields;
use crate::kinds::{Context, FieldError, field};
use crate::status::Status;
use base::{CellId, NodeId, Wall};
use serde_json::json;
use std::net::SocketAddr;

/// Addresses of one node; a machine has one or two for each of its networks.
pub const ADDRESSES_MAX: usize = 64;

/// What root keeps of a node, under its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Who it is.
    pub node: NodeId,
    /// Which registry has its Node object.
    pub registry: CellId,
    /// What it may do; some of [`super::ROLES`].
    pub roles: Vec<String>,
    /// Where others may reach its mesh port, as it said last. A hint: whoever answers there proves its key.
    pub addresses: Vec<SocketAddr>,
    /// When it joined.
    pub joined: Wall,
    /// It is about to leave: it takes nothing new, and what it keeps goes elsewhere. Releases that did not know it left
    /// the field out, which is to say no.
    pub leaving: bool,
}

impl Member {
    /// Read from its object; `None` if that is damaged.
    pub fn of(object: &Tree) -> Option<Member> {
        read(&mut Reading::of(object))
    }

    /// What its object's `spec` is.
    pub fn spec(&self) -> Tree {
        let mut spec = json!({
            "node": self.node.to_string(),
            "registry": self.registry.to_string(),
            "roles": self.roles,
            "addresses": self.addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>(),
            "joined": self.joined.rfc3339(),
        });
        if self.leaving {
            spec["leaving"] = json!(true);
        }
        spec
    }
}

fn read(r: &mut Reading<'_>) -> Option<Member> {
    let node = r.node("node");
    let registry = r.parsed("registry", "must be a cell's id", |t| t.parse().ok().map(CellId));
    let roles = r.roles();
    let address = |t: &Tree| t.as_str()?.parse().ok();
    let addresses = r.list("addresses", ADDRESSES_MAX, "must be an address and a port", address);
    let joined = r.time("joined");
    let leaving = r.flag_or_no("leaving");
    Some(Member {
        node: node?,
        registry: registry?,
        roles: roles?,
        addresses: addresses?,
        joined: joined?,
        leaving: leaving?,
    })
}

/// A node has one name: 409 if another Member has the node of this one.
pub(crate) fn one_a_node(visit: &Visit<'_>, member: &Tree) -> Result<(), Box<Status>> {
    let own = member.at("metadata").text("name");
    let node = member.at("spec").text("node");
    let other =
        visit.view.list(MEMBER, None).find(|(name, s)| **name != *own && s.tree().at("spec").text("node") == node);
    match other {
        None => Ok(()),
        Some((name, _)) => {
            let why = format!("the node {node} has the name {name} already, and a node has one");
            Err(Box::new(Status::conflict_kind(visit.kind, own, &why)))
        }
    }
}

/// What root asks of a member's object.
pub(crate) struct Rules;

impl crate::kinds::Rules for Rules {
    fn validate(&self, obj: &Tree, _cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        // The label `kubernetes.io/hostname` of its Node holds it.
        let name = obj.at("metadata").text("name");
        errs.extend(names::label_value(name).iter().map(|why| field::invalid(&NAME, name, why)));
        let mut reading = Reading::of(obj);
        read(&mut reading);
        errs.append(&mut reading.wrong);
    }

    fn validate_update(&self, new: &Tree, old: &Tree, cx: &Context<'_>, errs: &mut Vec<FieldError>) {
        self.validate(new, cx, errs);
        // A node changes its own Member: what it may do is not its to say.
        kept(&["node", "roles", "joined"], new, old, errs);
    }
}
