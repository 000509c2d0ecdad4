//! What root keeps of who belongs to the mesh: read and written by errands, as anything else there is.

use crate::backend::{Node, system};
use crate::node_object::NODE_ID;
use base::{NodeId, Revision};
use identity::{Revocations, Roles, TicketRecord, TrustedTokenKey};
use node::bundle::Bundle;
use node::errand::{Answered, Errand};
use objects::Tree;
use objects::kinds::{self, Kind};
use objects::membership::{self, Member, REVOCATION, Revocation, TOKEN_KEYS, TokenKey, TokenKeys};
use objects::request::{Body, Options, Shared, Verb};
use objects::status::{Reason, Status};
use serde_json::json;
use std::sync::Arc;

/// How often somebody else may be first with a change before that counts as a failure.
pub(crate) const CONFLICTS: usize = 8;

/// What a request of the mesh itself is about, and what it wants of it.
pub(crate) struct Wish<'a> {
    /// Of what kind.
    pub(crate) kind: &'static Kind,
    /// In which namespace, if the kind has one.
    pub(crate) namespace: Option<&'a str>,
    /// Which; `None` for a create or a list.
    pub(crate) name: Option<&'a str>,
    /// Empty for the object itself.
    pub(crate) subresource: &'static str,
    /// What is said with it.
    pub(crate) body: Body,
}

/// One request, in the name of the mesh itself.
pub(crate) async fn as_system(backend: &Node, verb: Verb, wish: Wish<'_>) -> Answered {
    let errand = Errand {
        user: Arc::new(system()),
        verb,
        kind: wish.kind,
        namespace: wish.namespace.map(Arc::from),
        name: wish.name.map(Arc::from),
        subresource: wish.subresource,
        options: Options { field_manager: "beemesh".into(), ..Options::default() },
        body: wish.body,
    };
    backend.errand(&errand).await
}

/// One request to root.
async fn ask(backend: &Node, verb: Verb, kind: &str, name: Option<&str>, body: Body) -> Answered {
    let kind = membership::kind(kind).ok_or_else(|| Box::new(Status::internal("there is no such kind")))?;
    as_system(backend, verb, Wish { kind, namespace: None, name, subresource: "", body }).await
}

/// Removes this very object, not one that has taken its name since; says whether it was there.
///
/// # Errors
/// Root's answer, or the registry's, or that there is none.
pub(crate) async fn remove_this(backend: &Node, kind: &'static Kind, object: &Tree) -> Result<bool, Box<Status>> {
    let tree = json!({"apiVersion": "v1", "kind": "DeleteOptions",
        "preconditions": {"uid": object["metadata"]["uid"]}});
    let body = Body::Object { tree, strict: Vec::new() };
    let wish = Wish { kind, namespace: None, name: Some(name(object)), subresource: "", body };
    match as_system(backend, Verb::Delete, wish).await {
        Ok(_) => Ok(true),
        Err(status) if matches!(status.reason, Reason::NotFound | Reason::Conflict) => Ok(false),
        Err(other) => Err(other),
    }
}

/// The Node object of this name, if it is this node's; `None` if there is none, or it is another's.
///
/// # Errors
/// The registry's answer, or that there is none.
pub(crate) async fn node_object(backend: &Node, name: &str, node: NodeId) -> Result<Option<Tree>, Box<Status>> {
    let wish = Wish { kind: node_kind()?, namespace: None, name: Some(name), subresource: "", body: Body::None };
    match as_system(backend, Verb::Get, wish).await {
        Ok(tree) => Ok(Some(tree).filter(|t| t["metadata"]["annotations"][NODE_ID] == node.to_string())),
        Err(status) if status.reason == Reason::NotFound => Ok(None),
        Err(other) => Err(other),
    }
}

/// Removes a node's Node object as `kubectl delete node` does: its pods are replaced. Says whether it was there.
///
/// # Errors
/// As [`node_object`].
pub(crate) async fn remove_node_object(backend: &Node, name: &str, node: NodeId) -> Result<bool, Box<Status>> {
    match node_object(backend, name, node).await? {
        Some(object) => remove_this(backend, node_kind()?, &object).await,
        None => Ok(false),
    }
}

/// Removes a node's Member, so that its name is free. Says whether it was there.
///
/// # Errors
/// As [`get`].
pub(crate) async fn remove_member(backend: &Node, name: &str, node: NodeId) -> Result<bool, Box<Status>> {
    let object = get(backend, "Member", name).await?;
    let object = object.filter(|o| Member::of(o).is_some_and(|m| m.node == node));
    match (object, membership::kind("Member")) {
        (Some(object), Some(kind)) => remove_this(backend, kind, &object).await,
        _ => Ok(false),
    }
}

fn node_kind() -> Result<&'static Kind, Box<Status>> {
    kinds::by_kind("", "v1", "Node").ok_or_else(|| Box::new(Status::internal("there is no kind Node")))
}

/// An object as root's leader has it now; `None` if it is not there.
///
/// # Errors
/// Root's answer, or that there is none.
pub(crate) async fn get(backend: &Node, kind: &str, name: &str) -> Result<Option<Tree>, Box<Status>> {
    match ask(backend, Verb::Get, kind, Some(name), Body::None).await {
        Ok(tree) => Ok(Some(tree)),
        Err(status) if status.reason == Reason::NotFound => Ok(None),
        Err(other) => Err(other),
    }
}

/// Makes an object.
///
/// # Errors
/// As [`get`]; [`Reason::AlreadyExists`] if there is one of that name.
pub(crate) async fn create(backend: &Node, kind: &str, name: &str, spec: Tree) -> Answered {
    let body = Body::Object { tree: membership::object(kind, name, spec), strict: Vec::new() };
    ask(backend, Verb::Create, kind, None, body).await
}

/// Changes an object, if it is still as it was read.
///
/// # Errors
/// As [`get`]; [`Reason::Conflict`] if it has changed.
pub(crate) async fn update(backend: &Node, kind: &str, object: Tree) -> Answered {
    let name = object["metadata"]["name"].as_str().map(str::to_owned);
    ask(backend, Verb::Update, kind, name.as_deref(), Body::Object { tree: object, strict: Vec::new() }).await
}

/// Removes an object; one that is not there is no failure.
///
/// # Errors
/// As [`get`].
pub(crate) async fn remove(backend: &Node, kind: &str, name: &str) -> Result<(), Box<Status>> {
    match ask(backend, Verb::Delete, kind, Some(name), Body::None).await {
        Err(status) if status.reason != Reason::NotFound => Err(status),
        _ => Ok(()),
    }
}

/// All objects of a kind.
///
/// # Errors
/// As [`get`].
pub(crate) async fn list(backend: &Node, kind: &str) -> Result<Vec<Tree>, Box<Status>> {
    let list = ask(backend, Verb::List, kind, None, Body::None).await?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

/// The name of an object.
pub(crate) fn name(object: &Tree) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// The members there are, by name.
///
/// # Errors
/// As [`get`].
pub(crate) async fn members(backend: &Node) -> Result<Vec<(String, Member)>, Box<Status>> {
    let all = list(backend, "Member").await?;
    Ok(all.iter().filter_map(|tree| Some((name(tree).to_owned(), Member::of(tree)?))).collect())
}

/// Writes a node's token keys, if they are others than those that are there.
///
/// # Errors
/// As [`get`].
pub(crate) async fn publish(backend: &Node, node: NodeId, own: &[TrustedTokenKey]) -> Result<(), Box<Status>> {
    let keys = own.iter().take(membership::KEYS_MAX).map(told).collect();
    let spec = TokenKeys { node, keys }.spec();
    put(backend, "TokenKeys", &node.to_string(), &spec).await
}

/// Makes an object, or gives it this `spec`.
async fn put(backend: &Node, kind: &str, name: &str, spec: &Tree) -> Result<(), Box<Status>> {
    let mut last = Status::internal("nothing was tried");
    for _ in 0..CONFLICTS {
        let done = match get(backend, kind, name).await? {
            Some(have) if have["spec"] == *spec => return Ok(()),
            Some(mut have) => {
                have["spec"] = spec.clone();
                update(backend, kind, have).await
            }
            None => create(backend, kind, name, spec.clone()).await,
        };
        match done {
            Ok(_) => return Ok(()),
            Err(status) if matches!(status.reason, Reason::Conflict | Reason::AlreadyExists) => last = *status,
            Err(other) => return Err(other),
        }
    }
    Err(Box::new(last))
}

/// Roles as a record lists them.
pub(crate) fn roles_listed(roles: Roles) -> Vec<String> {
    roles.to_string().split(',').map(str::to_owned).collect()
}

/// Roles of a record; `None` if one is not known.
pub(crate) fn roles_of(listed: &[String]) -> Option<Roles> {
    listed.join(",").parse().ok()
}

/// Whether a member has the role authority.
pub(crate) fn is_authority(member: &Member) -> bool {
    roles_of(&member.roles).is_some_and(|roles| roles.contains(Roles::AUTHORITY))
}

/// A ticket's record, for root.
pub(crate) fn ticket_listed(r: &TicketRecord) -> membership::TicketRecord {
    membership::TicketRecord {
        public_key: r.public_key,
        roles: roles_listed(r.roles),
        expires: r.expires,
        reusable: r.reusable,
        root_epoch: r.root_epoch,
        used_by: r.used_by.clone(),
    }
}

/// A ticket's record as root has it; `None` if it is damaged.
pub(crate) fn ticket_of(object: &Tree) -> Option<TicketRecord> {
    let r = membership::TicketRecord::of(object)?;
    Some(TicketRecord {
        public_key: r.public_key,
        roles: roles_of(&r.roles)?,
        expires: r.expires,
        reusable: r.reusable,
        root_epoch: r.root_epoch,
        used_by: r.used_by,
    })
}

fn told(key: &TrustedTokenKey) -> TokenKey {
    let namespaces = key.namespaces.as_ref().map(|n| n.iter().take(membership::NAMESPACES_MAX).cloned().collect());
    TokenKey { point: key.point.clone(), namespaces, until: key.until }
}

fn trusted(key: &TokenKey) -> Option<TrustedTokenKey> {
    let namespaces = key.namespaces.as_ref().map(|n| n.iter().cloned().collect());
    TrustedTokenKey::from_point(&key.point, namespaces, key.until)
}

/// The token keys of all nodes but one, as the bundle lists them.
pub(crate) fn token_keys(bundle: &Bundle, but: NodeId) -> Vec<TrustedTokenKey> {
    let all = bundle.list(TOKEN_KEYS).into_iter().filter_map(|tree| TokenKeys::of(&tree));
    // What an expelled node has signed, or may sign, is not believed any more.
    all.filter(|of| of.node != but && bundle.get(REVOCATION, &of.node.to_string()).is_none())
        .flat_map(|of| of.keys)
        .filter_map(|key| trusted(&key))
        .collect()
}

/// Whom the bundle calls expelled. `last` is what was known before: if nothing changed it stays to the letter, its
/// number too, and also while root has not been heard of since this node started.
pub(crate) fn revocations(bundle: &Bundle, last: &Revocations) -> Revocations {
    if bundle.number() == Revision::ZERO {
        return last.clone();
    }
    let listed = bundle.list(REVOCATION).into_iter().filter_map(|tree| Revocation::of(&tree));
    let now = Revocations::new(bundle.number().get().max(last.number() + 1), listed.map(|r| (r.node, r.at)));
    if now.expelled().eq(last.expelled()) { last.clone() } else { now }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use base::Wall;
    use node::bundle::Change;

    const NODE: NodeId = NodeId([0xaa; 32]);

    fn with(bundle: &Bundle, number: u64, storage: &str, kind: &str, node: NodeId, spec: Tree) -> Bundle {
        let name = node.to_string();
        let tree = Some(membership::object(kind, &name, spec));
        bundle.with(Revision::from_u64(number).unwrap(), [Change { storage, name: &name, tree }])
    }

    #[test]
    fn a_ticket_is_the_same_after_root_kept_it() {
        let record = TicketRecord {
            public_key: [7; 32],
            roles: Roles::KEEPER | Roles::WORKER,
            expires: Wall(1_769_846_400_000),
            reusable: true,
            root_epoch: 1,
            used_by: vec![NODE],
        };
        let kept = membership::object("Ticket", &record.id().to_string(), ticket_listed(&record).spec());
        assert_eq!(ticket_of(&kept), Some(record));
        assert_eq!(ticket_of(&membership::object("Ticket", "x", Tree::Null)), None);
    }

    #[test]
    fn the_tokens_of_all_other_nodes_are_believed() {
        let point = [&[4][..], &[0xab; 64]].concat();
        let key = TrustedTokenKey::from_point(&point, Some(["shop".to_owned()].into()), Some(Wall(250))).unwrap();
        let spec = TokenKeys { node: NODE, keys: vec![told(&key)] }.spec();
        let bundle = with(&Bundle::default(), 5, TOKEN_KEYS, "TokenKeys", NODE, spec);
        assert_eq!(token_keys(&bundle, NodeId([1; 32])), [key]);
        assert_eq!(token_keys(&bundle, NODE), []);
    }

    #[test]
    fn a_list_of_expelled_nodes_is_newer_only_if_it_is_another() {
        let none = Revocations::none();
        assert_eq!(revocations(&Bundle::default(), &none), none);
        let spec = Revocation { node: NODE, at: Wall(1000), name: "n".into() }.spec();
        let bundle = with(&Bundle::default(), 5, REVOCATION, "Revocation", NODE, spec);
        let one = revocations(&bundle, &none);
        assert!(one.is_expelled(NODE) && one.number() == 5);
        let later = with(&bundle, 9, TOKEN_KEYS, "TokenKeys", NODE, Tree::Null);
        assert_eq!(revocations(&later, &one).number(), 5, "nothing changed for it");
        assert_eq!(revocations(&Bundle::default(), &one), one, "root has not been heard of");
        let pardon = [Change { storage: REVOCATION, name: &NODE.to_string(), tree: None }];
        let pardoned = revocations(&later.with(Revision::from_u64(10).unwrap(), pardon), &one);
        assert!(!pardoned.is_expelled(NODE) && pardoned.number() > one.number());
    }
}
