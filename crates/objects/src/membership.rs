//! Who belongs to a mesh, as root keeps it: tickets, members, the keys their tokens are signed with, who was
//! expelled, and who begins a cell. One file a kind; no client is shown any of them.
//!
//! Each is read strictly: a record that is not whole is no record. The same reading refuses a damaged one when it is
//! written, by the words of [`crate::kinds::FieldError`]. A field that is not known here is left where it is: a newer
//! release wrote it.

mod founding;
mod member;
mod revocation;
mod ticket;
mod token_keys;

pub use founding::Founding;
pub(crate) use member::one_a_node;
pub use member::{ADDRESSES_MAX, Member};
pub use revocation::Revocation;
pub use ticket::{FIRST_EPOCH, TicketRecord, USES_MAX};
pub use token_keys::{KEYS_MAX, NAMESPACES_MAX, TokenKey, TokenKeys};

pub(crate) use founding::Rules as FoundingRules;
pub(crate) use member::Rules as MemberRules;
pub(crate) use revocation::Rules as RevocationRules;
pub(crate) use ticket::Rules as TicketRules;
pub(crate) use token_keys::Rules as TokenKeysRules;

use crate::Tree;
use crate::kinds::field::{self, Path};
use crate::kinds::tree::Fields;
use crate::kinds::{FieldError, by_kind};
use base::{NodeId, Wall};
use serde_json::json;

/// Their API group and version.
pub const GROUP: &str = "beemesh.io";
/// See [`GROUP`].
pub const VERSION: &str = "v1";

/// Tickets as records.
pub const TICKET: &str = "Ticket.beemesh.io";
/// Who begins the cells of namespaces, as records.
pub const FOUNDING: &str = "Founding.beemesh.io";
/// Members as records.
pub const MEMBER: &str = "Member.beemesh.io";
/// Nodes' token keys as records.
pub const TOKEN_KEYS: &str = "TokenKeys.beemesh.io";
/// Expelled nodes as records.
pub const REVOCATION: &str = "Revocation.beemesh.io";

/// What a node may do, in the order in which it is written (architecture, section 9).
pub const ROLES: [&str; 4] = ["authority", "keeper", "gateway", "worker"];

/// One of the kinds here, for a request.
pub fn kind(name: &str) -> Option<&'static crate::kinds::Kind> {
    by_kind(GROUP, VERSION, name)
}

/// An object of one of the kinds here, for a create.
pub fn object(kind: &str, name: &str, spec: Tree) -> Tree {
    json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": kind, "metadata": {"name": name}, "spec": spec})
}

const SPEC: Path<'static> = Path::Child(&Path::Root, "spec");
const NAME: Path<'static> = Path::Child(&Path::Child(&Path::Root, "metadata"), "name");

/// Reads the fields of a `spec`, and gathers what is wrong with them.
struct Reading<'t> {
    spec: &'t Tree,
    wrong: Vec<FieldError>,
}

impl<'t> Reading<'t> {
    fn of(object: &'t Tree) -> Reading<'t> {
        Reading { spec: object.at("spec"), wrong: Vec::new() }
    }

    fn refuse(&mut self, name: &str, detail: &str) {
        self.wrong.push(field::invalid(&SPEC.child(name), self.spec.at(name), detail));
    }

    /// A text that has to be there.
    fn parsed<T>(&mut self, name: &str, detail: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let read = self.spec.at(name).as_str().and_then(parse);
        if read.is_none() {
            self.refuse(name, detail);
        }
        read
    }

    fn time(&mut self, name: &str) -> Option<Wall> {
        self.parsed(name, "must be a time by RFC 3339", Wall::parse_rfc3339)
    }

    fn node(&mut self, name: &str) -> Option<NodeId> {
        self.parsed(name, "must be a node's id, 64 hexadecimal digits", |t| t.parse().ok())
    }

    fn flag(&mut self, name: &str) -> Option<bool> {
        let read = self.spec.at(name).as_bool();
        if read.is_none() {
            self.refuse(name, "must be true or false");
        }
        read
    }

    /// One that releases before it was known leave out.
    fn flag_or_no(&mut self, name: &str) -> Option<bool> {
        if self.spec.at(name).is_null() { Some(false) } else { self.flag(name) }
    }

    fn number(&mut self, name: &str) -> Option<u64> {
        let read = self.spec.at(name).as_u64();
        if read.is_none() {
            self.refuse(name, "must be a number that is not negative");
        }
        read
    }

    /// A list of at most so many; one that is absent is empty.
    fn list<T>(&mut self, name: &str, most: usize, detail: &str, parse: impl Fn(&Tree) -> Option<T>) -> Option<Vec<T>> {
        let none = Tree::Array(Vec::new());
        let given = Some(self.spec.at(name)).filter(|l| !l.is_null()).unwrap_or(&none);
        let Some(items) = given.as_array() else {
            self.refuse(name, "must be a list");
            return None;
        };
        if items.len() > most {
            self.wrong.push(field::too_many(&SPEC.child(name), items.len(), most));
            return None;
        }
        let mut read = Vec::with_capacity(items.len());
        for (i, item) in items.iter().enumerate() {
            match parse(item) {
                Some(one) => read.push(one),
                None => self.wrong.push(field::invalid(&SPEC.child(name).index(i), item, detail)),
            }
        }
        (read.len() == items.len()).then_some(read)
    }

    /// Roles: one at least, each once.
    fn roles(&mut self) -> Option<Vec<String>> {
        let known = |t: &Tree| t.as_str().filter(|r| ROLES.contains(r)).map(str::to_owned);
        let read = self.list("roles", ROLES.len(), "must be authority, keeper, gateway or worker", known)?;
        let twice = read.iter().enumerate().any(|(i, role)| read.iter().skip(i + 1).any(|other| other == role));
        if read.is_empty() || twice {
            self.refuse("roles", "must name one role at least, and each once");
            return None;
        }
        Some(read)
    }
}

/// The node an object is named after.
fn named(object: &Tree) -> Option<NodeId> {
    object.at("metadata").text("name").parse().ok()
}

fn check_named(object: &Tree, errs: &mut Vec<FieldError>) {
    if named(object).is_none() {
        let name = object.at("metadata").text("name");
        errs.push(field::invalid(&NAME, name, "must be a node's id, 64 hexadecimal digits"));
    }
}

/// Fields that stay as they were made.
fn kept(fields: &[&str], new: &Tree, old: &Tree, errs: &mut Vec<FieldError>) {
    for name in fields {
        field::immutable(&SPEC.child(name), new.at("spec").at(name), old.at("spec").at(name), errs);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::kinds::{Context, validate_create, validate_update};

    const CX: Context<'static> = Context { now: Wall(1_769_846_400_000), subresource: "" };
    const NODE: &str = "aa00000000000000000000000000000000000000000000000000000000000000";
    const OTHER: &str = "bb00000000000000000000000000000000000000000000000000000000000000";

    fn ticket() -> Tree {
        object(
            "Ticket",
            "000102030405060708090a0b0c0d0e0f",
            json!({"publicKey": NODE, "roles": ["keeper", "worker"], "expires": "2026-02-01T08:00:00Z",
                "reusable": false, "rootEpoch": 1, "usedBy": []}),
        )
    }

    fn member() -> Tree {
        object(
            "Member",
            "one",
            json!({"node": NODE, "registry": "00000000-0000-0000-0000-000000000007", "roles": ["authority"],
                "addresses": ["192.0.2.1:7443", "[2001:db8::1]:7443"], "joined": "2026-02-01T08:00:00Z"}),
        )
    }

    fn token_keys() -> Tree {
        let point = format!("04{}", "11".repeat(64));
        object(
            "TokenKeys",
            NODE,
            json!({"keys": [{"point": point}, {"point": point, "namespaces": ["shop"],
            "until": "2026-02-01T08:00:00.250000Z"}]}),
        )
    }

    fn revocation() -> Tree {
        object("Revocation", NODE, json!({"at": "2026-02-01T08:00:00Z", "name": "one"}))
    }

    fn founding() -> Tree {
        object("Founding", "00000000-0000-4000-8000-000000000007", json!({"node": NODE, "done": false}))
    }

    fn create(tree: &Tree) -> Vec<String> {
        let kind = kind(tree["kind"].as_str().unwrap()).unwrap();
        validate_create(kind, tree, &CX).into_iter().map(|e| format!("{}: {}", e.field, e.message)).collect()
    }

    fn update(new: &Tree, old: &Tree) -> Vec<String> {
        let (mut new, mut old) = (new.clone(), old.clone());
        for tree in [&mut new, &mut old] {
            tree["metadata"]["resourceVersion"] = json!("1");
        }
        let kind = kind(new["kind"].as_str().unwrap()).unwrap();
        validate_update(kind, &new, &old, &CX).into_iter().map(|e| e.field).collect()
    }

    fn with(mut tree: Tree, pointer: &str, value: Tree) -> Tree {
        let (parent, last) = pointer.rsplit_once('/').unwrap();
        tree.pointer_mut(parent).unwrap()[last] = value;
        tree
    }

    #[test]
    fn what_is_read_is_written_again_alike() {
        for tree in [ticket(), member(), token_keys(), revocation(), founding()] {
            assert_eq!(create(&tree), [""; 0], "{tree}");
        }
        assert_eq!(TicketRecord::of(&ticket()).unwrap().spec(), ticket()["spec"]);
        assert_eq!(Member::of(&member()).unwrap().spec(), member()["spec"]);
        assert_eq!(TokenKeys::of(&token_keys()).unwrap().spec(), token_keys()["spec"]);
        assert_eq!(Revocation::of(&revocation()).unwrap().spec(), revocation()["spec"]);
        assert_eq!(Founding::of(&founding()).unwrap().spec(), founding()["spec"]);
    }

    #[test]
    fn a_damaged_record_is_refused_by_field() {
        let strings = |n: usize| Tree::Array(vec![json!(NODE); n]);
        for (tree, pointer, value, field) in [
            (ticket(), "/spec/publicKey", json!("aa"), "spec.publicKey"),
            (ticket(), "/spec/publicKey", json!(null), "spec.publicKey"),
            (ticket(), "/spec/roles", json!([]), "spec.roles"),
            (ticket(), "/spec/roles", json!(["keeper", "keeper"]), "spec.roles"),
            (ticket(), "/spec/roles", json!(["king"]), "spec.roles[0]"),
            (ticket(), "/spec/expires", json!("tomorrow"), "spec.expires"),
            (ticket(), "/spec/reusable", json!("no"), "spec.reusable"),
            (ticket(), "/spec/rootEpoch", json!(-1), "spec.rootEpoch"),
            (ticket(), "/spec/usedBy", json!(["x"]), "spec.usedBy[0]"),
            (ticket(), "/spec/usedBy", strings(2), "spec.usedBy"),
            (ticket(), "/spec/usedBy", strings(USES_MAX + 1), "spec.usedBy"),
            (ticket(), "/metadata/name", json!("mine"), "metadata.name"),
            (member(), "/spec/node", json!("aa"), "spec.node"),
            (member(), "/spec/registry", json!(7), "spec.registry"),
            (member(), "/spec/roles", json!("keeper"), "spec.roles"),
            (member(), "/spec/addresses", json!(["192.0.2.1"]), "spec.addresses[0]"),
            (member(), "/spec/joined", json!(""), "spec.joined"),
            (member(), "/spec/leaving", json!("yes"), "spec.leaving"),
            (member(), "/metadata/name", json!("a".repeat(64)), "metadata.name"),
            (token_keys(), "/metadata/name", json!("one"), "metadata.name"),
            (token_keys(), "/spec/keys", json!([]), "spec.keys"),
            (token_keys(), "/spec/keys", json!([{"point": "04"}]), "spec.keys[0]"),
            (token_keys(), "/spec/keys/1/namespaces", json!(["A"]), "spec.keys[1]"),
            (token_keys(), "/spec/keys/1/until", json!(5), "spec.keys[1]"),
            (revocation(), "/metadata/name", json!("one"), "metadata.name"),
            (revocation(), "/spec/at", json!(null), "spec.at"),
            (founding(), "/metadata/name", json!("shop"), "metadata.name"),
            (founding(), "/spec/done", json!(null), "spec.done"),
            (founding(), "/spec/node", json!("me"), "spec.node"),
        ] {
            let said = create(&with(tree, pointer, value.clone()));
            assert!(said.iter().any(|s| s.starts_with(&format!("{field}: "))), "{pointer} {value}: {said:?}");
        }
        let mut gone = ticket();
        gone["spec"] = json!(null);
        assert!(TicketRecord::of(&gone).is_none() && !create(&gone).is_empty());
    }

    #[test]
    fn what_was_granted_stays_and_uses_are_only_added() {
        let used = |by: Tree| with(with(ticket(), "/spec/reusable", json!(true)), "/spec/usedBy", by);
        assert_eq!(update(&used(json!([NODE, OTHER])), &used(json!([NODE]))), [""; 0]);
        assert_eq!(update(&used(json!([OTHER])), &used(json!([NODE]))), ["spec.usedBy"]);
        assert_eq!(update(&used(json!([])), &used(json!([NODE]))), ["spec.usedBy"]);
        for (tree, pointer, value, field) in [
            (ticket(), "/spec/roles", json!(["authority"]), "spec.roles"),
            (ticket(), "/spec/expires", json!("2027-02-01T08:00:00Z"), "spec.expires"),
            (ticket(), "/spec/reusable", json!(true), "spec.reusable"),
            (member(), "/spec/node", json!(OTHER), "spec.node"),
            (revocation(), "/spec/at", json!("2027-02-01T08:00:00Z"), "spec.at"),
        ] {
            assert_eq!(update(&with(tree.clone(), pointer, value), &tree), [field]);
        }
        let begun = with(founding(), "/spec/done", json!(true));
        assert_eq!(update(&begun, &founding()), [""; 0]);
        assert_eq!(update(&founding(), &begun), ["spec.done"], "what has begun is not begun again");
        assert_eq!(update(&with(founding(), "/spec/node", json!(OTHER)), &founding()), ["spec.node"]);
        let moved = with(member(), "/spec/addresses", json!(["198.51.100.1:7443"]));
        assert_eq!(update(&moved, &member()), [""; 0]);
    }

    #[test]
    fn a_member_leaves_only_if_it_says_so() {
        let of = |leaving: Tree| Member::of(&with(member(), "/spec/leaving", leaving));
        assert_eq!(Member::of(&member()).map(|m| m.leaving), Some(false), "as releases wrote it that did not know it");
        assert_eq!(of(json!(false)).map(|m| m.spec()), Some(member()["spec"].clone()));
        let leaving = of(json!(true)).unwrap();
        assert_eq!((leaving.leaving, leaving.spec()["leaving"].clone()), (true, json!(true)));
        assert_eq!(update(&with(member(), "/spec/leaving", json!(true)), &member()), [""; 0]);
    }

    #[test]
    fn a_field_of_a_newer_release_is_no_damage() {
        let newer = with(member(), "/spec/hive", json!("north"));
        assert_eq!(create(&newer), [""; 0]);
        assert_eq!(Member::of(&newer), Member::of(&member()));
    }
}
