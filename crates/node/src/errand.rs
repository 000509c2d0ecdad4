//! Requests that the machines of this node make of cells in their own name: a controller that creates a
//! pod, a node that says how its pods are.
//!
//! A machine says what it wants as an effect and goes on; the answer comes back as an input with the same
//! id. On the way an errand is a request like any user's: it finds the cell's leader, is authorised as
//! whoever it is made for, decided, committed. One that is not answered (its node or its cell restarts)
//! is made again by whoever still wants it.

use base::{RequestId, Uid, Wall};
use objects::Tree;
use objects::kinds::Kind;
use objects::request::{Body, Options, Request, User, Verb};
use objects::status::Status;
use std::sync::Arc;

/// Names an errand, at the machine that sent it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ErrandId(pub u64);

/// A request still without what only the one who sends it knows: its id, its time and its chance.
#[derive(Clone, Debug)]
pub struct Errand {
    /// In whose name.
    pub user: Arc<User>,
    /// What for.
    pub verb: Verb,
    /// Of what kind.
    pub kind: &'static Kind,
    /// In which namespace, if the kind has one.
    pub namespace: Option<Arc<str>>,
    /// Which object; `None` for a create or a list.
    pub name: Option<Arc<str>>,
    /// Empty for the object itself.
    pub subresource: &'static str,
    /// Query parameters.
    pub options: Options,
    /// Body.
    pub body: Body,
}

/// What an errand came to: the object it was about, or the refusal.
pub type Answered = Result<Tree, Box<Status>>;

impl Errand {
    /// The request, sent now.
    pub fn request(&self, id: RequestId, sent: Wall, uid: Uid, suffix: u64) -> Request {
        Request {
            id,
            sent,
            user: self.user.clone(),
            verb: self.verb,
            kind: self.kind,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            subresource: self.subresource.into(),
            options: self.options.clone(),
            body: self.body.clone(),
            uid,
            suffix,
        }
    }
}

/// A ServiceAccount of the mesh's own controllers, in `kube-system`.
pub fn controller(name: &str) -> Arc<User> {
    Arc::new(User {
        name: format!("system:serviceaccount:kube-system:{name}"),
        uid: String::new(),
        groups: [
            "system:serviceaccounts".to_owned(),
            "system:serviceaccounts:kube-system".to_owned(),
            "system:authenticated".to_owned(),
        ]
        .into(),
        extra: Vec::new(),
    })
}

/// Who a node is to the cells: what its SVID says, in Kubernetes' words.
pub fn node(name: &str) -> Arc<User> {
    Arc::new(User {
        name: format!("system:node:{name}"),
        uid: String::new(),
        groups: ["system:nodes".to_owned(), "system:authenticated".to_owned()].into(),
        extra: Vec::new(),
    })
}

/// The scheduler beside the leader of a cell.
pub fn scheduler() -> Arc<User> {
    Arc::new(User {
        name: "system:kube-scheduler".into(),
        uid: String::new(),
        groups: vec!["system:authenticated".into()],
        extra: Vec::new(),
    })
}
