//! Garbage collection: what is owned goes with its owners.
//!
//! An object whose owners are all gone is deleted (background). An owner that carries the finalizer
//! `foregroundDeletion` waits until the dependents that block it are gone; one that carries `orphan`
//! waits until no dependent refers to it. An owner is gone only if that is known: what another cell
//! decides is looked at there, and what cannot be known counts as present.

use super::{Action, Plan, Target, release};
use objects::kinds::Kind;
use objects::record::{Meta, Owner};
use serde_json::json;

/// Finalizer that waits until dependents are orphaned.
pub const ORPHAN: &str = "orphan";
/// Finalizer that waits until dependents are gone.
pub const FOREGROUND: &str = "foregroundDeletion";

/// At most this many owners are looked for by one plan. Objects have one or two.
const LOOKS_MAX: usize = 16;

/// An object, as far as the collector looks at it.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    /// Its kind.
    pub kind: &'static Kind,
    /// Its name.
    pub name: &'a str,
    /// Its header.
    pub meta: &'a Meta,
    /// Its resourceVersion.
    pub revision: base::Revision,
}

impl Item<'_> {
    fn target(&self) -> Target {
        Target::new(self.kind, self.name, self.meta)
    }

    /// It is being deleted and waits for its dependents to be gone.
    fn waits(&self) -> bool {
        waits(self.meta)
    }

    /// Without this finalizer.
    fn without(&self, finalizer: &str) -> Action {
        let target = self.target();
        let patch = json!({"metadata": {"uid": target.uid, "$deleteFromPrimitiveList/finalizers": [finalizer]}});
        Action::Patch { target, subresource: "", patch, beside: None }
    }
}

/// Whether an object is being deleted and waits for its dependents to be gone.
pub fn waits(meta: &Meta) -> bool {
    meta.deletion.is_some() && has(meta, FOREGROUND)
}

/// Whether an object is being deleted and waits for its dependents to be let go.
pub fn orphans(meta: &Meta) -> bool {
    meta.deletion.is_some() && has(meta, ORPHAN)
}

fn has(meta: &Meta, finalizer: &str) -> bool {
    meta.finalizers.iter().any(|f| &**f == finalizer)
}

/// What is known of an owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Presence {
    /// It is there.
    Present,
    /// It is there, and waits for its dependents to be gone.
    Waiting,
    /// It is not there, and its uid never comes back.
    Absent,
    /// Another cell decides it, and has not been asked.
    Unknown,
}

/// What one object needs, given what is known of each of its owners, and its dependents in this cell.
pub fn plan(item: &Item<'_>, of: &dyn Fn(&Owner) -> Presence, dependents: &[Item<'_>]) -> Plan {
    let mut plan = Plan::default();
    if item.meta.deletion.is_some() {
        going(item, dependents, &mut plan);
        return plan;
    }
    let mut solid = false;
    let (mut gone, mut waiting, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    for owner in &item.meta.owners {
        match of(owner) {
            Presence::Present => solid = true,
            Presence::Waiting => waiting.push(owner),
            Presence::Absent => gone.push(owner),
            Presence::Unknown => unknown.push(owner),
        }
    }
    if gone.is_empty() && waiting.is_empty() && (solid || unknown.is_empty()) {
        return plan;
    }
    if solid {
        plan.because(format!("{} has an owner left: the other references go", item.name));
        plan.actions.push(release(item.target(), gone.iter().chain(&waiting).map(|o| &*o.uid)));
        return plan;
    }
    if !unknown.is_empty() {
        plan.actions.extend(unknown.into_iter().take(LOOKS_MAX).map(|o| Action::Look {
            target: Target {
                api_version: o.api_version.to_string(),
                kind: o.kind.to_string(),
                name: o.name.to_string(),
                uid: o.uid.to_string(),
            },
        }));
        return plan;
    }
    let propagation = if !waiting.is_empty() && !dependents.is_empty() {
        if dependents.iter().any(Item::waits) {
            // Two that wait for each other would wait for ever.
            let free: Vec<_> =
                item.meta.owners.iter().map(|o| json!({"uid": *o.uid, "blockOwnerDeletion": false})).collect();
            let target = item.target();
            let patch = json!({"metadata": {"uid": target.uid, "ownerReferences": free}});
            plan.actions.push(Action::Patch { target, subresource: "", patch, beside: None });
        }
        "Foreground"
    } else if has(item.meta, ORPHAN) {
        "Orphan"
    } else if has(item.meta, FOREGROUND) {
        "Foreground"
    } else {
        "Background"
    };
    plan.because(format!("no owner of {} is left", item.name));
    plan.actions.push(Action::Delete {
        target: item.target(),
        // Whoever adopts it in the meantime keeps it.
        revision: Some(item.revision.to_string()),
        propagation,
        grace: None,
    });
    plan
}

/// An object that is being deleted.
fn going(item: &Item<'_>, dependents: &[Item<'_>], plan: &mut Plan) {
    let uid = item.meta.uid.to_string();
    if orphans(item.meta) {
        if dependents.is_empty() {
            plan.because(format!("nothing refers to {} any more", item.name));
            plan.actions.push(item.without(ORPHAN));
        }
        plan.actions.extend(dependents.iter().map(|d| release(d.target(), [uid.as_str()])));
    } else if waits(item.meta) {
        let blocks = |d: &Item<'_>| d.meta.owners.iter().any(|o| *o.uid == *uid && o.blocks_deletion);
        if !dependents.iter().any(blocks) {
            plan.because(format!("nothing blocks the deletion of {} any more", item.name));
            plan.actions.push(item.without(FOREGROUND));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use base::{Revision, Uid, Wall};
    use objects::kinds::by_kind;

    fn meta(owners: &[(&str, bool)], finalizers: &[&str], going: bool) -> Meta {
        Meta {
            uid: Uid(7),
            deletion: going.then_some(Wall(1000)),
            owners: owners
                .iter()
                .map(|(uid, blocks)| Owner {
                    api_version: "v1".into(),
                    kind: "ConfigMap".into(),
                    name: (*uid).into(),
                    uid: (*uid).into(),
                    controller: false,
                    blocks_deletion: *blocks,
                })
                .collect(),
            finalizers: finalizers.iter().map(|f| (*f).into()).collect(),
            ..Meta::default()
        }
    }

    fn item(meta: &Meta) -> Item<'_> {
        Item { kind: by_kind("", "v1", "ConfigMap").unwrap(), name: "it", meta, revision: Revision::ZERO }
    }

    /// One letter for each action: what an object with these owners needs.
    fn acts(owners: &[&str], dependents: &[Meta]) -> String {
        let m = meta(&owners.iter().map(|o| (*o, true)).collect::<Vec<_>>(), &[], false);
        let of = |o: &Owner| match &*o.uid {
            "present" => Presence::Present,
            "waiting" => Presence::Waiting,
            "absent" => Presence::Absent,
            _ => Presence::Unknown,
        };
        letters(&plan(&item(&m), &of, &dependents.iter().map(item).collect::<Vec<_>>()))
    }

    fn letters(plan: &Plan) -> String {
        let letter = |a: &Action| match a {
            Action::Delete { propagation, .. } => propagation.chars().next().unwrap(),
            Action::Patch { .. } => 'p',
            Action::Look { .. } => 'l',
            other => panic!("{other:?}"),
        };
        plan.actions.iter().map(letter).collect()
    }

    #[test]
    fn an_object_goes_when_no_owner_is_left_and_never_on_a_guess() {
        let leaf = || vec![meta(&[], &[], false)];
        let wants = vec![meta(&[], &[FOREGROUND], true)];
        for (owners, dependents, want) in [
            (vec![], vec![], ""),
            (vec!["present"], vec![], ""),
            (vec!["present", "elsewhere"], vec![], ""),
            (vec!["present", "absent"], vec![], "p"),
            (vec!["present", "waiting"], vec![], "p"),
            (vec!["absent"], vec![], "B"),
            (vec!["absent", "elsewhere"], vec![], "l"),
            (vec!["elsewhere"], vec![], "l"),
            (vec!["elsewhere"; 5000], vec![], "llllllllllllllll"),
            (vec!["waiting"], vec![], "B"),
            (vec!["waiting"], leaf(), "F"),
            (vec!["waiting"], wants, "pF"),
        ] {
            assert_eq!(acts(&owners, &dependents), want, "{owners:?}");
        }
    }

    #[test]
    fn an_owner_waits_for_its_dependents_as_its_finalizers_say() {
        let uid = Uid(7).to_string();
        let blocking = meta(&[(&uid, true)], &[], false);
        let free = meta(&[(&uid, false)], &[], false);
        let none = |_: &Owner| Presence::Present;
        for (finalizer, dependents, want) in [
            (FOREGROUND, vec![blocking.clone()], ""),
            (FOREGROUND, vec![free.clone()], "p"),
            (FOREGROUND, vec![], "p"),
            (ORPHAN, vec![blocking, free], "pp"),
            (ORPHAN, vec![], "p"),
            ("other/finalizer", vec![], ""),
        ] {
            let m = meta(&[("absent", true)], &[finalizer], true);
            let p = plan(&item(&m), &none, &dependents.iter().map(item).collect::<Vec<_>>());
            assert_eq!(letters(&p), want, "{finalizer} {}", dependents.len());
        }
    }
}
