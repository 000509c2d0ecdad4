//! Admission: what a cluster's policy adds to, and asks of, every write, besides an object's own rules.
//!
//! One file each, called in Kubernetes' order.

mod namespace_lifecycle;

use crate::Tree;
use crate::decide::{Operation, Visit};
use crate::decision::Write;
use crate::rbac;
use crate::status::Status;

type Outcome<T> = Result<T, Box<Status>>;

/// Mutating admission of a create or update.
pub(crate) fn mutate(visit: &mut Visit<'_>, op: Operation, obj: &mut Tree, old: Option<&Tree>) -> Outcome<()> {
    let _ = (&obj, old);
    namespace_lifecycle::admit(visit, op)
}

/// Validating admission, after the object's own validation; of a delete too.
pub(crate) fn validate(visit: &mut Visit<'_>, op: Operation, obj: &Tree, old: Option<&Tree>) -> Outcome<()> {
    if op == Operation::Delete {
        return namespace_lifecycle::admit(visit, op);
    }
    rbac::check_escalation(visit.kind, obj, old, &visit.req.user, visit.namespace(), visit.view)
}

/// Quota: the writes of quota objects that go with a write that turns `old` into `new`.
pub(crate) fn charge(_visit: &mut Visit<'_>, _new: Option<&Tree>, _old: Option<&Tree>) -> Outcome<Vec<Write>> {
    Ok(Vec::new())
}
