//! Owners: what has a living owner is not collected, and in the end nothing is left whose owners are all gone
//! (Kubernetes, "Owners and Dependents").

use super::committed::{Change, Committed, is_going, uid};
use super::deployment::{POD, REPLICA_SET};
use super::{Checked, ensure};
use objects::Tree;

/// The kind of which people make dependents that they never delete themselves.
pub const SECRET: &str = "Secret";

fn owners(of: &Tree) -> impl Iterator<Item = &str> {
    of["metadata"]["ownerReferences"].as_array().into_iter().flatten().filter_map(|o| o["uid"].as_str())
}

/// Something was committed.
///
/// # Errors
/// Something was deleted that nobody but the garbage collector deletes, and an owner of it lives and is not being
/// deleted itself: who first wants dependents to go before their owner, and then to be let go, may come too late.
/// A ReplicaSet without pods may also be an old one that its Deployment no longer keeps.
pub fn changed(all: &Committed, change: &Change) -> Checked {
    let Some(before) = change.before.as_ref().filter(|b| !is_going(b)) else { return Ok(()) };
    let deleted = change.after.as_ref().is_none_or(is_going);
    let collected = match change.storage {
        SECRET => true,
        REPLICA_SET => before["spec"]["replicas"] != 0,
        _ => false,
    };
    if !deleted || !collected {
        return Ok(());
    }
    let living = owners(before).find(|uid| all.of_uid(uid).is_some_and(|o| !is_going(o)));
    ensure("owners", living.is_none(), || {
        format!("{} {} is deleted, and its owner {living:?} lives", change.storage, before["metadata"]["name"])
    })
}

/// The end of a run, when nothing has happened for long.
///
/// # Errors
/// Something is left that has owners, and all of them are gone.
pub fn settled(all: &Committed) -> Checked {
    for storage in [SECRET, REPLICA_SET, POD] {
        for object in all.all(storage) {
            let orphan = owners(object).next().is_some() && !owners(object).any(|uid| all.of_uid(uid).is_some());
            ensure("owners", !orphan, || {
                let (name, owners) = (&object["metadata"]["name"], owners(object).collect::<Vec<_>>());
                format!("{storage} {name} ({}) is left at the end, and its owners {owners:?} are gone", uid(object))
            })?;
        }
    }
    Ok(())
}
