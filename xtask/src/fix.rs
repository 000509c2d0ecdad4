//! What a tool can do about a tree that `verify` refuses.

use crate::tree;
use anyhow::Result;

/// Applies clippy's own suggestions, then formats.
///
/// # Errors
/// If a tool fails; what the earlier ones changed stays.
pub(crate) fn run() -> Result<()> {
    let clippy = ["clippy", "--workspace", "--all-targets", "--fix", "--allow-dirty", "--allow-staged"];
    tree::run(&mut tree::cargo(&clippy))?;
    tree::run(&mut tree::cargo(&["fmt", "--all"]))
}
