//! EndpointSlices: endpoints in pieces of at most a hundred, of which as few as possible are rewritten
//! when some endpoints change.

use super::{Action, Target, text};
use crate::pod::items;
use objects::Tree;
use serde_json::json;
use std::collections::BTreeMap;

/// At most this many endpoints stand in one slice.
pub const ENDPOINTS_MAX: usize = 100;
/// The service a slice is of.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The controller that makes a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// What the slices of one owner have in common.
pub(crate) struct Like<'a> {
    /// `apiVersion`, `kind` and metadata of the owner.
    pub owner: &'a Tree,
    pub labels: &'a Tree,
    /// Null for none.
    pub annotations: &'a Tree,
    pub address_type: &'a str,
}

/// Endpoints that have the same ports.
pub(crate) struct Group {
    /// Their ports.
    pub ports: Vec<Tree>,
    pub endpoints: Vec<Tree>,
}

impl Like<'_> {
    fn new_slice(&self, ports: &[Tree], endpoints: Vec<Tree>) -> Action {
        let mut meta = json!({
            "generateName": format!("{}-", text(&self.owner["metadata"]["name"])),
            "namespace": self.owner["metadata"]["namespace"],
            "labels": self.labels, "ownerReferences": [super::owner_reference(self.owner)],
        });
        if !self.annotations.is_null() {
            meta["annotations"] = self.annotations.clone();
        }
        Action::Create {
            tree: json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta,
                "addressType": self.address_type, "ports": ports, "endpoints": endpoints}),
        }
    }

    /// Whether a slice's metadata is as it should be.
    fn fits(&self, slice: &Tree) -> bool {
        let annotations = &slice["metadata"]["annotations"];
        slice["metadata"]["labels"] == *self.labels
            && (self.annotations == annotations || is_empty(self.annotations) && is_empty(annotations))
    }

    fn changed(&self, slice: &Tree, endpoints: Vec<Tree>) -> Action {
        let mut tree = slice.clone();
        tree["metadata"]["labels"] = self.labels.clone();
        if !self.fits(&tree) {
            tree["metadata"]["annotations"] = self.annotations.clone();
        }
        tree["endpoints"] = Tree::Array(endpoints);
        Action::Update { tree }
    }
}

fn is_empty(map: &Tree) -> bool {
    map.as_object().is_none_or(|m| m.is_empty())
}

/// Turns the slices there are into these groups, all of one address type. Without any endpoint one empty
/// slice is left if `placeholder`, so that it is seen that somebody looked.
pub(crate) fn reconcile(like: &Like<'_>, have: &[&Tree], groups: Vec<Group>, placeholder: bool) -> Vec<Action> {
    let (mut creates, mut updates, mut deletes) = (Vec::new(), Vec::new(), Vec::new());
    let mut left: Vec<&Tree> = have.to_vec();
    for group in groups {
        let (own, others): (Vec<&Tree>, Vec<&Tree>) =
            left.into_iter().partition(|s| items(&s["ports"]) == group.ports.as_slice());
        left = others;
        pack(like, &own, group, &mut creates, &mut updates, &mut deletes);
    }
    deletes.extend(left);
    if placeholder && creates.is_empty() && deletes.len() == have.len() {
        let empty = |s: &&Tree| items(&s["ports"]).is_empty() && items(&s["endpoints"]).is_empty() && like.fits(s);
        match deletes.iter().position(empty) {
            Some(i) => {
                deletes.remove(i);
            }
            None => creates.push(like.new_slice(&[], Vec::new())),
        }
    }
    let delete = |s: &Tree| Action::Delete { target: Target::of(s), revision: None, propagation: "", grace: None };
    // What is new is there before what is old goes: an endpoint that moves is never nowhere.
    creates.into_iter().chain(updates).chain(deletes.into_iter().map(delete)).collect()
}

/// What makes an endpoint the same as another.
fn identity(endpoint: &Tree) -> String {
    format!("{} {} {}", text(&endpoint["targetRef"]["uid"]), endpoint["addresses"], text(&endpoint["hostname"]))
}

/// Slices of one group: endpoints stay where they are; new ones fill slices that change anyhow, then one
/// that has room for all the rest, then new ones.
fn pack<'a>(
    like: &Like<'_>,
    have: &[&'a Tree],
    group: Group,
    creates: &mut Vec<Action>,
    updates: &mut Vec<Action>,
    deletes: &mut Vec<&'a Tree>,
) {
    let mut wanted: BTreeMap<String, Tree> = group.endpoints.into_iter().map(|e| (identity(&e), e)).collect();
    let mut changing: Vec<(&Tree, Vec<Tree>)> = Vec::new();
    let mut still: Vec<&Tree> = Vec::new();
    for slice in have.iter().copied() {
        let old = items(&slice["endpoints"]);
        let kept: Vec<Tree> = old.iter().filter_map(|e| wanted.remove(&identity(e))).collect();
        if kept.as_slice() == old && like.fits(slice) && !old.is_empty() {
            still.push(slice);
        } else if kept.is_empty() {
            deletes.push(slice);
        } else {
            changing.push((slice, kept));
        }
    }
    let mut new = wanted.into_values().collect::<Vec<_>>();
    changing.sort_by_key(|(_, kept)| std::cmp::Reverse(kept.len()));
    for (_, kept) in &mut changing {
        let room = ENDPOINTS_MAX.saturating_sub(kept.len()).min(new.len());
        kept.extend(new.drain(..room));
    }
    while !new.is_empty() {
        let len = |s: &Tree| items(&s["endpoints"]).len();
        let fits = |s: &&&Tree| len(s) + new.len() <= ENDPOINTS_MAX;
        let fullest = still.iter().filter(fits).max_by_key(|s| len(s)).copied();
        if let Some(slice) = fullest {
            let mut all = items(&slice["endpoints"]).to_vec();
            all.append(&mut new);
            changing.push((slice, all));
        } else {
            let some = new.drain(..new.len().min(ENDPOINTS_MAX)).collect();
            creates.push(like.new_slice(&group.ports, some));
        }
    }
    updates.extend(changing.into_iter().map(|(slice, endpoints)| like.changed(slice, endpoints)));
}
