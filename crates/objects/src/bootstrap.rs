//! What exists in an empty mesh: namespaces, priority classes, roles and bindings.
//!
//! The facts are in `data/bootstrap.json`, observed from kube-apiserver 1.37.0 with default settings and
//! without what differs from run to run (uids, times, revisions).

use crate::Tree;
use crate::kinds::{self, Kind, tree::Fields};
use std::collections::BTreeSet;
use std::sync::OnceLock;

/// Every object, with the kind it is of, in an order in which they can be created: namespaces first.
pub fn objects() -> Vec<(&'static Kind, Tree)> {
    const FACTS: &str = include_str!("../../../data/bootstrap.json");
    let all: Vec<Tree> = serde_json::from_str(FACTS).unwrap_or_default();
    all.into_iter().filter_map(|t| Some((kinds::by_api_version(t.text("apiVersion"), t.text("kind"))?, t))).collect()
}

/// Those of one namespace (`kube-system`, …); of root, the cluster-scoped ones, for an empty name.
pub fn objects_of(namespace: &str) -> Vec<(&'static Kind, Tree)> {
    // All but a few namespaces begin with nothing, and need not have all the facts read for it.
    static WITH_ANY: OnceLock<BTreeSet<String>> = OnceLock::new();
    let of = |t: &Tree| t.at("metadata").text("namespace").to_owned();
    if !WITH_ANY.get_or_init(|| objects().iter().map(|(_, t)| of(t)).collect()).contains(namespace) {
        return Vec::new();
    }
    objects().into_iter().filter(|(_, t)| t.at("metadata").text("namespace") == namespace).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facts_read_and_every_kind_is_known() {
        let all = objects();
        assert_eq!(all.len(), 147);
        let names = |kind: &str| all.iter().filter(|(k, _)| k.kind == kind).count();
        assert_eq!(
            [names("Namespace"), names("ClusterRole"), names("ClusterRoleBinding"), names("PriorityClass")],
            [4, 73, 54, 2]
        );
        assert!(objects_of("shop").is_empty() && !objects_of("").is_empty());
        assert!(objects_of("kube-system").iter().all(|(k, _)| matches!(k.kind, "Role" | "RoleBinding")));
    }
}
