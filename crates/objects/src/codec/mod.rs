//! Bodies: JSON, YAML and protobuf to typed trees and back.
//!
//! Whatever a body comes in, what leaves here is one canonical tree, so nothing behind it knows how the
//! client spoke. Everything is bounded: depth by [`MAX_DEPTH`], YAML's aliases and protobuf's lengths by
//! the size of what was sent.

mod body;
pub mod json;
mod node;
pub mod protobuf;
mod scalar;
mod typed;
pub mod yaml;

pub use body::{Body, Format, Want, read, strict_error};
pub use typed::{Unknown, zero};

use crate::Tree;

/// How deep a body may nest. Kubernetes stops at 10,000; the deepest real objects (CRDs of large
/// operators) stay under 80, and a tree this shallow is safe to walk, drop and print by recursion on any
/// stack, also by libraries that stop at 128 themselves.
pub const MAX_DEPTH: usize = 120;

/// A body read by its type.
#[derive(Clone, PartialEq, Debug)]
pub struct Decoded {
    /// The object in canonical form.
    pub tree: Tree,
    /// Unknown and duplicate fields in the order found, at most 100: `unknown field "spec.dat"`.
    pub strict: Vec<String>,
}

#[cfg(test)]
mod tests;
