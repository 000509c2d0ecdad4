//! JSON: read as Go's `encoding/json` reads it, its words for what is wrong included, and written
//! canonically.
//!
//! The canonical form of a tree is its compact JSON with keys in byte order: equal trees, equal bytes.

use super::node::{Node, number};
use super::typed::{Typed, Unknown};
use super::{Decoded, MAX_DEPTH};
use crate::schema::{Schema, TypeId};
use crate::{Map, Tree};
use std::borrow::Cow;

/// Why bytes are no JSON, or no JSON of the type wanted; the text is worded as Go words it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// It does not parse.
    #[error("{0}")]
    Syntax(String),
    /// It parses, but a value has the wrong type or form.
    #[error("{0}")]
    Type(String),
}

/// Reads JSON of any type. Of a key given twice the last counts.
///
/// # Errors
/// [`Error::Syntax`] if it does not parse or nests deeper than [`MAX_DEPTH`]; [`Error::Type`] for a
/// number that neither 64 bits nor a double hold.
pub fn parse(bytes: &[u8]) -> Result<Tree, Error> {
    untyped(node(bytes).map_err(Error::Syntax)?).map_err(Error::Type)
}

/// Reads JSON of a type: unknown and duplicate fields are noted, null is what Go makes of it, texts with
/// a canonical form (quantities, times, base64) get it, zero values are dropped or written as the
/// schema says.
///
/// # Errors
/// As [`parse`], and [`Error::Type`] if a value is not what the schema says.
pub fn decode(schema: &Schema, ty: TypeId, bytes: &[u8]) -> Result<Decoded, Error> {
    super::typed::decode(schema, ty, node(bytes).map_err(Error::Syntax)?).map_err(Error::Type)
}

/// The same for a tree at hand, such as a patch's result: checks its types and brings it into canonical
/// form. Fields the schema does not know are noted, and kept or dropped as `unknown` says.
///
/// # Errors
/// As [`decode`], but never [`Error::Syntax`].
pub fn conform(schema: &Schema, ty: TypeId, tree: Tree, unknown: Unknown) -> Result<Decoded, Error> {
    Typed::new(schema, unknown).root(ty, tree.into()).map_err(Error::Type)
}

/// The canonical bytes of a tree.
pub fn encode(tree: &Tree) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    write(tree, &mut out);
    out
}

/// Appends the canonical bytes of a tree.
pub fn write(tree: &Tree, out: &mut Vec<u8>) {
    // A tree has string keys only and a vector takes every write, so nothing here can fail.
    let written = serde_json::to_writer(out, tree);
    debug_assert!(written.is_ok());
}

/// A document without a type as a tree.
pub(crate) fn untyped(node: Node<'_>) -> Result<Tree, String> {
    Ok(match node {
        Node::Null => Tree::Null,
        Node::Bool(b) => Tree::Bool(b),
        Node::Number(n) => match number(&n) {
            Some(n) => Tree::Number(n),
            None => return Err(format!("json: cannot unmarshal number {n} into Go value of type float64")),
        },
        Node::Text(s) => Tree::String(s.into_owned()),
        Node::List(items) => Tree::Array(items.into_iter().map(untyped).collect::<Result<_, _>>()?),
        Node::Map(entries) => {
            let mut m = Map::new();
            for (k, v) in entries {
                m.insert(k.into_owned(), untyped(v)?);
            }
            Tree::Object(m)
        }
    })
}

/// Parses one document. The error is Go's text.
pub(crate) fn node(bytes: &[u8]) -> Result<Node<'_>, String> {
    let mut p = Parser { bytes, at: 0, depth: 0 };
    let v = p.value()?;
    p.space();
    match p.peek() {
        None => Ok(v),
        Some(_) => Err(p.bad("after top-level value")),
    }
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Go's complaint about the present byte. At the end it is the missing rest that is wrong.
    fn bad(&self, context: &str) -> String {
        match self.peek() {
            Some(c) => format!("invalid character {} {context}", quoted(c)),
            None => String::from("unexpected end of JSON input"),
        }
    }

    /// Inside a literal Go looks at the end as at a space.
    fn bad_inside(&self, context: &str) -> String {
        format!("invalid character {} {context}", quoted(self.peek().unwrap_or(b' ')))
    }

    fn value(&mut self) -> Result<Node<'a>, String> {
        self.space();
        match self.peek() {
            Some(b'{') => self.nested(Self::map),
            Some(b'[') => self.nested(Self::list),
            Some(b'"') => Ok(Node::Text(self.text()?)),
            Some(b't') => self.literal("true", Node::Bool(true)),
            Some(b'f') => self.literal("false", Node::Bool(false)),
            Some(b'n') => self.literal("null", Node::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(self.bad("looking for beginning of value")),
        }
    }

    fn nested(&mut self, inner: fn(&mut Self) -> Result<Node<'a>, String>) -> Result<Node<'a>, String> {
        if self.depth == MAX_DEPTH {
            return Err(self.bad(&format!("exceeded max depth of {MAX_DEPTH}")));
        }
        self.depth += 1;
        self.at += 1;
        let v = inner(self)?;
        self.depth -= 1;
        Ok(v)
    }

    fn map(&mut self) -> Result<Node<'a>, String> {
        let mut entries = Vec::new();
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Node::Map(entries));
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.bad("looking for beginning of object key string"));
            }
            let key = self.text()?;
            self.space();
            if self.peek() != Some(b':') {
                return Err(self.bad("after object key"));
            }
            self.at += 1;
            entries.push((key, self.value()?));
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Node::Map(entries));
                }
                _ => return Err(self.bad("after object key:value pair")),
            }
        }
    }

    fn list(&mut self) -> Result<Node<'a>, String> {
        let mut items = Vec::new();
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Node::List(items));
        }
        loop {
            items.push(self.value()?);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Node::List(items));
                }
                _ => return Err(self.bad("after array element")),
            }
        }
    }

    fn literal(&mut self, word: &str, value: Node<'a>) -> Result<Node<'a>, String> {
        for expected in word.chars() {
            if self.peek() != Some(expected as u8) {
                return Err(self.bad_inside(&format!("in literal {word} (expecting '{expected}')")));
            }
            self.at += 1;
        }
        Ok(value)
    }

    fn number(&mut self) -> Result<Node<'a>, String> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.bad_inside("in numeric literal")),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits("after decimal point in numeric literal")?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits("in exponent of numeric literal")?;
        }
        Ok(Node::Number(String::from_utf8_lossy(&self.bytes[start..self.at])))
    }

    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    fn some_digits(&mut self, context: &str) -> Result<(), String> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.bad_inside(context));
        }
        self.digits();
        Ok(())
    }

    /// A string, borrowed if it has no escapes. Bytes that are not UTF-8 become U+FFFD, as in Go.
    fn text(&mut self) -> Result<Cow<'a, str>, String> {
        self.at += 1;
        let mut start = self.at;
        let mut out: Option<String> = None;
        loop {
            match self.peek() {
                Some(b'"') => {
                    let last = String::from_utf8_lossy(&self.bytes[start..self.at]);
                    self.at += 1;
                    return Ok(match out {
                        None => last,
                        Some(mut s) => {
                            s.push_str(&last);
                            s.into()
                        }
                    });
                }
                Some(b'\\') => {
                    let s = out.get_or_insert_default();
                    s.push_str(&String::from_utf8_lossy(&self.bytes[start..self.at]));
                    self.at += 1;
                    let c = self.escape()?;
                    out.get_or_insert_default().push(c);
                    start = self.at;
                }
                Some(0..0x20) => return Err(self.bad("in string literal")),
                Some(_) => self.at += 1,
                None => return Err(self.bad("in string literal")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        let c = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode();
            }
            _ => return Err(self.bad_inside("in string escape code")),
        };
        self.at += 1;
        Ok(c)
    }

    /// After `\u`: a code point, or a surrogate pair; half a pair is U+FFFD.
    fn unicode(&mut self) -> Result<char, String> {
        let first = self.hex4()?;
        if (0xd800..0xdc00).contains(&first) && self.bytes[self.at..].starts_with(b"\\u") {
            let back = self.at;
            self.at += 2;
            let second = self.hex4()?;
            if (0xdc00..0xe000).contains(&second) {
                let c = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                return Ok(char::from_u32(c).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = back;
        }
        Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex4(&mut self) -> Result<u32, String> {
        let mut n = 0;
        for _ in 0..4 {
            let Some(d) = self.peek().and_then(|c| (c as char).to_digit(16)) else {
                return Err(self.bad_inside("in \\u hexadecimal character escape"));
            };
            n = n * 16 + d;
            self.at += 1;
        }
        Ok(n)
    }
}

/// A byte as Go's errors quote it.
fn quoted(c: u8) -> String {
    match c {
        b'\'' => String::from("'\\''"),
        b'"' => String::from("'\"'"),
        b'\\' => String::from("'\\\\'"),
        b'\n' => String::from("'\\n'"),
        b'\r' => String::from("'\\r'"),
        b'\t' => String::from("'\\t'"),
        0x07 => String::from("'\\a'"),
        0x08 => String::from("'\\b'"),
        0x0b => String::from("'\\v'"),
        0x0c => String::from("'\\f'"),
        0..0x20 | 0x7f => format!("'\\x{c:02x}'"),
        0x80..0xa0 | 0xad => format!("'\\u{c:04x}'"),
        _ => format!("'{}'", c as char),
    }
}
