//! Field selectors: `a=b`, `a==b`, `a!=b`, joined by commas; `\`, `,` and `=` in values are escaped by `\`.

use crate::kinds::Kind;
use crate::status::quote;
use crate::views;

/// A parsed field selector. All its terms must hold; none means everything.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FieldSelector {
    /// Field, value, and whether equality (else inequality) is asked.
    pub terms: Vec<(String, String, bool)>,
}

impl FieldSelector {
    /// Parses a selector and checks that the kind knows its fields, which become the stored version's.
    ///
    /// # Errors
    /// The text of a 400, as the API server words it.
    pub fn parse(text: &str, kind: &Kind) -> Result<FieldSelector, String> {
        let mut s = FieldSelector::parse_any(text)?;
        let own = kind.rules.selectable();
        for (field, ..) in &s.terms {
            if field == "metadata.name" || field == "metadata.namespace" || own.contains(&field.as_str()) {
                continue;
            }
            return Err(match (own.is_empty(), kind.kind) {
                (true, _) => format!(
                    "{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
                    quote(field)
                ),
                (false, "Job") => format!("field label {} not supported for Job", quote(field)),
                (false, _) => format!("field label not supported: {field}"),
            });
        }
        for (field, ..) in &mut s.terms {
            *field = views::stored_field(kind, field);
        }
        Ok(s)
    }

    fn parse_any(text: &str) -> Result<FieldSelector, String> {
        let mut terms = Vec::new();
        for part in split_terms(text).into_iter().filter(|p| !p.is_empty()) {
            let Some((field, equal, value)) = split_term(part) else {
                return Err(format!("invalid selector: '{text}'; can't understand '{part}'"));
            };
            terms.push((field.to_owned(), unescape(value)?, equal));
        }
        Ok(FieldSelector { terms })
    }

    /// Whether nothing is left out.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether all terms hold, by the values `of` gives for fields.
    pub fn matches<'a>(&self, of: impl Fn(&str) -> &'a str) -> bool {
        self.terms.iter().all(|(f, v, equal)| (of(f) == v) == *equal)
    }

    /// The value a field must equal, if the selector says so.
    pub fn requires(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|(f, _, equal)| f == field && *equal).map(|(_, v, _)| v.as_str())
    }
}

/// The one name a selector asks for (`metadata.name=x`), for authorisation by name.
pub fn name_in_field_selector(text: &str) -> Option<String> {
    required_field(text, "metadata.name").filter(|n| !n.is_empty())
}

/// The value that a selector, as sent, asks a field to have, for authorisation by it.
pub fn required_field(text: &str, field: &str) -> Option<String> {
    FieldSelector::parse_any(text).ok()?.requires(field).map(str::to_owned)
}

/// A value as written in a field selector.
pub fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '\\' | ',' | '=') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn split_terms(text: &str) -> Vec<&str> {
    let (mut out, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                out.push(text.get(start..i).unwrap_or_default());
                start = i + 1;
            }
            _ => {}
        }
    }
    out.push(text.get(start..).unwrap_or_default());
    out
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    for (i, _) in term.char_indices() {
        let (left, rest) = term.split_at(i);
        for (op, equal) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = rest.strip_prefix(op) {
                return Some((left, equal, value));
            }
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(e @ ('\\' | ',' | '=')) => out.push(e),
                Some(e) => return Err(format!("invalid field selector: invalid escape sequence: \\{e}")),
                None => return Err("invalid field selector: invalid escape sequence: \\".into()),
            },
            ',' | '=' => {
                return Err(format!("invalid field selector: unescaped character in value: {c}"));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn terms_are_split_at_unescaped_commas_only() {
        let s = FieldSelector::parse_any(r"a=b\,c,d!=e,f==").unwrap();
        assert_eq!(
            s.terms,
            [("a".into(), "b,c".into(), true), ("d".into(), "e".into(), false), ("f".into(), String::new(), true)]
        );
        assert!(s.matches(|f| match f {
            "a" => "b,c",
            _ => "",
        }));
        assert!(FieldSelector::parse_any("").unwrap().is_everything());
    }

    #[test]
    fn errors_are_the_api_servers() {
        for (text, want) in [
            ("abc", "invalid selector: 'abc'; can't understand 'abc'"),
            ("a=b=c", "invalid field selector: unescaped character in value: ="),
            (r"a=\b", r"invalid field selector: invalid escape sequence: \b"),
        ] {
            assert_eq!(FieldSelector::parse_any(text).unwrap_err(), want);
        }
    }

    proptest! {
        #[test]
        fn any_value_survives_escaping(v in ".{0,20}") {
            let s = FieldSelector::parse_any(&format!("x={}", escape(&v))).unwrap();
            prop_assert_eq!(s.requires("x"), Some(v.as_str()));
        }
    }
}
