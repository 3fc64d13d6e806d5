//! Certificates of an authority that exists for one test.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

/// An authority, and the folder that holds what it issues.
#[derive(Debug)]
pub struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// The files of a certificate.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

impl Authority {
    /// A new authority, whom nobody knows.
    #[must_use]
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "a test's authority");
        let key = KeyPair::generate().expect("keys can be made");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate can be made");
        let folder = tempfile::tempdir().expect("a folder can be made");
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("files can be written");
        Self { folder, issuer }
    }

    /// The authority's certificate.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Issues a certificate for `127.0.0.1` and `localhost` to the files of `name`, over what was there.
    #[must_use]
    pub fn issue(&self, name: &str) -> Identity {
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut params = CertificateParams::new(names).expect("these are names");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("keys can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate can be issued");
        let identity = Identity {
            certificate: self.folder.path().join(format!("{name}.pem")),
            key: self.folder.path().join(format!("{name}-key.pem")),
        };
        std::fs::write(&identity.certificate, certificate.pem()).expect("files can be written");
        std::fs::write(&identity.key, key.serialize_pem()).expect("files can be written");
        identity
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}
