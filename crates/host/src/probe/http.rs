//! `GET`, over TCP or over TLS with whoever answers.

use super::{USER_AGENT, authority, dial, failed, timed_out};
use base::runtime::{Answer, Failure, HttpGet, Why};
use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use std::error::Error;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// What is read of an answer's body.
const BODY_MAX: usize = 10 << 10;
/// How often it may be sent elsewhere (Go's http.Client).
const REDIRECTS_MAX: usize = 10;

/// Asks, and goes where it is sent as long as that is the same host; being sent elsewhere is the answer.
pub(crate) async fn http(get: &HttpGet, timeout: Duration) -> Result<Answer, Failure> {
    let mut target = Target::of(get);
    let headers = headers(&get.headers)?;
    let asked = async {
        for _ in 0..=REDIRECTS_MAX {
            let response = ask(&target, &headers).await.map_err(|why| (target.clone(), why))?;
            match target.sent_on(&response) {
                Some(next) => target = next,
                None => {
                    let status = response.status().as_u16();
                    let body = beginning(response.into_body()).await.map_err(|why| (target.clone(), why))?;
                    return Ok(Answer::Http { status, body });
                }
            }
        }
        Err((target.clone(), format!("stopped after {REDIRECTS_MAX} redirects")))
    };
    match tokio::time::timeout(timeout, asked).await {
        Ok(answer) => answer.map_err(|(at, why)| failed(format!("Get \"{}\": {why}", at.url()))),
        Err(_) => Err(timed_out(format!(
            "Get \"{}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            Target::of(get).url()
        ))),
    }
}

/// What is asked of whom.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Target {
    tls: bool,
    /// Without brackets.
    host: String,
    port: u16,
    /// With the query; begins with a slash.
    path: String,
}

impl Target {
    fn of(get: &HttpGet) -> Target {
        let slash = if get.path.starts_with('/') { "" } else { "/" };
        let host = get.host.trim_matches(['[', ']']).to_owned();
        Target { tls: get.tls, host, port: get.port, path: format!("{slash}{}", get.path) }
    }

    fn authority(&self) -> String {
        authority(&self.host, self.port)
    }

    fn url(&self) -> String {
        format!("{}://{}{}", if self.tls { "https" } else { "http" }, self.authority(), self.path)
    }

    /// Where a response sends us, if it is to the same host.
    fn sent_on(&self, response: &Response<Incoming>) -> Option<Target> {
        let code = response.status();
        let sends = [
            StatusCode::MOVED_PERMANENTLY,
            StatusCode::FOUND,
            StatusCode::SEE_OTHER,
            StatusCode::TEMPORARY_REDIRECT,
            StatusCode::PERMANENT_REDIRECT,
        ];
        let location = response.headers().get(LOCATION).filter(|_| sends.contains(&code))?.to_str().ok()?;
        self.at(location).filter(|next| next.host == self.host)
    }

    /// A reference as seen from here (RFC 3986, 5.2, without dots in paths: servers know those).
    fn at(&self, location: &str) -> Option<Target> {
        let whole = match location.strip_prefix("//") {
            Some(rest) => format!("{}://{rest}", if self.tls { "https" } else { "http" }),
            None => location.to_owned(),
        };
        if whole.starts_with("http://") || whole.starts_with("https://") {
            let uri: Uri = whole.parse().ok()?;
            let tls = uri.scheme_str() == Some("https");
            let path = uri.path_and_query().map_or("/", |p| p.as_str());
            return Some(Target {
                tls,
                host: uri.host()?.trim_matches(['[', ']']).to_owned(),
                port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
                path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
            });
        }
        let here = self.path.split(['?', '#']).next().unwrap_or("/");
        let path = match whole.split('#').next().unwrap_or_default() {
            absolute if absolute.starts_with('/') => absolute.to_owned(),
            query if query.starts_with('?') => format!("{here}{query}"),
            "" => return None,
            relative => format!("{}/{relative}", &here[..here.rfind('/').unwrap_or(0)]),
        };
        Some(Target { path, ..self.clone() })
    }
}

/// The headers of the probe, with what the kubelet adds to them.
fn headers(given: &[(String, String)]) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let invalid = || Failure { why: Why::Invalid, message: format!("{name:?}: {value:?} is no HTTP header") };
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid())?;
        headers.append(name, HeaderValue::from_str(value).map_err(|_| invalid())?);
    }
    for (name, value) in [(http::header::USER_AGENT, USER_AGENT), (ACCEPT, "*/*")] {
        if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    // An empty one says that there is to be none.
    if headers.get(ACCEPT).is_some_and(HeaderValue::is_empty) {
        headers.remove(ACCEPT);
    }
    Ok(headers)
}

async fn ask(target: &Target, headers: &HeaderMap) -> Result<Response<Incoming>, String> {
    let to = target.authority();
    let tcp = TcpStream::connect(&to).await.map_err(|e| dial(&to, &e))?;
    if !target.tls {
        return over_http1(tcp, target, headers).await;
    }
    let name = ServerName::try_from(target.host.clone()).map_err(|e| e.to_string())?;
    let tls = TlsConnector::from(trusting_config()).connect(name, tcp).await.map_err(|e| said(&e))?;
    if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
        return over_http2(tls, target, headers).await;
    }
    over_http1(tls, target, headers).await
}

async fn over_http1<S>(stream: S, target: &Target, headers: &HeaderMap) -> Result<Response<Incoming>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connected = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = connected.map_err(|e| said(&e))?;
    tokio::spawn(connection);
    let mut request = Request::get(target.path.as_str()).version(Version::HTTP_11).body(Empty::<Bytes>::new());
    if let Ok(request) = &mut request {
        request.headers_mut().clone_from(headers);
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        if let (false, Ok(host)) = (headers.contains_key(HOST), HeaderValue::from_str(&target.authority())) {
            request.headers_mut().insert(HOST, host);
        }
    }
    sender.send_request(request.map_err(|e| e.to_string())?).await.map_err(|e| said(&e))
}

async fn over_http2<S>(stream: S, target: &Target, headers: &HeaderMap) -> Result<Response<Incoming>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connected = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = connected.map_err(|e| said(&e))?;
    tokio::spawn(connection);
    let authority = headers.get(HOST).and_then(|h| h.to_str().ok()).map_or_else(|| target.authority(), str::to_owned);
    let uri = format!("https://{authority}{}", target.path);
    let mut request = Request::get(uri).version(Version::HTTP_2).body(Empty::<Bytes>::new());
    if let Ok(request) = &mut request {
        request.headers_mut().clone_from(headers);
        request.headers_mut().remove(HOST);
    }
    sender.send_request(request.map_err(|e| e.to_string())?).await.map_err(|e| said(&e))
}

async fn beginning(mut body: Incoming) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(|e| said(&e))?.into_data() {
            bytes.extend_from_slice(&data);
        }
        if bytes.len() >= BODY_MAX {
            bytes.truncate(BODY_MAX);
            break;
        }
    }
    Ok(bytes)
}

/// What went wrong, down to the cause; Go's word for a connection that was closed.
fn said(e: &(dyn Error + 'static)) -> String {
    let mut cause: Option<&(dyn Error + 'static)> = Some(e);
    let mut last = e.to_string();
    while let Some(c) = cause {
        if c.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message) {
            return "EOF".into();
        }
        if let Some(io) = c.downcast_ref::<io::Error>() {
            match io.kind() {
                io::ErrorKind::UnexpectedEof => return "EOF".into(),
                io::ErrorKind::ConnectionReset => return "read: connection reset by peer".into(),
                _ => {}
            }
        }
        last = c.to_string();
        cause = c.source();
    }
    last
}

/// TLS with whoever answers.
fn trusting_config() -> Arc<ClientConfig> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let make = || {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        // The provider has suites of both versions, which is all this asks for.
        #[allow(clippy::expect_used)]
        let config = config.expect("the provider knows TLS 1.2 and 1.3").dangerous();
        let mut config = config.with_custom_certificate_verifier(Arc::new(Anybody(provider))).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    };
    CONFIG.get_or_init(make).clone()
}

/// Takes any certificate: a probe asks whether somebody is well, not who they are.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
