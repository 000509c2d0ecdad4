//! What can go wrong with keys and their files, as letters to the operator.

use crate::{AnswerRefusal, MessageError};
use std::io;
use std::path::PathBuf;

/// Why identity could not be founded, resumed or extended.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The data directory holds no founding.
    #[error("{dir} holds no mesh: found one there, or join one")]
    NotFounded {
        /// The directory looked in.
        dir: PathBuf,
    },
    /// The data directory already belongs to a mesh. Nothing was changed.
    #[error(
        "{dir} already belongs to the mesh {trust_domain}: resume it, or choose another directory. Nothing was changed"
    )]
    AlreadyFounded {
        /// The directory looked in.
        dir: PathBuf,
        /// The mesh it belongs to.
        trust_domain: String,
    },
    /// The data directory has begun to join a mesh. Nothing was changed.
    #[error(
        "{dir} has begun to join the mesh {trust_domain}: run `beemesh join` with the ticket again, or remove {dir}/identity first to found a mesh of its own. Nothing was changed"
    )]
    Joining {
        /// The directory looked in.
        dir: PathBuf,
        /// The mesh it wants to join.
        trust_domain: String,
    },
    /// A file or folder could not be read or written. A file being replaced still has its old content.
    #[error(
        "cannot {operation} {path}: {source}. Check that it belongs to the user running beemesh and that the disk is well"
    )]
    File {
        /// What was being done.
        operation: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A key file could be read by others. It was not used.
    #[error(
        "{path} holds a key and is open to others (mode {mode:04o}): it was not used. If nobody can have copied it, `chmod 600 {path}`"
    )]
    TooPermissive {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file's content is not what beemesh wrote there. It was left as it is.
    #[error("{path} is damaged ({what}): restore it from a backup; it was left as it is")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A file was written by a release that knows more. It was left as it is.
    #[error(
        "{path} has the format {found:?} and this release knows {known:?}: run the release that wrote it, or a newer one"
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// What it says it is.
        found: String,
        /// What this release reads.
        known: &'static str,
    },
    /// A trust domain that SPIFFE does not allow.
    #[error("{text:?} cannot be a trust domain: {why}")]
    TrustDomain {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The key of the root authority is not on this node, and what was asked needs it.
    #[error("this node does not keep the root authority's key: ask a node with the role authority for {what}")]
    NotAnAuthority {
        /// What was asked.
        what: &'static str,
    },
    /// An issuer was asked for a certificate beyond its scope. None was made.
    #[error("an issuer for {scope} may not certify {name}")]
    BeyondScope {
        /// The issuer's scope.
        scope: String,
        /// Whom it should have certified.
        name: String,
    },
    /// Bytes from another node could not be used.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The answer to a request to join was not believed.
    #[error(transparent)]
    Answer(#[from] AnswerRefusal),
    /// A certificate that was answered with is not the one asked for. The present one stays in use.
    #[error(
        "the certificate for {what} that came back cannot be used ({why}): the present one stays in use; ask again"
    )]
    NotAsAsked {
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The gateway's names cannot stand in a certificate. None was made.
    #[error("the API server cannot be certified under the names asked for: {why}")]
    GatewayNames {
        /// Which, and what to do.
        why: String,
    },
    /// The cryptographic library refused.
    #[error("cannot {operation}: {why}")]
    Crypto {
        /// What was being done.
        operation: &'static str,
        /// What the library said.
        why: String,
    },
}

impl IdentityError {
    pub(crate) fn crypto(operation: &'static str) -> impl Fn(rcgen::Error) -> IdentityError {
        move |e| IdentityError::Crypto { operation, why: e.to_string() }
    }
}
