//! `grpc.health.v1.Health/Check` (grpc/grpc-proto, health.proto).

use super::{USER_AGENT, authority, failed, timed_out};
use base::runtime::{Answer, Failure, Why};
use http::uri::PathAndQuery;
use std::error::Error;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(enumeration = "ServingStatus", tag = "1")]
    status: i32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, prost::Enumeration)]
#[repr(i32)]
enum ServingStatus {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

/// Asks whether a service serves.
pub(crate) async fn grpc(host: &str, port: u16, service: &str, timeout: Duration) -> Result<Answer, Failure> {
    let to = authority(host, port);
    let until = Instant::now() + timeout;
    let endpoint = Endpoint::from_shared(format!("http://{to}")).and_then(|e| e.user_agent(USER_AGENT));
    let endpoint = endpoint.map_err(|e| Failure { why: Why::Invalid, message: format!("{to}: {e}") })?;
    let channel = match timeout_at(until, endpoint.connect()).await {
        Ok(Ok(channel)) => channel,
        Ok(Err(e)) => return Err(failed(format!("error: failed to connect service at \"{to}\": {}", cause(&e)))),
        Err(_) => {
            let late = "context deadline exceeded";
            return Err(timed_out(format!("timeout: failed to connect service \"{to}\" within {timeout:?}: {late}")));
        }
    };
    let mut client = Grpc::new(channel);
    let asked = async {
        client.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
        let request = Request::new(HealthCheckRequest { service: service.to_owned() });
        let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        client.unary::<_, HealthCheckResponse, _>(request, path, ProstCodec::default()).await
    };
    let late = || Status::deadline_exceeded("context deadline exceeded");
    match timeout_at(until, asked).await.unwrap_or_else(|_| Err(late())) {
        Ok(answer) => match answer.into_inner().status() {
            ServingStatus::Serving => Ok(Answer::Done),
            other => Err(failed(format!("service unhealthy (responded with \"{}\")", name(other)))),
        },
        Err(status) => Err(refused(&status, timeout)),
    }
}

fn refused(status: &Status, timeout: Duration) -> Failure {
    let said = format!("rpc error: code = {:?} desc = {}", status.code(), status.message());
    match status.code() {
        Code::Unimplemented => failed(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
            status.message()
        )),
        Code::DeadlineExceeded => timed_out(format!("timeout: health rpc did not complete within {timeout:?}: {said}")),
        _ => failed(format!("error: health rpc probe failed: {said}")),
    }
}

fn name(status: ServingStatus) -> &'static str {
    match status {
        ServingStatus::Unknown => "UNKNOWN",
        ServingStatus::Serving => "SERVING",
        ServingStatus::NotServing => "NOT_SERVING",
        ServingStatus::ServiceUnknown => "SERVICE_UNKNOWN",
    }
}

/// The last cause says what happened.
fn cause(e: &(dyn Error + 'static)) -> String {
    let mut last = e;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::{Response, StatusCode};
    use http_body_util::{BodyExt, Full, StreamBody};
    use hyper::body::{Frame, Incoming};
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use prost::Message;
    use std::convert::Infallible;
    use tokio::net::TcpListener;

    /// A server of one connection that answers by the service it is asked for: a status, a refusal, silence.
    async fn server() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let serve = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = serve.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
        });
        port
    }

    async fn answer(
        request: http::Request<Incoming>,
    ) -> Result<Response<http_body_util::combinators::BoxBody<Bytes, Infallible>>, Infallible> {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        let asked = request.into_body().collect().await.unwrap().to_bytes();
        let asked = HealthCheckRequest::decode(&asked[5..]).unwrap();
        let response = Response::builder().status(StatusCode::OK).header("content-type", "application/grpc");
        let status = match asked.service.as_str() {
            "silent" => std::future::pending().await,
            "unimplemented" => {
                let response = response.header("grpc-status", "12").header("grpc-message", "unknown service");
                return Ok(response.body(Full::new(Bytes::new()).boxed()).unwrap());
            }
            "" => ServingStatus::Serving,
            _ => ServingStatus::NotServing,
        };
        let message = HealthCheckResponse { status: status as i32 }.encode_to_vec();
        let mut framed = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
        framed.extend(message);
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        let frames = [Ok(Frame::data(Bytes::from(framed))), Ok(Frame::trailers(trailers))];
        Ok(response.body(StreamBody::new(futures_util::stream::iter(frames)).boxed()).unwrap())
    }

    #[tokio::test]
    async fn a_service_serves_or_says_why_not() {
        let long = Duration::from_secs(20);
        let ask =
            |service: &'static str, timeout| async move { grpc("127.0.0.1", server().await, service, timeout).await };
        assert_eq!(ask("", long).await, Ok(Answer::Done));
        let message = |result: Result<Answer, Failure>| result.unwrap_err().message;
        assert_eq!(message(ask("shop", long).await), "service unhealthy (responded with \"NOT_SERVING\")");
        assert_eq!(
            message(ask("unimplemented", long).await),
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unknown service"
        );
        let late = ask("silent", Duration::from_millis(100)).await.unwrap_err();
        assert_eq!(late.why, Why::TimedOut);
        assert!(late.message.starts_with("timeout: health rpc did not complete within 100ms:"), "{}", late.message);
    }

    #[tokio::test]
    async fn nobody_there_is_told_from_somebody_ill() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let failure = grpc("127.0.0.1", port, "", Duration::from_secs(20)).await.unwrap_err();
        let begin = format!("error: failed to connect service at \"127.0.0.1:{port}\": ");
        assert!(failure.message.starts_with(&begin) && failure.message.contains("refused"), "{}", failure.message);
    }
}
