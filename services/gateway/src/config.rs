//! What a gateway may be told, and what it is told if nobody does.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use bytesize::ByteSize;
use chorale_runtime::{
    connections::ConnectionConfig,
    replicas::Target,
    tls::{ClientTlsConfig, ServerTlsConfig},
};
use redis::IntoConnectionInfo;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{error::GatewayError, http::HttpConfig};

/// A gateway.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// Where to answer callers. Default: `127.0.0.1:50051`. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The same over HTTP/1.1, and the page for people.
    pub http: HttpConfig,
    /// Where the feature service is: one target or a list. Default: `http://127.0.0.1:50052`.
    #[serde(deserialize_with = "one_or_many")]
    pub feature: Vec<Target>,
    /// Whom to believe that is a feature service, for targets with `https://`.
    pub feature_tls: ClientTlsConfig,
    /// How callers are spoken to. Default: without TLS.
    pub tls: Option<ServerTlsConfig>,
    /// How many connections callers may have, and for how long.
    pub connections: ConnectionConfig,
    /// Who may call.
    pub auth: AuthConfig,
    /// The result cache.
    pub cache: CacheConfig,
    /// What one call may cost.
    pub limits: LimitsConfig,
}

/// Who may call. By default everybody who reaches the port; with either of these, only who sends a good bearer token.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// A TOML file with a section for each caller: its name, and `token_blake3`, which `chorale token` makes; `max_streams`
    /// if it may have more or fewer calls at a time than others. Read again when it changes. Default: none.
    pub callers_file: Option<PathBuf>,
    /// Signed tokens (JWT) of an identity provider. Default: none.
    pub jwt: Option<JwtConfig>,
}

/// Whose signed tokens (JWT) name a caller. They must have `sub`, `exp`, `iss` and `aud`.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct JwtConfig {
    /// The provider's public keys, as a JSON Web Key Set. Read again when it changes.
    pub jwks_file: PathBuf,
    /// What `iss` must be.
    pub issuer: String,
    /// What `aud` must hold.
    pub audience: String,
}

/// The result cache.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct CacheConfig {
    /// Whether verdicts are kept at all. Default: true.
    pub enabled: bool,
    /// A Redis server that replicas share. Default: none, which keeps verdicts in this process's memory.
    pub url: Option<RedisUrl>,
    /// A file with a secret that all gateways have, at least 32 bytes. Verdicts are kept with a keyed hash, and what others
    /// wrote into the cache is not believed. Default: none, which trusts whoever can write to Redis.
    pub secret_file: Option<PathBuf>,
    /// A file with the password for Redis, instead of one in the URL. Default: none.
    pub password_file: Option<PathBuf>,
    /// Whom to believe that is Redis, for `rediss://`, and a certificate if it asks for one. Read once, at the start.
    pub tls: ClientTlsConfig,
    /// How long a verdict is kept. Default: 7 days.
    #[serde(with = "humantime_serde")]
    pub ttl: Duration,
    /// The most that verdicts in memory may take. Default: 64 MiB.
    pub memory_size: ByteSize,
    /// How long one operation on Redis may take before the call goes on without. Default: 50 ms.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Whether a verdict for one caller with a token answers others as well. If so, one who has the digest of a track learns
    /// whether somebody else sent it. Default: false. Callers without tokens share theirs.
    pub across_callers: bool,
    /// How long a call waits for an equal one that began before it. Default: 10 s.
    #[serde(with = "humantime_serde")]
    pub shared_wait: Duration,
}

/// What one call may cost. `GetModel` tells callers.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Bytes of audio in one call. Default: 1 GiB.
    pub max_audio_bytes: ByteSize,
    /// Bytes in one request message, and so of the audio in a unary call. Default: 32 MiB.
    ///
    /// Times `max_concurrent_streams`, this is the most memory that request messages can take.
    pub max_message_bytes: ByteSize,
    /// Length of the audio in one call. Default: 12 h.
    #[serde(with = "humantime_serde")]
    pub max_duration: Duration,
    /// Calls that classify at a time; more are refused with `OVERLOADED`. Default: 1024.
    pub max_concurrent_streams: u32,
    /// The same of one caller, which is who has a token, or a client certificate, or an address; `max_streams` in
    /// `auth.callers_file` sets it for one of them. Default: 512.
    pub max_streams_per_caller: u32,
    /// Bytes of audio from the beginning of a track that a call keeps, to send them again if the feature replica that hears
    /// it goes away. A longer track fails with `UNAVAILABLE` then. Default: 512 KiB, half a minute of most mp3 files.
    ///
    /// Times `max_concurrent_streams`, this is the most memory that kept audio can take.
    pub replay_window: ByteSize,
    /// How long an upload, or a caller's reading of the answers, may pause. Default: 60 s.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// Bytes of audio a second that an upload must bring, on average over `idle_timeout`, while it is waited for. Default: 128,
    /// less than any codec needs for audio as it is played. 0 takes any.
    pub min_upload_rate: ByteSize,
}

/// `redis://[[user]:password@]host[:port][/database]`, or `rediss://` for TLS. Neither `Debug` nor `Display` shows the
/// password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RedisUrl(String);

/// A cache URL that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("expected `redis://[[user]:password@]host[:port][/database]`, or `rediss://` for TLS: {0}")]
pub struct RedisUrlError(String);

impl RedisUrl {
    /// Whether it asks for TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.0.starts_with("rediss:")
    }

    /// The URL with its password.
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

impl FromStr for RedisUrl {
    type Err = RedisUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = url::Url::parse(text).map_err(|error| RedisUrlError(error.to_string()))?;
        if !matches!(url.scheme(), "redis" | "rediss") {
            return Err(RedisUrlError(format!("found the scheme `{}`", url.scheme())));
        }
        text.into_connection_info().map_err(|error| RedisUrlError(error.to_string()))?;
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for RedisUrl {
    type Error = RedisUrlError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RedisUrl> for String {
    fn from(url: RedisUrl) -> Self {
        url.0
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or_default();
        let address = rest.rsplit_once('@').map_or(rest, |(_credentials, address)| address);
        write!(formatter, "{scheme}://{address}")
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 50_051)),
            http: HttpConfig::default(),
            feature: vec![SocketAddr::from(([127, 0, 0, 1], 50_052)).into()],
            feature_tls: ClientTlsConfig::default(),
            tls: None,
            connections: ConnectionConfig::default(),
            auth: AuthConfig::default(),
            cache: CacheConfig::default(),
            limits: LimitsConfig::default(),
        }
    }
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            url: None,
            secret_file: None,
            password_file: None,
            tls: ClientTlsConfig::default(),
            ttl: Duration::from_secs(7 * 24 * 3_600),
            memory_size: ByteSize::mib(64),
            timeout: Duration::from_millis(50),
            across_callers: false,
            shared_wait: Duration::from_secs(10),
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            max_audio_bytes: ByteSize::gib(1),
            max_message_bytes: ByteSize::mib(32),
            max_duration: Duration::from_secs(12 * 3_600),
            max_concurrent_streams: 1_024,
            max_streams_per_caller: 512,
            replay_window: ByteSize::kib(512),
            idle_timeout: Duration::from_secs(60),
            min_upload_rate: ByteSize::b(128),
        }
    }
}

/// gRPC announces a message's length in 32 bits.
const LARGEST_MESSAGE: u64 = u32::MAX as u64;
/// The timers and Redis count milliseconds in 64 bits, signed; a century is far from either end.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

impl GatewayConfig {
    /// Checks what the types alone do not.
    ///
    /// # Errors
    /// [`GatewayError::Config`] names the first value that does not fit.
    pub fn validate(&self) -> Result<(), GatewayError> {
        let check = |key: &'static str, fits: bool, expected: &'static str, found: &dyn fmt::Display| match fits {
            true => Ok(()),
            false => Err(GatewayError::Config { key, expected, found: found.to_string() }),
        };
        let duration = |key, value: Duration| {
            let fits = value >= Duration::from_millis(1) && value <= LONGEST;
            check(key, fits, "at least 1ms and at most 100 years", &format!("{value:?}"))
        };
        let Self { http, feature, connections, cache, limits, .. } = self;
        let whole = cache.tls.certificate.is_some() == cache.tls.key.is_some();
        check("gateway.cache.tls", whole, "both `certificate` and `key`, or neither", &"one")?;
        check("gateway.feature", !feature.is_empty(), "at least one target", &"none")?;
        duration("gateway.http.header_timeout", http.header_timeout)?;
        duration("gateway.cache.ttl", cache.ttl)?;
        duration("gateway.cache.timeout", cache.timeout)?;
        duration("gateway.cache.shared_wait", cache.shared_wait)?;
        duration("gateway.limits.max_duration", limits.max_duration)?;
        duration("gateway.limits.idle_timeout", limits.idle_timeout)?;
        let message = limits.max_message_bytes;
        let message_fits = (1_024..=LARGEST_MESSAGE).contains(&message.as_u64());
        check("gateway.limits.max_message_bytes", message_fits, "1 KiB to 4 GiB", &message)?;
        let audio = limits.max_audio_bytes;
        check("gateway.limits.max_audio_bytes", audio.as_u64() > 0, "more than nothing", &audio)?;
        for (key, count) in [
            ("gateway.limits.max_concurrent_streams", limits.max_concurrent_streams),
            ("gateway.limits.max_streams_per_caller", limits.max_streams_per_caller),
            ("gateway.connections.max", connections.max),
            ("gateway.connections.max_streams", connections.max_streams),
        ] {
            check(key, (1..=1_000_000).contains(&count), "1 to 1000000", &count)?;
        }
        duration("gateway.connections.max_age", connections.max_age)
    }
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Target>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected `http://host:port` or `https://host:port`, or a list of such")]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    let texts = match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(text) => vec![text],
        OneOrMany::Many(texts) => texts,
    };
    texts.into_iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
}

#[cfg(test)]
mod tests {
    use serde::de::value::{Error, MapDeserializer, SeqDeserializer, StrDeserializer};

    use super::*;

    fn feature<'de>(value: impl Deserializer<'de, Error = Error>) -> Result<Vec<Target>, Error> {
        one_or_many(value)
    }

    #[test]
    fn feature_is_one_target_or_a_list() {
        assert_eq!(feature(StrDeserializer::new("feature:50052")).unwrap().len(), 1);
        assert_eq!(feature(SeqDeserializer::new(["a:1", "http://b:2"].into_iter())).unwrap().len(), 2);
        assert!(feature(StrDeserializer::new("https://feature:1")).unwrap()[0].is_secure());
        let wrong = feature(StrDeserializer::new("ftp://feature:1")).unwrap_err().to_string();
        assert!(wrong.contains("http://host:port"), "{wrong}");
    }

    #[test]
    fn unknown_keys_are_errors() {
        let entries = [("cashe", "x")].into_iter();
        let error = GatewayConfig::deserialize(MapDeserializer::<_, Error>::new(entries)).unwrap_err().to_string();
        assert!(error.contains("cashe"), "{error}");
    }

    #[test]
    fn a_cache_url_is_checked_and_keeps_its_password_to_itself() {
        let url: RedisUrl = "redis://user:p@ss@cache:6379/1".parse().unwrap();
        assert_eq!(format!("{url} {url:?}"), "redis://cache:6379/1 redis://cache:6379/1");
        assert!(url.secret().contains("p@ss") && !url.is_secure());
        let secure: RedisUrl = "rediss://:p@cache".parse().unwrap();
        assert!(secure.is_secure());
        assert_eq!(secure.to_string(), "rediss://cache");
        for wrong in ["", "cache:6379", "http://cache", "redis://cache/first", "redis+unix:///x"] {
            assert!(wrong.parse::<RedisUrl>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn values_that_do_not_fit_are_named() {
        assert!(GatewayConfig::default().validate().is_ok());
        let refused = |change: fn(&mut GatewayConfig)| {
            let mut config = GatewayConfig::default();
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        assert!(refused(|config| config.feature.clear()).contains("gateway.feature"));
        assert!(refused(|config| config.cache.ttl = Duration::ZERO).contains("gateway.cache.ttl"));
        assert!(refused(|config| config.limits.idle_timeout = Duration::MAX).contains("idle_timeout"));
        assert!(refused(|config| config.limits.max_message_bytes = ByteSize::gib(5)).contains("max_message_bytes"));
        assert!(refused(|config| config.limits.max_audio_bytes = ByteSize::b(0)).contains("max_audio_bytes"));
        assert!(refused(|config| config.limits.max_concurrent_streams = 0).contains("max_concurrent_streams"));
    }
}
