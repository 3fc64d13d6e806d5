//! A role's HTTP/1.1 beside its gRPC: the same connections, TLS and end, and nobody who holds one up for nothing.

use std::{io, net::SocketAddr, pin::pin, time::Duration};

use axum::{Router, body::Body, extract::Request};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
    time::sleep,
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use crate::{
    connections::{Connection, ConnectionConfig, ConnectionMetrics, Peer, accept},
    replicas::Target,
    rpcs::RpcMeter,
    stall::StallGuard,
    tls::ServerTls,
};

/// The most that a request line and its headers may take, and what is read ahead of a body, in bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// How long a peer may keep a connection waiting.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From when a request may come, to the end of its headers.
    pub headers: Duration,
    /// For the peer to take any of the answer.
    pub reading: Duration,
}

/// A bound address that does not answer yet.
#[derive(Debug)]
pub struct BoundHttp {
    pub(crate) what: &'static str,
    pub(crate) listener: TcpListener,
    pub(crate) address: SocketAddr,
    pub(crate) connections: ConnectionConfig,
    pub(crate) metrics: ConnectionMetrics,
    pub(crate) tls: Option<ServerTls>,
    pub(crate) rpcs: RpcMeter,
}

/// A server for HTTP/1.1.
#[derive(Debug)]
pub struct RunningHttp {
    pub(crate) target: Target,
    pub(crate) task: JoinHandle<()>,
}

impl BoundHttp {
    /// What measures the role's RPCs, for those that come over HTTP/1.1.
    #[must_use]
    pub fn rpcs(&self) -> RpcMeter {
        self.rpcs.clone()
    }

    /// Serves `routes` until `drain` is cancelled and the requests in flight have ended, and with them the `sockets`: the tasks
    /// of connections that went over to another protocol. Every request has the [`Peer`] as an extension.
    #[must_use]
    pub fn serve(
        self,
        routes: Router,
        patience: Patience,
        sockets: TaskTracker,
        drain: CancellationToken,
    ) -> RunningHttp {
        let Self { what, listener, address, connections, metrics, tls, rpcs: _ } = self;
        let target = Target::of(address, tls.is_some());
        tracing::info!(what, %address, tls = target.is_secure(), "listening");
        let incoming = accept(listener, connections.max, tls, metrics);
        let server = HttpServer { routes, patience, connections, drain };
        let task = tokio::spawn(async move {
            server.serve_all(incoming).await;
            sockets.close();
            sockets.wait().await;
        });
        RunningHttp { target, task }
    }
}

/// What connections are served with.
#[derive(Clone)]
struct HttpServer {
    routes: Router,
    patience: Patience,
    connections: ConnectionConfig,
    drain: CancellationToken,
}

impl HttpServer {
    async fn serve_all(self, mut incoming: ReceiverStream<io::Result<Connection>>) {
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                () = self.drain.cancelled() => break,
                connection = incoming.next() => match connection {
                    Some(Ok(connection)) => {
                        open.spawn(self.clone().serve(connection));
                    }
                    Some(Err(error)) => tracing::debug!(%error, "connection not accepted"),
                    None => break,
                },
                Some(_ended) = open.join_next() => {}
            }
        }
        // Nobody else connects.
        drop(incoming);
        while open.join_next().await.is_some() {}
    }

    async fn serve(self, connection: Connection) {
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(self.patience.headers).max_buf_size(MAX_HEAD_BYTES);
        let peer = connection.peer().clone();
        let service = TowerToHyperService::new(self.routes.map_request(move |request| with_peer(request, &peer)));
        let stream = TokioIo::new(StallGuard::new(connection, self.patience.reading));
        let mut serving = pin!(builder.serve_connection(stream, service).with_upgrades());
        let ended = tokio::select! {
            biased;
            ended = serving.as_mut() => ended,
            () = end_of(&self.drain, self.connections.some_age()) => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection broke off");
        }
    }
}

async fn end_of(drain: &CancellationToken, age: Duration) {
    tokio::select! {
        () = drain.cancelled() => {}
        () = sleep(age) => {}
    }
}

fn with_peer<B>(mut request: axum::http::Request<B>, peer: &Peer) -> Request
where
    B: axum::body::HttpBody<Data = axum::body::Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    request.extensions_mut().insert(peer.clone());
    request.map(Body::new)
}
