//! Asking a running node, over the socket in its data directory.

use super::exit::{Coded, Exit};
use crate::admin::{self, ANSWER_BYTES_MAX, Answer, Question, Said};
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A node tries for 30 s to reach root, at most twice; whoever takes longer does not answer.
const PATIENCE: Duration = Duration::from_secs(90);

/// Asks the node that runs on a data directory.
///
/// # Errors
/// None runs there, it does not answer, or it refuses: its words, and the exit code it names.
pub(crate) fn ask(data: &Path, question: &Question) -> Result<Answer> {
    let path = admin::socket(data);
    let mut stream = match UnixStream::connect(&path) {
        Ok(s) => s,
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused) => {
            let source = anyhow::anyhow!(
                "no node runs on {}: start one with `beemesh up`, or name another directory with --data",
                data.display()
            );
            return Err(Coded { exit: Exit::NotRunning, source }.into());
        }
        Err(e) => return Err(e).with_context(|| format!("asking the node at {}", path.display())),
    };
    let silent = || format!("the node at {} does not answer", path.display());
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&admin::line(question)?).with_context(silent)?;
    let mut line = Vec::new();
    BufReader::new(stream).take(ANSWER_BYTES_MAX).read_until(b'\n', &mut line).with_context(silent)?;
    let said: Said<Answer> =
        serde_json::from_slice(&line).context("the node's answer cannot be read: is it of another release?")?;
    match said.what {
        Answer::Refused { exit, why } => Err(Coded { exit: Exit::of(exit), source: anyhow::anyhow!("{why}") }.into()),
        answer => Ok(answer),
    }
}
