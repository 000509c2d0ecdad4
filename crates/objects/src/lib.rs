//! Kubernetes API semantics as values: schema, defaulting, validation, patch, apply, select, table,
//! admission, RBAC, and the one visit in which a cell's leader decides a request.
//!
//! Everything here is a pure function of what is handed in. Objects are trees ([`Tree`]) typed by the
//! schema tables, never typed structs, so that a field of a newer release survives an older one's
//! write. The crate knows nothing of cells, logs, HTTP or nodes.

#![forbid(unsafe_code)]

pub mod admission;
pub mod allotment;
pub mod bootstrap;
pub mod codec;
pub mod decide;
pub mod decision;
pub mod kinds;
pub mod membership;
pub mod openapi;
mod owned;
pub mod patch;
pub mod pod_stream;
pub mod rbac;
pub mod read;
pub mod record;
pub mod request;
pub mod schema;
pub mod select;
pub mod status;
pub mod table;
pub mod views;

/// An object, or a part of one, as JSON: maps are ordered by key, so equal trees have equal bytes.
pub type Tree = serde_json::Value;
/// The fields of an object.
pub type Map = serde_json::Map<String, Tree>;
