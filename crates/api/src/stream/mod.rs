//! Streams: exec, attach, port-forward, towards clients and towards a container runtime.
//!
//! Clients speak SPDY/3.1, WebSockets with a channel byte before each message, or SPDY tunnelled in a
//! WebSocket; a runtime speaks SPDY. Whatever they speak, a process is five channels (`remote`) and a
//! forwarded port a two-way stream (`forward`).

pub mod client;
pub mod multiplex;
pub mod spdy;

pub(crate) mod forward;
pub(crate) mod remote;
pub(crate) mod tunnel;
pub(crate) mod websocket;

use std::time::Duration;

/// How long a process, or a forwarded port, may take to read the last that a client said which is gone.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(10);
