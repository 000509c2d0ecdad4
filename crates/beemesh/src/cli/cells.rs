//! `beemesh cells`: what a running node keeps, for people or as JSON.

use super::ask::ask;
use super::columns::{columns, row};
use super::{Output, Show};
use crate::admin::{Answer, Question};
use crate::cells::{CellReport, FailedReport, KeeperReport};
use crate::config::data_dir;
use anyhow::{Result, bail};

/// Asks the node and prints what it says.
///
/// # Errors
/// No node runs on the data directory, or it does not answer.
pub(crate) fn run(show: &Show) -> Result<()> {
    let (cells, failed) = match ask(&data_dir(show.data.as_deref())?, &Question::Cells)? {
        Answer::Cells { cells, failed } => (cells, failed),
        other => bail!("the node answered otherwise than was asked: {other:?}"),
    };
    match show.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&cells)?),
        Output::Text => print!("{}", cells_text(&cells)),
    }
    // Programs read the cells alone; what stands still is told to whoever looks.
    match show.output {
        Output::Json => eprint!("{}", failed_text(&failed)),
        Output::Text => print!("{}", failed_text(&failed)),
    }
    Ok(())
}

/// A letter for each cell that stands still.
pub(crate) fn failed_text(failed: &[FailedReport]) -> String {
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
    let mut sorted: Vec<&CellReport> = cells.iter().collect();
    // Root, then the registry, then namespaces by name.
    sorted.sort_by_key(|c| (c.role != "root", c.role != "registry", c.namespace.clone()));
    let head = row(["CELL", "ID", "HERE", "EPOCH", "REVISION", "LAG", "OBJECTS", "BYTES", "KEEPERS"]);
    let line = |c: &CellReport| {
        vec![
            // A namespace may be called root.
            if c.namespace.is_empty() { c.role.clone() } else { format!("{}/{}", c.role, c.namespace) },
            c.id.get(..8).unwrap_or(&c.id).to_owned(),
            c.part.clone(),
            c.epoch.to_string(),
            c.revision.to_string(),
            c.lag.map_or_else(|| "-".to_owned(), |n| n.to_string()),
            c.objects.to_string(),
            c.bytes.to_string(),
            keepers(c),
        ]
    };
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(sorted.iter().map(|c| line(c))).collect();
    let called = |c: &CellReport| if c.namespace.is_empty() { c.role.clone() } else { c.namespace.clone() };
    let thoughts = sorted.iter().flat_map(|c| c.thoughts.iter().map(|thought| format!("{}: {thought}\n", called(c))));
    columns(&rows) + &thoughts.collect::<String>()
}

/// Voters first; who leads, who learns, and whether that is being changed.
fn keepers(cell: &CellReport) -> String {
    let mut all: Vec<&KeeperReport> = cell.keepers.iter().collect();
    all.sort_by_key(|k| (!k.votes, k.called()));
    let told = |k: &KeeperReport| {
        let behind = k.lag.filter(|n| *n > 0).map(|n| format!("{n} behind"));
        let marks: Vec<String> = [k.leads.then(|| "leads".to_owned()), (!k.votes).then(|| "learns".to_owned()), behind]
            .into_iter()
            .flatten()
            .collect();
        if marks.is_empty() { k.called() } else { format!("{} ({})", k.called(), marks.join(", ")) }
    };
    let listed: Vec<String> = all.into_iter().map(told).collect();
    match (listed.is_empty(), cell.changing) {
        (true, _) => "not known yet: it waits for a snapshot".to_owned(),
        (false, true) => format!("{}; being changed", listed.join(", ")),
        (false, false) => listed.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeper(n: u8, name: Option<&str>, votes: bool, leads: bool, lag: Option<u64>) -> KeeperReport {
        KeeperReport { node_id: format!("{n:02x}").repeat(32), name: name.map(Into::into), votes, leads, lag }
    }

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
            epoch: 1,
            changing: false,
            thoughts: Vec::new(),
            keepers: vec![keeper(1, Some("ant"), true, true, None)],
            lag: None,
        }
    }

    #[test]
    fn cells_are_listed_root_first_and_in_columns() {
        let mut shop = cell("namespace", "root");
        shop.part = "learner".into();
        shop.epoch = 3;
        shop.lag = Some(7);
        shop.keepers.insert(0, keeper(2, None, false, false, None));
        let text = cells_text(&[shop, cell("registry", ""), cell("root", "")]);
        assert_eq!(
            text,
            "CELL             ID         HERE      EPOCH   REVISION   LAG   OBJECTS   BYTES   KEEPERS\n\
             root             01234567   leader    1       5          -     4         4096    ant (leads)\n\
             registry         01234567   leader    1       5          -     4         4096    ant (leads)\n\
             namespace/root   01234567   learner   3       5          7     4         4096    ant (leads), 02020202 (learns)\n"
        );
    }

    #[test]
    fn keepers_say_who_leads_learns_and_lags() {
        let mut c = cell("root", "");
        c.keepers = vec![
            keeper(3, None, false, false, Some(12)),
            keeper(2, Some("bee"), true, false, Some(0)),
            keeper(1, Some("ant"), true, true, None),
        ];
        assert_eq!(keepers(&c), "ant (leads), bee, 03030303 (learns, 12 behind)");
        c.changing = true;
        assert_eq!(keepers(&c), "ant (leads), bee, 03030303 (learns, 12 behind); being changed");
        c.keepers.clear();
        assert_eq!(keepers(&c), "not known yet: it waits for a snapshot");
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
}
