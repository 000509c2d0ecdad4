//! Who owns which field: the door through which a visit uses server-side apply's bookkeeping.

use crate::Tree;
use crate::decide::Visit;
use crate::kinds::tree;

/// Notes in `new` who owns what after a write that made it of `old`.
pub(crate) fn track(_visit: &Visit<'_>, old: Option<&Tree>, new: &mut Tree) {
    let meta = tree::child(new, "metadata");
    match old {
        Some(old) => tree::keep(meta, tree::Fields::at(old, "metadata"), "managedFields"),
        None => tree::remove(meta, "managedFields"),
    }
}

/// A write that changes nothing but times in the record of ownership changes nothing.
pub(crate) fn keep_times_if_equal(_new: &mut Tree, _old: &Tree) {}
