//! A program at a terminal, as a person sits at one.

use crate::process::Killed;
use crate::until;
use anyhow::{Context, Result};
use nix::pty::{Winsize, openpty};
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a program may take to say or do something.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program at a terminal of 80 by 24. It is killed when the handle goes.
#[derive(Debug)]
pub struct Terminal {
    child: Killed,
    keys: File,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts a program at a terminal of its own.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn open(command: &Command) -> Result<Terminal> {
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None)?;
        // A session of its own, so that the terminal is the one that controls it.
        let mut at = Command::new("setsid");
        at.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => at.env(name, value),
                None => at.env_remove(name),
            };
        }
        at.stdin(pty.slave.try_clone()?).stdout(pty.slave.try_clone()?).stderr(pty.slave);
        let child = Killed(at.spawn().context("cannot start setsid (package util-linux)")?);
        drop(at);
        let keys = File::from(pty.master);
        let (mut from, screen) = (keys.try_clone()?, Arc::new(Mutex::new(Vec::new())));
        let into = screen.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The other side's end reads as an error.
            while let Ok(n @ 1..) = from.read(&mut bytes) {
                into.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&bytes[..n]);
            }
        });
        Ok(Terminal { child, keys, screen })
    }

    /// Types something.
    ///
    /// # Errors
    /// If nobody reads any more.
    pub fn types(&mut self, keys: &str) -> Result<()> {
        Ok(self.keys.write_all(keys.as_bytes())?)
    }

    /// What was shown so far.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits until something is shown.
    ///
    /// # Errors
    /// If it does not come, with what came.
    pub fn until_shown(&self, wanted: &str) -> Result<()> {
        until(&format!("{wanted:?} on the screen"), PATIENCE, || Ok(self.screen().contains(wanted).then_some(())))
            .with_context(|| format!("what came: {:?}", self.screen()))
    }

    /// Waits for the program's end.
    ///
    /// # Errors
    /// If it goes on, with what was shown.
    pub fn end(mut self) -> Result<ExitStatus> {
        let ended = until("the end of a program at a terminal", PATIENCE, || Ok(self.child.0.try_wait()?));
        ended.with_context(|| format!("what came: {:?}", self.screen()))
    }
}
