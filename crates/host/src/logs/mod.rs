//! Containers' logs: files in the CRI's format, written by the runtime, read and rotated here.
//!
//! A line is `2016-10-06T00:17:09.669794202Z stdout F what was written`; `P` instead of `F` says that the
//! line was cut and goes on with the next (kubernetes/design-proposals, CRI logging).

mod decode;
mod read;
mod rotate;
mod tail;

pub use decode::Stream;
pub use read::{Options, read};
pub use rotate::{FILES_MAX, SIZE_MAX};
pub(crate) use rotate::{put_aside_before, rotate};
pub(crate) use tail::tail;
