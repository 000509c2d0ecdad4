//! `beemesh status` and `beemesh cells`: a running node's own words, for people or as JSON.

use super::ask::ask;
use super::{Output, Show};
use crate::admin::{Answer, CellReport, FailedReport, Question, Report};
use crate::config::data_dir;
use anyhow::{Result, bail};
use std::path::Path;

/// `beemesh status`.
///
/// # Errors
/// No node runs on the data directory, or it does not answer.
pub(crate) fn status(show: &Show) -> Result<()> {
    let report = report(&data_dir(show.data.as_deref())?)?;
    match show.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Output::Text => print!("{}", status_text(&report)),
    }
    Ok(())
}

/// `beemesh cells`.
///
/// # Errors
/// As [`status`].
pub(crate) fn cells(show: &Show) -> Result<()> {
    let report = report(&data_dir(show.data.as_deref())?)?;
    match show.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&report.cells)?),
        Output::Text => print!("{}{}", cells_text(&report.cells), failed_text(&report.failed)),
    }
    Ok(())
}

fn report(data: &Path) -> Result<Report> {
    match ask(data, &Question::Report)? {
        Answer::Report(report) => Ok(*report),
        other => bail!("the node answered otherwise than was asked: {other:?}"),
    }
}

fn status_text(r: &Report) -> String {
    let leading = r.cells.iter().filter(|c| c.part == "leader").count();
    let objects: usize = r.cells.iter().map(|c| c.objects).sum();
    let disk = if r.disk_space { "has room" } else { "is full: only deletes are taken until some space is freed" };
    let mut out = format!(
        "node {} of mesh {}, up {}\n  id       {}\n  roles    {}\n  release  {} (process {})\n  API      https://{}\n  mesh     {} (UDP), {} links\n  cells    {}, {} led here, {} objects\n  watches  {}\n  disk     {disk}\n",
        r.name,
        r.trust_domain,
        age(r.up_seconds),
        r.node_id,
        r.roles,
        r.version,
        r.pid,
        r.api,
        r.mesh.join(", "),
        r.links,
        r.cells.len(),
        leading,
        objects,
        r.watchers
    );
    let idle: Vec<&CellReport> = r.cells.iter().filter(|c| c.part != "leader").collect();
    if !idle.is_empty() {
        out.push_str(&format!("  {} cell(s) have no leader here: see `beemesh cells`\n", idle.len()));
    }
    out + &failed_text(&r.failed)
}

/// A letter for each cell that stands still.
fn failed_text(failed: &[FailedReport]) -> String {
    let letter = |f: &FailedReport| {
        let whose = if f.namespace.is_empty() { &f.role } else { &f.namespace };
        format!(
            "cell {} ({whose}) could not be started, and answers nothing; what it holds was left as it is: {}\n",
            f.id, f.why
        )
    };
    failed.iter().map(letter).collect()
}

fn cells_text(cells: &[CellReport]) -> String {
    let mut rows =
        vec![["CELL", "ROLE", "NAME", "PART", "VOTERS", "TERM", "COMMIT", "OBJECTS", "BYTES"].map(String::from)];
    let mut sorted: Vec<&CellReport> = cells.iter().collect();
    // Root, then the registry, then namespaces by name.
    sorted.sort_by_key(|c| (c.role != "root", c.role != "registry", c.namespace.clone()));
    rows.extend(sorted.iter().map(|c| {
        [
            c.id.get(..8).unwrap_or(&c.id).to_owned(),
            c.role.clone(),
            if c.namespace.is_empty() { "-".into() } else { c.namespace.clone() },
            c.part.clone(),
            c.voters.to_string(),
            c.term.to_string(),
            c.commit.to_string(),
            c.objects.to_string(),
            c.bytes.to_string(),
        ]
    }));
    let mut widths = [0; 9];
    for row in &rows {
        for (w, cell) in widths.iter_mut().zip(row) {
            *w = (*w).max(cell.len());
        }
    }
    rows.iter()
        .map(|row| {
            let cells: Vec<String> = row.iter().zip(widths).map(|(c, w)| format!("{c:w$}")).collect();
            format!("{}\n", cells.join("   ").trim_end())
        })
        .collect()
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(role: &str, namespace: &str) -> CellReport {
        CellReport {
            id: "0123456789abcdef".into(),
            role: role.into(),
            namespace: namespace.into(),
            part: "leader".into(),
            voters: 1,
            term: 2,
            commit: 30,
            applied: 30,
            revision: 5,
            objects: 4,
            bytes: 4096,
            waiting: 0,
        }
    }

    #[test]
    fn cells_are_listed_root_first_and_in_columns() {
        let text = cells_text(&[cell("namespace", "default"), cell("registry", ""), cell("root", "")]);
        assert_eq!(
            text,
            "CELL       ROLE        NAME      PART     VOTERS   TERM   COMMIT   OBJECTS   BYTES\n\
             01234567   root        -         leader   1        2      30       4         4096\n\
             01234567   registry    -         leader   1        2      30       4         4096\n\
             01234567   namespace   default   leader   1        2      30       4         4096\n"
        );
    }

    #[test]
    fn a_cell_that_stands_still_is_named_with_the_reason() {
        let failed = FailedReport {
            id: "0123".into(),
            role: "namespace".into(),
            namespace: "shop".into(),
            why: "damaged".into(),
        };
        let text = failed_text(&[failed]);
        assert!(text.starts_with("cell 0123 (shop) could not be started") && text.ends_with(": damaged\n"), "{text}");
    }

    #[test]
    fn ages_read_as_people_say_them() {
        assert_eq!([age(5), age(125), age(7_260), age(90_000)], ["5s", "2m5s", "2h1m", "1d1h"]);
    }
}
