//! Probes and hooks as things to ask of the host, and what is to be made of the answers.
//!
//! Source: the kubelet's `prober/prober.go`, `pkg/probe` and `lifecycle/handlers.go`.

use super::expand::expand;
use super::spec::formatted;
use base::runtime::{Answer, Failure, HttpGet, Op, Why};
use objects::Tree;
use objects::kinds::tree::Fields;
use objects::status::quote;
use std::net::IpAddr;
use std::time::Duration;

/// Beyond this a hook's command is given up.
const HOOK_MAX: Duration = Duration::from_secs(3600 * 24);

/// What a probe found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// All is well.
    Well,
    /// All is well, but for this.
    Warning(String),
    /// It is not well, and why.
    Ill(String),
    /// It could not be asked, and why.
    Error(String),
}

/// What to ask for a probe.
///
/// # Errors
/// It cannot be asked: a port that has no number, say.
pub(super) fn probe_op(id: &str, container: &Tree, probe: &Tree, address: Option<IpAddr>) -> Result<Op, String> {
    let timeout = Duration::from_secs(probe.int("timeoutSeconds").and_then(|s| u64::try_from(s).ok()).unwrap_or(1));
    let host = |stated: &str| match (stated, address) {
        ("", Some(a)) => a.to_string(),
        (host, _) => host.to_owned(),
    };
    if probe.has("exec") {
        let value =
            |n: &str| container.list("env").iter().find(|e| e.text("name") == n).map(|e| e.text("value").to_owned());
        let command = probe.at("exec").list("command").iter().filter_map(Tree::as_str);
        return Ok(Op::Exec { id: id.to_owned(), command: command.map(|c| expand(c, value)).collect(), timeout });
    }
    if probe.has("httpGet") {
        let get = http(container, probe.at("httpGet"), &host, "probe")?;
        return Ok(Op::Http { get, timeout });
    }
    if probe.has("tcpSocket") {
        let tcp = probe.at("tcpSocket");
        return Ok(Op::Tcp { host: host(tcp.text("host")), port: port(container, tcp.at("port"))?, timeout });
    }
    if probe.has("grpc") {
        let grpc = probe.at("grpc");
        return Ok(Op::Grpc {
            host: host(""),
            port: port(container, grpc.at("port"))?,
            service: grpc.text("service").to_owned(),
            timeout,
        });
    }
    Err(format!("missing probe handler for container {}", container.text("name")))
}

/// What an answer to a probe says.
pub(super) fn probed(probe: &Tree, result: Result<Answer, Failure>) -> Found {
    match result {
        Ok(Answer::Exit { code: 0, .. } | Answer::Done) => Found::Well,
        Ok(Answer::Exit { output, .. }) => Found::Ill(String::from_utf8_lossy(&output).into_owned()),
        Ok(Answer::Http { status: 200..=299, .. }) => Found::Well,
        Ok(Answer::Http { status: 300..=399, body }) => {
            Found::Warning(format!("Probe terminated redirects, Response body: {}", String::from_utf8_lossy(&body)))
        }
        Ok(Answer::Http { status, .. }) => Found::Ill(format!("HTTP probe failed with statuscode: {status}")),
        Ok(_) => Found::Error("the host gave an answer that fits no probe".to_owned()),
        // Whether nobody listens or nobody answers in time, the container is not well; that the runtime
        // does not answer, or that the container is gone, says nothing about it.
        Err(Failure { why: Why::NoRuntime | Why::NotFound | Why::Invalid, message }) => Found::Error(message),
        // A command that could not be run has said nothing either; one that takes too long has.
        Err(Failure { why: Why::Failed, message }) if probe.has("exec") => Found::Error(message),
        Err(failure) => Found::Ill(failure.message),
    }
}

/// What a hook asks of the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Hook {
    /// This.
    Ask(Box<Op>),
    /// Nothing but to wait.
    Sleep(Duration),
}

/// A hook, which may take as long as `most`.
///
/// # Errors
/// It cannot be asked.
pub(super) fn hook(
    id: &str,
    container: &Tree,
    handler: &Tree,
    address: Option<IpAddr>,
    most: Option<Duration>,
) -> Result<Hook, String> {
    let timeout = most.unwrap_or(HOOK_MAX);
    if handler.has("exec") {
        let command = handler.at("exec").list("command").iter().filter_map(Tree::as_str).map(str::to_owned);
        return Ok(Hook::Ask(Box::new(Op::Exec { id: id.to_owned(), command: command.collect(), timeout })));
    }
    if handler.has("sleep") {
        let seconds = handler.at("sleep").int("seconds").and_then(|s| u64::try_from(s).ok()).unwrap_or(0);
        return Ok(Hook::Sleep(Duration::from_secs(seconds)));
    }
    let host = |stated: &str| match (stated, address) {
        ("", Some(a)) => a.to_string(),
        (host, _) => host.to_owned(),
    };
    if handler.has("httpGet") {
        let get = http(container, handler.at("httpGet"), &host, "lifecycle")?;
        return Ok(Hook::Ask(Box::new(Op::Http { get, timeout })));
    }
    Err("Cannot run handler: invalid handler".to_owned())
}

/// Whether a hook went well; the words of the kubelet if not.
pub(super) fn hooked(
    pod: &Tree,
    container: &Tree,
    handler: &Tree,
    result: Result<Answer, Failure>,
) -> Result<(), String> {
    let whose = format!("for Container {} in Pod {} failed", quote(container.text("name")), quote(&formatted(pod)));
    let why = match result {
        // Any answer at all to an HTTP hook will do.
        Ok(Answer::Exit { code: 0, .. } | Answer::Http { .. } | Answer::Done) => return Ok(()),
        Ok(Answer::Exit { code, output }) => {
            let command: Vec<&str> = handler.at("exec").list("command").iter().filter_map(Tree::as_str).collect();
            return Err(format!(
                "Exec lifecycle hook ([{}]) {whose} - error: command '{}' exited with {code}: {}, message: {}",
                command.join(" "),
                command.join(" "),
                String::from_utf8_lossy(&output),
                quote(&String::from_utf8_lossy(&output))
            ));
        }
        Ok(_) => "the host gave an answer that fits no hook".to_owned(),
        Err(failure) => failure.message,
    };
    Err(if handler.has("httpGet") {
        format!("HTTP lifecycle hook ({}) {whose} - error: {why}", handler.at("httpGet").text("path"))
    } else {
        let command: Vec<&str> = handler.at("exec").list("command").iter().filter_map(Tree::as_str).collect();
        format!("Exec lifecycle hook ([{}]) {whose} - error: {why}, message: \"\"", command.join(" "))
    })
}

fn http(container: &Tree, get: &Tree, host: &dyn Fn(&str) -> String, who: &str) -> Result<HttpGet, String> {
    let mut headers: Vec<(String, String)> =
        get.list("httpHeaders").iter().map(|h| (h.text("name").to_owned(), h.text("value").to_owned())).collect();
    let has = |headers: &[(String, String)], name: &str| headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    if !has(&headers, "User-Agent") {
        headers.push(("User-Agent".to_owned(), format!("kube-{who}/1.37")));
    }
    if !has(&headers, "Accept") {
        headers.push(("Accept".to_owned(), "*/*".to_owned()));
    }
    headers.retain(|(n, v)| !(n.eq_ignore_ascii_case("Accept") && v.is_empty()));
    let path = get.text("path");
    Ok(HttpGet {
        host: host(get.text("host")),
        port: port(container, get.at("port"))?,
        path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
        tls: get.text("scheme").eq_ignore_ascii_case("HTTPS"),
        headers,
    })
}

/// A port by number, or by the name it has in the container.
fn port(container: &Tree, port: &Tree) -> Result<u16, String> {
    let number = match port.as_str() {
        None => port.as_i64(),
        Some(name) => match container.list("ports").iter().find(|p| p.text("name") == name) {
            Some(p) => p.int("containerPort"),
            None => return Err(format!("port {} not found", quote(name))),
        },
    };
    let number = number.unwrap_or(-1);
    u16::try_from(number).ok().filter(|p| *p > 0).ok_or_else(|| format!("invalid port number: {number}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn probes_ask_the_pods_address_by_a_ports_name_or_number() {
        let c =
            json!({"name": "c", "env": [{"name": "A", "value": "1"}], "ports": [{"name": "web", "containerPort": 80}]});
        let address = Some("10.42.0.2".parse().unwrap());
        let seconds = Duration::from_secs;
        for (probe, want) in [
            (
                json!({"exec": {"command": ["cat", "$(A)"]}, "timeoutSeconds": 3}),
                Ok(Op::Exec { id: "x".into(), command: vec!["cat".into(), "1".into()], timeout: seconds(3) }),
            ),
            (
                json!({"tcpSocket": {"port": "web"}, "timeoutSeconds": 1}),
                Ok(Op::Tcp { host: "10.42.0.2".into(), port: 80, timeout: seconds(1) }),
            ),
            (
                json!({"grpc": {"port": 9, "service": "s"}, "timeoutSeconds": 1}),
                Ok(Op::Grpc { host: "10.42.0.2".into(), port: 9, service: "s".into(), timeout: seconds(1) }),
            ),
            (json!({"tcpSocket": {"port": "ssh"}}), Err("port \"ssh\" not found".to_owned())),
            (json!({"tcpSocket": {"port": 0}}), Err("invalid port number: 0".to_owned())),
            (json!({}), Err("missing probe handler for container c".to_owned())),
        ] {
            assert_eq!(probe_op("x", &c, &probe, address), want, "{probe}");
        }
        let probe = json!({"httpGet": {"port": 80, "path": "h", "scheme": "HTTPS", "httpHeaders": [{"name": "accept", "value": ""}]}});
        let Ok(Op::Http { get, .. }) = probe_op("x", &c, &probe, address) else { panic!("no http") };
        assert_eq!((get.path.as_str(), get.tls), ("/h", true));
        assert_eq!(get.headers, [("User-Agent".to_owned(), "kube-probe/1.37".to_owned())]);
    }

    #[test]
    fn answers_tell_the_ill_from_the_unknown() {
        let fail = |why| Err(Failure { why, message: "m".into() });
        for (answer, want) in [
            (Ok(Answer::Exit { code: 0, output: vec![] }), Found::Well),
            (Ok(Answer::Exit { code: 1, output: b"no".to_vec() }), Found::Ill("no".into())),
            (Ok(Answer::Http { status: 204, body: vec![] }), Found::Well),
            (
                Ok(Answer::Http { status: 503, body: vec![] }),
                Found::Ill("HTTP probe failed with statuscode: 503".into()),
            ),
            (
                Ok(Answer::Http { status: 302, body: b"b".to_vec() }),
                Found::Warning("Probe terminated redirects, Response body: b".into()),
            ),
            (fail(Why::TimedOut), Found::Ill("m".into())),
            (fail(Why::Failed), Found::Ill("m".into())),
            (fail(Why::NoRuntime), Found::Error("m".into())),
        ] {
            assert_eq!(probed(&json!({"httpGet": {}}), answer.clone()), want, "{answer:?}");
        }
        let exec = json!({"exec": {}});
        for (why, want) in [
            (Why::Failed, Found::Error("m".into())),
            (Why::TimedOut, Found::Ill("m".into())),
            (Why::NotFound, Found::Error("m".into())),
        ] {
            assert_eq!(probed(&exec, fail(why)), want, "{why:?}");
        }
    }
}
