//! What the HTTP face may be told.

use std::{fmt, net::SocketAddr, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use url::Url;

/// The gateway over HTTP/1.1. TLS and the number of connections are those of the gateway.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Whether there is one. Default: true.
    pub enabled: bool,
    /// Where to answer. Default: `127.0.0.1:8080`. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Other sites whose pages may call, such as `https://music.example`; also our own, behind a proxy that changes the header
    /// `host`. Default: none.
    pub allowed_origins: Vec<AllowedOrigin>,
    /// How long the headers of a request may take, and how long a connection may wait for its next request. Default: 30 s.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: SocketAddr::from(([127, 0, 0, 1], 8_080)),
            allowed_origins: Vec::new(),
            header_timeout: Duration::from_secs(30),
        }
    }
}

/// A site: `scheme://host[:port]`, as browsers write it in the header `origin`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AllowedOrigin(String);

/// A site that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("expected a site as `https://host` or `http://host:port`, found {0:?}")]
pub struct AllowedOriginError(String);

impl AllowedOrigin {
    /// What the header `origin` says of a page of this site.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AllowedOrigin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for AllowedOrigin {
    type Err = AllowedOriginError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || AllowedOriginError(text.to_owned());
        let url = Url::parse(text).map_err(|_| refuse())?;
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
        if !bare || !["http", "https"].contains(&url.scheme()) {
            return Err(refuse());
        }
        Ok(Self(url.origin().ascii_serialization()))
    }
}

impl TryFrom<String> for AllowedOrigin {
    type Error = AllowedOriginError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<AllowedOrigin> for String {
    fn from(origin: AllowedOrigin) -> Self {
        origin.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_read_as_browsers_write_it() {
        let read = |text: &str| text.parse::<AllowedOrigin>().map(String::from);
        assert_eq!(read("https://Music.example:443/").unwrap(), "https://music.example");
        assert_eq!(read("http://localhost:3000").unwrap(), "http://localhost:3000");
        for wrong in ["*", "null", "music.example", "https://music.example/page", "ftp://music.example", ""] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
