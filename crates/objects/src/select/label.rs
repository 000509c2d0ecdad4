//! Label selectors: the string grammar, LabelSelector objects, and what they match.

use crate::Tree;
use crate::kinds::{FieldError, names};
use crate::status::{invalid, quote};
use std::fmt;

/// How a requirement compares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // they are Kubernetes' words
pub enum Operator {
    In,
    NotIn,
    /// `=`
    Equals,
    /// `==`
    DoubleEquals,
    NotEquals,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One requirement on one label.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// Comparison.
    pub operator: Operator,
    /// Values, sorted, each once.
    pub values: Vec<String>,
}

/// A label selector: all requirements must hold. The default selects everything.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LabelSelector {
    /// What must hold.
    pub requirements: Vec<Requirement>,
    /// Selects nothing at all: what an absent LabelSelector object means.
    pub nothing: bool,
}

impl Requirement {
    fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Requirement, FieldError> {
        values.sort();
        values.dedup();
        if let Some(e) = key_error("key", key) {
            return Err(e);
        }
        let list = || Tree::from(values.clone());
        let wrong = match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                Some("for 'in', 'notin' operators, values set can't be empty")
            }
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
                Some("exact-match compatibility requires one single value")
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                Some("values set must be empty for exists and does not exist")
            }
            Operator::GreaterThan | Operator::LessThan if values.len() != 1 => {
                Some("for 'Gt', 'Lt' operators, exactly one value is required")
            }
            _ => None,
        };
        if let Some(w) = wrong {
            return Err(invalid("values", &list(), w));
        }
        for (i, v) in values.iter().enumerate() {
            if matches!(operator, Operator::GreaterThan | Operator::LessThan) && v.parse::<i64>().is_err() {
                let w = "for 'Gt', 'Lt' operators, the value must be an integer";
                return Err(invalid(format!("values[{i}]"), &Tree::from(v.as_str()), w));
            }
            let errs = names::label_value(v);
            if !errs.is_empty() {
                return Err(invalid(format!("values[{i}][{key}]"), &Tree::from(v.as_str()), &errs.join("; ")));
            }
        }
        Ok(Requirement { key: key.into(), operator, values })
    }

    /// Whether a label's value, if there is one, satisfies it.
    pub fn holds(&self, value: Option<&str>) -> bool {
        let listed = |v: &str| self.values.iter().any(|x| x == v);
        let number = |s: &str| s.parse::<i64>().ok();
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => value.is_some_and(listed),
            Operator::NotIn | Operator::NotEquals => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                match (value.and_then(number), self.values.first().and_then(|v| number(v))) {
                    (Some(have), Some(want)) if self.operator == Operator::GreaterThan => have > want,
                    (Some(have), Some(want)) => have < want,
                    _ => false,
                }
            }
        }
    }
}

impl LabelSelector {
    /// Parses `a=b,c!=d,e in (f,g),!h,i`.
    ///
    /// # Errors
    /// The text of a 400, as the API server words it.
    pub fn parse(text: &str) -> Result<LabelSelector, String> {
        let mut p = Parser { tokens: lex(text), at: 0 };
        let mut requirements = Vec::new();
        loop {
            match p.peek_value() {
                (Token::Identifier | Token::Not, _) => {
                    let r = p.requirement().map_err(|e| format!("unable to parse requirement: {e}"))?;
                    requirements.push(r);
                    match p.next_value() {
                        (Token::End, _) => break,
                        (Token::Comma, _) => {
                            let (t, lit) = p.peek_value();
                            if t != Token::Identifier && t != Token::Not {
                                return Err(format!("found '{lit}', expected: identifier after ','"));
                            }
                        }
                        (_, lit) => return Err(format!("found '{lit}', expected: ',' or 'end of string'")),
                    }
                }
                (Token::End, _) => break,
                (_, lit) => return Err(format!("found '{lit}', expected: !, identifier, or 'end of string'")),
            }
        }
        requirements.sort_by(|a: &Requirement, b| a.key.cmp(&b.key));
        Ok(LabelSelector { requirements, nothing: false })
    }

    /// Reads a LabelSelector object (`matchLabels`, `matchExpressions`). Null selects nothing, `{}`
    /// everything.
    ///
    /// # Errors
    /// What is wrong with it, in Kubernetes' words.
    pub fn from_tree(tree: &Tree) -> Result<LabelSelector, String> {
        if tree.is_null() {
            return Ok(LabelSelector { requirements: Vec::new(), nothing: true });
        }
        let mut requirements = Vec::new();
        let text = |e: FieldError| format!("{}: {}", e.field, e.message);
        for (k, v) in tree["matchLabels"].as_object().into_iter().flatten() {
            let v = v.as_str().unwrap_or_default().to_owned();
            requirements.push(Requirement::new(k, Operator::Equals, vec![v]).map_err(text)?);
        }
        for e in tree["matchExpressions"].as_array().into_iter().flatten() {
            let operator = match e["operator"].as_str().unwrap_or_default() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(format!("{} is not a valid label selector operator", quote(other))),
            };
            let values =
                e["values"].as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect();
            requirements.push(Requirement::new(e["key"].as_str().unwrap_or_default(), operator, values).map_err(text)?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(LabelSelector { requirements, nothing: false })
    }

    /// A selector of plain `key: value` pairs (a ReplicationController's, a Service's). Without pairs it
    /// selects nothing.
    pub fn from_map(tree: &Tree) -> LabelSelector {
        let requirements: Vec<Requirement> = tree
            .as_object()
            .into_iter()
            .flatten()
            .map(|(k, v)| Requirement {
                key: k.clone(),
                operator: Operator::Equals,
                values: vec![v.as_str().unwrap_or_default().to_owned()],
            })
            .collect();
        LabelSelector { nothing: requirements.is_empty(), requirements }
    }

    /// Whether nothing is left out.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Whether labels satisfy it, as `of` gives them.
    pub fn matches<'a>(&self, of: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.holds(of(&r.key)))
    }

    /// Whether a `metadata.labels` tree satisfies it.
    pub fn matches_tree(&self, labels: &Tree) -> bool {
        self.matches(|k| labels.get(k).and_then(Tree::as_str))
    }
}

impl fmt::Display for LabelSelector {
    /// In the string grammar, as `status.selector` of a Scale prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            let one = r.values.first().map_or("", String::as_str);
            match r.operator {
                Operator::Exists => f.write_str(&r.key)?,
                Operator::DoesNotExist => write!(f, "!{}", r.key)?,
                Operator::Equals => write!(f, "{}={one}", r.key)?,
                Operator::DoubleEquals => write!(f, "{}=={one}", r.key)?,
                Operator::NotEquals => write!(f, "{}!={one}", r.key)?,
                Operator::GreaterThan => write!(f, "{}>{one}", r.key)?,
                Operator::LessThan => write!(f, "{}<{one}", r.key)?,
                Operator::In => write!(f, "{} in ({})", r.key, r.values.join(","))?,
                Operator::NotIn => write!(f, "{} notin ({})", r.key, r.values.join(","))?,
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Token {
    Identifier,
    In,
    NotIn,
    Equals,
    DoubleEquals,
    NotEquals,
    Not,
    Open,
    Close,
    Comma,
    Greater,
    Less,
    Error,
    End,
}

fn lex(text: &str) -> Vec<(Token, &str)> {
    let special = |c: char| matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<');
    let space = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
    let mut rest = text.trim_start_matches(space);
    let mut out = Vec::new();
    while let Some(c) = rest.chars().next() {
        let (token, len) = if special(c) {
            let two = rest.get(..2).unwrap_or_default();
            match (two, c) {
                ("==", _) => (Token::DoubleEquals, 2),
                ("!=", _) => (Token::NotEquals, 2),
                (_, '=') => (Token::Equals, 1),
                (_, '!') => (Token::Not, 1),
                (_, '(') => (Token::Open, 1),
                (_, ')') => (Token::Close, 1),
                (_, ',') => (Token::Comma, 1),
                (_, '>') => (Token::Greater, 1),
                (_, '<') => (Token::Less, 1),
                _ => (Token::Error, 1),
            }
        } else {
            let len = rest.find(|c| special(c) || space(c)).unwrap_or(rest.len());
            match rest.get(..len) {
                Some("in") => (Token::In, len),
                Some("notin") => (Token::NotIn, len),
                _ => (Token::Identifier, len),
            }
        };
        let (lit, tail) = rest.split_at(len);
        out.push((token, lit));
        rest = tail.trim_start_matches(space);
    }
    out.push((Token::End, ""));
    out
}

struct Parser<'a> {
    tokens: Vec<(Token, &'a str)>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> (Token, &'a str) {
        self.tokens.get(self.at).copied().unwrap_or((Token::End, ""))
    }

    /// The next token where `in` and `notin` are mere words.
    fn peek_value(&self) -> (Token, &'a str) {
        match self.peek() {
            (Token::In | Token::NotIn, lit) => (Token::Identifier, lit),
            t => t,
        }
    }

    fn next_value(&mut self) -> (Token, &'a str) {
        let t = self.peek_value();
        self.at += 1;
        t
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let text = |e: FieldError| format!("{}: {}", e.field, e.message);
        let (mut token, mut key) = self.next_value();
        let negated = token == Token::Not;
        if negated {
            (token, key) = self.next_value();
        }
        if token != Token::Identifier {
            return Err(format!("found '{key}', expected: identifier"));
        }
        if let Some(e) = key_error("<nil>", key) {
            return Err(text(e));
        }
        if negated {
            return Requirement::new(key, Operator::DoesNotExist, vec![]).map_err(text);
        }
        if matches!(self.peek_value().0, Token::End | Token::Comma) {
            return Requirement::new(key, Operator::Exists, vec![]).map_err(text);
        }
        let (token, lit) = self.peek();
        self.at += 1;
        let operator = match token {
            Token::In => Operator::In,
            Token::NotIn => Operator::NotIn,
            Token::Equals => Operator::Equals,
            Token::DoubleEquals => Operator::DoubleEquals,
            Token::NotEquals => Operator::NotEquals,
            Token::Greater => Operator::GreaterThan,
            Token::Less => Operator::LessThan,
            _ => return Err(format!("found '{lit}', expected: in, notin, =, ==, !=, gt, lt")),
        };
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => match self.peek_value() {
                (Token::End | Token::Comma, _) => vec![String::new()],
                (Token::Identifier, v) => {
                    self.at += 1;
                    vec![v.to_owned()]
                }
                (_, lit) => return Err(format!("found '{lit}', expected: identifier")),
            },
        };
        Requirement::new(key, operator, values).map_err(text)
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        let (token, lit) = self.next_value();
        if token != Token::Open {
            return Err(format!("found '{lit}' expected: '('"));
        }
        match self.peek_value() {
            (Token::Identifier | Token::Comma, _) => {}
            (Token::Close, _) => {
                self.at += 1;
                return Ok(vec![String::new()]);
            }
            (_, lit) => return Err(format!("found '{lit}', expected: ',', ')' or identifier")),
        }
        let mut out = Vec::new();
        loop {
            match self.next_value() {
                (Token::Identifier, v) => {
                    out.push(v.to_owned());
                    match self.peek_value() {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => break,
                        (_, lit) => return Err(format!("found '{lit}', expected: ',' or ')'")),
                    }
                }
                // Nothing before, after or between commas is the empty value.
                (Token::Comma, _) => {
                    if out.is_empty() {
                        out.push(String::new());
                    }
                    match self.peek_value().0 {
                        Token::Close => {
                            out.push(String::new());
                            break;
                        }
                        Token::Comma => {
                            self.at += 1;
                            out.push(String::new());
                            if self.peek_value().0 == Token::Close {
                                break;
                            }
                        }
                        _ => {}
                    }
                }
                (_, lit) => return Err(format!("found '{lit}', expected: ',', or identifier")),
            }
        }
        self.at += 1; // the closing parenthesis
        Ok(out)
    }
}

fn key_error(path: &str, key: &str) -> Option<FieldError> {
    let errs = names::qualified_name(key);
    (!errs.is_empty()).then(|| invalid(path, &Tree::from(key), &errs.join("; ")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn the_grammar_selects_as_kubernetes_does() {
        let labels = json!({"a": "b", "n": "5", "e": ""});
        for (text, want) in [
            ("", true),
            ("a=b", true),
            ("a==b,n=5", true),
            ("a = c", false),
            ("a!=c", true),
            ("zz!=c", true),
            ("a in (b, c)", true),
            ("a notin (b,c)", false),
            ("zz notin (b)", true),
            ("a", true),
            ("!a", false),
            ("!zz", true),
            ("n>4", true),
            ("n<4", false),
            ("a>1", false),
            ("e=", true),
            ("e in (,x)", true),
            ("e in ()", true),
            ("in=x", false),
            ("zz=", false),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap().matches_tree(&labels), want, "{text}");
        }
    }

    #[test]
    fn errors_are_the_api_servers() {
        for (text, want) in [
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("a,", "found '', expected: identifier after ','"),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            ("=a", "found '=', expected: !, identifier, or 'end of string'"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("!", "unable to parse requirement: found '', expected: identifier"),
            (
                "a>x",
                "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap_err(), want, "{text}");
        }
        let e = LabelSelector::parse("-a=b").unwrap_err();
        assert!(
            e.starts_with("unable to parse requirement: <nil>: Invalid value: \"-a\": name part must consist"),
            "{e}"
        );
        let e = LabelSelector::parse("a=-b").unwrap_err();
        assert!(
            e.starts_with("unable to parse requirement: values[0][a]: Invalid value: \"-b\": a valid label"),
            "{e}"
        );
    }

    #[test]
    fn selector_objects_become_the_same_requirements_and_print_in_the_grammar() {
        let s = LabelSelector::from_tree(&json!({"matchLabels": {"b": "1"}, "matchExpressions": [
            {"key": "a", "operator": "In", "values": ["y", "x"]}, {"key": "c", "operator": "DoesNotExist"}]}))
        .unwrap();
        assert_eq!(s.to_string(), "a in (x,y),b=1,!c");
        assert_eq!(LabelSelector::parse(&s.to_string()).unwrap(), s);
        assert!(!LabelSelector::from_tree(&Tree::Null).unwrap().matches_tree(&json!({})));
        assert!(LabelSelector::from_tree(&json!({})).unwrap().matches_tree(&json!({})));
        assert_eq!(
            LabelSelector::from_tree(&json!({"matchExpressions":[{"key":"a","operator":"Foo"}]})).unwrap_err(),
            "\"Foo\" is not a valid label selector operator"
        );
    }
}
