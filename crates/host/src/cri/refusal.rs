//! What a runtime's refusal is in our words, with the runtime's own kept for people.

use base::runtime::{Failure, Why};
use std::path::Path;
use tonic::{Code, Status};

/// It answers, but does not do anything yet: containerd for the first second of its life.
pub(super) fn is_starting(status: &Status) -> bool {
    status.message().contains("server is not initialized yet")
}

/// What became of a call. The message is as Kubernetes' clients print it.
pub(super) fn failure(socket: &Path, status: &Status) -> Failure {
    let why = why(status);
    let said = format!("rpc error: code = {} desc = {}", name(status.code()), text(status));
    let message = match why {
        Why::NoRuntime => format!("the container runtime on {} does not answer: {said}", socket.display()),
        _ => said,
    };
    Failure { why, message }
}

fn why(status: &Status) -> Why {
    let said = status.message();
    let any = |words: &[&str]| words.iter().any(|w| said.contains(w));
    if is_starting(status) {
        return Why::NoRuntime;
    }
    match status.code() {
        Code::Unavailable => Why::NoRuntime,
        // Made at this end, of a connection that broke: one that was just opened to a runtime that dies is
        // not "unavailable" to the library.
        Code::Unknown if std::error::Error::source(status).is_some() => Why::NoRuntime,
        Code::DeadlineExceeded | Code::Cancelled => Why::TimedOut,
        Code::PermissionDenied | Code::Unauthenticated => Why::Denied,
        Code::InvalidArgument => Why::Invalid,
        // A registry that does not show what it has to strangers says so in several ways; some runtimes
        // call it NotFound, some Unknown.
        _ if any(&["authorization failed", "insufficient_scope", "401 Unauthorized", "403 Forbidden"]) => Why::Denied,
        Code::NotFound => Why::NotFound,
        Code::Unknown if any(&["invalid reference format", "failed to parse image reference"]) => Why::Invalid,
        Code::Unknown if said.ends_with(": not found") => Why::NotFound,
        _ => Why::Failed,
    }
}

/// The message, and for a broken connection what it broke on.
fn text(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(c) = cause {
        let said = c.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = c.source();
    }
    text
}

/// Codes as gRPC's Go library, and so every Kubernetes user, knows them.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart() {
        let pull = "failed to pull and unpack image \"docker.io/library/x:1\": failed to resolve reference";
        let denied = "pull access denied, repository does not exist or may require authorization: server message: \
                      insufficient_scope: authorization failed";
        for (code, said, why_expected) in [
            (Code::NotFound, format!("{pull}: docker.io/library/x:1: not found"), Why::NotFound),
            (Code::Unknown, format!("{pull}: {denied}"), Why::Denied),
            (Code::NotFound, format!("{pull}: {denied}"), Why::Denied),
            (Code::Unknown, format!("{pull}: unexpected status code 401 Unauthorized"), Why::Denied),
            (Code::Unknown, format!("{pull}: dial tcp: lookup registry.example: no such host"), Why::Failed),
            (Code::Unknown, "failed to parse image reference \"A B\": invalid reference format".into(), Why::Invalid),
            (Code::InvalidArgument, "no".into(), Why::Invalid),
            (Code::DeadlineExceeded, "context deadline exceeded".into(), Why::TimedOut),
            (Code::Unavailable, "connection refused".into(), Why::NoRuntime),
            (Code::Unknown, "server is not initialized yet".into(), Why::NoRuntime),
            (Code::Internal, "runc create failed".into(), Why::Failed),
        ] {
            let failure = failure(Path::new("/s"), &Status::new(code, said.clone()));
            assert_eq!(failure.why, why_expected, "{code:?} {said}");
            assert!(failure.message.ends_with(&format!("rpc error: code = {} desc = {said}", name(code))));
        }
    }
}
