//! A report, never a refusal: files so long that they may tell two stories.

use crate::tree;
use anyhow::Result;
use std::fs;

/// Lines of shipped code at which one asks which two stories a file tells.
const LONG_LINES: usize = 600;

/// Prints the long files, longest first.
///
/// # Errors
/// If a file cannot be read.
pub(crate) fn report() -> Result<()> {
    let mut long = Vec::new();
    for file in tree::files("rs")? {
        let shipped = shipped_lines(&fs::read_to_string(&file)?);
        if shipped >= LONG_LINES {
            long.push((shipped, tree::relative(&file)));
        }
    }
    long.sort_by(|a, b| b.cmp(a));
    for (lines, file) in &long {
        println!("  {lines:>5} lines  {file}");
    }
    if long.is_empty() {
        println!("  no file reaches {LONG_LINES} lines");
    }
    Ok(())
}

/// Lines before the tests at a file's end.
fn shipped_lines(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.windows(2).position(|w| w[0] == "#[cfg(test)]" && w[1].starts_with("mod tests"));
    tests.unwrap_or(lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_at_the_end_do_not_count() {
        assert_eq!(shipped_lines("a\nb\n#[cfg(test)]\nmod tests {\n}\n"), 2);
        assert_eq!(shipped_lines("a\n#[cfg(test)]\nextern crate std;\nb\n"), 4);
    }
}
