//! The forms that names, labels and other small texts must have: apimachinery's `util/validation`, with
//! its words. Every function gives the list of what is wrong; none is fine.

const DNS_LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const DNS_SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const DNS_SUBDOMAIN_UNDERSCORE: &str = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

/// Which names a kind's objects may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum NameRule {
    /// A DNS subdomain (RFC 1123).
    #[default]
    Subdomain,
    /// A DNS label (RFC 1123).
    Label,
    /// A DNS label (RFC 1035): begins with a letter.
    Label1035,
    /// Anything that fits in one segment of a path.
    PathSegment,
    /// Reviews and such have no name to check.
    Any,
}

impl NameRule {
    /// What is wrong with a name; `prefix` if a suffix is still to come, so that it may end in a dash.
    pub fn check(self, name: &str, prefix: bool) -> Vec<String> {
        let masked = match name.strip_suffix('-') {
            // As apimachinery masks it: the last two characters become one letter.
            Some(stem) if prefix && !stem.is_empty() => {
                let mut s: String = stem.chars().take(stem.chars().count() - 1).collect();
                s.push('a');
                s
            }
            _ => name.to_owned(),
        };
        match self {
            NameRule::Subdomain => subdomain(&masked),
            NameRule::Label => label(&masked),
            NameRule::Label1035 => label_1035(&masked),
            NameRule::PathSegment => path_segment(name, prefix),
            NameRule::Any => Vec::new(),
        }
    }
}

/// "must be no more than N characters".
pub fn max_characters(n: usize) -> String {
    format!("must be no more than {n} characters")
}

/// "must be between LO and HI, inclusive".
pub fn in_range(lo: i64, hi: i64) -> String {
    format!("must be between {lo} and {hi}, inclusive")
}

fn max_bytes(n: usize) -> String {
    format!("must be no more than {n} bytes")
}

/// A sentence with examples and the expression.
pub fn regex_error(message: &str, regex: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{message} (regex used for validation is '{regex}')");
    }
    let list: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    format!("{message} (e.g. {}regex used for validation is '{regex}')", list.join(" or "))
}

fn is_label(s: &str) -> bool {
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
    !s.is_empty() && s.bytes().all(|b| inner(&b)) && !s.starts_with('-') && !s.ends_with('-')
}

fn is_qualified(s: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    s.bytes().all(inner) && edge(s.bytes().next()) && edge(s.bytes().last())
}

/// Whether it is a DNS subdomain, its length aside.
pub fn is_subdomain(s: &str) -> bool {
    s.split('.').all(is_label)
}

/// A DNS label as RFC 1123 has it.
pub fn label(s: &str) -> Vec<String> {
    let mut errs = Vec::new();
    if s.len() > 63 {
        errs.push(max_characters(63));
    }
    if !is_label(s) {
        errs.push(if is_subdomain(s) {
            "must not contain dots".to_owned()
        } else {
            regex_error(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
                DNS_LABEL,
                &["my-name", "123-abc"],
            )
        });
    }
    errs
}

/// A DNS subdomain as RFC 1123 has it.
pub fn subdomain(s: &str) -> Vec<String> {
    let mut errs = Vec::new();
    if s.len() > 253 {
        errs.push(max_characters(253));
    }
    if !is_subdomain(s) {
        errs.push(regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            DNS_SUBDOMAIN,
            &["example.com"],
        ));
    }
    errs
}

/// A DNS subdomain whose labels may hold underscores.
pub fn subdomain_with_underscore(s: &str) -> Vec<String> {
    let part = |s: &str| {
        let s = s.strip_prefix('_').unwrap_or(s);
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
            && edge(s.bytes().next())
            && edge(s.bytes().last())
    };
    let mut errs = Vec::new();
    if s.len() > 253 {
        errs.push(max_characters(253));
    }
    if !s.split('.').all(part) {
        errs.push(regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character",
            DNS_SUBDOMAIN_UNDERSCORE,
            &["example.com"],
        ));
    }
    errs
}

/// A DNS label as RFC 1035 has it.
pub fn label_1035(s: &str) -> Vec<String> {
    let mut errs = Vec::new();
    if s.len() > 63 {
        errs.push(max_characters(63));
    }
    if !is_label(s) || !s.starts_with(|c: char| c.is_ascii_lowercase()) {
        errs.push(regex_error(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    errs
}

/// A `*.` and a DNS subdomain.
pub fn wildcard_subdomain(s: &str) -> Vec<String> {
    let mut errs = Vec::new();
    if s.len() > 253 {
        errs.push(max_characters(253));
    }
    if !s.strip_prefix("*.").is_some_and(is_subdomain) {
        errs.push(regex_error(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!("\\*\\.{DNS_SUBDOMAIN}"),
            &["*.example.com"],
        ));
    }
    errs
}

/// One segment of a path.
pub fn path_segment(s: &str, prefix: bool) -> Vec<String> {
    if !prefix && (s == "." || s == "..") {
        return vec![format!("may not be '{s}'")];
    }
    ["/", "%"].iter().filter(|c| s.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// What Kubernetes calls a qualified name: the key of a label or annotation, a finalizer, a condition.
pub fn qualified_name(s: &str) -> Vec<String> {
    let mut errs = Vec::new();
    let rule = || {
        regex_error(
            "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            QUALIFIED,
            &["MyName", "my.name", "123-abc"],
        )
    };
    let name = match *s.split('/').collect::<Vec<_>>() {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                errs.push("prefix part must be non-empty".to_owned());
            } else {
                errs.extend(
                    subdomain(prefix)
                        .iter()
                        .map(|m| format!("prefix part {}", m.replace("253 characters", "253 bytes"))),
                );
            }
            name
        }
        _ => {
            return vec![format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                rule()
            )];
        }
    };
    if name.is_empty() {
        errs.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        errs.push(format!("name part {}", max_bytes(63)));
    }
    if !is_qualified(name) {
        errs.push(format!("name part {}", rule()));
    }
    errs
}

/// The value of a label.
pub fn label_value(s: &str) -> Vec<String> {
    let mut errs = Vec::new();
    if s.len() > 63 {
        errs.push(max_bytes(63));
    }
    if !s.is_empty() && !is_qualified(s) {
        errs.push(regex_error(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            &format!("({QUALIFIED})?"),
            &["MyValue", "my_value", "12345"],
        ));
    }
    errs
}

/// A port number.
pub fn port(n: i64) -> Vec<String> {
    if (1..=65535).contains(&n) { Vec::new() } else { vec![in_range(1, 65535)] }
}

/// The name of a port (IANA service name).
pub fn port_name(s: &str) -> Vec<String> {
    let mut errs = Vec::new();
    if s.len() > 15 {
        errs.push(max_characters(15));
    }
    if s.is_empty() || !s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        errs.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !s.bytes().any(|b| b.is_ascii_lowercase()) {
        errs.push("must contain at least one letter (a-z)".to_owned());
    }
    if s.contains("--") {
        errs.push("must not contain consecutive hyphens".to_owned());
    }
    if s.starts_with('-') || s.ends_with('-') {
        errs.push("must not begin or end with a hyphen".to_owned());
    }
    errs
}

/// A user or group id.
pub fn id(n: i64) -> Vec<String> {
    let max = i64::from(i32::MAX);
    if (0..=max).contains(&n) { Vec::new() } else { vec![in_range(0, max)] }
}

/// `25%`.
pub fn percent(s: &str) -> Vec<String> {
    let fine = s.strip_suffix('%').is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()));
    if fine {
        return Vec::new();
    }
    vec![regex_error(
        "a valid percent string must be a numeric string followed by an ending '%'",
        "[0-9]+%",
        &["1%", "93%"],
    )]
}

/// The name of an HTTP header.
pub fn http_header(s: &str) -> Vec<String> {
    if !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    vec![regex_error(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// The name of an environment variable.
pub fn env_name(s: &str) -> Vec<String> {
    if s.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    if s.chars().all(|c| (' '..='~').contains(&c) && c != '=') {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()]
}

/// The key of a ConfigMap or Secret.
pub fn config_key(s: &str) -> Vec<String> {
    let mut errs = Vec::new();
    if s.len() > 253 {
        errs.push(max_characters(253));
    }
    if s.is_empty() || !s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        errs.push(regex_error(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    if s == "." {
        errs.push("must not be '.'".to_owned());
    } else if s == ".." {
        errs.push("must not be '..'".to_owned());
    } else if s.starts_with("..") {
        errs.push("must not start with '..'".to_owned());
    }
    errs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_rule() {
        for (rule, name, prefix, wrong) in [
            (NameRule::Subdomain, "a.b-c.1", false, 0),
            (NameRule::Subdomain, "a-", false, 1),
            (NameRule::Subdomain, "a-", true, 0),
            (NameRule::Subdomain, "-", true, 1),
            (NameRule::Subdomain, "A", false, 1),
            (NameRule::Subdomain, "a..b", false, 1),
            (NameRule::Label, "a.b", false, 1),
            (NameRule::Label1035, "1a", false, 1),
            (NameRule::Label1035, "a1", false, 0),
            (NameRule::PathSegment, "system:a", false, 0),
            (NameRule::PathSegment, "a/%", false, 2),
            (NameRule::PathSegment, "..", false, 1),
        ] {
            assert_eq!(rule.check(name, prefix).len(), wrong, "{rule:?} {name}");
        }
        assert_eq!(label("a.b"), ["must not contain dots"]);
        assert_eq!(label(&"a".repeat(64)), ["must be no more than 63 characters"]);
        assert_eq!(path_segment("..", false), ["may not be '..'"]);
    }

    #[test]
    fn small_texts_follow_theirs() {
        assert!(qualified_name("example.com/My_name.1").is_empty());
        assert_eq!(qualified_name("/a"), ["prefix part must be non-empty"]);
        assert_eq!(qualified_name("a/b/c").len(), 1);
        assert_eq!(qualified_name("").len(), 2);
        assert!(label_value("").is_empty() && label_value("-a").len() == 1);
        assert!(port_name("http-1").is_empty());
        assert_eq!(port_name("80"), ["must contain at least one letter (a-z)"]);
        assert_eq!(config_key("..a"), ["must not start with '..'"]);
        assert!(env_name("a b-c.1").is_empty() && env_name("a=b").len() == 1);
        assert!(percent("25%").is_empty() && percent("%").len() == 1);
    }
}
