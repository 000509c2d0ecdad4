//! Against listeners on this machine.

use super::*;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Answers each connection with the next of these, and tells what was asked.
async fn server(answers: Vec<String>) -> (u16, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        for answer in answers {
            let (stream, _) = listener.accept().await.unwrap();
            converse(stream, &answer.replace("PORT", &port.to_string()), &tell).await;
        }
    });
    (port, told)
}

async fn converse<S>(mut stream: S, answer: &str, tell: &tokio::sync::mpsc::UnboundedSender<String>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        asked.push(stream.read_u8().await.unwrap());
    }
    let _ = tell.send(String::from_utf8(asked).unwrap());
    stream.write_all(answer.as_bytes()).await.unwrap();
    let _ = stream.shutdown().await;
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn to(location: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
}

fn get(port: u16, path: &str) -> HttpGet {
    HttpGet { host: "127.0.0.1".into(), port, path: path.into(), ..HttpGet::default() }
}

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn it_asks_as_the_kubelet_does() {
    let (port, mut asked) = server(vec![ok("well"), ok("")]).await;
    let answer = http(&get(port, "/healthz?a=b"), LONG).await;
    assert_eq!(answer, Ok(Answer::Http { status: 200, body: b"well".to_vec() }));
    let said = asked.recv().await.unwrap();
    for line in [
        "GET /healthz?a=b HTTP/1.1\r\n",
        "user-agent: kube-probe/1.37\r\n",
        "accept: */*\r\n",
        "connection: close\r\n",
        &format!("host: 127.0.0.1:{port}\r\n"),
    ] {
        assert!(said.contains(line), "{line} is not in {said}");
    }
    let mut own = get(port, "no-slash");
    own.headers = vec![("Host".into(), "web.example".into()), ("Accept".into(), "text/plain".into())];
    http(&own, LONG).await.unwrap();
    let said = asked.recv().await.unwrap();
    assert!(said.starts_with("GET /no-slash "), "{said}");
    assert!(said.contains("host: web.example\r\n") && said.contains("accept: text/plain\r\n"), "{said}");
}

#[tokio::test]
async fn it_goes_where_the_same_host_sends_it_and_nowhere_else() {
    let (port, mut asked) = server(vec![to("/a/b"), to("c?d"), to("http://127.0.0.1:PORT/e"), ok("there")]).await;
    let answer = http(&get(port, "/"), LONG).await;
    assert_eq!(answer, Ok(Answer::Http { status: 200, body: b"there".to_vec() }));
    for path in ["GET / ", "GET /a/b ", "GET /a/c?d ", "GET /e "] {
        assert!(asked.recv().await.unwrap().starts_with(path), "{path}");
    }
    let (port, _asked) = server(vec![to("http://elsewhere.example/")]).await;
    assert_eq!(http(&get(port, "/"), LONG).await, Ok(Answer::Http { status: 302, body: Vec::new() }));
    let (port, _asked) = server(vec![to("/"); 11]).await;
    let failure = http(&get(port, "/"), LONG).await.unwrap_err();
    assert_eq!(failure.message, format!("Get \"http://127.0.0.1:{port}/\": stopped after 10 redirects"));
}

#[tokio::test]
async fn a_long_body_is_cut() {
    let (port, _asked) = server(vec![ok(&"x".repeat(100_000))]).await;
    let Ok(Answer::Http { body, .. }) = http(&get(port, "/"), LONG).await else { panic!("no answer") };
    assert_eq!(body.len(), BODY_MAX);
}

#[tokio::test]
async fn failures_are_in_the_words_people_know() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let silent = http(&get(port, "/x"), Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(silent.why, Why::TimedOut);
    let url = format!("Get \"http://127.0.0.1:{port}/x\": ");
    let late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
    assert_eq!(silent.message, format!("{url}{late}"));
    drop(listener);
    let refused = http(&get(port, "/x"), LONG).await.unwrap_err();
    let dialled = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
    assert_eq!(refused, failed(format!("{url}{dialled}")));
    let (port, _asked) = server(vec![String::new()]).await;
    let closed = http(&get(port, "/x"), LONG).await.unwrap_err();
    assert_eq!(closed.message, format!("Get \"http://127.0.0.1:{port}/x\": EOF"));
    let mut odd = get(port, "/");
    odd.headers = vec![("not a header".into(), String::new())];
    assert_eq!(http(&odd, LONG).await.unwrap_err().why, Why::Invalid);
}

#[tokio::test]
async fn any_certificate_will_do() {
    for protocols in [vec![], vec![b"http/1.1".to_vec()]] {
        let made = rcgen::generate_simple_self_signed(vec!["somebody.else".into()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = protocols;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, _told) = tokio::sync::mpsc::unbounded_channel();
        let serving = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let tls = TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap();
            converse(tls, &ok("secure"), &tell).await;
        });
        let asked = HttpGet { tls: true, ..get(port, "/") };
        assert_eq!(http(&asked, LONG).await, Ok(Answer::Http { status: 200, body: b"secure".to_vec() }));
        serving.await.unwrap();
    }
}

#[test]
fn references_are_read_from_where_they_are() {
    let here = Target::of(&HttpGet { host: "[fd00::1]".into(), ..get(8080, "/a/b?q") });
    for (location, url) in [
        ("/x", "http://[fd00::1]:8080/x"),
        ("x", "http://[fd00::1]:8080/a/x"),
        ("?y", "http://[fd00::1]:8080/a/b?y"),
        ("//[fd00::1]", "http://[fd00::1]:80/"),
        ("https://[fd00::1]?z", "https://[fd00::1]:443/?z"),
    ] {
        assert_eq!(here.at(location).unwrap().url(), url, "{location}");
    }
    assert_eq!(here.at(""), None);
}
