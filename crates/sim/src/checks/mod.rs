//! What must hold, one rule a file.
//!
//! Each checker looks at the world from one side only: what the replicas of a cell are ([`election`], [`log`],
//! [`applied`]), what its clients were told ([`register`], [`acknowledged`]), what those saw who watch it ([`watch`])
//! or all namespaces ([`frontier`]), which nodes run what ([`award`],
//! [`containers`]), what controllers made of what was asked for ([`deployment`], [`owners`]), and who has
//! what there is once in the whole mesh ([`shared`]).

pub mod acknowledged;
pub mod applied;
pub mod award;
pub mod committed;
pub mod containers;
pub mod deployment;
pub mod election;
pub mod frontier;
pub mod log;
pub mod owners;
pub mod register;
pub mod shared;
pub mod watch;

/// A rule that did not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Whose rule it is: the name of its file, or `invariant` for a machine's own `check()`, or `liveness`.
    pub checker: &'static str,
    /// What was seen.
    pub what: String,
}

/// The outcome of a check.
pub type Checked = Result<(), Violation>;

/// Fails with what was seen unless it holds.
pub(crate) fn ensure(checker: &'static str, holds: bool, what: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Violation { checker, what: what() }) }
}
