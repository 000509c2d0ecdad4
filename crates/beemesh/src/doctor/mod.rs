//! Whether a machine is as a node needs it, with or without one running: what was looked at ([`look`]) goes in, a line
//! for each check comes out.

pub(crate) mod look;
mod machine;
mod pods;
pub(crate) mod ports;

use serde::Serialize;

/// How a check came out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// A node works, and something may be missed or may fail later.
    Warn,
    /// A node does not work so.
    Fail,
}

impl Level {
    /// The word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        }
    }
}

/// One check.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Check {
    /// How it came out.
    pub(crate) level: Level,
    /// What was looked at.
    pub(crate) what: &'static str,
    /// What was found.
    pub(crate) detail: String,
    /// What to do about it; empty if nothing is to be done.
    pub(crate) remedy: String,
}

impl Check {
    pub(crate) fn ok(what: &'static str, detail: impl Into<String>) -> Check {
        Check { level: Level::Ok, what, detail: detail.into(), remedy: String::new() }
    }

    pub(crate) fn warn(what: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Check {
        Check { level: Level::Warn, what, detail: detail.into(), remedy: remedy.into() }
    }

    pub(crate) fn fail(what: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Check {
        Check { level: Level::Fail, what, detail: detail.into(), remedy: remedy.into() }
    }
}

/// All checks of what was looked at.
pub(crate) fn examine(seen: &look::Seen) -> Vec<Check> {
    let mut checks = vec![
        machine::node(&seen.node, &seen.data),
        machine::rights(seen.is_root),
        machine::clock(&seen.clock),
        machine::disk(&seen.disk, &seen.data),
    ];
    checks.extend(seen.ports.iter().map(|port| ports::judge(port, seen.node.pid())));
    checks.push(machine::reach(seen.node.links()));
    // What only pods need is no failure where nobody runs them.
    let pods = pods::wanted(&seen.node, seen.is_root);
    checks.extend(pods::judge(&seen.pods, pods));
    checks
}
