//! Waiting for conditions, never for durations.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Asks until there is an answer: `Ok(Some(..))` ends the waiting with it, an error ends it at once.
///
/// # Errors
/// The question's own error; or, after `at_most`, that `what` did not come.
pub fn until<T>(what: &str, at_most: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if start.elapsed() > at_most {
            bail!("{what} did not come within {at_most:?}");
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
