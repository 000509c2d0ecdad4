//! The guard of the crates that decide: no clock, thread, environment, chance or hash order but what is
//! handed in.
//!
//! Clippy does the work (`disallowed_methods` and `disallowed_types`, denied for the whole workspace);
//! it reads `clippy.toml` from a crate's own folder, so the list binds those crates and no other. It is
//! written once, in `crates/base`; the others link to it. This chore proves that every one of them does,
//! and that nobody switched the lints off without a reason.

use crate::{arrows, tree};
use anyhow::{Context, Result, bail};
use std::fs;

/// The folder of the crate that holds the list itself.
const HOME: &str = "base";

/// # Errors
/// If a pure crate lacks the list, has another, or lets the lints off without saying why.
pub(crate) fn check() -> Result<()> {
    let crates = tree::root().join("crates");
    let list = fs::read_to_string(crates.join(HOME).join("clippy.toml")).context("crates/base/clippy.toml")?;
    let mut wrong = Vec::new();
    for name in arrows::pure().filter(|name| crates.join(name).exists()) {
        match fs::read_to_string(crates.join(name).join("clippy.toml")) {
            Ok(own) if own == list => {}
            Ok(_) => wrong.push(format!("crates/{name}/clippy.toml differs from crates/{HOME}/clippy.toml")),
            Err(_) => {
                wrong.push(format!("crates/{name} decides: ln -s ../{HOME}/clippy.toml crates/{name}/clippy.toml"))
            }
        }
    }
    for file in tree::files("rs")? {
        let shown = tree::relative(&file);
        let mut parts = shown.split('/');
        let pure = parts.next() == Some("crates") && parts.next().is_some_and(|name| arrows::pure().any(|p| p == name));
        if pure {
            let text = fs::read_to_string(&file).with_context(|| shown.clone())?;
            wrong.extend(
                silenced(&text).map(|line| format!("{shown}:{line}: a guard is let off without `reason = \"…\"`")),
            );
        }
    }
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("\n")) }
}

/// The lines (from 1) that allow a guarded thing and give no reason.
fn silenced(text: &str) -> impl Iterator<Item = usize> + '_ {
    text.lines()
        .enumerate()
        .filter(|(_, line)| {
            let attribute = line.trim_start().starts_with("#[") || line.trim_start().starts_with("#![");
            attribute && line.contains("clippy::disallowed_") && !line.contains("reason")
        })
        .map(|(at, _)| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letting_the_guard_off_needs_a_reason() {
        let text = "fn a() {}\n#[allow(clippy::disallowed_types)]\nfn b() {}\n#[expect(clippy::disallowed_methods, reason = \"x\")]\n";
        assert_eq!(silenced(text).collect::<Vec<_>>(), [2]);
    }
}
