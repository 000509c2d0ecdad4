//! What each side of a stream of [`crate::wire::ASK`] does: open, frames, end; and what it comes to if it does not end
//! so.
//!
//! [`Calling`] asks, [`Answering`] answers. Both are pure: a driver opens the stream, moves the bytes and says what
//! became of it. One stream is one question. Who gives up gives the stream up, so that the other side need not go on:
//! an answer nobody waits for is not made into bytes, and what a question asked for may happen all the same.
//!
//! A question that was on its way and was not answered may have been executed: a write is [`Outcome::Unknown`] then, and
//! is asked again with its request id. A read that was not answered is asked again as [`Outcome::NotLeader`] is.

use super::ask::{ANSWER_BYTES_MAX, AnswerError, Asked, Heard, Only, QUESTION_BYTES_MAX, Question, Receiving, Sending};
use super::frame::{Assembler, FRAME_BYTES_MAX, FrameError, prefix};
use crate::cell::Outcome;
use base::{Now, Revision, Time};
use bytes::Bytes;
use core::time::Duration;
use objects::request::Verb;
use objects::status::Status;

/// How long a question may take to arrive once its stream is open.
pub const QUESTION_TIME: Duration = Duration::from_secs(10);

/// How long the one who asked may take nothing of an answer before it is given up.
pub const STALLED: Duration = Duration::from_secs(30);

/// An answerer works for a question no longer than this, whatever patience it claims.
pub const PATIENCE_MAX: Duration = Duration::from_secs(120);

/// A frame and what goes before it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Framed {
    /// Its length.
    pub prefix: [u8; 4],
    /// Itself.
    pub frame: Bytes,
}

impl Framed {
    /// A frame to be sent.
    ///
    /// # Errors
    /// It is longer than a frame may be.
    pub fn new(frame: Bytes) -> Result<Framed, FrameError> {
        Ok(Framed { prefix: prefix(frame.len())?, frame })
    }
}

/// The side that asks.
pub struct Calling {
    /// Until the stream is open.
    question: Option<Framed>,
    assembler: Assembler,
    receiving: Receiving,
    until: Time,
    /// It changes nothing: asked again, it does no harm.
    reads: bool,
    over: bool,
}

/// What the asking side is told.
#[derive(Clone, Copy, Debug)]
pub enum CallInput<'a> {
    /// [`Calling::next_deadline`] has come.
    Tick,
    /// The stream is open.
    Opened,
    /// It could not be opened: nothing was sent.
    NotOpened,
    /// These came.
    Bytes(&'a [u8]),
    /// The other side has sent all it will.
    Finished,
    /// The stream is gone, by the other side or with the way there.
    Broken,
    /// Nobody waits for the answer any more.
    Cancel,
}

/// What the asking side wants done, in this order.
pub enum CallEffect {
    /// Send this, and then nothing more on this stream.
    Ask(Framed),
    /// The answer, or what is known without one. Nothing comes after it, but [`CallEffect::Stop`].
    Heard(Box<Heard>),
    /// Give the stream up, in both directions.
    Stop,
}

impl Calling {
    /// A question that is about to be asked. What of its answer is kept is bounded by [`ANSWER_BYTES_MAX`].
    ///
    /// # Errors
    /// It is longer than anybody reads ([`QUESTION_BYTES_MAX`]): nothing was sent.
    pub fn new(question: &Question, now: Now) -> Result<Calling, FrameError> {
        let reads = match &question.asked {
            Asked::Request(request) => matches!(request.verb, Verb::Get | Verb::List | Verb::Watch),
            Asked::Collect { .. } => true,
        };
        let frame = question.encode();
        if frame.len() > QUESTION_BYTES_MAX {
            return Err(FrameError::TooLong { bytes: frame.len(), max: QUESTION_BYTES_MAX });
        }
        Ok(Calling {
            question: Some(Framed::new(frame)?),
            assembler: Assembler::new(FRAME_BYTES_MAX),
            receiving: Receiving::new(ANSWER_BYTES_MAX),
            until: now.mono + Duration::from_millis(question.patience_ms),
            reads,
            over: false,
        })
    }

    /// Takes one input and appends what is to be done.
    pub fn step(&mut self, now: Now, input: CallInput<'_>, fx: &mut Vec<CallEffect>) {
        if self.over {
            return;
        }
        match input {
            CallInput::Tick if now.mono >= self.until => {
                fx.push(CallEffect::Stop);
                self.end(self.lost(), fx);
            }
            CallInput::Tick => {}
            CallInput::Opened => fx.extend(self.question.take().map(CallEffect::Ask)),
            CallInput::NotOpened => self.end(Outcome::NotLeader, fx),
            CallInput::Bytes(bytes) => self.on_bytes(bytes, fx),
            CallInput::Finished | CallInput::Broken => self.end(self.lost(), fx),
            CallInput::Cancel => {
                self.over = true;
                fx.push(CallEffect::Stop);
            }
        }
    }

    /// When [`CallInput::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        (!self.over).then_some(self.until)
    }

    /// Asserts what must hold between steps.
    pub fn check(&self) {
        assert!(
            self.receiving.held() <= ANSWER_BYTES_MAX || self.over,
            "more of an answer is kept than the bound says"
        );
    }

    /// Whether the answer was told, or nobody waits for it.
    pub fn is_over(&self) -> bool {
        self.over
    }

    fn on_bytes(&mut self, bytes: &[u8], fx: &mut Vec<CallEffect>) {
        let mut frames = Vec::new();
        let pushed = self.assembler.push(bytes, &mut frames);
        for frame in &frames {
            match self.receiving.frame(frame) {
                Ok(None) => {}
                Ok(Some(heard)) => {
                    self.over = true;
                    return fx.push(CallEffect::Heard(Box::new(heard)));
                }
                Err(why) => {
                    fx.push(CallEffect::Stop);
                    return self.end(self.unreadable(&why), fx);
                }
            }
        }
        if pushed.is_err() {
            fx.push(CallEffect::Stop);
            self.end(self.lost(), fx);
        }
    }

    fn end(&mut self, outcome: Outcome, fx: &mut Vec<CallEffect>) {
        self.over = true;
        fx.push(CallEffect::Heard(Box::new(Heard { bundle: Revision::ZERO, redirect: None, outcome })));
    }

    /// What is known of a question that was not answered.
    fn lost(&self) -> Outcome {
        // A question that was never handed out cannot have been executed.
        if self.reads || self.question.is_some() { Outcome::NotLeader } else { Outcome::Unknown }
    }

    /// What is known of one whose answer cannot be read: asked again, a read would be answered alike.
    fn unreadable(&self, why: &AnswerError) -> Outcome {
        match why {
            AnswerError::TooLong { .. } if self.reads => {
                Outcome::Refused(Box::new(Status::too_large(&why.to_string())))
            }
            AnswerError::Decode(_) if self.reads => Outcome::Refused(Box::new(Status::internal(&why.to_string()))),
            _ => self.lost(),
        }
    }
}

/// The side that answers.
pub struct Answering {
    assembler: Assembler,
    stage: Stage,
    until: Time,
    /// What of a state was asked for.
    only: Option<Only>,
}

enum Stage {
    /// The question has not arrived.
    Reading,
    /// The cell has it.
    Deciding,
    /// Its answer is on its way.
    Telling(Box<Sending>),
    Over,
}

/// What the answering side is told.
pub enum AnswerInput<'a> {
    /// [`Answering::next_deadline`] has come.
    Tick,
    /// These came.
    Bytes(&'a [u8]),
    /// The other side has sent all it will.
    Finished,
    /// The stream is gone: whoever asked has given up, or is out of reach.
    Broken,
    /// The answer. It names this node's bundle.
    Answer(Box<Heard>),
    /// What was sent last was taken: there is room for more.
    Writable,
}

/// What the answering side wants done, in this order.
pub enum AnswerEffect {
    /// Somebody asks this. Answered by [`AnswerInput::Answer`].
    Asked(Box<Question>),
    /// Send this, and say [`AnswerInput::Writable`] when it was taken.
    Send(Framed),
    /// That was all: end the sending side.
    Finish,
    /// Give the stream up, in both directions.
    Stop,
    /// Nobody waits for the answer any more.
    Abandoned,
}

impl Answering {
    /// A stream that was just opened by another node.
    pub fn new(now: Now) -> Answering {
        let until = now.mono + QUESTION_TIME;
        Answering { assembler: Assembler::new(QUESTION_BYTES_MAX), stage: Stage::Reading, until, only: None }
    }

    /// Takes one input and appends what is to be done.
    pub fn step(&mut self, now: Now, input: AnswerInput<'_>, fx: &mut Vec<AnswerEffect>) {
        match input {
            AnswerInput::Tick if now.mono >= self.until => self.give_up(fx),
            AnswerInput::Tick => {}
            AnswerInput::Bytes(bytes) => self.on_bytes(now, bytes, fx),
            // Whoever asks says so once, and then nothing more.
            AnswerInput::Finished if matches!(self.stage, Stage::Reading) => self.give_up(fx),
            AnswerInput::Finished => {}
            AnswerInput::Broken => {
                if matches!(std::mem::replace(&mut self.stage, Stage::Over), Stage::Deciding) {
                    fx.push(AnswerEffect::Abandoned);
                }
            }
            AnswerInput::Answer(heard) => {
                if matches!(self.stage, Stage::Deciding) {
                    let Heard { bundle, redirect, outcome } = *heard;
                    self.stage =
                        Stage::Telling(Box::new(Sending::new(bundle, redirect, outcome).only(self.only.take())));
                    self.tell(now, fx);
                }
            }
            AnswerInput::Writable => self.tell(now, fx),
        }
    }

    /// When [`AnswerInput::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        (!self.is_over()).then_some(self.until)
    }

    /// Asserts what must hold between steps.
    pub fn check(&self) {
        assert!(self.assembler.held() <= QUESTION_BYTES_MAX, "more of a question is kept than the bound says");
    }

    /// Whether all is said.
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    fn on_bytes(&mut self, now: Now, bytes: &[u8], fx: &mut Vec<AnswerEffect>) {
        if self.is_over() {
            return;
        }
        let mut frames = Vec::new();
        let pushed = self.assembler.push(bytes, &mut frames);
        match (frames.as_slice(), pushed, &self.stage) {
            ([], Ok(()), Stage::Reading) => {}
            ([frame], Ok(()), Stage::Reading) if self.assembler.finish().is_ok() => match Question::decode(frame) {
                Ok(question) => {
                    if let Asked::Collect { only, .. } = &question.asked {
                        self.only = only.clone();
                    }
                    self.stage = Stage::Deciding;
                    self.until = now.mono + Duration::from_millis(question.patience_ms).min(PATIENCE_MAX);
                    fx.push(AnswerEffect::Asked(Box::new(question)));
                }
                Err(_) => self.give_up(fx),
            },
            // One stream is one question.
            _ => self.give_up(fx),
        }
    }

    fn tell(&mut self, now: Now, fx: &mut Vec<AnswerEffect>) {
        let Stage::Telling(sending) = &mut self.stage else { return };
        self.until = now.mono + STALLED;
        let Some(frame) = sending.next_frame() else {
            self.stage = Stage::Over;
            return fx.push(AnswerEffect::Finish);
        };
        match Framed::new(frame) {
            Ok(framed) => fx.push(AnswerEffect::Send(framed)),
            Err(_) => self.give_up(fx),
        }
    }

    fn give_up(&mut self, fx: &mut Vec<AnswerEffect>) {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Over => return,
            Stage::Deciding => fx.push(AnswerEffect::Abandoned),
            Stage::Reading | Stage::Telling(_) => {}
        }
        fx.push(AnswerEffect::Stop);
    }
}
