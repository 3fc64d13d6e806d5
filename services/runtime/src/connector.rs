//! Connections to servers, plain or over TLS.

use std::{io, net::SocketAddr, time::Duration};

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use tonic::{
    codegen::Service,
    transport::{Channel, Endpoint, Error, Uri},
};
use tower::service_fn;

use crate::{
    replicas::Target,
    tls::{ClientTls, ClientTlsConfig, TlsError},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection, plain or secure.
type Stream = TokioIo<Either<TcpStream, TlsStream<TcpStream>>>;
type Connecting = BoxFuture<'static, io::Result<Stream>>;

/// How the servers of a role are spoken to. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Connector {
    /// None if no server is spoken to over TLS.
    tls: Option<ClientTls>,
}

impl Connector {
    /// A connector for `targets`. The files of `tls` are read if one of them wants it.
    ///
    /// # Errors
    /// If those files cannot be used.
    pub fn new(targets: &[Target], tls: &ClientTlsConfig) -> Result<Self, TlsError> {
        let secure = targets.iter().any(Target::is_secure);
        Ok(Self { tls: if secure { Some(ClientTls::follow(tls)?) } else { None } })
    }

    /// Connects to `target`, at the first of its addresses that takes connections.
    ///
    /// # Errors
    /// If none does, or it is not whom it should be.
    pub async fn connect(&self, target: &Target) -> Result<Channel, Error> {
        let addresses = (target.bare_host().to_owned(), target.port());
        endpoint(target)?.connect_with_connector(self.service(target, addresses)).await
    }

    /// The same, but the connection is made when it is first used, and again when it breaks.
    ///
    /// # Errors
    /// If the target's name is none that a request can carry.
    pub(crate) fn connect_lazily(&self, target: &Target) -> Result<Channel, Error> {
        let addresses = (target.bare_host().to_owned(), target.port());
        Ok(endpoint(target)?.connect_with_connector_lazy(self.service(target, addresses)))
    }

    /// A connection to `target` at one of its addresses, which is made when it is first used, and again when it breaks.
    ///
    /// # Errors
    /// If the target's name is none that a request can carry.
    pub fn channel(&self, target: &Target, address: SocketAddr) -> Result<Channel, Error> {
        Ok(endpoint(target)?.connect_with_connector_lazy(self.service(target, address)))
    }

    fn service<A>(
        &self,
        target: &Target,
        addresses: A,
    ) -> impl Service<Uri, Response = Stream, Error = io::Error, Future = Connecting> + use<A>
    where
        A: ToSocketAddrs<Future: Send> + Clone + Send + Sync + 'static,
    {
        let tls = self.tls.clone().filter(|_| target.is_secure());
        let host = target.bare_host().to_owned();
        service_fn(move |_| {
            let (tls, host, addresses) = (tls.clone(), host.clone(), addresses.clone());
            let connecting: Connecting = Box::pin(async move {
                let stream = TcpStream::connect(addresses).await?;
                stream.set_nodelay(true)?;
                Ok(TokioIo::new(match tls {
                    Some(tls) => Either::Right(tls.connect(&host, stream).await?),
                    None => Either::Left(stream),
                }))
            });
            connecting
        })
    }
}

fn endpoint(target: &Target) -> Result<Endpoint, Error> {
    Ok(Endpoint::from_shared(target.to_string())?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}
