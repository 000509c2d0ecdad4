//! A document between bytes and a typed tree: keys in the order sent, duplicates kept, numbers as written.

use crate::Tree;
use std::borrow::Cow;

/// A value as read from JSON or YAML.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Node<'a> {
    Null,
    Bool(bool),
    /// As written: `1`, `1.50`, `1e3`.
    Number(Cow<'a, str>),
    Text(Cow<'a, str>),
    List(Vec<Node<'a>>),
    Map(Vec<(Cow<'a, str>, Node<'a>)>),
}

impl Node<'_> {
    /// What Go's errors call it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Node::Null => "null",
            Node::Bool(_) => "bool",
            Node::Number(_) => "number",
            Node::Text(_) => "string",
            Node::List(_) => "array",
            Node::Map(_) => "object",
        }
    }
}

/// A number as a tree holds it: integers stay integers, others become doubles. `None` for an integer
/// beyond 64 bits, which a double would change silently, and for what no double reaches.
pub(crate) fn number(text: &str) -> Option<serde_json::Number> {
    if text.contains(['.', 'e', 'E']) {
        return text.parse().ok().and_then(serde_json::Number::from_f64);
    }
    if let Ok(i) = text.parse::<i64>() {
        return Some(i.into());
    }
    text.parse::<u64>().ok().map(Into::into)
}

impl From<Tree> for Node<'static> {
    fn from(t: Tree) -> Self {
        match t {
            Tree::Null => Node::Null,
            Tree::Bool(b) => Node::Bool(b),
            Tree::Number(n) => Node::Number(n.to_string().into()),
            Tree::String(s) => Node::Text(s.into()),
            Tree::Array(a) => Node::List(a.into_iter().map(Node::from).collect()),
            Tree::Object(m) => Node::Map(m.into_iter().map(|(k, v)| (k.into(), v.into())).collect()),
        }
    }
}
