//! The HTTPS gateway that speaks Kubernetes.
//!
//! I/O with no opinions: it turns bytes into requests and answers into bytes, within bounds, and leaves
//! everything that has a meaning to `objects` and to what stands behind [`port::Backend`]. Entry points:
//! [`server::serve`], and [`port`] for what a program must offer to be served.

#![forbid(unsafe_code)]

mod body;
mod connect;
mod discovery;
mod grant;
mod handle;
mod nonresource;
mod options;
mod peer;
mod render;
mod resource;
mod respond;
mod status;
mod watch;

pub mod authenticate;
pub mod catalogue;
pub mod negotiate;
pub mod port;
pub mod route;
pub mod server;
pub mod stream;
