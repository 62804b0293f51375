//! TLS 1.3 with a certificate from files, which may be renewed while the server runs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::TLS13;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::crypto::hash;

/// How often the files are looked at.
pub const LOOK: Duration = Duration::from_secs(10);

/// A certificate with its key, as the files have them or had them when they were last in order.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<ServerConfig>>,
    /// What the files had when they were last looked at.
    seen: Mutex<[u8; 32]>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files: PEM, the server's certificate first, then those that lead to its root.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn load(certificate: &Path, key: &Path) -> Result<Arc<Self>, String> {
        let files = Files::read(certificate, key)?;
        Ok(Arc::new(Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            current: RwLock::new(files.config()?),
            seen: Mutex::new(files.mark()),
        }))
    }

    /// What a new connection is accepted with.
    pub fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(current.clone())
    }

    /// Looks whether the files have changed, and takes over what they have; answers whether it did.
    ///
    /// # Errors
    /// A sentence for the operator when they are not in order: the old pair stays in use, and the same files are complained
    /// of once.
    pub fn refresh(&self) -> Result<bool, String> {
        let files = Files::read(&self.certificate, &self.key)?;
        let mark = files.mark();
        if std::mem::replace(
            &mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner),
            mark,
        ) == mark
        {
            return Ok(false);
        }
        let config = files.config()?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(true)
    }

    /// Looks at the files again and again until `stop`. Connections that are there keep what they were accepted with.
    pub async fn follow(self: Arc<Self>, every: Duration, stop: CancellationToken) {
        let mut unreadable = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
            let this = self.clone();
            match tokio::task::spawn_blocking(move || this.refresh()).await {
                Ok(Ok(true)) => tracing::info!("the new certificate is in use"),
                Ok(Ok(false)) => {}
                Ok(Err(problem)) => {
                    if !unreadable {
                        tracing::error!(problem, "the certificate stays as it was");
                    }
                    unreadable = true;
                    continue;
                }
                Err(error) => tracing::error!(%error, "the certificate could not be looked at"),
            }
            unreadable = false;
        }
    }
}

struct Files {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl Files {
    fn read(certificate: &Path, key: &Path) -> Result<Self, String> {
        let read = |name: &str, path: &Path| {
            std::fs::read(path)
                .map_err(|error| format!("{name} ({}) cannot be read: {error}.", path.display()))
        };
        Ok(Self {
            certificate: read("TLS_CERT_FILE", certificate)?,
            key: Zeroizing::new(read("TLS_KEY_FILE", key)?),
        })
    }

    fn mark(&self) -> [u8; 32] {
        let mut both = Zeroizing::new(self.certificate.clone());
        both.push(0);
        both.extend_from_slice(&self.key);
        hash(&both)
    }

    fn config(&self) -> Result<Arc<ServerConfig>, String> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("TLS_CERT_FILE is not a certificate in PEM: {error}."))?;
        if chain.is_empty() {
            return Err("TLS_CERT_FILE has no certificate in PEM.".to_owned());
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|error| format!("TLS_KEY_FILE has no private key in PEM: {error}."))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| format!("TLS 1.3 cannot be had: {error}."))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| format!("TLS_CERT_FILE and TLS_KEY_FILE do not go together: {error}."))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}
