//! `beemesh nodes`: who belongs to the mesh, as a running node knows it, for people or as JSON.

use super::ask::ask;
use super::columns::{columns, row};
use super::show::age;
use super::{Output, Show};
use crate::admin::{Answer, Question};
use crate::config::data_dir;
use crate::nodes::{LinkedReport, NodeReport, NodesReport, State};
use anyhow::{Result, bail};

/// Of a node's addresses so many are shown to people.
const ADDRESSES_SHOWN: usize = 2;

/// Asks the node and prints what it says.
///
/// # Errors
/// No node runs on the data directory, or it does not answer.
pub(crate) fn run(show: &Show) -> Result<()> {
    let report = match ask(&data_dir(show.data.as_deref())?, &Question::Nodes)? {
        Answer::Nodes(report) => *report,
        other => bail!("the node answered otherwise than was asked: {other:?}"),
    };
    match show.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Output::Text => print!("{}", text(&report)),
    }
    Ok(())
}

fn text(report: &NodesReport) -> String {
    let head = row(["NAME", "ID", "ROLES", "STATE", "LINK", "VERSION", "ADDRESSES"]);
    let line = |n: &NodeReport| {
        let or_none = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        vec![
            n.name.clone().unwrap_or_else(|| "-".to_owned()),
            n.node_id.get(..8).unwrap_or(&n.node_id).to_owned(),
            or_none(n.roles.join(",")),
            if n.leaving && n.state != State::Expelled { format!("{}, leaving", state(n)) } else { state(n) },
            n.link.as_ref().map_or_else(|| "-".to_owned(), link),
            n.version.clone().unwrap_or_else(|| "-".to_owned()),
            or_none(addresses(&n.addresses)),
        ]
    };
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(report.nodes.iter().map(line)).collect();
    let mut out = columns(&rows);
    if let Some(why) = &report.without_root {
        out.push_str(&format!(
            "The mesh's root could not be asked ({why}): these are only the nodes that this one knows by itself, and there may be others\n"
        ));
    }
    out
}

fn state(n: &NodeReport) -> String {
    match (n.state, n.not_linked_seconds, &n.expelled) {
        (State::ThisNode, ..) => "this node".to_owned(),
        (State::Linked, ..) => "linked".to_owned(),
        (State::NotLinked, Some(ago), _) => format!("not linked for {}", age(ago)),
        (State::NotLinked, None, _) => "not linked".to_owned(),
        (State::Expelled, _, Some(at)) => format!("expelled {at}"),
        (State::Expelled, _, None) => "expelled".to_owned(),
    }
}

fn link(l: &LinkedReport) -> String {
    let by = if l.dialed_here { "dialled here" } else { "dialled there" };
    let trip = l.round_trip_us.map(|us| format!(", {}.{} ms", us / 1000, us / 100 % 10));
    format!("{by}, {}{}", age(l.seconds), trip.unwrap_or_default())
}

fn addresses(all: &[String]) -> String {
    let shown = all.get(..ADDRESSES_SHOWN).unwrap_or(all).join(", ");
    match all.len().saturating_sub(ADDRESSES_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8, name: Option<&str>, state: State) -> NodeReport {
        NodeReport {
            name: name.map(Into::into),
            node_id: format!("{n:02x}").repeat(32),
            roles: vec!["keeper".into(), "worker".into()],
            state,
            leaving: false,
            expelled: None,
            not_linked_seconds: None,
            link_ended: None,
            addresses: vec![format!("192.0.2.{n}:7443")],
            link: None,
            version: Some("0.1.0".into()),
        }
    }

    fn linked() -> LinkedReport {
        LinkedReport {
            dialed_here: false,
            seconds: 125,
            round_trip_us: Some(12_345),
            seen_at: None,
            issued_by: None,
            clock_ahead_ms: 0,
            expires: String::new(),
        }
    }

    #[test]
    fn nodes_are_shown_in_columns() {
        let mut bee = node(2, Some("bee"), State::Linked);
        bee.link = Some(linked());
        let mut cow = node(3, None, State::Expelled);
        cow.expelled = Some("2026-01-31T08:00:00Z".into());
        cow.roles.clear();
        cow.version = None;
        cow.leaving = true;
        let mut ant = node(1, Some("ant"), State::ThisNode);
        ant.leaving = true;
        cow.addresses.clear();
        let mut report = NodesReport { without_root: None, nodes: vec![ant, bee, cow] };
        let lines = "NAME   ID         ROLES           STATE                           LINK                           VERSION   ADDRESSES\n\
             ant    01010101   keeper,worker   this node, leaving              -                              0.1.0     192.0.2.1:7443\n\
             bee    02020202   keeper,worker   linked                          dialled there, 2m5s, 12.3 ms   0.1.0     192.0.2.2:7443\n\
             -      03030303   -               expelled 2026-01-31T08:00:00Z   -                              -         -\n";
        assert_eq!(text(&report), lines);
        report.without_root = Some("no answer".into());
        assert!(text(&report).ends_with("there may be others\n") && text(&report).contains("(no answer)"));
    }

    #[test]
    fn a_state_says_since_when() {
        let mut n = node(1, None, State::NotLinked);
        assert_eq!(state(&n), "not linked");
        n.not_linked_seconds = Some(125);
        assert_eq!(state(&n), "not linked for 2m5s");
        n.state = State::Expelled;
        assert_eq!(state(&n), "expelled");
    }

    #[test]
    fn of_many_addresses_the_first_are_shown() {
        let all: Vec<String> = ["a", "b", "c", "d"].map(String::from).into();
        for (n, shown) in [(0, ""), (1, "a"), (2, "a, b"), (3, "a, b and 1 more"), (4, "a, b and 2 more")] {
            assert_eq!(addresses(&all[..n]), shown);
        }
    }
}
