//! What a gateway and a pod's node say to each other: as it was, as it always was, and within its bounds.

use super::{assert_all_sampled, assert_golden, samples};
use crate::wire::codec::{Wire, encode};
use crate::wire::frame::PIECE_BYTES;
use crate::wire::pod::{Answer, Ask, Channel, DATA_BYTES_MAX, FRAME_BYTES_MAX, Frame, Log, Question, Remote};
use bytes::Bytes;
use objects::Tree;
use serde_json::json;

pub(super) fn questions() -> Vec<Question> {
    let asks = [
        Ask::Remote(Remote {
            attach: true,
            container: "main".into(),
            command: vec!["sh".into(), "-c".into(), "ä".into()],
            stdin: true,
            stdout: false,
            stderr: true,
            tty: true,
        }),
        Ask::Ports,
        Ask::Port(8080),
        Ask::Log(Log {
            container: "main".into(),
            follow: true,
            previous: false,
            since_seconds: Some(-5),
            since_time: "2026-01-02T03:04:05Z".into(),
            timestamps: true,
            tail_lines: Some(7),
            limit_bytes: None,
            stream: "Stdout".into(),
        }),
    ];
    let question = |ask| Question { namespace: "shop".into(), name: "web-1".into(), uid: "u-1".into(), ask };
    asks.into_iter().map(question).collect()
}

pub(super) fn answers() -> Vec<Answer> {
    let refused = samples::statuses().into_iter().take(2).map(|status| Answer::Refused(Box::new(status)));
    [Answer::Accepted].into_iter().chain(refused).collect()
}

pub(super) fn frames() -> Vec<Frame> {
    let data = |channel| Frame::Data { channel, bytes: Bytes::from_static(b"bytes") };
    vec![
        data(Channel::Input),
        data(Channel::Output),
        data(Channel::Error),
        Frame::End { channel: Channel::Output },
        Frame::Resize { width: 80, height: 24 },
        Frame::Outcome {
            status: json!({"status": "Failure", "details": {"causes": [{"message": "42"}]}, "code": 500}),
        },
        Frame::Broken { why: "the log is gone".into() },
        Frame::Beat,
    ]
}

#[test]
fn what_is_said_about_a_pods_stream_reads_back_and_has_the_bytes_it_always_had() {
    for question in questions() {
        assert_eq!(Question::decode(&question.encode()).unwrap(), question);
    }
    for answer in answers() {
        assert_eq!(Answer::decode(&answer.encode()).unwrap(), answer);
    }
    for frame in frames() {
        assert_eq!(Frame::decode(&frame.encode()).unwrap(), frame);
    }
    let asked: Vec<Bytes> = questions().iter().map(Question::encode).collect();
    let answered: Vec<Bytes> = answers().iter().map(Answer::encode).collect();
    let said: Vec<Bytes> = frames().iter().map(Frame::encode).collect();
    let asks: Vec<Bytes> = questions().iter().map(|q| encode(&q.ask)).collect();
    assert_all_sampled::<Ask>(&asks, 1);
    assert_all_sampled::<Answer>(&answered, 1);
    assert_all_sampled::<Frame>(&said, 1);
    assert_eq!(Channel::VARIANTS, [1, 2, 3]);
    let all = asked.into_iter().chain(answered).chain(said);
    assert_golden(all, include_str!("../../../tests/golden/wire/pod-streams-v1.hex"));
}

#[test]
fn the_most_bytes_of_a_channel_and_the_longest_outcome_fit_into_a_frame() {
    let data = Frame::Data { channel: Channel::Output, bytes: vec![7; DATA_BYTES_MAX].into() }.encode();
    assert!(data.len() < FRAME_BYTES_MAX && data.len() - DATA_BYTES_MAX < 16, "{}", data.len());
    // 64 KiB of JSON that takes more here than any other of that length: three bytes that are read as a fraction.
    let dense: Tree = serde_json::from_str(&format!("[{}-0]", "-0,".repeat((64 << 10) / 3 - 2))).unwrap();
    let frame = Frame::Outcome { status: dense }.encode();
    assert!((150_000..FRAME_BYTES_MAX).contains(&frame.len()), "{}", frame.len());
    const { assert!(FRAME_BYTES_MAX <= PIECE_BYTES) };
}
