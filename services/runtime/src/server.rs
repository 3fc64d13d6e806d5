//! A role's gRPC server: bound first, then served with health, reflection, keep-alive and an orderly end.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{service::RoutesBuilder, transport::Server};
use tonic_reflection::server::Builder as Reflection;

use crate::{
    connections::{ConnectionConfig, ConnectionMetrics, accept},
    health::Readiness,
    http::{BoundHttp, RunningHttp},
    process::Process,
    replicas::Target,
    rpcs::RpcMeter,
    shutdown::ShutdownConfig,
    tls::{ServerTls, ServerTlsConfig, TlsError},
};

/// How often an idle connection is asked whether the other side still lives, and how long it may take to answer.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that a peer may send ahead of the application on one stream: the memory that a slow reader costs, and, over the
/// round-trip time, the highest rate of an upload.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same on one connection: of 256 streams, so that those which wait for their turn do not hold up the others.
const CONNECTION_WINDOW: u32 = 256 * STREAM_WINDOW;

/// What every server has besides its own services.
const HEALTH: &str = "grpc.health.v1.Health";
const STANDARD_SERVICES: [&str; 3] =
    [HEALTH, "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

/// What anybody may ask health and reflection, without a token or a place, in bytes.
const QUESTION_BYTES: usize = 16 * 1024;

/// A server that cannot start, or that failed while it served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address is taken or not ours.
    #[error("{what}: cannot listen on {address}: {source}; choose another address, or port 0 for a free one")]
    Bind {
        /// The role, or the admin port.
        what: &'static str,
        /// What was asked for.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The server cannot prove who it is.
    #[error("{what}: {source}")]
    Tls {
        /// The role.
        what: &'static str,
        /// Why not.
        source: TlsError,
    },
    /// The descriptors that reflection serves are broken.
    #[error("{what}: reflection cannot be served: {source}")]
    Reflection {
        /// The role.
        what: &'static str,
        /// Why not.
        source: tonic_reflection::server::Error,
    },
    /// The transport failed.
    #[error("{what}: {source}")]
    Transport {
        /// The role.
        what: &'static str,
        /// Why.
        source: tonic::transport::Error,
    },
    /// The server's task panicked.
    #[error("{what}: the server stopped unexpectedly: {source}")]
    Stopped {
        /// The role.
        what: &'static str,
        /// How.
        source: tokio::task::JoinError,
    },
}

/// What a server serves.
#[derive(Debug, Clone, Copy)]
pub struct Role {
    /// Its name, in logs and metrics.
    pub name: &'static str,
    /// The full name of its service.
    pub service: &'static str,
    /// Those of services that its routes have besides, which are ready when its own is.
    pub beside: &'static [&'static str],
}

impl Role {
    /// Its own service, and those beside it.
    fn services(self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.service).chain(self.beside.iter().copied())
    }
}

/// A bound address that does not answer yet.
#[derive(Debug)]
pub struct BoundServer {
    role: Role,
    listener: TcpListener,
    address: SocketAddr,
    connections: ConnectionConfig,
    metrics: ConnectionMetrics,
    tls: Option<ServerTls>,
    process: Process,
    rpcs: RpcMeter,
}

impl BoundServer {
    /// Binds `listen` for `role`. Port 0 takes a free one.
    ///
    /// # Errors
    /// If the address cannot be bound, or the files of `tls` cannot be used.
    pub fn bind(
        role: Role,
        listen: SocketAddr,
        connections: ConnectionConfig,
        tls: Option<&ServerTlsConfig>,
        process: &Process,
    ) -> Result<Self, ServerError> {
        let tls =
            tls.map(ServerTls::follow).transpose().map_err(|source| ServerError::Tls { what: role.name, source })?;
        let (listener, address) = bind(role.name, listen)?;
        let metrics = ConnectionMetrics::register(&process.metrics, role.name);
        let rpcs = RpcMeter::register(&process.metrics, role.name, role.services().chain(STANDARD_SERVICES));
        Ok(Self { role, listener, address, connections, metrics, tls, process: process.clone(), rpcs })
    }

    /// Binds `listen` for the same role's HTTP/1.1: `what` is that in words. Connections are taken, and over TLS, as on the
    /// first port.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn bind_http(&self, what: &'static str, listen: SocketAddr) -> Result<BoundHttp, ServerError> {
        let (listener, address) = bind(what, listen)?;
        let tls = self.tls.as_ref().map(ServerTls::speaking_http);
        let (connections, metrics) = (self.connections.clone(), self.metrics.clone());
        Ok(BoundHttp { what, listener, address, connections, metrics, tls, rpcs: self.rpcs.clone() })
    }

    /// The address that was bound.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `routes` beside health and reflection until `drain` is cancelled and the calls in flight have ended.
    ///
    /// # Errors
    /// If reflection cannot be served.
    pub fn serve(self, mut routes: RoutesBuilder, drain: CancellationToken) -> Result<RunningRole, ServerError> {
        let Self { role, listener, address, connections, metrics, tls, process, rpcs } = self;
        let readiness = process.readiness;
        let (reporter, health) = tonic_health::server::health_reporter();
        readiness.report(role.service, role.services().collect(), reporter);

        let reflection_error = |source| ServerError::Reflection { what: role.name, source };
        let reflection = || {
            let configured = Reflection::configure()
                .register_encoded_file_descriptor_set(chorale_proto::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                // Clients decode the details of errors with these.
                .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
                .with_service_name(HEALTH);
            role.services().fold(configured, Reflection::with_service_name)
        };
        routes
            .add_service(health.max_decoding_message_size(QUESTION_BYTES))
            .add_service(reflection().build_v1().map_err(reflection_error)?.max_decoding_message_size(QUESTION_BYTES))
            .add_service(
                reflection().build_v1alpha().map_err(reflection_error)?.max_decoding_message_size(QUESTION_BYTES),
            );

        let target = Target::of(address, tls.is_some());
        let incoming = accept(listener, connections.max, tls, metrics);
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(connections.max_streams)
            .http2_max_pending_accept_reset_streams(connections.pending_resets())
            .max_connection_age(connections.some_age())
            .layer(rpcs)
            .add_routes(routes.routes())
            .serve_with_incoming_shutdown(incoming, drain.clone().cancelled_owned());
        let task = tokio::spawn(server);
        tracing::info!(role = role.name, %address, tls = target.is_secure(), "listening");
        Ok(RunningRole {
            role: role.name,
            service: role.service,
            address,
            target,
            readiness,
            drain,
            task: Some(task),
            http_task: None,
            http: None,
        })
    }
}

fn bind(what: &'static str, listen: SocketAddr) -> Result<(TcpListener, SocketAddr), ServerError> {
    let bind_error = |source| ServerError::Bind { what, address: listen, source };
    let listener = std::net::TcpListener::bind(listen).map_err(bind_error)?;
    listener.set_nonblocking(true).map_err(bind_error)?;
    let listener = TcpListener::from_std(listener).map_err(bind_error)?;
    let address = listener.local_addr().map_err(bind_error)?;
    Ok((listener, address))
}

/// A role that serves.
#[derive(Debug)]
pub struct RunningRole {
    role: &'static str,
    service: &'static str,
    address: SocketAddr,
    target: Target,
    readiness: Readiness,
    drain: CancellationToken,
    /// None once it has ended.
    task: Option<JoinHandle<Result<(), tonic::transport::Error>>>,
    /// The same.
    http_task: Option<JoinHandle<()>>,
    http: Option<Target>,
}

impl RunningRole {
    /// The same role, which also serves `http` until it drains.
    #[must_use]
    pub fn beside(self, http: RunningHttp) -> Self {
        Self { http: Some(http.target), http_task: Some(http.task), ..self }
    }

    /// Where the role answers HTTP/1.1, if it does.
    #[must_use]
    pub fn http(&self) -> Option<&Target> {
        self.http.as_ref()
    }

    /// The address that the role answers on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as a target for callers.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The full name of the role's service.
    #[must_use]
    pub fn service(&self) -> &'static str {
        self.service
    }

    /// Waits until the role is ready for traffic.
    pub async fn ready(&self) {
        self.readiness.ready(self.service).await;
    }

    /// Waits until the server has ended: an error unless the role drained. Dropping the future loses nothing.
    ///
    /// # Errors
    /// If the transport failed or the server panicked.
    pub async fn ended(&mut self) -> Result<(), ServerError> {
        let what = self.role;
        let stopped = |source| ServerError::Stopped { what, source };
        if let Some(task) = &mut self.task {
            let ended = task.await;
            self.task = None;
            ended.map_err(stopped)?.map_err(|source| ServerError::Transport { what, source })?;
        }
        if let Some(task) = &mut self.http_task {
            let ended = task.await;
            self.http_task = None;
            ended.map_err(stopped)?;
        }
        Ok(())
    }

    /// Withdraws readiness, waits for `delay`, takes no new calls, and gives those in flight `grace` to finish.
    pub async fn drain(mut self, shutdown: &ShutdownConfig) {
        let role = self.role;
        self.readiness.withdraw(self.service);
        tokio::time::sleep(shutdown.delay).await;
        tracing::info!(role, grace = ?shutdown.grace, "draining");
        self.drain.cancel();
        match tokio::time::timeout(shutdown.grace, self.ended()).await {
            Ok(Ok(())) => tracing::info!(role, "drained"),
            Ok(Err(error)) => tracing::error!(role, %error, "ended badly"),
            Err(_) => {
                tracing::warn!(role, "calls were still in flight when the grace period ended: cut off");
                if let Some(task) = &self.task {
                    task.abort();
                }
                if let Some(task) = &self.http_task {
                    task.abort();
                }
            }
        }
    }
}
