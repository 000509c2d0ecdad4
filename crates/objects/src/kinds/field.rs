//! Errors about fields, printed as apimachinery's `field.Error` prints them, and the paths they name.

use super::FieldError;
use crate::Tree;
use std::fmt::{self, Write as _};

/// Where a field is: a chain of steps that lives on the stack and is written out only for an error.
#[derive(Clone, Copy, Debug)]
pub enum Path<'a> {
    /// The object itself.
    Root,
    /// A field of the parent; a dot may stand in the name (`metadata.name`).
    Child(&'a Path<'a>, &'a str),
    /// An item of a list.
    Index(&'a Path<'a>, usize),
    /// An entry of a map.
    Key(&'a Path<'a>, &'a str),
}

impl<'a> Path<'a> {
    /// A field of this.
    pub const fn child(&'a self, name: &'a str) -> Path<'a> {
        Path::Child(self, name)
    }
    /// An item of this list.
    pub const fn index(&'a self, i: usize) -> Path<'a> {
        Path::Index(self, i)
    }
    /// An entry of this map.
    pub const fn key(&'a self, key: &'a str) -> Path<'a> {
        Path::Key(self, key)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Child(Path::Root, name) => f.write_str(name),
            Path::Child(parent, name) => write!(f, "{parent}.{name}"),
            Path::Index(parent, i) => write!(f, "{parent}[{i}]"),
            Path::Key(parent, key) => write!(f, "{parent}[{key}]"),
        }
    }
}

/// A value as an error shows it: texts quoted as Go's `%q` does, numbers bare, the rest as JSON.
pub trait Shown {
    /// Its text.
    fn shown(&self) -> String;
}

impl Shown for str {
    fn shown(&self) -> String {
        quoted(self)
    }
}
impl<T: Shown + ?Sized> Shown for &T {
    fn shown(&self) -> String {
        (*self).shown()
    }
}
impl Shown for String {
    fn shown(&self) -> String {
        quoted(self)
    }
}
impl Shown for i64 {
    fn shown(&self) -> String {
        self.to_string()
    }
}
impl Shown for usize {
    fn shown(&self) -> String {
        self.to_string()
    }
}
impl Shown for bool {
    fn shown(&self) -> String {
        self.to_string()
    }
}
impl Shown for Tree {
    fn shown(&self) -> String {
        match self {
            Tree::String(s) => quoted(s),
            other => go_json(other),
        }
    }
}

/// As Go's `strconv.Quote`: printable characters stay, others are escaped.
pub fn quoted(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    out.push('"');
    for c in s.chars() {
        let _ = match c {
            '"' => out.write_str("\\\""),
            '\\' => out.write_str("\\\\"),
            '\n' => out.write_str("\\n"),
            '\r' => out.write_str("\\r"),
            '\t' => out.write_str("\\t"),
            '\u{7}' => out.write_str("\\a"),
            '\u{8}' => out.write_str("\\b"),
            '\u{b}' => out.write_str("\\v"),
            '\u{c}' => out.write_str("\\f"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => write!(out, "\\x{:02x}", c as u32),
            c if (c as u32) < 0x7f => out.write_char(c),
            // Rust escapes in Debug form nearly what Go holds unprintable.
            c if c.escape_debug().count() == 1 && c != '\u{a0}' => out.write_char(c),
            c if (c as u32) < 0x10000 => write!(out, "\\u{:04x}", c as u32),
            c => write!(out, "\\U{:08x}", c as u32),
        };
    }
    out.push('"');
    out
}

/// JSON as Go's `json.Marshal` writes it: compact, `<`, `>` and `&` escaped.
pub fn go_json(v: &Tree) -> String {
    let plain = v.to_string();
    if !plain.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return plain;
    }
    plain
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

fn error(reason: &'static str, path: &Path<'_>, what: &str, value: Option<String>, detail: &str) -> FieldError {
    let mut message = String::from(what);
    if let Some(value) = value {
        message.push_str(": ");
        message.push_str(&value);
    }
    if !detail.is_empty() {
        message.push_str(": ");
        message.push_str(detail);
    }
    FieldError { reason, field: path.to_string(), message }
}

/// The field is missing.
pub fn required(path: &Path<'_>, detail: &str) -> FieldError {
    error("FieldValueRequired", path, "Required value", None, detail)
}
/// The value breaks a rule, which `detail` tells.
pub fn invalid(path: &Path<'_>, value: impl Shown, detail: &str) -> FieldError {
    error("FieldValueInvalid", path, "Invalid value", Some(value.shown()), detail)
}
/// The value has the wrong type.
pub fn type_invalid(path: &Path<'_>, value: impl Shown, detail: &str) -> FieldError {
    error("FieldValueTypeInvalid", path, "Invalid value", Some(value.shown()), detail)
}
/// The value is none of an enumeration.
pub fn not_supported(path: &Path<'_>, value: impl Shown, supported: &[&str]) -> FieldError {
    let list: Vec<String> = supported.iter().map(|s| quoted(s)).collect();
    let detail = if list.is_empty() { String::new() } else { format!("supported values: {}", list.join(", ")) };
    error("FieldValueNotSupported", path, "Unsupported value", Some(value.shown()), &detail)
}
/// The field may not be set here.
pub fn forbidden(path: &Path<'_>, detail: &str) -> FieldError {
    error("FieldValueForbidden", path, "Forbidden", None, detail)
}
/// The value stands there twice.
pub fn duplicate(path: &Path<'_>, value: impl Shown) -> FieldError {
    error("FieldValueDuplicate", path, "Duplicate value", Some(value.shown()), "")
}
/// The value names something that is not there.
pub fn not_found(path: &Path<'_>, value: impl Shown) -> FieldError {
    error("FieldValueNotFound", path, "Not found", Some(value.shown()), "")
}
/// More than `max` bytes.
pub fn too_long(path: &Path<'_>, max: usize) -> FieldError {
    let unit = if max == 1 { "byte" } else { "bytes" };
    error("FieldValueTooLong", path, "Too long", None, &format!("may not be more than {max} {unit}"))
}
/// More than `max` characters.
pub fn too_long_characters(path: &Path<'_>, max: usize) -> FieldError {
    let unit = if max == 1 { "character" } else { "characters" };
    error("FieldValueTooLong", path, "Too long", None, &format!("may not be more than {max} {unit}"))
}
/// More than `max` items.
pub fn too_many(path: &Path<'_>, actual: usize, max: usize) -> FieldError {
    let unit = if max == 1 { "item" } else { "items" };
    error("FieldValueTooMany", path, "Too many", Some(actual.to_string()), &format!("must have at most {max} {unit}"))
}

/// Something that cannot be told further.
pub fn internal(path: &Path<'_>, detail: &str) -> FieldError {
    error("InternalError", path, "Internal error", None, detail)
}

/// "field is immutable".
pub const IMMUTABLE: &str = "field is immutable";
/// "must be greater than or equal to 0".
pub const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// Adds an error unless `new` equals `old`.
pub fn immutable(path: &Path<'_>, new: &Tree, old: &Tree, errs: &mut Vec<FieldError>) {
    if new != old {
        errs.push(invalid(path, new, IMMUTABLE));
    }
}

/// Adds an error if the number is there and negative.
pub fn not_negative(path: &Path<'_>, value: Option<i64>, errs: &mut Vec<FieldError>) {
    if let Some(value) = value.filter(|v| *v < 0) {
        errs.push(invalid(path, value, NOT_NEGATIVE));
    }
}

/// Adds an error for each thing `check` has against the value.
pub fn each(path: &Path<'_>, value: &str, check: impl FnOnce(&str) -> Vec<String>, errs: &mut Vec<FieldError>) {
    errs.extend(check(value).into_iter().map(|msg| invalid(path, value, &msg)));
}

/// Adds an error unless the value is one of `allowed`; an empty one is `required` when `needed`.
pub fn one_of(path: &Path<'_>, value: &str, allowed: &[&str], needed: bool, errs: &mut Vec<FieldError>) {
    if value.is_empty() {
        if needed {
            errs.push(required(path, ""));
        }
    } else if !allowed.contains(&value) {
        errs.push(not_supported(path, value, allowed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn errors_print_as_kubernetes_prints_them() {
        let spec = Path::Root.child("spec");
        let containers = spec.child("containers");
        let first = containers.index(0);
        let at = first.child("name");
        for (error, field, message) in [
            (required(&at, ""), "spec.containers[0].name", "Required value"),
            (invalid(&at, "a\"b", "no"), "spec.containers[0].name", "Invalid value: \"a\\\"b\": no"),
            (invalid(&at, 3i64, ""), "spec.containers[0].name", "Invalid value: 3"),
            (invalid(&at, json!({"a": "<"}), "x"), "spec.containers[0].name", "Invalid value: {\"a\":\"\\u003c\"}: x"),
            (
                not_supported(&at, "x", &["A", "B"]),
                "spec.containers[0].name",
                "Unsupported value: \"x\": supported values: \"A\", \"B\"",
            ),
            (forbidden(&spec.key("k"), "why"), "spec[k]", "Forbidden: why"),
            (too_long(&at, 1), "spec.containers[0].name", "Too long: may not be more than 1 byte"),
            (too_many(&at, 3, 2), "spec.containers[0].name", "Too many: 3: must have at most 2 items"),
            (duplicate(&at, "x"), "spec.containers[0].name", "Duplicate value: \"x\""),
        ] {
            assert_eq!((error.field.as_str(), error.message.as_str()), (field, message));
        }
        assert_eq!(quoted("é\u{0}\u{200b}\u{1f600}"), "\"é\\x00\\u200b😀\"");
    }
}
