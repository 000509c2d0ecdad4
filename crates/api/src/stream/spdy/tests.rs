#![allow(clippy::unwrap_used)]

use super::headers::{Deflater, Inflater, dictionary};
use super::*;
use proptest::prelude::*;

fn headers(pairs: &[(&str, &str)]) -> Headers {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// Hands over everything both sides have to say until they are silent.
fn exchange(a: &mut Session, b: &mut Session) {
    loop {
        let (from_a, from_b) = (std::mem::take(a.output()), std::mem::take(b.output()));
        if from_a.is_empty() && from_b.is_empty() {
            return;
        }
        b.receive(&from_a).unwrap();
        a.receive(&from_b).unwrap();
        a.check();
        b.check();
    }
}

fn pair(bounds: Bounds) -> (Session, Session) {
    (Session::new(Role::Client, bounds), Session::new(Role::Server, bounds))
}

fn all(s: &mut Session, id: StreamId) -> (Vec<u8>, StreamRead) {
    let (mut out, mut buf) = (Vec::new(), [0; 1000]);
    loop {
        match s.read(id, &mut buf) {
            StreamRead::Data(n) => out.extend_from_slice(&buf[..n]),
            end => return (out, end),
        }
    }
}

#[test]
fn the_dictionary_is_the_one_of_spdy_3() {
    let d = dictionary();
    assert_eq!(d.len(), 1423);
    // Every zlib stream made with it says its Adler-32, which is known from every capture of SPDY/3.
    let block = Deflater::new().block(&headers(&[("a", "b")]));
    assert_eq!(block.get(2..6).unwrap(), [0xe3, 0xc6, 0xa7, 0xc2]);
}

#[test]
fn frames_are_the_bytes_of_the_specification() {
    let mut s = Session::new(Role::Client, Bounds::default());
    let id = s.open(headers(&[("streamtype", "stdin")]), false).unwrap();
    let out = std::mem::take(s.output());
    // Control, version 3, SYN_STREAM, no flags; length; stream 1, associated to none, priority 0.
    assert_eq!(out.get(..5).unwrap(), [0x80, 3, 0, 1, 0]);
    assert_eq!(usize::from(out[7]), out.len() - 8);
    assert_eq!(out.get(8..18).unwrap(), [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(s.write(id, b"hi"), Some(2));
    s.finish(id);
    s.ping(0);
    s.go_away();
    assert_eq!(
        s.output().as_slice(),
        [
            &[0, 0, 0, 1, 0, 0, 0, 2, b'h', b'i'][..],
            &[0, 0, 0, 1, 1, 0, 0, 0],
            &[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1],
            &[0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat()
    );
}

#[test]
fn a_header_block_as_another_implementation_writes_it_is_read() {
    // Written by Python's zlib with the dictionary of the specification and a sync flush.
    let packed = include_bytes!("golden/headers.zlib");
    let mut i = Inflater::new();
    assert_eq!(
        i.block(packed, 1 << 16).unwrap(),
        headers(&[("streamtype", "error"), ("port", "8080"), ("requestid", "0")])
    );
}

#[test]
fn streams_carry_bytes_both_ways_and_end_one_way_at_a_time() {
    let (mut c, mut s) = pair(Bounds::default());
    let a = c.open(headers(&[("streamtype", "stdin")]), false).unwrap();
    let b = c.open(headers(&[("streamtype", "stdout")]), true).unwrap();
    assert_eq!(c.write(a, b"hello"), Some(5));
    c.finish(a);
    exchange(&mut c, &mut s);
    let (x, y) = (s.opened().unwrap(), s.opened().unwrap());
    assert_eq!((x, y, s.opened()), (a, b, None));
    assert_eq!(s.headers(y).unwrap(), &headers(&[("streamtype", "stdout")]));
    s.reply(x, &Headers::new());
    s.reply(y, &Headers::new());
    assert_eq!(all(&mut s, x), (b"hello".to_vec(), StreamRead::End));
    assert_eq!(all(&mut s, y).1, StreamRead::End);
    assert_eq!(s.write(y, b"world"), Some(5));
    exchange(&mut c, &mut s);
    assert!(c.is_replied(a) && c.is_replied(b));
    assert_eq!(all(&mut c, b), (b"world".to_vec(), StreamRead::Pending));
    s.finish(y);
    exchange(&mut c, &mut s);
    assert_eq!(all(&mut c, b).1, StreamRead::End);
    assert_eq!(c.write(a, b"more"), None);
}

#[test]
fn a_stream_let_go_is_broken_off_and_the_others_live() {
    let (mut c, mut s) = pair(Bounds::default());
    let a = c.open(Headers::new(), false).unwrap();
    let b = c.open(Headers::new(), false).unwrap();
    exchange(&mut c, &mut s);
    s.release(a);
    exchange(&mut c, &mut s);
    assert_eq!(all(&mut c, a).1, StreamRead::Reset);
    assert_eq!(c.write(a, b"x"), None);
    assert_eq!(c.write(b, b"x"), Some(1));
    exchange(&mut c, &mut s);
    assert_eq!(all(&mut s, b).0, b"x");
}

#[test]
fn a_peer_cannot_open_streams_without_end() {
    let (mut c, mut s) = pair(Bounds { streams: 3, ..Bounds::default() });
    let ids: Vec<StreamId> = (0..5).map(|_| c.open(Headers::new(), false).unwrap()).collect();
    exchange(&mut c, &mut s);
    let states: Vec<StreamRead> = ids.iter().map(|id| all(&mut c, *id).1).collect();
    assert_eq!(
        states,
        [StreamRead::Pending, StreamRead::Pending, StreamRead::Pending, StreamRead::Reset, StreamRead::Reset]
    );
}

#[test]
fn a_header_block_that_unpacks_to_too_much_ends_the_connection() {
    let mut c = Session::new(Role::Client, Bounds::default());
    let mut s = Session::new(Role::Server, Bounds::default());
    c.open(headers(&[("x", &"a".repeat(200_000))]), false).unwrap();
    assert!(c.output().len() < 2000);
    assert_eq!(s.receive(&std::mem::take(c.output())), Err(Violation::HeadersTooLarge));
    assert!(s.is_over() && !s.output().is_empty());
    assert_eq!(s.receive(b"x"), Err(Violation::Over));
}

#[test]
fn what_no_peer_may_do_ends_the_connection() {
    let syn = |id: u32| {
        let mut c = Session::new(Role::Client, Bounds::default());
        c.open(Headers::new(), false).unwrap();
        let mut out = std::mem::take(c.output());
        out[8..12].copy_from_slice(&id.to_be_bytes());
        out
    };
    for (bytes, want) in [
        (vec![0x80, 2, 0, 1, 0, 0, 0, 0], Violation::Version(2)),
        (vec![0x80, 3, 0, 3, 0, 0, 0, 4, 0, 0, 0, 1], Violation::ShortFrame),
        (vec![0x80, 3, 0, 4, 0, 0xff, 0, 0], Violation::LongFrame),
        (vec![0x80, 3, 0, 1, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2], Violation::HeaderBlock),
        (syn(2), Violation::StreamId),
        (syn(0), Violation::StreamId),
    ] {
        let mut s = Session::new(Role::Server, Bounds::default());
        assert_eq!(s.receive(&bytes), Err(want), "{bytes:?}");
    }
}

#[test]
fn no_more_input_is_wanted_while_a_stream_is_full() {
    let (mut c, mut s) = pair(Bounds { stream_bytes: 1000, ..Bounds::default() });
    let a = c.open(Headers::new(), false).unwrap();
    c.write(a, &[7; 1000]).unwrap();
    exchange(&mut c, &mut s);
    assert!(!s.wants_input());
    let mut buf = [0; 1];
    assert_eq!(s.read(a, &mut buf), StreamRead::Data(1));
    assert!(s.wants_input());
}

#[test]
fn with_windows_a_writer_waits_for_its_reader() {
    let (mut c, mut s) = pair(Bounds { windows: true, ..Bounds::default() });
    let a = c.open(Headers::new(), false).unwrap();
    assert_eq!(c.write(a, &[1; 100_000]), Some(65_536));
    exchange(&mut c, &mut s);
    assert_eq!(c.write(a, b"x"), Some(0));
    assert_eq!(all(&mut s, a).0.len(), 65_536);
    exchange(&mut c, &mut s);
    assert!(c.write(a, &[1; 100_000]).unwrap() > 30_000);
    exchange(&mut c, &mut s);
    // A peer that does not keep to it is not heard any more.
    let mut rude = Session::new(Role::Client, Bounds::default());
    let id = rude.open(Headers::new(), false).unwrap();
    rude.write(id, &[0; 70_000]).unwrap();
    let mut s = Session::new(Role::Server, Bounds { windows: true, ..Bounds::default() });
    assert_eq!(s.receive(&std::mem::take(rude.output())), Err(Violation::Window));
}

#[test]
fn a_peers_ping_comes_back_and_ours_does_not_bounce() {
    let (mut c, mut s) = pair(Bounds::default());
    c.ping(5);
    s.receive(&std::mem::take(c.output())).unwrap();
    let answer = std::mem::take(s.output());
    assert_eq!(answer, [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 11]);
    c.receive(&answer).unwrap();
    assert!(c.output().is_empty());
}

#[derive(Clone, Debug)]
enum Act {
    Open(bool, Vec<(String, String)>),
    Write(bool, usize, Vec<u8>),
    Finish(bool, usize),
    Release(bool, usize),
    Exchange(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let header = ("[a-z]{1,8}", "[ -~]{0,20}");
    let act = prop_oneof![
        (any::<bool>(), prop::collection::vec(header, 0..4)).prop_map(|(s, h)| Act::Open(s, h)),
        (any::<bool>(), 0usize..6, prop::collection::vec(any::<u8>(), 0..400))
            .prop_map(|(s, i, d)| Act::Write(s, i, d)),
        (any::<bool>(), 0usize..6).prop_map(|(s, i)| Act::Finish(s, i)),
        (any::<bool>(), 0usize..6).prop_map(|(s, i)| Act::Release(s, i)),
        (1usize..200).prop_map(Act::Exchange),
    ];
    prop::collection::vec(act, 1..60)
}

proptest! {
    #[test]
    fn any_bytes_are_taken_or_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..500), windows in any::<bool>()) {
        let mut s = Session::new(Role::Server, Bounds { windows, ..Bounds::default() });
        // As frames of known kinds, so that more than the first byte is looked at.
        for chunk in bytes.chunks(40) {
            let mut frame = vec![0x80, 3, 0, chunk[0] % 10, chunk[chunk.len() / 2] % 4, 0, 0, u8::try_from(chunk.len()).unwrap()];
            frame.extend_from_slice(chunk);
            if s.receive(&frame).is_err() {
                break;
            }
            s.check();
        }
        let mut s = Session::new(Role::Client, Bounds::default());
        let _ = s.receive(&bytes);
        s.check();
    }

    #[test]
    fn what_one_side_writes_the_other_reads_however_the_bytes_are_cut(acts in acts(), windows in any::<bool>()) {
        let (mut c, mut s) = pair(Bounds { windows, ..Bounds::default() });
        let mut streams: Vec<StreamId> = Vec::new();
        // What was written to (side, stream), and what was read of it.
        let mut wrote: std::collections::BTreeMap<(bool, StreamId), Vec<u8>> = Default::default();
        let mut read: std::collections::BTreeMap<(bool, StreamId), Vec<u8>> = Default::default();
        let mut released = std::collections::BTreeSet::new();
        for act in acts.into_iter().chain([Act::Exchange(1 << 20)]) {
            match act {
                Act::Open(server, h) => streams.extend(if server { &mut s } else { &mut c }.open(h, false)),
                Act::Write(server, i, d) => if let Some(id) = streams.get(i) {
                    let side = if server { &mut s } else { &mut c };
                    if let Some(n) = side.write(*id, &d) {
                        wrote.entry((server, *id)).or_default().extend_from_slice(&d[..n]);
                    }
                },
                Act::Finish(server, i) => if let Some(id) = streams.get(i) {
                    if server { &mut s } else { &mut c }.finish(*id);
                },
                Act::Release(server, i) => if let Some(id) = streams.get(i) {
                    if server { &mut s } else { &mut c }.release(*id);
                    released.insert(*id);
                },
                Act::Exchange(cut) => for _ in 0..3 {
                    let (from_c, from_s) = (std::mem::take(c.output()), std::mem::take(s.output()));
                    for piece in from_c.chunks(cut) { s.receive(piece).unwrap(); s.check(); }
                    for piece in from_s.chunks(cut) { c.receive(piece).unwrap(); c.check(); }
                    for id in &streams {
                        read.entry((false, *id)).or_default().extend(all(&mut s, *id).0);
                        read.entry((true, *id)).or_default().extend(all(&mut c, *id).0);
                    }
                },
            }
        }
        for ((server, id), data) in wrote {
            if !released.contains(&id) {
                prop_assert_eq!(&read[&(server, id)], &data, "{:?} of {:?}", server, id);
            }
        }
    }
}
