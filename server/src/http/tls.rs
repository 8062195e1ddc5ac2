//! TLS in the process, for deployments without a proxy: certificate and key are read again when their
//! files change, so that a renewed certificate needs no restart.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_util::sync::CancellationToken;

/// Between two looks at the files. Events of the file system would miss mounted secrets.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where certificate and key are, both in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The server's certificate first, then those between it and a root.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
}

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate's file cannot be used.
    #[error("--tls-certificate (SEGNO_TLS_CERTIFICATE): {}: {reason}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is the matter.
        reason: String,
    },
    /// The key's file cannot be used.
    #[error("--tls-key (SEGNO_TLS_KEY): {}: {reason}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is the matter.
        reason: String,
    },
    /// Both can be read, but not used together.
    #[error("the certificate and the key of --tls-certificate and --tls-key cannot be used: {0}")]
    Pair(rustls::Error),
}

/// The certificate in force.
#[derive(Clone)]
pub struct Tls {
    files: Files,
    current: Arc<RwLock<Arc<ServerConfig>>>,
}

impl Tls {
    /// Reads the files.
    pub fn load(files: Files) -> Result<Self, TlsError> {
        let current = Arc::new(RwLock::new(Arc::new(read(&files)?)));
        Ok(Self { files, current })
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(current.clone())
    }

    /// Takes up what changes in the files until `shutdown`. What cannot be used is told in the log, and
    /// the old certificate stays.
    pub async fn follow(self, shutdown: CancellationToken) {
        let mut seen = self.marks();
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = looks.tick() => {}
            }
            let marks = self.marks();
            if marks == seen {
                continue;
            }
            match read(&self.files) {
                Ok(config) => {
                    let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
                    *current = Arc::new(config);
                    tracing::info!("the TLS certificate was read again");
                }
                Err(error) => {
                    tracing::error!(%error, "the TLS certificate changed and cannot be used; the old one stays");
                }
            }
            seen = marks;
        }
    }

    /// What changes when a file is written or replaced.
    fn marks(&self) -> [Option<(u64, i64, i64, u64)>; 2] {
        let mark = |path: &Path| {
            let found = fs::metadata(path).ok()?;
            Some((found.ino(), found.mtime(), found.mtime_nsec(), found.len()))
        };
        [mark(&self.files.certificate), mark(&self.files.key)]
    }
}

fn read(files: &Files) -> Result<ServerConfig, TlsError> {
    let no_certificate = |reason: String| TlsError::Certificate {
        path: files.certificate.clone(),
        reason,
    };
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| no_certificate(error.to_string()))?;
    if chain.is_empty() {
        return Err(no_certificate("there is no certificate in it".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| TlsError::Key {
        path: files.key.clone(),
        reason: error.to_string(),
    })?;
    // Named, for other crates may bring another provider and then there is no default.
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(TlsError::Pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
