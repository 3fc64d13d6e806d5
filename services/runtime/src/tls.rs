//! TLS on every hop: who a server is, who may call it, and whom a client believes. Files are read again when they change.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{
    TlsAcceptor, TlsConnector, client,
    rustls::{
        self, ClientConfig, RootCertStore, ServerConfig,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
        server::WebPkiClientVerifier,
    },
    server,
};

use crate::reload::{ReloadError, Reloaded};

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The protocols that are agreed on: gRPC is HTTP/2, the rest is HTTP/1.1.
const HTTP_2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// How a server proves who it is. Files are PEM, and read again when they change.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ServerTlsConfig {
    /// The server's certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
    /// The authorities whose certificates callers must have: mutual TLS. Default: none, callers need no certificate.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
}

/// Whom a client believes, and how it proves who it is. Files are PEM, and read again when they change.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct ClientTlsConfig {
    /// The authorities whose servers are believed. Default: those that the operating system trusts.
    pub ca: Option<PathBuf>,
    /// This client's certificate, for servers that ask for one. Needs `key`. Default: none.
    pub certificate: Option<PathBuf>,
    /// The private key of the certificate.
    pub key: Option<PathBuf>,
}

/// TLS that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of the configuration cannot be used.
    #[error("TLS: {0}")]
    Files(#[from] ReloadError),
    /// One of the two files of an identity is missing.
    #[error("TLS: expected both `certificate` and `key`, or neither")]
    HalfIdentity,
    /// The operating system's list of authorities is empty or unreadable.
    #[error("TLS: no authority to believe: name one with `ca`, or install the system's (package ca-certificates)")]
    NoAuthorities,
}

/// The server's side. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ServerTls {
    configs: Reloaded<ServerConfigs>,
    speaks_grpc: bool,
}

/// The same identity, for each protocol.
#[derive(Debug)]
struct ServerConfigs {
    grpc: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
}

impl ServerTls {
    pub(crate) fn follow(config: &ServerTlsConfig) -> Result<Self, TlsError> {
        let ServerTlsConfig { certificate, key, client_ca } = config.clone();
        let paths = [Some(&certificate), Some(&key), client_ca.as_ref()].into_iter().flatten().cloned().collect();
        let make = move |contents: &[Vec<u8>]| {
            let [chain, private_key, authorities @ ..] = contents else { return Err(no_files(&certificate)) };
            let builder = ServerConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .map_err(|error| ReloadError::content(&certificate, error))?;
            let builder = match (&client_ca, authorities) {
                (Some(path), [pem, ..]) => {
                    let verifier = WebPkiClientVerifier::builder_with_provider(roots(path, pem)?.into(), provider());
                    builder
                        .with_client_cert_verifier(verifier.build().map_err(|error| ReloadError::content(path, error))?)
                }
                _ => builder.with_no_client_auth(),
            };
            let (chain, private_key) = (certificates(&certificate, chain)?, secret_key(&key, private_key)?);
            let mut grpc = builder
                .with_single_cert(chain, private_key)
                .map_err(|error| ReloadError::content(&certificate, format_args!("with its key: {error}")))?;
            let mut http = grpc.clone();
            grpc.alpn_protocols = vec![HTTP_2.to_vec()];
            http.alpn_protocols = vec![HTTP_1_1.to_vec()];
            Ok(ServerConfigs { grpc: Arc::new(grpc), http: Arc::new(http) })
        };
        Ok(Self { configs: Reloaded::follow("server certificate", paths, make)?, speaks_grpc: true })
    }

    /// The same server, for callers who speak HTTP/1.1.
    pub(crate) fn speaking_http(&self) -> Self {
        Self { speaks_grpc: false, ..self.clone() }
    }

    /// Shakes hands with a caller, by the files as they are now.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<server::TlsStream<TcpStream>> {
        let configs = self.configs.get();
        let config = if self.speaks_grpc { &configs.grpc } else { &configs.http };
        let acceptor = TlsAcceptor::from(Arc::clone(config));
        timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await.map_err(|_elapsed| late())?
    }
}

/// The client's side. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ClientTls(Reloaded<ClientConfig>);

impl ClientTls {
    /// Reads the files, and follows them.
    ///
    /// # Errors
    /// If they cannot be used.
    pub fn follow(config: &ClientTlsConfig) -> Result<Self, TlsError> {
        let ClientTlsConfig { ca, certificate, key } = config.clone();
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(TlsError::HalfIdentity),
        };
        let system = if ca.is_none() { Some(system_roots()?) } else { None };
        let mut paths: Vec<PathBuf> = ca.iter().cloned().collect();
        paths.extend(identity.iter().flat_map(|(certificate, key)| [certificate.clone(), key.clone()]));
        let make = move |contents: &[Vec<u8>]| {
            let mut contents = contents.iter();
            let authorities = match (&ca, &system) {
                (Some(path), _) => Arc::new(roots(path, contents.next().ok_or_else(|| no_files(path))?)?),
                (None, Some(system)) => Arc::clone(system),
                (None, None) => Arc::new(RootCertStore::empty()),
            };
            let builder = ClientConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .map_err(|error| ReloadError::content(Path::new("TLS"), error))?
                .with_root_certificates(authorities);
            let mut config = match (&identity, contents.next(), contents.next()) {
                (Some((certificate, key)), Some(chain), Some(private_key)) => builder
                    .with_client_auth_cert(certificates(certificate, chain)?, secret_key(key, private_key)?)
                    .map_err(|error| ReloadError::content(certificate, format_args!("with its key: {error}")))?,
                _ => builder.with_no_client_auth(),
            };
            config.alpn_protocols = vec![HTTP_2.to_vec()];
            Ok(config)
        };
        Ok(Self(Reloaded::follow("client certificate", paths, make)?))
    }

    /// Shakes hands with the server `host`, by the files as they are now.
    pub(crate) async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<client::TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connector = TlsConnector::from(self.0.get());
        timeout(HANDSHAKE_TIMEOUT, connector.connect(name, stream)).await.map_err(|_elapsed| late())?
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn system_roots() -> Result<Arc<RootCertStore>, TlsError> {
    let mut store = RootCertStore::empty();
    // Some systems list a few that cannot be read beside those that can.
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() { Err(TlsError::NoAuthorities) } else { Ok(Arc::new(store)) }
}

fn roots(path: &Path, pem: &[u8]) -> Result<RootCertStore, ReloadError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path, pem)? {
        store.add(certificate).map_err(|error| ReloadError::content(path, error))?;
    }
    Ok(store)
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ReloadError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| ReloadError::content(path, error))?;
    if found.is_empty() {
        Err(ReloadError::content(path, "expected certificates in PEM, found none"))
    } else {
        Ok(found)
    }
}

fn secret_key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, ReloadError> {
    // Its errors may quote the file.
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| ReloadError::content(path, "expected a private key in PEM"))
}

fn no_files(path: &Path) -> ReloadError {
    ReloadError::content(path, "not read")
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no TLS handshake within {HANDSHAKE_TIMEOUT:?}"))
}

/// Why rustls refused a peer, for the log.
pub(crate) fn explain(error: &io::Error) -> String {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    cause.map_or_else(|| error.to_string(), ToString::to_string)
}
