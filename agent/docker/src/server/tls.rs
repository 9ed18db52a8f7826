//! The door over TCP: TLS, and only for clients whose certificate the authority has signed.

use std::{path::Path, sync::Arc, time::Duration};

use tokio::net::TcpListener;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    },
};
use weft_proto::last_words::hear_out;

use super::{DoorError, TcpDoor, converse, pause};
use crate::door::Door;

/// How long a client may take to show its certificate.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Listener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener {
    /// Reads the files and takes the address.
    ///
    /// # Errors
    /// Names the file or the address at fault.
    pub(super) async fn open(door: &TcpDoor) -> Result<Self, DoorError> {
        let failed = |cause: String| DoorError::Tcp {
            address: door.address,
            cause,
        };
        let config = config(door).map_err(failed)?;
        let listener = TcpListener::bind(door.address).await;
        let listener = listener.map_err(|error| failed(error.to_string()))?;
        tracing::info!(address = %door.address, "front door open to clients with certificates");
        Ok(Self {
            listener,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }

    pub(super) async fn accept(self, door: Arc<Door>) {
        loop {
            let (stream, client) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    pause(&error).await;
                    continue;
                }
            };
            let (acceptor, door) = (self.acceptor.clone(), Arc::clone(&door));
            tokio::spawn(async move {
                let accept = acceptor.accept(stream).into_fallible();
                match tokio::time::timeout(PATIENCE, accept).await {
                    Ok(Ok(stream)) => converse(stream, door).await,
                    Ok(Err((error, stream))) => {
                        tracing::warn!(%client, %error, "refused a client");
                        hear_out(stream).await;
                    }
                    Err(_) => tracing::debug!(%client, "a client says nothing"),
                }
            });
        }
    }
}

fn config(door: &TcpDoor) -> Result<ServerConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&door.authority)? {
        roots
            .add(certificate)
            .map_err(|error| describe(&door.authority, &error))?;
    }
    let key = PrivateKeyDer::from_pem_file(&door.key);
    let key = key.map_err(|error| describe(&door.key, &error))?;
    let provider = Arc::new(default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| describe(&door.authority, &error))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&door.certificate)?, key)
        .map_err(|error| describe(&door.certificate, &error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The certificates of a file, one at least.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(file)
        .and_then(|found| found.collect::<Result<Vec<_>, _>>())
        .map_err(|error| describe(file, &error))?;
    if read.is_empty() {
        return Err(describe(file, &"it holds no certificate"));
    }
    Ok(read)
}

fn describe(file: &Path, error: &dyn std::fmt::Display) -> String {
    format!("cannot use {}: {error}", file.display())
}
