//! Content negotiation: which form a client wants an answer in, and what form its body has.

use crate::port::Refusal;
use crate::status;

/// How bytes are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// `application/json`.
    #[default]
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

impl Format {
    /// Its media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Format::Json => JSON,
            Format::Yaml => YAML,
            Format::Protobuf => PROTOBUF,
        }
    }
}

impl From<Format> for objects::codec::Format {
    fn from(f: Format) -> objects::codec::Format {
        match f {
            Format::Json => objects::codec::Format::Json,
            Format::Yaml => objects::codec::Format::Yaml,
            Format::Protobuf => objects::codec::Format::Protobuf,
        }
    }
}

/// What is written: the object itself, or a view of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Shape {
    /// As it is.
    #[default]
    Object,
    /// `meta.k8s.io/v1` (or v1beta1) Table.
    Table,
    /// PartialObjectMetadata.
    Metadata,
    /// PartialObjectMetadataList.
    MetadataList,
}

/// What a client accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Accepted {
    /// How it is written.
    pub format: Format,
    /// What is written.
    pub shape: Shape,
    /// The view is asked for as v1beta1.
    pub beta: bool,
    /// `stream=watch` was said, so the Content-Type says it too.
    pub stream: bool,
    /// Indented JSON.
    pub pretty: bool,
}

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// What objects are written in, in the order preferred.
pub const FORMATS: [&str; 3] = [JSON, YAML, PROTOBUF];
/// What lists and watches are written in.
pub const LIST_FORMATS: [&str; 5] =
    [JSON, YAML, PROTOBUF, "application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];

/// One clause of an Accept header.
#[derive(Debug)]
pub(crate) struct Clause<'a> {
    pub(crate) ty: &'a str,
    pub(crate) subtype: &'a str,
    pub(crate) params: Vec<(&'a str, &'a str)>,
    q: f32,
}

/// The clauses of an Accept header, best first; those with `q=0` are left out.
pub(crate) fn clauses(header: &str) -> Vec<Clause<'_>> {
    let mut out: Vec<Clause<'_>> = header
        .split(',')
        .filter_map(|clause| {
            let mut parts = clause.split(';').map(str::trim);
            let media = parts.next()?;
            // `*` alone is what some old Java clients send.
            let (ty, subtype) = if media == "*" { ("*", "*") } else { media.split_once('/')? };
            let mut q = 1.0;
            let mut params = Vec::new();
            for (k, v) in parts.filter_map(|p| p.split_once('=')) {
                match k.trim() {
                    "q" => q = v.trim().parse().unwrap_or(1.0),
                    k => params.push((k, v.trim().trim_matches('"'))),
                }
            }
            (q > 0.0).then_some(Clause { ty: ty.trim(), subtype: subtype.trim(), params, q })
        })
        .collect();
    // Stable: of equals, the first said wins.
    out.sort_by(|a, b| b.q.total_cmp(&a.q));
    out
}

impl Clause<'_> {
    pub(crate) fn matches(&self, media: &str) -> bool {
        let (ty, subtype) = media.split_once('/').unwrap_or((media, ""));
        (self.ty == "*" || self.ty == ty) && (self.subtype == "*" || self.subtype == subtype)
    }

    pub(crate) fn param(&self, key: &str) -> Option<&str> {
        self.params.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
    }
}

/// Chooses how a resource's answer is written. `stream` is true on paths that list or watch.
///
/// # Errors
/// 406 in one of Kubernetes' two wordings: none of the media types, or none of the forms (`as=`).
pub fn accept(header: Option<&str>, stream: bool) -> Result<Accepted, Refusal> {
    let Some(header) = header.filter(|h| !h.trim().is_empty()) else { return Ok(Accepted::default()) };
    let clauses = clauses(header);
    let produced: &[&str] = if stream { &LIST_FORMATS } else { &FORMATS };
    if !clauses.iter().any(|c| FORMATS.iter().any(|m| c.matches(m))) {
        return Err(status::not_acceptable(produced));
    }
    clauses
        .iter()
        .find_map(|clause| {
            [Format::Json, Format::Yaml, Format::Protobuf]
                .into_iter()
                .filter(|f| clause.matches(f.media_type()))
                .find_map(|format| form(clause, format))
        })
        .ok_or_else(|| status::form_not_acceptable(&FORMATS))
}

/// What one clause asks for in a format that it matches; `None` if that is not made.
fn form(clause: &Clause<'_>, format: Format) -> Option<Accepted> {
    let mut out = Accepted { format, ..Accepted::default() };
    match clause.param("stream") {
        None | Some("") => {}
        Some("watch") if format != Format::Yaml => out.stream = true,
        Some(_) => return None,
    }
    out.pretty = clause.param("pretty") == Some("1");
    let Some(form) = clause.param("as") else { return Some(out) };
    out.beta = match (clause.param("g"), clause.param("v")) {
        (Some("meta.k8s.io"), Some("v1")) => false,
        (Some("meta.k8s.io"), Some("v1beta1")) => true,
        _ => return None,
    };
    out.shape = match form {
        // Cells hold anything, which protobuf cannot say.
        "Table" if format != Format::Protobuf => Shape::Table,
        "PartialObjectMetadata" => Shape::Metadata,
        "PartialObjectMetadataList" => Shape::MetadataList,
        _ => return None,
    };
    Some(out)
}

/// Chooses among media types without parameters (discovery, documents): the index of the best.
pub fn choose(header: Option<&str>, offered: &[&str]) -> Option<usize> {
    let Some(header) = header.filter(|h| !h.trim().is_empty()) else { return Some(0) };
    clauses(header).iter().find_map(|c| offered.iter().position(|m| c.matches(m)))
}

/// Whether indented JSON is wanted: `?pretty=`, or a person behind curl, wget or a browser.
pub fn pretty(query: Option<&str>, user_agent: &str) -> bool {
    match query {
        Some(v) if !v.is_empty() => matches!(v, "1" | "t" | "T" | "true" | "TRUE" | "True"),
        _ => ["curl", "Wget", "Mozilla/5.0"].iter().any(|p| user_agent.starts_with(p)),
    }
}

/// The format of a body. No Content-Type is JSON.
///
/// # Errors
/// 415, naming what is understood.
pub fn content(header: Option<&str>) -> Result<Format, Refusal> {
    let media = header.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media.as_str() {
        "" | "*/*" | JSON => Ok(Format::Json),
        YAML => Ok(Format::Yaml),
        PROTOBUF => Ok(Format::Protobuf),
        _ => Err(status::body_type_unknown(&FORMATS)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn chosen(header: &str) -> (Format, Shape, bool) {
        let a = accept(Some(header), true).unwrap();
        (a.format, a.shape, a.stream)
    }

    #[test]
    fn what_clients_really_send_is_understood() {
        let kubectl_get = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let table = [
            ("application/json", Format::Json, Shape::Object, false),
            ("*/*", Format::Json, Shape::Object, false),
            ("application/*", Format::Json, Shape::Object, false),
            (kubectl_get, Format::Json, Shape::Table, false),
            ("application/vnd.kubernetes.protobuf,application/json", Format::Protobuf, Shape::Object, false),
            ("application/vnd.kubernetes.protobuf;stream=watch", Format::Protobuf, Shape::Object, true),
            ("application/json;stream=watch,application/json", Format::Json, Shape::Object, true),
            ("application/yaml", Format::Yaml, Shape::Object, false),
            ("text/html;q=0.9, application/yaml;q=0.5, */*;q=0.1", Format::Yaml, Shape::Object, false),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Format::Protobuf,
                Shape::MetadataList,
                false,
            ),
            // A Table cannot be protobuf: the next clause is taken.
            (
                "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,application/json",
                Format::Json,
                Shape::Object,
                false,
            ),
            ("application/json;q=0, application/yaml", Format::Yaml, Shape::Object, false),
        ];
        for (header, format, shape, stream) in table {
            assert_eq!(chosen(header), (format, shape, stream), "{header}");
        }
        assert_eq!(accept(None, false).unwrap(), Accepted::default());
    }

    #[test]
    fn an_unknown_type_and_an_unknown_form_are_refused_in_their_own_words() {
        let e = accept(Some("application/xml"), false).unwrap_err();
        assert_eq!(
            e.message,
            "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf"
        );
        let e = accept(Some("application/xml"), true).unwrap_err();
        assert!(
            e.message.ends_with(", application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch")
        );
        let e = accept(Some("application/json;as=Nope;g=meta.k8s.io;v=v1"), false).unwrap_err();
        assert_eq!(
            e.message,
            "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"
        );
    }

    #[test]
    fn people_get_indented_json_unless_they_say_otherwise() {
        for (query, agent, want) in [
            (None, "kubectl/v1.37", false),
            (None, "curl/8", true),
            (Some("false"), "curl/8", false),
            (Some("true"), "kubectl", true),
            (Some(""), "Mozilla/5.0 (X11)", true),
            (Some("nonsense"), "curl/8", false),
        ] {
            assert_eq!(pretty(query, agent), want, "{query:?} {agent}");
        }
    }

    #[test]
    fn a_body_of_an_unknown_type_is_refused() {
        assert_eq!(content(Some("application/json; charset=utf-8")).unwrap(), Format::Json);
        assert_eq!(content(None).unwrap(), Format::Json);
        assert_eq!(content(Some("application/vnd.kubernetes.protobuf")).unwrap(), Format::Protobuf);
        assert_eq!(content(Some("application/xml")).unwrap_err().code, 415);
    }
}
