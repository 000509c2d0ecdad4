//! Lists.

use super::{Continue, check_options, parse_revision};
use crate::Tree;
use crate::kinds::Kind;
use crate::record::{Stored, list_item};
use crate::request::Options;
use crate::select::{FieldSelector, LabelSelector, Selection};
use crate::status::Status;
use crate::views;
use base::Revision;
use bytes::Bytes;
use std::sync::Arc;

/// Which state a list shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// The newest committed.
    Latest,
    /// Any at this revision or above; [`Revision::ZERO`] is content with anything.
    NotOlderThan(Revision),
    /// This one, while the history reaches back to it.
    Exactly(Revision),
}

/// A list, authorised and checked: which objects, and how many.
#[derive(Clone, PartialEq, Debug)]
pub struct ListPlan {
    /// Which state.
    pub at: At,
    /// Which objects.
    pub selection: Selection,
    /// At most how many; 0 is all.
    pub limit: u64,
    /// Names after this one.
    pub after: Option<String>,
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: Arc<str>,
    /// Texts for Warning headers.
    pub warnings: Vec<String>,
}

/// An object as a list meets it. Most lists are long and select by nothing: of an object that is asked for neither
/// its name nor whether it is meant, nothing should be read.
pub trait Listed {
    /// What the list keeps of it.
    type Kept;
    /// Its name.
    fn name(&self) -> &str;
    /// Whether a selection that leaves something out means it.
    fn is_meant(&self, selection: &Selection, namespace: &str) -> bool;
    /// It is listed.
    fn keep(self) -> Self::Kept;
}

impl Listed for (Arc<str>, Stored) {
    type Kept = Stored;

    fn name(&self) -> &str {
        &self.0
    }

    fn is_meant(&self, selection: &Selection, namespace: &str) -> bool {
        selection.matches(&self.1.meta, &self.0, namespace)
    }

    fn keep(self) -> Stored {
        self.1
    }
}

/// A list's result, before negotiation.
#[derive(Clone, PartialEq, Debug)]
pub struct ListAnswer<T = Stored> {
    /// The objects, by name.
    pub items: Vec<T>,
    /// The revision they are of.
    pub revision: Revision,
    /// The token for the rest; empty if this is the end.
    pub continue_token: String,
    /// How many are left, if no selector makes that unknown.
    pub remaining: Option<u64>,
}

impl<T> Default for ListAnswer<T> {
    fn default() -> ListAnswer<T> {
        ListAnswer { items: Vec::new(), revision: Revision::ZERO, continue_token: String::new(), remaining: None }
    }
}

impl ListPlan {
    /// Checks a list's parameters.
    ///
    /// # Errors
    /// 400 or 422 in the API server's words.
    pub fn new(kind: &Kind, namespace: Option<&str>, o: &Options) -> Result<ListPlan, Box<Status>> {
        check_options(o, false)?;
        let bad = |m: String| Box::new(Status::bad_request(m));
        let selection = selection(kind, o)?;
        let asked = parse_revision(&o.resource_version).map_err(|m| bad(format!("invalid resource version: {m}")))?;
        let none = o.resource_version.is_empty();
        let mut after = None;
        let at = if o.continue_token.is_empty() {
            match (o.resource_version_match.as_str(), none, asked) {
                (_, true, _) => At::Latest,
                ("Exact", ..) => At::Exactly(asked),
                // Before there was resourceVersionMatch, a limit made a revision mean exactly it.
                ("", false, r) if o.limit > 0 && r > Revision::ZERO => At::Exactly(r),
                _ => At::NotOlderThan(asked),
            }
        } else {
            if asked > Revision::ZERO {
                return Err(bad("specifying resource version is not allowed when using continue".into()));
            }
            let c = Continue::decode(&o.continue_token).map_err(bad)?;
            after = Some(c.last().to_owned());
            c.revision.map_or(At::Latest, At::Exactly)
        };
        Ok(ListPlan {
            at,
            selection,
            limit: o.limit,
            after,
            namespace: namespace.unwrap_or_default().into(),
            warnings: Vec::new(),
        })
    }

    /// The answer from a snapshot of the kind's records in order of their names, which is of `revision`.
    pub fn run<L: Listed>(&self, snapshot: impl Iterator<Item = L>, revision: Revision) -> ListAnswer<L::Kept> {
        let mut out = ListAnswer { revision, ..ListAnswer::default() };
        let everything = self.selection.is_everything();
        let after = self.after.as_deref();
        let mut snapshot = snapshot.filter(|object| {
            after.is_none_or(|after| object.name() > after)
                && (everything || object.is_meant(&self.selection, &self.namespace))
        });
        if self.limit == 0 {
            out.items = snapshot.map(Listed::keep).collect();
            return out;
        }
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let mut last = String::new();
        for object in snapshot.by_ref().take(limit) {
            if out.items.len() + 1 == limit {
                last = object.name().to_owned();
            }
            out.items.push(object.keep());
        }
        // With a selector only that there is more counts, not how much.
        let left = if everything { snapshot.count() } else { usize::from(snapshot.next().is_some()) };
        if left > 0 {
            out.continue_token = Continue::after(&last, Some(revision)).encode();
            out.remaining = everything.then_some(left as u64);
        }
        out
    }

    /// The 410 for a state that is no longer kept. Asked by a continue token, it carries one that goes on
    /// with the newest state instead.
    pub fn expired(&self) -> Status {
        match &self.after {
            None => Status::expired("The resourceVersion for the provided list is too old."),
            Some(after) => {
                let mut s = Status::expired(
                    "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
                );
                s.continue_token = Continue::after(after, None).encode();
                s
            }
        }
    }
}

impl ListAnswer {
    /// The list as JSON of the kind asked for.
    pub fn to_json(&self, kind: &Kind) -> Bytes {
        let size: usize = self.items.iter().map(|s| s.json.len() + 1).sum();
        let mut out = Vec::with_capacity(size + 256);
        out.extend_from_slice(self.head(kind).as_bytes());
        for (i, s) in self.items.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            list_item(&views::bytes_from_storage(kind, &s.json), &mut out);
        }
        out.extend_from_slice(b"]}");
        out.into()
    }

    /// The beginning of the list's JSON, up to its first item; after the items comes `]}`. For writing a
    /// long list in pieces with [`list_item`].
    pub fn head(&self, kind: &Kind) -> String {
        let version =
            if kind.group.is_empty() { kind.version.to_owned() } else { format!("{}/{}", kind.group, kind.version) };
        let mut meta = format!("\"resourceVersion\":\"{}\"", self.revision);
        if !self.continue_token.is_empty() {
            meta.push_str(&format!(",\"continue\":\"{}\"", self.continue_token));
        }
        if let Some(n) = self.remaining {
            meta.push_str(&format!(",\"remainingItemCount\":{n}"));
        }
        format!("{{\"kind\":\"{}List\",\"apiVersion\":\"{version}\",\"metadata\":{{{meta}}},\"items\":[", kind.kind)
    }

    /// The list as a tree, for YAML, protobuf, Table and metadata answers. Items keep `kind` and
    /// `apiVersion`.
    pub fn to_tree(&self, kind: &Kind) -> Tree {
        let empty = ListAnswer { items: Vec::new(), ..self.clone() };
        let mut tree: Tree = serde_json::from_slice(&empty.to_json(kind)).unwrap_or(Tree::Null);
        let items = self.items.iter().map(|s| views::from_storage(kind, s.tree())).collect();
        tree["items"] = Tree::Array(items);
        tree
    }
}

pub(super) fn selection(kind: &Kind, o: &Options) -> Result<Selection, Box<Status>> {
    let bad = |m: String| Box::new(Status::bad_request(m));
    Ok(Selection {
        labels: LabelSelector::parse(&o.label_selector).map_err(bad)?,
        fields: FieldSelector::parse(&o.field_selector, kind).map_err(bad)?,
    })
}
