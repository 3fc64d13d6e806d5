//! The connections of a server: how many, from whom, and how long.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::sleep,
};
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::either::Either;
use tonic::transport::server::Connected;

use crate::{
    metrics::{Metrics, RegistryExt},
    tls::{self, ServerTls},
};

/// After an error of the listener, which is mostly a want of file descriptors, nothing is accepted for this long.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(50);
/// For connections that stay.
const LONGEST_AGE: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);
/// Calls of our own services that may be given up before they are looked at: as many as a few gateways serve.
const INNER_RESETS: usize = 8_192;
/// Connections that wait to be served.
const QUEUED: usize = 64;

/// How many connections a server takes, and for how long.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionConfig {
    /// Connections at a time, on each port; further ones are closed at once. Default: 10000.
    pub max: u32,
    /// Calls at a time on one connection; a client waits with further ones. Default: 256.
    pub max_streams: u32,
    /// After this long, give or take a tenth, a connection takes no new calls and ends with its last one: clients connect
    /// again, also to replicas that are new. Default: 30 min.
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
}

impl Default for ConnectionConfig {
    fn default() -> Self {
        Self { max: 10_000, max_streams: 256, max_age: Duration::from_secs(30 * 60) }
    }
}

impl ConnectionConfig {
    /// For a role that only our own services call: a few connections, which carry all of their calls and stay.
    #[must_use]
    pub fn inner() -> Self {
        Self { max_streams: u32::MAX, max_age: LONGEST_AGE, ..Self::default() }
    }

    /// Calls that may be given up before they are looked at, on one connection: one more ends it, and all calls on it. None
    /// leaves it at the few of the transport, which is what a stranger who opens and resets streams all day deserves.
    pub(crate) fn pending_resets(&self) -> Option<usize> {
        // Many callers of a gateway share its connection, and may leave at the same time.
        (self.max_streams == u32::MAX).then_some(INNER_RESETS)
    }

    /// How old one connection gets: not all of those that came together end together.
    pub(crate) fn some_age(&self) -> Duration {
        self.max_age.mul_f64(rand::random_range(0.9..1.1))
    }
}

/// Who called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its address, without the port, which differs by connection.
    pub address: Option<IpAddr>,
    /// A hash of the certificate that it proved to own, if it was asked for one.
    pub certificate: Option<Arc<str>>,
}

/// What a server counts about its connections.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionMetrics {
    open: Gauge,
    refused: Counter,
    failed_handshakes: Counter,
}

impl ConnectionMetrics {
    pub(crate) fn register(metrics: &Metrics, role: &'static str) -> Self {
        metrics.register(role, |registry| Self {
            open: registry.add("connections", "Connections that are open", Gauge::default()),
            refused: registry.add(
                "connections_refused",
                "Connections that were closed at once, as too many were open",
                Counter::default(),
            ),
            failed_handshakes: registry.add(
                "failed_handshakes",
                "Connections whose TLS handshake failed, or took too long",
                Counter::default(),
            ),
        })
    }
}

/// Accepts connections until the stream is dropped, which closes the listener.
pub(crate) fn accept(
    listener: TcpListener,
    max: u32,
    tls: Option<ServerTls>,
    metrics: ConnectionMetrics,
) -> ReceiverStream<io::Result<Connection>> {
    let (accepted, incoming) = mpsc::channel(QUEUED);
    tokio::spawn(async move {
        let ended = accepted.clone();
        tokio::select! {
            () = ended.closed() => {}
            () = accept_all(listener, max, tls, metrics, accepted) => {}
        }
    });
    ReceiverStream::new(incoming)
}

async fn accept_all(
    listener: TcpListener,
    max: u32,
    tls: Option<ServerTls>,
    metrics: ConnectionMetrics,
    accepted: mpsc::Sender<io::Result<Connection>>,
) {
    let places = Arc::new(Semaphore::new(usize::try_from(max).unwrap_or(Semaphore::MAX_PERMITS)));
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                sleep(PAUSE_AFTER_ERROR).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&places).try_acquire_owned() else {
            metrics.refused.inc();
            tracing::debug!(%address, max, "connection refused: too many are open (connections.max)");
            continue;
        };
        let place = OpenPlace::take(permit, metrics.open.clone());
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%address, %error, "connection broke off");
            continue;
        }
        let (accepted, metrics, tls) = (accepted.clone(), metrics.clone(), tls.clone());
        let Some(tls) = tls else {
            // The receiver ends with this task.
            let _ = accepted.send(Ok(Connection::plain(stream, address, place))).await;
            continue;
        };
        // A handshake takes as long as its caller likes; others do not wait for it.
        tokio::spawn(async move {
            match tls.accept(stream).await {
                Ok(stream) => drop(accepted.send(Ok(Connection::secure(stream, address, place))).await),
                Err(error) => {
                    metrics.failed_handshakes.inc();
                    tracing::debug!(%address, error = tls::explain(&error), "TLS handshake failed");
                }
            }
        });
    }
}

/// A place among the open connections.
#[derive(Debug)]
struct OpenPlace {
    open: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl OpenPlace {
    fn take(permit: OwnedSemaphorePermit, open: Gauge) -> Self {
        open.inc();
        Self { open, _permit: permit }
    }
}

impl Drop for OpenPlace {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// A connection, plain or secure.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Either<TcpStream, Box<TlsStream<TcpStream>>>,
    peer: Peer,
    _place: OpenPlace,
}

impl Connection {
    fn plain(stream: TcpStream, address: SocketAddr, place: OpenPlace) -> Self {
        let peer = Peer { address: Some(address.ip()), certificate: None };
        Self { stream: Either::Left(stream), peer, _place: place }
    }

    fn secure(stream: TlsStream<TcpStream>, address: SocketAddr, place: OpenPlace) -> Self {
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let certificate = certificate.map(|certificate| blake3::hash(certificate).to_hex().as_str().into());
        let peer = Peer { address: Some(address.ip()), certificate };
        Self { stream: Either::Right(Box::new(stream)), peer, _place: place }
    }
}

impl Connection {
    /// Who called.
    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
