//! A container's log for `kubectl logs`.

use super::decode::{Decoder, Stream, Wanted};
use base::Wall;
use bytes::Bytes;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;

/// How much is read at a time.
const PIECE: usize = 64 << 10;
/// How many pieces wait for a client that is slower than the disk.
const QUEUE: usize = 4;
/// How often a log that is followed is looked at.
const LOOKED_AT: Duration = Duration::from_millis(100);

/// What of a log is wanted: `PodLogOptions`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Go on as lines come, until the container has ended.
    pub follow: bool,
    /// Only what was written then or later.
    pub since: Option<Wall>,
    /// A time before every line.
    pub timestamps: bool,
    /// Only so many last lines.
    pub tail_lines: Option<u64>,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
    /// Only one of the outputs.
    pub stream: Option<Stream>,
}

/// Opens a log, and sends what it says, in pieces; the last one is sent when all is said: at the log's
/// end, or, if it is followed, once `has_ended` says that the container has and all of it was read. It
/// stops early if nobody receives any more. What was put aside is not read, but a log that is put aside
/// while it is followed is read to its end, and then the new one.
///
/// # Errors
/// If the log cannot be opened. Later ones come with the pieces, and end them.
pub fn read(
    log: &Path,
    options: Options,
    has_ended: impl Fn() -> bool + Send + 'static,
) -> io::Result<mpsc::Receiver<io::Result<Bytes>>> {
    let reader = Reader::open(log, options)?;
    let (send, receive) = mpsc::channel(QUEUE);
    tokio::spawn(pass_on(reader, options.follow, has_ended, send));
    Ok(receive)
}

async fn pass_on(
    mut reader: Reader,
    follow: bool,
    has_ended: impl Fn() -> bool + Send + 'static,
    send: mpsc::Sender<io::Result<Bytes>>,
) {
    let mut last_look = false;
    loop {
        let step = tokio::task::spawn_blocking(move || {
            let step = reader.step();
            (reader, step)
        });
        let step = match step.await {
            Ok((back, step)) => {
                reader = back;
                step
            }
            Err(e) => return drop(send.send(Err(io::Error::other(e))).await),
        };
        match step {
            Ok(Step::Read(bytes)) if bytes.is_empty() => {}
            Ok(Step::Read(bytes)) => {
                if send.send(Ok(bytes)).await.is_err() {
                    return;
                }
            }
            Ok(Step::End) => {
                if !follow || last_look {
                    return;
                }
                // What it wrote before it ended is in the log by then: read once more.
                last_look = has_ended();
                if last_look {
                    continue;
                }
                tokio::select! {
                    () = send.closed() => return,
                    () = tokio::time::sleep(LOOKED_AT) => {}
                }
            }
            Ok(Step::Enough) => return,
            Err(e) => return drop(send.send(Err(e)).await),
        }
    }
}

enum Step {
    /// What was read says this.
    Read(Bytes),
    /// There is no more now.
    End,
    /// As much was said as was asked for.
    Enough,
}

/// Reads one log, and the one that takes its place.
struct Reader {
    log: PathBuf,
    file: File,
    at: u64,
    decoder: Decoder,
    left: Option<u64>,
    /// The log was put aside, and this is the new one: the old one is read to its end first.
    next: Option<File>,
}

impl Reader {
    fn open(log: &Path, options: Options) -> io::Result<Reader> {
        let mut file = File::open(log)?;
        let at = match options.tail_lines {
            Some(lines) => beginning_of_last(&mut file, lines)?,
            None => 0,
        };
        file.seek(SeekFrom::Start(at))?;
        let wanted = Wanted { since: options.since, stream: options.stream, timestamps: options.timestamps };
        let decoder = Decoder::new(wanted);
        Ok(Reader { log: log.to_owned(), file, at, decoder, left: options.limit_bytes, next: None })
    }

    fn step(&mut self) -> io::Result<Step> {
        if self.left == Some(0) {
            return Ok(Step::Enough);
        }
        let mut piece = vec![0; PIECE];
        let n = self.file.read(&mut piece)?;
        if n == 0 {
            return self.at_end();
        }
        self.at += n as u64;
        let mut shown = Vec::with_capacity(n);
        self.decoder.decode(&piece[..n], &mut shown);
        if let Some(left) = &mut self.left {
            shown.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= shown.len() as u64;
        }
        Ok(Step::Read(shown.into()))
    }

    fn at_end(&mut self) -> io::Result<Step> {
        if let Some(next) = self.next.take() {
            self.file = next;
            self.at = 0;
            return Ok(Step::Read(Bytes::new()));
        }
        let here = self.file.metadata()?;
        match fs::metadata(&self.log) {
            // The runtime wrote into the old one until it opened the new one: the old one is looked at once more.
            Ok(there) if (there.dev(), there.ino()) != (here.dev(), here.ino()) => {
                self.next = File::open(&self.log).ok();
                Ok(Step::Read(Bytes::new()))
            }
            _ if here.len() < self.at => {
                self.at = self.file.seek(SeekFrom::Start(0))?;
                Ok(Step::Read(Bytes::new()))
            }
            _ => Ok(Step::End),
        }
    }
}

/// Where the last lines of a file begin.
pub(super) fn beginning_of_last(file: &mut File, lines: u64) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(end);
    }
    let mut ends_left = lines;
    let mut at = end;
    let mut piece = vec![0; PIECE];
    while at > 0 {
        let from = at.saturating_sub(PIECE as u64);
        let length = usize::try_from(at - from).unwrap_or(PIECE);
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(&mut piece[..length])?;
        for (i, _) in piece[..length].iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            let after = from + i as u64 + 1;
            // The last line's own end, if it has one, is the end of the file.
            if after == end {
                continue;
            }
            ends_left -= 1;
            if ends_left == 0 {
                return Ok(after);
            }
        }
        at = from;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    struct Log {
        dir: tempfile::TempDir,
        file: File,
    }

    impl Log {
        fn new(lines: usize) -> Log {
            let dir = tempfile::tempdir().unwrap();
            let file = File::create(dir.path().join("0.log")).unwrap();
            let mut log = Log { dir, file };
            (0..lines).for_each(|i| log.write(&format!("line {i}")));
            log
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("0.log")
        }

        fn write(&mut self, text: &str) {
            self.file.write_all(format!("2026-01-31T08:00:00Z stdout F {text}\n").as_bytes()).unwrap();
        }

        /// As the rotation does it: put aside, still written to for a moment, opened anew.
        fn rotate(&mut self) {
            fs::rename(self.path(), self.dir.path().join("0.log.20260131-080000")).unwrap();
            self.write("late");
            self.file = File::create(self.path()).unwrap();
        }
    }

    async fn all(mut from: mpsc::Receiver<io::Result<Bytes>>) -> String {
        let mut bytes = Vec::new();
        while let Some(piece) = from.recv().await {
            bytes.extend_from_slice(&piece.unwrap());
        }
        String::from_utf8(bytes).unwrap()
    }

    async fn said(log: &Log, options: Options) -> String {
        all(read(&log.path(), options, || true).unwrap()).await
    }

    #[tokio::test]
    async fn the_last_lines_and_the_first_bytes() {
        let log = Log::new(10_000);
        let tail = |lines| Options { tail_lines: Some(lines), ..Options::default() };
        assert_eq!(said(&log, tail(0)).await, "");
        assert_eq!(said(&log, tail(2)).await, "line 9998\nline 9999\n");
        assert_eq!(said(&log, tail(10_001)).await, said(&log, Options::default()).await);
        assert_eq!(said(&log, tail(5000)).await.lines().count(), 5000);
        let limit = Options { limit_bytes: Some(9), ..Options::default() };
        assert_eq!(said(&log, limit).await, "line 0\nli");
        let both = Options { limit_bytes: Some(9), ..tail(1) };
        assert_eq!(said(&log, both).await, "line 9999");
    }

    #[tokio::test]
    async fn a_log_that_is_not_there_is_an_error_at_once() {
        let error = read(Path::new("/nonexistent/0.log"), Options::default(), || true).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn it_is_followed_over_a_rotation_until_the_container_has_ended() {
        let mut log = Log::new(2);
        let ended = Arc::new(AtomicBool::new(false));
        let (path, is_over) = (log.path(), ended.clone());
        let options = Options { follow: true, tail_lines: Some(1), ..Options::default() };
        let mut from = read(&path, options, move || is_over.load(Ordering::SeqCst)).unwrap();
        assert_eq!(from.recv().await.unwrap().unwrap(), "line 1\n");
        log.write("more");
        assert_eq!(from.recv().await.unwrap().unwrap(), "more\n");
        log.rotate();
        log.write("new");
        let mut both = String::new();
        while both.lines().count() < 2 {
            both.push_str(std::str::from_utf8(&from.recv().await.unwrap().unwrap()).unwrap());
        }
        assert_eq!(both, "late\nnew\n");
        log.write("last");
        ended.store(true, Ordering::SeqCst);
        assert_eq!(all(from).await, "last\n");
    }

    #[tokio::test]
    async fn a_client_that_has_gone_ends_it() {
        let log = Log::new(1);
        let asked = Arc::new(());
        let held = asked.clone();
        let never = move || {
            let _ = &held;
            false
        };
        let mut from = read(&log.path(), Options { follow: true, ..Options::default() }, never).unwrap();
        assert_eq!(from.recv().await.unwrap().unwrap(), "line 0\n");
        drop(from);
        while Arc::strong_count(&asked) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
