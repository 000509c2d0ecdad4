//! etcd, alone on the same disk: the peer for whatever is written and read.

use crate::load::{AsyncOne, Taken, closed_loop};
use anyhow::{Context, Result};
use e2e::Place;
use prost::Message;
use std::fs::File;
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

/// A running etcd. It is killed when the handle goes.
pub(crate) struct Etcd {
    child: Child,
    url: String,
    /// `etcd 3.7.0`.
    pub(crate) version: String,
    /// From its start to its first answer.
    pub(crate) ready_after: Duration,
}

// etcdserverpb, as far as needed: etcd's api/etcdserverpb/rpc.proto.
#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}
#[derive(Clone, PartialEq, Message)]
struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}
#[derive(Clone, PartialEq, Message)]
struct RangeResponse {
    #[prost(int64, tag = "4")]
    count: i64,
}
#[derive(Clone, PartialEq, Message)]
struct Nothing {}

impl Etcd {
    pub(crate) fn start(runtime: &tokio::runtime::Runtime, place: &Place) -> Result<Etcd> {
        let program = e2e::process::tool("etcd")?;
        let told = Command::new(&program).arg("--version").output().context("no etcd: run `make bench`")?;
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        let number = told.lines().find_map(|l| l.strip_prefix("etcd Version: ")).context("a strange etcd")?;
        let address = Place::address();
        let (url, peers) = (at(address, 2379), at(address, 2380));
        let log = File::create(place.join("etcd.log"))?;
        let begin = Instant::now();
        // setpriv: if this process is killed, so is etcd.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(&program)
            .arg("--data-dir")
            .arg(place.join("etcd"))
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
            .args(["--initial-cluster", &format!("default={peers}"), "--log-level", "warn"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut etcd = Etcd { child, url, version: format!("etcd {number}"), ready_after: Duration::ZERO };
        e2e::until("etcd", Duration::from_secs(30), || {
            Ok(runtime.block_on(async { anyhow::Ok(etcd.client().await?.put("ready", b"").await?) }).ok())
        })?;
        etcd.ready_after = begin.elapsed();
        Ok(etcd)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) async fn client(&self) -> Result<Client> {
        Ok(Client(Grpc::new(Endpoint::from_shared(self.url.clone())?.tcp_nodelay(true).connect().await?)))
    }

    async fn clients(&self, n: usize) -> Result<Vec<Client>> {
        let mut all = Vec::new();
        for _ in 0..n {
            all.push(self.client().await?);
        }
        Ok(all)
    }

    /// Puts of values of that size, under keys of their own.
    pub(crate) async fn puts(&self, connections: usize, bytes: usize, time: Duration) -> Result<Taken> {
        closed_loop(self.clients(connections).await?, time, Put { prefix: format!("c{connections}"), bytes }).await
    }

    /// Linearizable reads of one key.
    pub(crate) async fn gets(&self, connections: usize, bytes: usize, time: Duration) -> Result<Taken> {
        self.client().await?.put("read", &vec![7; bytes]).await?;
        closed_loop(self.clients(connections).await?, time, Get).await
    }
}

fn at(address: Ipv4Addr, port: u16) -> String {
    format!("http://{address}:{port}")
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended by itself: either way it is gone after this.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One connection.
pub(crate) struct Client(Grpc<Channel>);

impl Client {
    async fn ask<Q: Message + 'static, A: Message + Default + 'static>(
        &mut self,
        path: &'static str,
        question: Q,
    ) -> Result<A> {
        self.0.ready().await?;
        let codec: ProstCodec<Q, A> = ProstCodec::default();
        Ok(self.0.unary(tonic::Request::new(question), PathAndQuery::from_static(path), codec).await?.into_inner())
    }

    async fn put(&mut self, key: &str, value: &[u8]) -> Result<()> {
        let question = PutRequest { key: key.into(), value: value.to_vec() };
        self.ask::<_, Nothing>("/etcdserverpb.KV/Put", question).await?;
        Ok(())
    }
}

#[derive(Clone)]
struct Put {
    prefix: String,
    bytes: usize,
}

impl AsyncOne<Client> for Put {
    async fn call(&self, client: &mut Client, number: usize) -> Result<()> {
        client.put(&format!("{}-{number}", self.prefix), &vec![7; self.bytes]).await
    }
}

#[derive(Clone)]
struct Get;

impl AsyncOne<Client> for Get {
    async fn call(&self, client: &mut Client, _: usize) -> Result<()> {
        let answer: RangeResponse =
            client.ask("/etcdserverpb.KV/Range", RangeRequest { key: b"read".to_vec() }).await?;
        anyhow::ensure!(answer.count == 1, "the key was not there");
        Ok(())
    }
}
