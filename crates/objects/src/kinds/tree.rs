//! Reading and writing the fields of a tree whose types have been checked: what is absent reads as Go's
//! zero value, as the validation it mirrors reads it.

use crate::{Map, Tree};

static NULL: Tree = Tree::Null;

/// Reading.
pub trait Fields {
    /// A field; null if it is absent.
    fn at(&self, name: &str) -> &Tree;
    /// A text field; empty if it is absent.
    fn text(&self, name: &str) -> &str;
    /// A number field.
    fn int(&self, name: &str) -> Option<i64>;
    /// A boolean field; false if it is absent.
    fn flag(&self, name: &str) -> bool;
    /// A list field; empty if it is absent.
    fn list(&self, name: &str) -> &[Tree];
    /// The entries of a map field, by key.
    fn entries(&self, name: &str) -> impl Iterator<Item = (&str, &Tree)>;
    /// Whether the field is there and not null.
    fn has(&self, name: &str) -> bool;
}

impl Fields for Tree {
    fn at(&self, name: &str) -> &Tree {
        self.get(name).unwrap_or(&NULL)
    }
    fn text(&self, name: &str) -> &str {
        self.at(name).as_str().unwrap_or("")
    }
    fn int(&self, name: &str) -> Option<i64> {
        self.at(name).as_i64()
    }
    fn flag(&self, name: &str) -> bool {
        self.at(name).as_bool().unwrap_or(false)
    }
    fn list(&self, name: &str) -> &[Tree] {
        self.at(name).as_array().map_or(&[], Vec::as_slice)
    }
    fn entries(&self, name: &str) -> impl Iterator<Item = (&str, &Tree)> {
        self.at(name).as_object().into_iter().flatten().map(|(k, v)| (k.as_str(), v))
    }
    fn has(&self, name: &str) -> bool {
        !self.at(name).is_null()
    }
}

/// The text of a scalar; empty if it is none.
pub fn text(v: &Tree) -> &str {
    v.as_str().unwrap_or("")
}

/// Whether a value is absent, null, or empty in Go's sense of `omitempty`.
pub fn is_empty(v: &Tree) -> bool {
    match v {
        Tree::Null => true,
        Tree::Bool(b) => !b,
        Tree::Number(n) => n.as_i64() == Some(0),
        Tree::String(s) => s.is_empty(),
        Tree::Array(a) => a.is_empty(),
        Tree::Object(o) => o.is_empty(),
    }
}

/// The fields of an object; what is no object becomes an empty one.
pub fn fields(v: &mut Tree) -> &mut Map {
    if !v.is_object() {
        *v = Tree::Object(Map::new());
    }
    match v {
        Tree::Object(map) => map,
        // Unreachable: it was made an object above.
        _ => unreachable!("a tree just made an object is one"),
    }
}

/// A field to write to, made an empty object if it is absent or null.
pub fn child<'a>(v: &'a mut Tree, name: &str) -> &'a mut Tree {
    let slot = fields(v).entry(name).or_insert(Tree::Null);
    fields(slot);
    slot
}

/// The object in a field, if there is one.
pub fn existing<'a>(v: &'a mut Tree, name: &str) -> Option<&'a mut Tree> {
    v.get_mut(name).filter(|f| f.is_object())
}

/// The items of a list field.
pub fn items<'a>(v: &'a mut Tree, name: &str) -> &'a mut [Tree] {
    v.get_mut(name).and_then(Tree::as_array_mut).map_or(&mut [], Vec::as_mut_slice)
}

/// Sets a field that is absent or null.
pub fn default_to(v: &mut Tree, name: &str, value: impl Into<Tree>) {
    let slot = fields(v).entry(name).or_insert(Tree::Null);
    if slot.is_null() {
        *slot = value.into();
    }
}

/// Sets a text field that is absent, null or empty.
pub fn default_text(v: &mut Tree, name: &str, value: &str) {
    if v.text(name).is_empty() {
        set(v, name, value);
    }
}

/// Sets a number field that is absent, null or zero.
pub fn default_number(v: &mut Tree, name: &str, value: i64) {
    if v.int(name).unwrap_or(0) == 0 {
        set(v, name, value);
    }
}

/// Sets a field.
pub fn set(v: &mut Tree, name: &str, value: impl Into<Tree>) {
    fields(v).insert(name.into(), value.into());
}

/// Removes a field.
pub fn remove(v: &mut Tree, name: &str) {
    if let Some(map) = v.as_object_mut() {
        map.remove(name);
    }
}

/// Makes a field what it is in `from`: absent there, absent here.
pub fn keep(v: &mut Tree, from: &Tree, name: &str) {
    match from.get(name) {
        Some(value) => set(v, name, value.clone()),
        None => remove(v, name),
    }
}

/// Whether two values mean the same: what is absent, null or an empty list or map is all one, as in
/// Kubernetes' semantic equality.
pub fn same(a: &Tree, b: &Tree) -> bool {
    let nothing = |v: &Tree| match v {
        Tree::Null => true,
        Tree::Array(a) => a.is_empty(),
        Tree::Object(o) => o.is_empty(),
        _ => false,
    };
    match (a, b) {
        (Tree::Object(x), Tree::Object(y)) => {
            x.iter().all(|(k, v)| same(v, y.get(k).unwrap_or(&NULL)))
                && y.iter().all(|(k, v)| x.contains_key(k) || same(&NULL, v))
        }
        (Tree::Array(x), Tree::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(a, b)| same(a, b)),
        _ => a == b || (nothing(a) && nothing(b)) || (a.is_null() && hollow(b)) || (b.is_null() && hollow(a)),
    }
}

/// An object none of whose fields says anything.
fn hollow(v: &Tree) -> bool {
    v.as_object().is_some_and(|o| o.values().all(|v| v.is_null() || hollow(v)))
}

/// Counts a generation up if `field` changed: specs have generations, statuses none.
pub fn count_generation(new: &mut Tree, old: &Tree, field: &str) {
    if !same(new.at(field), old.at(field)) {
        let generation = old.at("metadata").int("generation").unwrap_or(0) + 1;
        set(child(new, "metadata"), "generation", generation);
    }
}
