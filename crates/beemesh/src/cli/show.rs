//! `beemesh status`: a running node's own words, for people or as JSON.

use super::ask::ask;
use super::cells::failed_text;
use super::{Output, Show};
use crate::admin::{Answer, Question, Report};
use crate::cells::CellReport;
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
    let idle = r.cells.iter().filter(|c| !is_led(c)).count();
    if idle > 0 {
        out.push_str(&format!("  {idle} cell(s) have no leader as far as is known here: see `beemesh cells`\n"));
    }
    out + &failed_text(&r.failed)
}

/// Whether somebody leads it, here or elsewhere.
fn is_led(cell: &CellReport) -> bool {
    cell.part == "leader" || cell.keepers.iter().any(|k| k.leads)
}

/// A time as people say it.
pub(crate) fn age(seconds: u64) -> String {
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

    #[test]
    fn ages_read_as_people_say_them() {
        assert_eq!([age(5), age(125), age(7_260), age(90_000)], ["5s", "2m5s", "2h1m", "1d1h"]);
    }
}
