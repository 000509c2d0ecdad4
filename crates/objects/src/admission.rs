//! Admission: what a cluster's policy adds to, and asks of, every write, besides an object's own rules.
//!
//! One file each, called in Kubernetes' order; nothing else in Kubernetes' default set is for a cell's
//! leader to do.

pub mod amounts;
mod default_toleration_seconds;
mod limit_ranger;
mod namespace_lifecycle;
pub(crate) mod node_restriction;
mod priority;
pub mod resource_quota;
mod runtime_class;
mod service_account;
mod service_addresses;
mod taint_nodes;

use crate::Tree;
use crate::decide::{Operation, Visit};
use crate::decision::Write;
use crate::kinds::tree::Fields;
use crate::membership;
use crate::rbac;
use crate::record::Stored;
use crate::status::Status;

type Outcome<T> = Result<T, Box<Status>>;

/// Mutating admission of a create or update.
pub(crate) fn mutate(visit: &mut Visit<'_>, op: Operation, obj: &mut Tree, old: Option<&Tree>) -> Outcome<()> {
    namespace_lifecycle::admit(visit, op, obj)?;
    let whole = visit.req.subresource.is_empty();
    if visit.kind.storage == "Pod" && whole && op == Operation::Create {
        limit_ranger::fill(visit, obj);
        service_account::admit(visit, obj)?;
    }
    node_restriction::admit(visit, op, obj, old)?;
    match visit.kind.storage {
        "Pod" if whole => {
            priority::admit(visit, obj, old)?;
            default_toleration_seconds::admit(visit.env.config, obj);
            if op == Operation::Create {
                runtime_class::admit(visit, obj)?;
            }
        }
        "Service" if whole => service_addresses::families(obj),
        "Node" if whole && op == Operation::Create => taint_nodes::admit(obj),
        _ => {}
    }
    Ok(())
}

/// Validating admission, after the object's own validation; of a delete too.
pub(crate) fn validate(visit: &mut Visit<'_>, op: Operation, obj: &Tree, old: Option<&Tree>) -> Outcome<()> {
    if op == Operation::Delete {
        namespace_lifecycle::admit(visit, op, obj)?;
        return node_restriction::admit(visit, op, obj, old);
    }
    let whole = visit.req.subresource.is_empty();
    match visit.kind.storage {
        "Pod" if whole && op == Operation::Create => limit_ranger::check(visit, obj)?,
        "PersistentVolumeClaim" if whole => limit_ranger::check(visit, obj)?,
        membership::MEMBER => membership::one_a_node(visit, obj)?,
        "PriorityClass.scheduling.k8s.io" => priority::only_one_default(visit, obj)?,
        _ => {}
    }
    rbac::check_escalation(visit.kind, obj, old, &visit.req.user, visit.namespace(), visit.view)
}

/// What is given to a valid object: a service's addresses and ports, the rules a role aggregates.
pub(crate) fn allocate(visit: &mut Visit<'_>, obj: &mut Tree, old: Option<&Tree>) -> Outcome<()> {
    if visit.kind.storage == rbac::CLUSTER_ROLE {
        rbac::aggregate(visit.view, obj);
    }
    if visit.kind.storage == "Service" && visit.req.subresource.is_empty() {
        return service_addresses::allocate(visit, obj, old);
    }
    Ok(())
}

/// The writes of other objects that go with a write that turns `old` into `new`: quotas, and cluster
/// roles that aggregate the one written.
pub(crate) fn charge(visit: &mut Visit<'_>, new: Option<&Tree>, old: Option<&Tree>) -> Outcome<Vec<Write>> {
    if visit.kind.storage == rbac::CLUSTER_ROLE {
        let write = |(stored, role): (Stored, Tree)| Write {
            key: visit.key(role.at("metadata").text("name")),
            expected: Some(stored.revision),
            kind: visit.kind,
            tree: Some(role),
        };
        return Ok(rbac::reaggregated(visit.view, old, new).into_iter().map(write).collect());
    }
    resource_quota::charge(visit, new, old)
}
