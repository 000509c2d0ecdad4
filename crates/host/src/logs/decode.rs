//! The CRI's log format, piece by piece: lines may be of any length, pieces end anywhere.

use base::Wall;

/// A line's beginning (time, stream, tags) is shorter than this; what is not is no line.
const BEGINNING_MAX: usize = 256;

/// Which of a container's outputs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What of a log is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Wanted {
    /// Only what was written then or later.
    pub(super) since: Option<Wall>,
    /// Only this output; none: both.
    pub(super) stream: Option<Stream>,
    /// The time, as it is in the log, before every line.
    pub(super) timestamps: bool,
}

/// Turns a log's bytes into what the container wrote.
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    wanted: Wanted,
    state: State,
    /// The line before was cut and was shown: no time before this one.
    goes_on: bool,
}

#[derive(Clone, Debug)]
enum State {
    /// What there is so far of a line's beginning.
    Beginning(Vec<u8>),
    /// In what was written: whether it is shown, and whether the line ends with it.
    Content { shown: bool, ends: bool },
}

impl Decoder {
    pub(super) fn new(wanted: Wanted) -> Decoder {
        Decoder { wanted, state: State::Beginning(Vec::new()), goes_on: false }
    }

    /// Takes the log's next bytes, adds what is to be shown.
    pub(super) fn decode(&mut self, mut bytes: &[u8], shown_bytes: &mut Vec<u8>) {
        while let Some(first) = bytes.first() {
            match &mut self.state {
                State::Beginning(so_far) => {
                    so_far.push(*first);
                    bytes = &bytes[1..];
                    let is_whole = so_far.iter().filter(|b| **b == b' ').count() == 3;
                    if is_whole {
                        self.state = begun(&self.wanted, so_far, self.goes_on, shown_bytes);
                    } else if *first == b'\n' {
                        so_far.clear();
                    } else if so_far.len() > BEGINNING_MAX {
                        self.state = State::Content { shown: false, ends: true };
                    }
                }
                State::Content { shown, ends } => {
                    let end = bytes.iter().position(|b| *b == b'\n');
                    let (content, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
                    if *shown {
                        shown_bytes.extend_from_slice(content);
                    }
                    bytes = rest;
                    if end.is_some() {
                        if *shown && *ends {
                            shown_bytes.push(b'\n');
                        }
                        self.goes_on = *shown && !*ends;
                        self.state = State::Beginning(Vec::new());
                        bytes = &bytes[1..];
                    }
                }
            }
        }
    }
}

/// A line's beginning is whole: what becomes of what follows.
fn begun(wanted: &Wanted, beginning: &[u8], goes_on: bool, shown_bytes: &mut Vec<u8>) -> State {
    let mut words = beginning.split(|b| *b == b' ');
    let (time, stream, tags) = (words.next(), words.next(), words.next());
    let stream = match stream {
        Some(b"stdout") => Some(Stream::Stdout),
        Some(b"stderr") => Some(Stream::Stderr),
        _ => None,
    };
    // Tags are separated by colons; the first says whether the line ends here.
    let ends = tags.and_then(|t| t.split(|b| *b == b':').next()) != Some(b"P");
    let time = time.unwrap_or_default();
    let is_late_enough = wanted.since.is_none_or(|since| {
        let written = std::str::from_utf8(time).ok().and_then(Wall::parse_rfc3339);
        written.is_none_or(|written| written >= since)
    });
    let is_wanted = wanted.stream.is_none_or(|wanted| stream == Some(wanted));
    let shown = stream.is_some() && is_late_enough && is_wanted;
    if shown && wanted.timestamps && !goes_on {
        shown_bytes.extend_from_slice(time);
        shown_bytes.push(b' ');
    }
    State::Content { shown, ends }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-01-31T08:00:00.000000001Z stdout F one\n\
        2026-01-31T08:00:01.5Z stderr F two\n\
        not a line\n\
        2026-01-31T08:00:02Z stdout P thr\n\
        2026-01-31T08:00:02Z stdout F ee\n\
        2026-01-31T08:00:03Z stdout F \n\
        2026-01-31T08:00:04Z stdout F  f o u r\n";

    /// In pieces of every size, since they end anywhere.
    fn shown(wanted: Wanted) -> String {
        let whole = |size: usize| {
            let mut decoder = Decoder::new(wanted);
            let mut out = Vec::new();
            LOG.as_bytes().chunks(size).for_each(|piece| decoder.decode(piece, &mut out));
            String::from_utf8(out).unwrap()
        };
        let first = whole(1);
        for size in 2..LOG.len() {
            assert_eq!(whole(size), first, "in pieces of {size}");
        }
        first
    }

    #[test]
    fn what_was_written_is_shown_without_what_the_runtime_adds() {
        assert_eq!(shown(Wanted::default()), "one\ntwo\nthree\n\n f o u r\n");
    }

    #[test]
    fn only_what_is_wanted_is_shown() {
        let stream = Some(Stream::Stderr);
        assert_eq!(shown(Wanted { stream, ..Wanted::default() }), "two\n");
        let since = Wall::parse_rfc3339("2026-01-31T08:00:02Z");
        assert_eq!(shown(Wanted { since, ..Wanted::default() }), "three\n\n f o u r\n");
    }

    #[test]
    fn times_stand_before_whole_lines() {
        let since = Wall::parse_rfc3339("2026-01-31T08:00:01Z");
        assert_eq!(
            shown(Wanted { since, timestamps: true, stream: None }),
            "2026-01-31T08:00:01.5Z two\n2026-01-31T08:00:02Z three\n2026-01-31T08:00:03Z \n\
             2026-01-31T08:00:04Z  f o u r\n"
        );
    }

    #[test]
    fn rubbish_of_any_length_is_passed_over_in_little_memory() {
        let mut decoder = Decoder::new(Wanted::default());
        let mut out = Vec::new();
        for _ in 0..100 {
            decoder.decode(&[b'x'; 10_000], &mut out);
        }
        decoder.decode(b"\n2026-01-31T08:00:00Z stdout F well\n", &mut out);
        assert_eq!(out, b"well\n");
        let State::Beginning(kept) = decoder.state else { panic!("in a line") };
        assert!(kept.is_empty());
    }
}
