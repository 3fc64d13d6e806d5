//! Values in a Redis server that replicas share. It may be away, slow or hung at any time.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use chorale_runtime::tls::ClientTlsConfig;
use futures::future::BoxFuture;
use prometheus_client::metrics::gauge::Gauge;
use redis::{
    Client, ErrorKind, IntoConnectionInfo, RedisError, ServerErrorKind, TlsCertificates,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::time::timeout;

use super::{Backend, BackendError, CacheKey, breaker::Breaker, secret};
use crate::{
    config::{CacheConfig, RedisUrl},
    error::GatewayError,
};

/// How long one attempt to connect may take. Calls do not wait for it longer than for any operation.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection to a server that takes no writes is replaced when it is this old: its name may lead to another one by now.
const YOUNG: Duration = Duration::from_secs(1);

/// Verdicts in Redis.
#[derive(Debug)]
pub(super) struct RedisCache {
    client: Client,
    link: Mutex<Link>,
    ttl_millis: u64,
    timeout: Duration,
    breaker_open: Gauge,
}

#[derive(Debug)]
struct Link {
    connection: ConnectionManager,
    since: Instant,
    /// Counts the connections, so that an operation on an old one does not condemn the new one.
    generation: u64,
    breaker: Breaker,
}

impl RedisCache {
    /// The cache at `url`, as `config` says, which tells by `breaker_open` when it is not asked. It connects when it is first
    /// used.
    pub(super) fn new(url: &RedisUrl, config: &CacheConfig, breaker_open: Gauge) -> Result<Self, GatewayError> {
        let CacheConfig { ttl, timeout, .. } = *config;
        let client = client(url, config)?;
        let connection = connect_lazily(&client)?;
        let link = Link { connection, since: Instant::now(), generation: 0, breaker: Breaker::default() };
        let ttl_millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        Ok(Self { client, link: Mutex::new(link), ttl_millis, timeout, breaker_open })
    }

    async fn ask<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, BackendError> {
        let (mut connection, generation) = {
            let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
            if !link.breaker.admits(Instant::now()) {
                return Err(BackendError::Open);
            }
            (link.connection.clone(), link.generation)
        };
        let answer = match timeout(self.timeout, command.query_async(&mut connection)).await {
            Ok(answer) => answer.map_err(BackendError::from),
            Err(_elapsed) => Err(BackendError::Timeout(self.timeout)),
        };
        self.learn(generation, answer.as_ref().err());
        answer
    }

    fn learn(&self, generation: u64, error: Option<&BackendError>) {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        if link.generation != generation {
            return;
        }
        let now = Instant::now();
        let condemned = match error {
            // Its peer may be gone without a word, and TCP would take a quarter of an hour to notice.
            Some(BackendError::Timeout(_)) => link.breaker.failed(now),
            answered => {
                link.breaker.answered();
                let replica = matches!(answered, Some(BackendError::Redis(error)) if is_replica(error));
                replica && now - link.since >= YOUNG
            }
        };
        if condemned {
            match connect_lazily(&self.client) {
                Ok(connection) => {
                    link.connection = connection;
                    link.since = now;
                    link.generation += 1;
                }
                Err(error) => tracing::warn!(%error, "connection to redis not replaced"),
            }
        }
        self.breaker_open.set(link.breaker.is_open().into());
    }
}

/// Whether a server says that it is not, or not yet, the one to ask: another one was made the primary, or is about to be.
fn is_replica(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown))
}

fn client(url: &RedisUrl, config: &CacheConfig) -> Result<Client, GatewayError> {
    let mut info = url.secret().into_connection_info()?;
    if let Some(path) = &config.password_file {
        let password = String::from_utf8(secret::read(path)?).unwrap_or_default();
        let settings = info.redis_settings().clone().set_password(password.trim_end());
        info = info.set_redis_settings(settings);
    }
    if !url.is_secure() {
        return Ok(Client::open(info)?);
    }
    let ClientTlsConfig { ca, certificate, key } = &config.tls;
    let read = |path: &Option<PathBuf>| path.as_deref().map(secret::read).transpose();
    let client_tls = match (read(certificate)?, read(key)?) {
        (Some(client_cert), Some(client_key)) => Some(redis::ClientTlsConfig { client_cert, client_key }),
        _ => None,
    };
    Ok(Client::build_with_tls(info, TlsCertificates { client_tls, root_cert: read(ca)? })?)
}

fn connect_lazily(client: &Client) -> Result<ConnectionManager, RedisError> {
    // The next operation tries again anyway, so a failed attempt need not be repeated on its own.
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(0)
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(None);
    ConnectionManager::new_lazy_with_config(client.clone(), config)
}

impl Backend for RedisCache {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn get(&self, key: CacheKey, max_bytes: usize) -> BoxFuture<'_, Result<Option<Bytes>, BackendError>> {
        Box::pin(async move {
            let mut command = redis::cmd("GETRANGE");
            command.arg(key.to_string()).arg(0).arg(max_bytes);
            let value: Vec<u8> = self.ask(&command).await?;
            // A key that does not exist has an empty range; an empty value is never stored.
            Ok((!value.is_empty()).then(|| value.into()))
        })
    }

    fn put(&self, key: CacheKey, value: Bytes) -> BoxFuture<'_, Result<(), BackendError>> {
        Box::pin(async move {
            let mut command = redis::cmd("SET");
            command.arg(key.to_string()).arg(value.as_ref()).arg("PX").arg(self.ttl_millis);
            self.ask(&command).await
        })
    }
}
