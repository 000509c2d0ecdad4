//! What a decision is: a refusal, an answer from what is committed, or a plan of writes whose revisions
//! are still to be minted.

use crate::Tree;
use crate::allotment::Wanted;
use crate::kinds::Kind;
use crate::read::{ListPlan, WatchPlan};
use crate::record::{Key, Meta, Stored, encode, set_revision};
use crate::status::Status;
use base::Revision;
use bytes::Bytes;
use std::sync::Arc;

/// The outcome of one visit.
pub enum Decision {
    /// Refused. A refusal rests on what was read: it is sent when the entries in flight it rests on are
    /// committed and leadership is confirmed.
    Refuse(Box<Status>),
    /// Answered without a write: a get, a dry run, a write that changed nothing. Sent under the same
    /// condition as a refusal.
    Answer(Answer),
    /// To be proposed as one entry.
    Commit(Plan),
    /// A list, authorised and checked: run it over a snapshot ([`ListPlan::run`]).
    List(ListPlan),
    /// A watch, authorised and checked: feed it the cell's history ([`WatchPlan::event`]).
    Watch(WatchPlan),
    /// A ServiceAccount token is to be signed; the answer is [`Token::answer`].
    Token(Token),
    /// An exec, attach, port-forward, log or proxy stream that the pod's node serves.
    Stream(Stream),
    /// Root is to be asked for this first; then it is decided again, with what root gave
    /// ([`crate::request::Options::given`]).
    Reserve(Box<Wanted>),
}

impl From<Status> for Decision {
    fn from(s: Status) -> Decision {
        Decision::Refuse(Box::new(s))
    }
}

/// What is sent to the client.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// HTTP status: 200, 201, 202.
    pub code: u16,
    /// Texts for `Warning: 299 - "…"` headers.
    pub warnings: Vec<String>,
    /// The body.
    pub payload: Payload,
}

/// The body of an answer, before negotiation turns it into JSON, YAML, protobuf, Table or metadata.
#[derive(Clone, PartialEq, Debug)]
pub enum Payload {
    /// A stored object's bytes, in the version asked for.
    Json(Bytes),
    /// Anything else: Scale, reviews, TokenRequest, lists of a deletecollection.
    Tree(Tree),
    /// A Status of success.
    Status(Box<Status>),
}

impl Payload {
    /// The body as a tree.
    pub fn tree(&self) -> Tree {
        match self {
            Payload::Json(b) => serde_json::from_slice(b).unwrap_or(Tree::Null),
            Payload::Tree(t) => t.clone(),
            Payload::Status(s) => s.to_tree(),
        }
    }
}

/// Writes to propose as one entry, and how to answer once they have revisions.
pub struct Plan {
    /// In the order in which they take revisions.
    pub writes: Vec<Write>,
    /// Texts for Warning headers.
    pub warnings: Vec<String>,
    pub(crate) code: u16,
    pub(crate) reply: Reply,
}

/// One write.
pub struct Write {
    /// Which record.
    pub key: Key,
    /// What the record must be when the entry applies: at this revision, or absent.
    pub expected: Option<Revision>,
    /// The kind it is stored as.
    pub kind: &'static Kind,
    /// The object as it becomes, without its revision; `None` removes the record.
    pub tree: Option<Tree>,
}

/// A write with its revision: what an entry holds.
#[derive(Clone, PartialEq, Debug)]
pub struct Record {
    /// Which record.
    pub key: Key,
    /// What the record must be when the entry applies: at this revision, or absent.
    pub expected: Option<Revision>,
    /// The number of this change.
    pub revision: Revision,
    /// Header and canonical bytes; `None` for a removal.
    pub object: Option<(Arc<Meta>, Bytes)>,
}

/// How a plan answers.
pub(crate) enum Reply {
    /// With the object of this write, turned by the function into what the client asked for.
    Written { write: usize, view: fn(&Kind, Tree) -> Tree, kind: &'static Kind, raw: bool },
    /// With this object, which the write removed, at the revision of its removal.
    Removed { tree: Tree, write: usize },
    /// With this, whatever the revisions.
    Fixed(Payload),
}

impl Plan {
    /// Encodes the writes with their revisions and makes the answer.
    ///
    /// `revisions` are as many as there are writes, strictly increasing; a shorter list is a broken
    /// invariant of the caller.
    pub fn finish(self, revisions: &[Revision]) -> (Vec<Record>, Answer) {
        assert_eq!(revisions.len(), self.writes.len(), "one revision for each write");
        let mut records = Vec::with_capacity(self.writes.len());
        for (write, &revision) in self.writes.into_iter().zip(revisions) {
            let object = write.tree.map(|tree| {
                let s = Stored::from_tree(write.kind, tree, revision);
                (s.meta, s.json)
            });
            records.push(Record { key: write.key, expected: write.expected, revision, object });
        }
        let payload = match self.reply {
            Reply::Written { write, view, kind, raw } => {
                match records.get(write).and_then(|r| r.object.as_ref()).map(|(_, json)| json.clone()) {
                    Some(json) if raw => Payload::Json(json),
                    Some(json) => Payload::Tree(view(kind, serde_json::from_slice(&json).unwrap_or(Tree::Null))),
                    None => Payload::Tree(Tree::Null),
                }
            }
            Reply::Removed { mut tree, write } => {
                set_revision(&mut tree, revisions.get(write).copied());
                Payload::Json(encode(&tree))
            }
            Reply::Fixed(p) => p,
        };
        (records, Answer { code: self.code, warnings: self.warnings, payload })
    }
}

/// A ServiceAccount token to sign (`serviceaccounts/token`).
#[derive(Clone, PartialEq, Debug)]
pub struct Token {
    /// Namespace of the ServiceAccount.
    pub namespace: String,
    /// Its name.
    pub service_account: String,
    /// Its uid.
    pub uid: String,
    /// `aud`.
    pub audiences: Vec<String>,
    /// Lifetime in seconds.
    pub seconds: i64,
    /// The object the token lives and dies with: its kind (`Pod`, `Secret`, `Node`), name and uid.
    pub bound: Option<(String, String, String)>,
    /// For a token bound to a pod: the node it runs on, name and uid.
    pub node: Option<(String, String)>,
    /// The TokenRequest, defaulted, without its status.
    pub request: Tree,
    /// Texts for Warning headers.
    pub warnings: Vec<String>,
}

impl Token {
    /// The answer that carries a signed token and when it expires (RFC 3339).
    pub fn answer(self, token: String, expires: String) -> Answer {
        let mut tree = self.request;
        if let Some(t) = tree.as_object_mut() {
            t.insert("status".into(), serde_json::json!({"token": token, "expirationTimestamp": expires}));
        }
        Answer { code: 201, warnings: self.warnings, payload: Payload::Tree(tree) }
    }
}

/// A stream that the pod's node serves.
#[derive(Clone, PartialEq, Debug)]
pub struct Stream {
    /// The pod (or service, or node).
    pub object: Stored,
    /// `exec`, `attach`, `portforward`, `log`, `proxy`.
    pub subresource: Arc<str>,
}
