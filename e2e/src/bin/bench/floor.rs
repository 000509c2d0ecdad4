//! The floor: a server that has the bytes ready and does nothing but send them, over the same TLS and HTTP.

use crate::load::Target;
use anyhow::Result;
use http::{Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::generate_simple_self_signed;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

/// A running floor, on threads of its own, as a program would be. It ends when the handle goes.
pub(crate) struct Floor {
    pub(crate) target: Target,
    threads: Option<Runtime>,
}

/// What it answers with.
#[derive(Clone)]
struct Answers {
    /// To any GET but of `/watch`.
    body: Bytes,
    /// Who has asked for `/watch`: told what a POST says.
    listeners: Arc<Mutex<Vec<mpsc::Sender<Bytes>>>>,
}

type Body = BoxBody<Bytes, Infallible>;

impl Floor {
    /// Serves these bytes; and `/watch`, where whatever is posted comes out.
    pub(crate) fn serve(body: Bytes) -> Result<Floor> {
        let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let own = generate_simple_self_signed(vec![Ipv4Addr::LOCALHOST.to_string()])?;
        let key = rustls_pki_types::PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
        let server =
            ServerConfig::builder().with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key.into())?;
        let mut roots = RootCertStore::empty();
        roots.add(own.cert.der().clone())?;
        let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let target = Target { address: listener.local_addr()?, tls: Arc::new(client) };
        let acceptor = TlsAcceptor::from(Arc::new(server));
        let answers = Answers { body, listeners: Arc::default() };
        threads.spawn(async move {
            let listener = TcpListener::from_std(listener)?;
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, answers) = (acceptor.clone(), answers.clone());
                tokio::spawn(async move {
                    tcp.set_nodelay(true)?;
                    let tls = acceptor.accept(tcp).await?;
                    let service = service_fn(move |request| {
                        let answers = answers.clone();
                        async move { Ok::<_, Infallible>(answers.to(request).await) }
                    });
                    // A client that goes away in the middle is how each of them ends.
                    let _ =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
                    std::io::Result::Ok(())
                });
            }
            std::io::Result::Ok(())
        });
        Ok(Floor { target, threads: Some(threads) })
    }
}

impl Answers {
    async fn to(&self, request: Request<Incoming>) -> Response<Body> {
        if request.method() == Method::POST {
            if let Ok(body) = request.into_body().collect().await {
                let said = body.to_bytes();
                // Who has gone, or is a thousand behind, is told no more.
                let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
                listeners.retain(|listener| listener.try_send(said.clone()).is_ok());
            }
            return Response::new(Full::new(Bytes::from_static(b"{}")).boxed());
        }
        if request.uri().path() == "/watch" {
            return Response::new(self.heard().boxed());
        }
        Response::new(Full::new(self.body.clone()).boxed())
    }

    fn heard(&self) -> Heard {
        let (sender, heard) = mpsc::channel(1024);
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        Heard(heard)
    }
}

/// A body that goes on for as long as there is something to hear.
struct Heard(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Heard {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|next| next.map(|bytes| Ok(Frame::data(bytes))))
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // A runtime must not wait for its tasks where it may be inside another one.
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}
