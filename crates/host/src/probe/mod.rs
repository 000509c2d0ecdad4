//! Asking a container whether it is well: HTTP, TCP, gRPC. What an answer means is decided elsewhere.
//!
//! Failures are worded as by the kubelet, which has Go's words, since people and tools look for them.

mod grpc;
mod http;

pub(crate) use grpc::grpc;
pub(crate) use http::http;

use base::runtime::{Answer, Failure, Why};
use std::io;
use std::time::Duration;
use tokio::net::TcpStream;

/// What a probe calls itself.
const USER_AGENT: &str = "kube-probe/1.37";

/// Opens a connection and closes it.
pub(crate) async fn tcp(host: &str, port: u16, timeout: Duration) -> Result<Answer, Failure> {
    let to = authority(host, port);
    match tokio::time::timeout(timeout, TcpStream::connect(&to)).await {
        Ok(Ok(_)) => Ok(Answer::Done),
        Ok(Err(e)) => Err(failed(dial(&to, &e))),
        Err(_) => Err(timed_out(format!("dial tcp {to}: i/o timeout"))),
    }
}

/// Host and port as they are dialled.
fn authority(host: &str, port: u16) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// Why somebody could not be dialled, in Go's words.
fn dial(to: &str, e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::ConnectionRefused => format!("dial tcp {to}: connect: connection refused"),
        io::ErrorKind::HostUnreachable => format!("dial tcp {to}: connect: no route to host"),
        io::ErrorKind::NetworkUnreachable => format!("dial tcp {to}: connect: network is unreachable"),
        io::ErrorKind::TimedOut => format!("dial tcp {to}: connect: connection timed out"),
        _ => format!("dial tcp {to}: {e}"),
    }
}

fn failed(message: String) -> Failure {
    Failure { why: Why::Failed, message }
}

fn timed_out(message: String) -> Failure {
    Failure { why: Why::TimedOut, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_port_is_open_or_refuses() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(tcp("127.0.0.1", port, Duration::from_secs(5)).await, Ok(Answer::Done));
        drop(listener);
        let refused = tcp("127.0.0.1", port, Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(refused, failed(format!("dial tcp 127.0.0.1:{port}: connect: connection refused")));
    }

    #[tokio::test]
    async fn nobody_there_is_a_timeout() {
        // A listener whose queue is full answers no more connections.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let to = listener.local_addr().unwrap();
        let mut held = Vec::new();
        let waited = loop {
            match tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(to)).await {
                Ok(connection) => held.push(connection.unwrap()),
                Err(_) => break tcp("127.0.0.1", to.port(), Duration::from_millis(50)).await,
            }
        };
        let Failure { why, message } = waited.unwrap_err();
        assert_eq!((why, message), (Why::TimedOut, format!("dial tcp {to}: i/o timeout")));
    }

    #[test]
    fn addresses_of_both_families_can_be_dialled() {
        assert_eq!(authority("10.0.0.1", 80), "10.0.0.1:80");
        assert_eq!(authority("fd00::1", 80), "[fd00::1]:80");
        assert_eq!(authority("[fd00::1]", 80), "[fd00::1]:80");
        assert_eq!(authority("web.shop", 80), "web.shop:80");
    }
}
