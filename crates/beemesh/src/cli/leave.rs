//! `beemesh leave`: asks the running node, round by round, until it has left; every line is a fact.

use super::Leave;
use super::ask::ask;
use super::exit::{Coded, Exit};
use crate::admin::{Answer, Question};
use crate::config::data_dir;
use crate::leave::{Asked, Round, has_left, still_belongs};
use anyhow::{Result, anyhow, bail};
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two rounds.
const PAUSE: Duration = Duration::from_secs(1);

/// Has the node of this machine leave, or stay after all.
///
/// # Errors
/// None runs there, it refuses, or the time is over. What was done stays.
pub(crate) fn run(leave: &Leave) -> Result<()> {
    let data = data_dir(leave.data.as_deref())?;
    still_belongs(&data)?;
    let asked = Asked { force: leave.force, cancel: leave.cancel };
    let start = Instant::now();
    let mut waited = Vec::new();
    loop {
        let round = round(&data, asked)?;
        for line in told(&round, &mut waited) {
            eprintln!("{line}");
        }
        if round.over {
            return Ok(());
        }
        if leave.timeout.is_some_and(|most| start.elapsed() >= most) {
            let source = anyhow!(
                "this node has not left within {} s: {}. What was done stays: run `beemesh leave` again to go on, or `beemesh leave --cancel` to stay",
                start.elapsed().as_secs(),
                waited.join("; ")
            );
            return Err(Coded { exit: Exit::Failed, source }.into());
        }
        std::thread::sleep(PAUSE);
    }
}

fn round(data: &Path, asked: Asked) -> Result<Round> {
    match ask(data, &Question::Leave(asked)) {
        Ok(Answer::Leaving(round)) => Ok(round),
        Ok(other) => bail!("the node answered otherwise than was asked: {other:?}"),
        // It may stop before its answer is out.
        Err(_) if has_left(data) => {
            Ok(Round { done: vec!["this node has left the mesh".to_owned()], over: true, ..Round::default() })
        }
        Err(e) => Err(e),
    }
}

/// What is new of a round. What is waited for is told when it is otherwise than before.
fn told(round: &Round, waited: &mut Vec<String>) -> Vec<String> {
    let mut lines = round.done.clone();
    if round.waits != *waited {
        lines.extend(round.waits.iter().map(|wait| format!("waiting for {wait}")));
        waited.clone_from(&round.waits);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_is_told_once() {
        let mut waited = Vec::new();
        let round = |done: &[&str], waits: &[&str]| Round {
            done: done.iter().map(|s| (*s).to_owned()).collect(),
            waits: waits.iter().map(|s| (*s).to_owned()).collect(),
            over: false,
        };
        assert_eq!(
            told(&round(&["a is marked"], &["pods to end: b"]), &mut waited),
            ["a is marked", "waiting for pods to end: b"]
        );
        assert_eq!(told(&round(&[], &["pods to end: b"]), &mut waited), [""; 0]);
        assert_eq!(told(&round(&["c"], &[]), &mut waited), ["c"]);
        assert_eq!(told(&round(&[], &["pods to end: b"]), &mut waited), ["waiting for pods to end: b"]);
    }
}
