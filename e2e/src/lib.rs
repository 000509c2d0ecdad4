//! What the end-to-end stories are told with: the real `beemesh` program, the real `kubectl`, and the
//! faults that machines and the network between them have ([`network`] says how to tell of several). The stories are in `scenarios`, one a file.
//!
//! Nothing here looks inside the program: it is started, killed and asked as a user would. Whatever a
//! story starts, mounts or makes goes when its handle goes, also when the story fails.

pub mod forgetful;
pub mod images;
pub mod kubectl;
pub mod machine;
pub mod network;
pub mod node;
pub mod place;
pub mod process;
pub mod registry;
pub mod terminal;
pub mod wait;

pub use forgetful::{Forgetful, Loss};
pub use kubectl::{Kubectl, Watching};
pub use machine::{Machine, Model};
pub use network::{Fault, Nat, Network};
pub use node::{Node, Options};
pub use place::Place;
pub use process::Answer;
pub use registry::{Manner, Registry};
pub use terminal::Terminal;
pub use wait::until;
