//! Chains of ours in the table `nat`, each replaced as a whole, so that nothing of before stays and nobody
//! sees half of it.

use crate::containerd::search_path;
use std::fmt::Write;
use std::io;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// A chain, and the kernel's own from which packets come by.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    pub(crate) from: &'static [&'static str],
}

/// The program for a family of addresses.
fn family(v4: bool) -> &'static str {
    if v4 { "iptables" } else { "ip6tables" }
}

impl Chain {
    /// Has exactly these rules in force, whatever was before.
    ///
    /// # Errors
    /// What iptables said. What was in force still is, or packets come by none of it.
    pub(crate) async fn lay(&self, v4: bool, rules: &[String]) -> io::Result<()> {
        let family = family(v4);
        run(&format!("{family}-restore"), &["--noflush", "--wait"], &self.text(rules)).await?;
        for from in self.from {
            let is_hooked = run(family, &["--wait", "-t", "nat", "-C", from, "-j", self.name], "").await.is_ok();
            if !is_hooked {
                run(family, &["--wait", "-t", "nat", "-I", from, "1", "-j", self.name], "").await?;
            }
        }
        Ok(())
    }

    /// Whether packets still come by and these rules are still there: others flush rules, too.
    pub(crate) async fn is_in_force(&self, v4: bool, rules: &[String]) -> bool {
        let mut checks: Vec<Vec<&str>> = self.from.iter().map(|from| vec![*from, "-j", self.name]).collect();
        checks.extend(rules.iter().map(|rule| std::iter::once(self.name).chain(rule.split(' ')).collect()));
        for check in checks {
            let args: Vec<&str> = ["--wait", "-t", "nat", "-C"].into_iter().chain(check).collect();
            if run(family(v4), &args, "").await.is_err() {
                return false;
            }
        }
        true
    }

    /// Whether there is such a chain.
    pub(crate) async fn is_there(&self, v4: bool) -> bool {
        run(family(v4), &["--wait", "-t", "nat", "-S", self.name], "").await.is_ok()
    }

    /// Takes it away again.
    pub(crate) async fn forget(&self) {
        for family in [true, false].map(family) {
            for from in self.from {
                while run(family, &["--wait", "-t", "nat", "-D", from, "-j", self.name], "").await.is_ok() {}
            }
            for what in ["-F", "-X"] {
                let _ = run(family, &["--wait", "-t", "nat", what, self.name], "").await;
            }
        }
    }

    /// Naming a chain empties it; all of it takes effect at once.
    pub(crate) fn text(&self, rules: &[String]) -> String {
        let name = self.name;
        let mut text = format!("*nat\n:{name} - [0:0]\n");
        for rule in rules {
            let _ = writeln!(text, "-A {name} {rule}");
        }
        text.push_str("COMMIT\n");
        text
    }
}

/// Runs a program of the system's network to its end.
///
/// # Errors
/// If it is not there or fails, with what it said.
pub(crate) async fn run(program: &str, args: &[&str], input: &str) -> io::Result<()> {
    let path = search_path().into_iter().map(|dir| dir.join(program)).find(|p| p.is_file());
    let path = path.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{program} is not installed")))?;
    let mut child =
        Command::new(path).args(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await?;
    }
    let out = child.wait_with_output().await?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    Err(io::Error::other(format!("{program} {}: {}", args.join(" "), said.trim())))
}
