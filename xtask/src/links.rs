//! Relative links in Markdown lead somewhere: to a file that exists and, where they name one, to a
//! heading in it. Links to the world are not followed: the gate needs no network. (Links inside Rust
//! documentation are rustdoc's to check.)

use crate::tree;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;

/// # Errors
/// If a link leads nowhere.
pub(crate) fn check() -> Result<()> {
    let mut wrong = Vec::new();
    for file in tree::files("md")? {
        let text = fs::read_to_string(&file).with_context(|| tree::relative(&file))?;
        for (line, target) in links(&text) {
            if let Some(why) = broken(&file, &text, &target) {
                wrong.push(format!("{}:{line}: ({target}) {why}", tree::relative(&file)));
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("\n")) }
}

/// Why a link leads nowhere, if it does.
fn broken(from: &Path, text: &str, target: &str) -> Option<&'static str> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    if path.starts_with('/') {
        return Some("is absolute: link from this file's folder");
    }
    let there = if path.is_empty() { from.to_path_buf() } else { from.parent()?.join(path) };
    if !path.is_empty() && !there.exists() {
        return Some("does not exist");
    }
    if anchor.is_empty() || there.extension().is_none_or(|e| e != "md") {
        return None;
    }
    let other = if path.is_empty() { text.to_owned() } else { fs::read_to_string(&there).ok()? };
    let found = lines_outside_code(&other).any(|(_, l)| l.starts_with('#') && slug(l) == anchor);
    if found { None } else { Some("names no heading there") }
}

/// Line number (from 1) and target of every inline link `[..](target)` and reference `[..]: target`.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, line) in lines_outside_code(text) {
        let mut rest = line;
        while let Some(i) = rest.find("](") {
            rest = &rest[i + 2..];
            if let Some(end) = rest.find(')') {
                // A title may follow the target: (file "title").
                let target = rest[..end].split_whitespace().next().unwrap_or_default();
                found.push((at, target.trim_matches(['<', '>']).to_owned()));
            }
        }
        if let Some((_, target)) = line.strip_prefix('[').and_then(|l| l.split_once("]: ")) {
            found.push((at, target.trim().to_owned()));
        }
    }
    found
}

/// Numbered lines that are not inside a fenced block, without their `code spans`.
fn lines_outside_code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            return None;
        }
        (!fenced).then_some((at + 1, line))
    })
}

/// The anchor a heading gets where Markdown is shown: lower case, blanks to hyphens, punctuation dropped.
fn slug(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    words
        .chars()
        .filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_outside_code_blocks_only() {
        let text = "a [x](b.md) and [y](c.md#d \"t\")\n```\n[z](no.md)\n```\n[r]: e.md\n";
        let found = links(text);
        assert_eq!(found, [(1, "b.md".into()), (1, "c.md#d".into()), (5, "e.md".into())]);
    }

    #[test]
    fn a_heading_is_named_as_it_is_shown() {
        assert_eq!(slug("## 5.2 The log, and `why`"), "52-the-log-and-why");
    }

    #[test]
    fn what_leads_nowhere_is_said() {
        let here = tree::root().join("xtask/README.md");
        let text = "# One\n";
        for (target, expected) in [
            ("Cargo.toml", None),
            ("../Cargo.toml", None),
            ("https://nowhere.example/x", None),
            ("#one", None),
            ("#two", Some("names no heading there")),
            ("missing.md", Some("does not exist")),
            ("/etc/passwd", Some("is absolute: link from this file's folder")),
        ] {
            assert_eq!(broken(&here, text, target), expected, "{target}");
        }
    }
}
