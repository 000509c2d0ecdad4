//! Bytes that nobody meant well.

use super::{heard, pod_streams, samples, sent};
use crate::wire::ask::{Question, Receiving};
use crate::wire::bundle::{Have, Taking};
use crate::wire::watch::{FromCell, Hearing, ToCell};
use crate::wire::{cell, keep, pod, schedule};
use base::Chance;
use bytes::Bytes;

/// A decoder of single frames, and whether it took the bytes.
type Decoder = (&'static str, Vec<Bytes>, fn(&Bytes) -> bool);

fn decoders() -> Vec<Decoder> {
    let mut batch = cell::Batch::default();
    samples::of_cells().iter().for_each(|m| assert!(batch.push(m).is_none()));
    vec![
        ("questions", samples::questions().iter().map(Question::encode).collect(), |b| Question::decode(b).is_ok()),
        ("to cells", samples::to_cell().iter().map(ToCell::encode).collect(), |b| ToCell::decode(b).is_ok()),
        ("from cells", samples::from_cell().iter().map(FromCell::encode).collect(), |b| FromCell::decode(b).is_ok()),
        ("keepers", samples::keeping().iter().map(keep::Message::encode).collect(), |b| {
            keep::Message::decode(b).is_ok()
        }),
        ("pods", samples::about_pods().iter().map(schedule::Message::encode).collect(), |b| {
            schedule::Message::decode(b).is_ok()
        }),
        ("cells", vec![batch.take().unwrap()], |b| {
            cell::messages(b).is_ok_and(|all| all.iter().all(Result::is_ok) && all.len() == 4)
        }),
        ("pods' questions", pod_streams::questions().iter().map(pod::Question::encode).collect(), |b| {
            pod::Question::decode(b).is_ok()
        }),
        ("pods' answers", pod_streams::answers().iter().map(pod::Answer::encode).collect(), |b| {
            pod::Answer::decode(b).is_ok()
        }),
        ("pods' frames", pod_streams::frames().iter().map(pod::Frame::encode).collect(), |b| {
            pod::Frame::decode(b).is_ok()
        }),
        ("have", vec![Have { number: samples::r(5), whole: true }.encode()], |b| Have::decode(b).is_ok()),
    ]
}

#[test]
fn what_is_cut_short_is_refused_at_every_length_and_so_is_what_goes_on() {
    for (what, frames, takes) in decoders() {
        for frame in frames {
            assert!(takes(&frame), "{what}");
            for cut in 0..frame.len() {
                assert!(!takes(&frame.slice(..cut)), "{what}: {} bytes cut at {cut}", frame.len());
            }
            let longer = [&frame[..], &[0]].concat();
            assert!(!takes(&longer.into()), "{what}: one byte more");
        }
    }
}

#[test]
fn no_bit_that_flips_and_no_length_that_lies_does_harm() {
    for (_, frames, takes) in decoders() {
        for frame in frames {
            for at in 0..frame.len() {
                let mut bytes = frame.to_vec();
                for bit in 0..8 {
                    bytes[at] ^= 1 << bit;
                    takes(&Bytes::copy_from_slice(&bytes));
                    bytes[at] ^= 1 << bit;
                }
                for lie in [u32::MAX, i32::MAX as u32, 1 << 24] {
                    let mut bytes = frame.to_vec();
                    let end = (at + 4).min(bytes.len());
                    bytes[at..end].copy_from_slice(&lie.to_le_bytes()[..end - at]);
                    takes(&bytes.into());
                }
            }
        }
    }
}

#[test]
fn no_chance_makes_a_decoder_panic() {
    let mut chance = Chance::from_u64(5);
    for (_, frames, takes) in decoders() {
        for _ in 0..20_000 {
            let mut bytes = vec![0; chance.below(200) as usize];
            chance.fill(&mut bytes);
            // Mostly far enough in to be of interest: small numbers, and the beginning of a good one.
            if chance.happens(800_000) {
                bytes.iter_mut().for_each(|b| *b &= 3);
            }
            let start = frames[chance.below(frames.len() as u64) as usize].clone();
            let keep = chance.below(start.len() as u64) as usize;
            takes(&[&start[..keep], &bytes].concat().into());
        }
    }
}

#[test]
fn an_answer_that_is_damaged_anywhere_is_refused_or_is_another_answer() {
    for outcome in samples::outcomes() {
        let frames = sent(outcome);
        assert!(heard(&frames[..frames.len() - 1]).is_ok_and(|h| h.is_none()), "whole before its last frame");
        for n in 0..frames.len() {
            for at in 0..frames[n].len() {
                let mut cut = frames.clone();
                cut[n] = frames[n].slice(..at);
                assert!(heard(&cut).is_err(), "frame {n} cut at {at}");
                for bit in [1, 4, 64, 128] {
                    let mut bad = frames.clone();
                    let mut bytes = frames[n].to_vec();
                    bytes[at] ^= bit;
                    bad[n] = bytes.into();
                    let _ = heard(&bad);
                }
            }
            if frames.len() > 1 {
                let mut without = frames.clone();
                without.remove(n);
                assert!(!matches!(heard(&without), Ok(Some(_))), "frame {n} is missing");
                let mut twice = frames.clone();
                twice.insert(n, frames[n].clone());
                assert!(heard(&twice).is_err(), "frame {n} came twice");
            }
        }
    }
}

#[test]
fn no_frames_in_any_order_do_harm() {
    let answers: Vec<Bytes> = samples::outcomes().into_iter().flat_map(sent).collect();
    let told: Vec<Bytes> = samples::from_cell().iter().map(FromCell::encode).collect();
    let mut chance = Chance::from_u64(9);
    for _ in 0..5_000 {
        let (mut receiving, mut hearing) = (Receiving::new(20_000), Hearing::new(20_000));
        let mut taking = Taking::new(std::sync::Arc::default()).at_most(20_000);
        for _ in 0..12 {
            let frame = chance.pick(&answers).unwrap().clone();
            let _ = receiving.frame(&frame);
            let _ = taking.frame(&frame);
            let _ = hearing.frame(chance.pick(&told).unwrap());
        }
    }
}
