//! Who calls: by bearer token, by client certificate, or by address.

mod jwt;
mod tokens;

use std::{net::IpAddr, sync::Arc};

use chorale_runtime::{
    connections::Peer,
    failure::{Failure, Reason},
    reload::{ReloadError, Reloaded},
};
use tonic::{Extensions, metadata::MetadataMap};

use self::{jwt::JwtVerifier, tokens::Tokens};
use crate::config::AuthConfig;

/// A longer token is none of ours, in bytes.
const MAX_TOKEN: usize = 8 * 1024;

/// Who a call is counted against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// How it proved who it is, and its name: what tells it from others, and what the log says.
    pub(crate) key: Arc<str>,
    /// Whether it has proved who it is by a token: verdicts of others are not for it.
    pub(crate) is_tenant: bool,
    /// Calls at a time, if it is not the limit for all.
    pub(crate) max_streams: Option<u32>,
}

impl Caller {
    pub(super) fn named(kind: &str, name: &str, max_streams: Option<u32>) -> Self {
        Self { key: format!("{kind}:{name}").into(), is_tenant: true, max_streams }
    }

    /// A caller without a token.
    pub(crate) fn of_peer(peer: Option<&Peer>) -> Self {
        let certificate = peer.and_then(|peer| peer.certificate.as_ref());
        let address = peer.and_then(|peer| peer.address);
        let key = match (certificate, address) {
            (Some(certificate), _) => format!("certificate:{certificate}"),
            (None, Some(address)) => format!("address:{}", network(address)),
            (None, None) => "address:unknown".to_owned(),
        };
        Self { key: key.into(), is_tenant: false, max_streams: None }
    }

    /// What the feature service tells callers apart by: a hash, which says no more.
    pub(crate) fn pseudonym(&self) -> String {
        let mut hash = blake3::hash(self.key.as_bytes()).to_hex();
        hash.truncate(32);
        hash.to_string()
    }
}

/// The part of an address that one caller cannot choose freely: whole networks of IPv6 addresses belong to one host.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        address => address,
    }
}

/// Tells who calls. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Authenticator {
    tokens: Option<Reloaded<Tokens>>,
    jwt: Option<Reloaded<JwtVerifier>>,
}

impl Authenticator {
    /// Reads the files that `config` names, and follows them.
    ///
    /// # Errors
    /// If they cannot be used.
    pub(crate) fn follow(config: &AuthConfig) -> Result<Self, ReloadError> {
        Ok(Self {
            tokens: config.callers_file.as_deref().map(Tokens::follow).transpose()?,
            jwt: config.jwt.as_ref().map(JwtVerifier::follow).transpose()?,
        })
    }

    /// Who sent these headers over a connection with these extensions.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` if tokens are asked for, and this has none that is good.
    pub(crate) fn identify(&self, metadata: &MetadataMap, extensions: &Extensions) -> Result<Caller, Failure> {
        if self.tokens.is_none() && self.jwt.is_none() {
            return Ok(Caller::of_peer(extensions.get::<Peer>()));
        }
        let refuse = |message: &str| Failure::new(Reason::Unauthenticated, message);
        let header = metadata
            .get("authorization")
            .ok_or_else(|| refuse("expected a bearer token: send the header `authorization: Bearer TOKEN`"))?;
        let header = header.to_str().ok().filter(|header| header.len() <= MAX_TOKEN);
        let token = header.and_then(|header| {
            let (scheme, token) = header.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let token = token.ok_or_else(|| refuse("expected `authorization: Bearer TOKEN`, found another credential"))?;
        let known = self.tokens.as_ref().and_then(|tokens| tokens.get().caller(token));
        match (known, &self.jwt) {
            (Some(caller), _) => Ok(caller),
            (None, Some(jwt)) => {
                jwt.get().caller(token).map_err(|why| refuse(&format!("the token is not valid: {why}")))
            }
            (None, None) => Err(refuse("the token is not that of a known caller")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tokens_callers_are_told_apart_by_certificate_or_network() {
        let peer = |address: &str| Peer { address: Some(address.parse().unwrap()), certificate: None };
        let key = |peer: &Peer| Caller::of_peer(Some(peer)).key;
        assert_eq!(&*key(&peer("10.0.0.1")), "address:10.0.0.1");
        assert_eq!(&*key(&peer("::ffff:10.0.0.1")), "address:10.0.0.1");
        assert_eq!(key(&peer("2001:db8::1")), key(&peer("2001:db8::2:1")));
        assert_ne!(key(&peer("2001:db8::1")), key(&peer("2001:db8:0:1::1")));
        let proved = Peer { certificate: Some("ab12".into()), ..peer("10.0.0.1") };
        assert_eq!(&*key(&proved), "certificate:ab12");
        let caller = Caller::of_peer(Some(&proved));
        assert!(!caller.is_tenant && caller.pseudonym().len() == 32 && !caller.pseudonym().contains("ab12"));
    }

    #[test]
    fn without_a_good_token_nobody_passes() {
        let tokens = Tokens::parse(&format!("[studio]\ntoken_blake3 = '{}'\n", blake3::hash(b"sesame"))).unwrap();
        let known = tokens.caller("sesame").unwrap();
        assert_eq!((&*known.key, known.is_tenant), ("token:studio", true));
        assert_eq!(tokens.caller("sesam"), None);
    }
}
