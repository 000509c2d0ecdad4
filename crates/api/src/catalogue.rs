//! The resources served, and the documents by which clients discover them.

use crate::discovery::{self, Documents};
use objects::kinds::Kind;
use std::sync::OnceLock;

/// The resources served, looked up by what a URL says.
///
/// Immutable: when what is served changes, another takes its place, and with it the documents and ETags.
pub struct Catalogue {
    groups: Vec<Group>,
    documents: OnceLock<Documents>,
}

/// A group and its versions, best first.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) versions: Vec<Version>,
}

/// A version and its resources by name.
pub(crate) struct Version {
    pub(crate) name: &'static str,
    pub(crate) kinds: Vec<&'static Kind>,
}

impl Catalogue {
    /// The catalogue of these rows. Groups are listed in the order in which they first appear: kubectl
    /// prefers the first where a short name stands in two. Rows without verbs are left out.
    pub fn new(kinds: impl IntoIterator<Item = &'static Kind>) -> Catalogue {
        let mut groups: Vec<Group> = Vec::new();
        for kind in kinds.into_iter().filter(|k| !k.verbs.is_empty()) {
            let at = groups.iter().position(|g| g.name == kind.group).unwrap_or_else(|| {
                groups.push(Group { name: kind.group, versions: Vec::new() });
                groups.len() - 1
            });
            let Some(group) = groups.get_mut(at) else { continue };
            match group.versions.iter_mut().find(|v| v.name == kind.version) {
                Some(v) => v.kinds.push(kind),
                None => group.versions.push(Version { name: kind.version, kinds: vec![kind] }),
            }
        }
        for g in &mut groups {
            g.versions.sort_by(|a, b| priority(b.name).cmp(&priority(a.name)).then(a.name.cmp(b.name)));
            for v in &mut g.versions {
                v.kinds.sort_by_key(|k| k.plural);
            }
        }
        Catalogue { groups, documents: OnceLock::new() }
    }

    /// The kind of a resource.
    pub fn kind(&self, group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
        self.versions(group)?.iter().find(|v| v.name == version)?.kinds.iter().find(|k| k.plural == plural).copied()
    }

    /// Whether a group has a version here.
    pub fn has_version(&self, group: &str, version: &str) -> bool {
        self.versions(group).is_some_and(|vs| vs.iter().any(|v| v.name == version))
    }

    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }

    pub(crate) fn documents(&self) -> &Documents {
        self.documents.get_or_init(|| discovery::documents(self))
    }

    fn versions(&self, group: &str) -> Option<&[Version]> {
        self.groups.iter().find(|g| g.name == group).map(|g| g.versions.as_slice())
    }
}

/// How Kubernetes ranks versions: v2 before v1 before v1beta2 before v1alpha1 before anything else.
fn priority(version: &str) -> (u8, u32, u32) {
    let parse = || {
        let rest = version.strip_prefix('v')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (major, rest) = rest.split_at_checked(digits)?;
        let major = major.parse().ok()?;
        Some(match rest {
            "" => (3, major, 0),
            r if r.starts_with("beta") => (2, major, r.get(4..)?.parse().ok()?),
            r if r.starts_with("alpha") => (1, major, r.get(5..)?.parse().ok()?),
            _ => return None,
        })
    };
    parse().unwrap_or((0, 0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_rank_as_kubernetes_ranks_them() {
        let mut v = ["v1alpha1", "v10", "foo", "v1", "v2", "v1beta2", "v11beta1", "v1beta10"];
        v.sort_by_key(|v| std::cmp::Reverse(priority(v)));
        assert_eq!(v, ["v10", "v2", "v1", "v11beta1", "v1beta10", "v1beta2", "v1alpha1", "foo"]);
    }
}
