//! `beemesh expel`: what was done, and what it does not do.

use super::Expel;
use super::ask::ask;
use crate::admin::{Answer, Question};
use crate::config::data_dir;
use crate::expel::{Asked, Expelled};
use anyhow::{Result, bail};

/// Has the running node expel another, and says what that means.
///
/// # Errors
/// No node runs there, or it says why it did not.
pub(crate) fn run(expel: &Expel) -> Result<()> {
    let asked = Asked { node: expel.node.clone(), force: expel.force };
    match ask(&data_dir(expel.data.as_deref())?, &Question::Expel(asked))? {
        Answer::Expelled(done) => {
            print!("{}", text(&done));
            Ok(())
        }
        other => bail!("the node answered otherwise than was asked: {other:?}"),
    }
}

fn text(e: &Expelled) -> String {
    let short = e.node_id.get(..8).unwrap_or(&e.node_id);
    let mut lines = Vec::new();
    if e.again {
        lines.push(format!("{} ({short}) was expelled before, at {}.", e.name, e.at));
    } else {
        lines.push(format!("{} ({short}) is expelled: whoever hears of it closes its links and refuses it.", e.name));
    }
    if !e.heard_here {
        lines.push("This node itself has not closed its link to it yet: see `beemesh nodes`.".to_owned());
    }
    if e.node_object_removed {
        lines.push("Its Node object is gone, so that its pods are replaced. What runs on it runs on until somebody stops it there.".to_owned());
    }
    if !e.tickets_removed.is_empty() {
        let tickets = e.tickets_removed.join(", ");
        lines.push(format!("The tickets for many machines that it joined with let nobody in any more: {tickets}."));
    }
    if !e.cut_off.is_empty() {
        let cut = e.cut_off.join(", ");
        lines.push(format!("What it has certified is refused with it: {cut} must join anew, each with a new ticket and an empty data directory."));
    }
    lines.push(format!("Who has not heard of it takes its certificate until {} at the latest.", e.good_until));
    if let Some(until) = &e.issues_until {
        lines.push(format!("Who has not heard of it takes what its issuing key signs until {until} at the latest. An administrator's kubeconfig that lay on it is not taken back by this."));
    }
    lines.push("It may come back with an empty data directory and a new ticket, as another node.".to_owned());
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expelled() -> Expelled {
        Expelled {
            name: "cow".into(),
            node_id: "0c".repeat(32),
            at: "2026-01-31T08:00:00Z".into(),
            again: false,
            good_until: "2026-02-01T09:00:00Z".into(),
            issues_until: None,
            node_object_removed: true,
            tickets_removed: Vec::new(),
            cut_off: Vec::new(),
            heard_here: true,
        }
    }

    #[test]
    fn it_says_what_was_done_and_until_when_that_may_be_unknown() {
        assert_eq!(
            text(&expelled()),
            "cow (0c0c0c0c) is expelled: whoever hears of it closes its links and refuses it.\n\
             Its Node object is gone, so that its pods are replaced. What runs on it runs on until somebody stops it there.\n\
             Who has not heard of it takes its certificate until 2026-02-01T09:00:00Z at the latest.\n\
             It may come back with an empty data directory and a new ticket, as another node.\n"
        );
        let mut all = expelled();
        all.again = true;
        all.heard_here = false;
        all.node_object_removed = false;
        all.tickets_removed = vec!["ab".into()];
        all.cut_off = vec!["bee".into(), "dog".into()];
        all.issues_until = Some("2026-05-01T08:00:00Z".into());
        let said = text(&all);
        for words in [
            "was expelled before, at 2026-01-31T08:00:00Z",
            "has not closed its link",
            "let nobody in any more: ab.",
            "bee, dog must join anew",
            "signs until 2026-05-01T08:00:00Z",
            "kubeconfig",
        ] {
            assert!(said.contains(words), "{words}: {said}");
        }
        assert!(!said.contains("Node object"), "{said}");
    }
}
