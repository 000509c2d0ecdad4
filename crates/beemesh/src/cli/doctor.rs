//! `beemesh doctor`: a line for each check of this machine; it fails if one of them does.

use super::columns::columns;
use super::exit::{Coded, Exit};
use super::{Doctor, Output};
use crate::config::data_dir;
use crate::doctor::{Check, Level, examine, look::look};
use anyhow::Result;

/// Looks at the machine, and prints what was found.
///
/// # Errors
/// If a check fails, or it cannot be told which data directory is meant.
pub(crate) fn run(doctor: &Doctor) -> Result<()> {
    let data = data_dir(doctor.data.as_deref())?;
    let checks = examine(&look(&data, doctor.api, doctor.listen));
    match doctor.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&checks)?),
        Output::Text => print!("{}", text(&checks)),
    }
    match checks.iter().filter(|c| c.level == Level::Fail).count() {
        0 => Ok(()),
        n => Err(Coded { exit: Exit::Failed, source: anyhow::anyhow!("{n} of {} checks failed", checks.len()) }.into()),
    }
}

fn text(checks: &[Check]) -> String {
    let line = |c: &Check| {
        let remedy = if c.remedy.is_empty() { String::new() } else { format!("; {}", c.remedy) };
        vec![c.level.word().to_owned(), c.what.to_owned(), format!("{}{remedy}", c.detail)]
    };
    columns(&checks.iter().map(line).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_a_line_with_its_remedy() {
        let checks = [
            Check::ok("disk", "much is free"),
            Check::warn("clock", "it is late", "set it"),
            Check::fail("API port", "taken", "end that"),
        ];
        assert_eq!(
            text(&checks),
            "ok     disk       much is free\nwarn   clock      it is late; set it\nfail   API port   taken; end that\n"
        );
    }
}
