//! Who a node is: its certificate, its key, and the root it trusts.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
};

use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use serde::{Deserialize, Serialize};
use weft_types::{ClusterId, NodeId, node::Role};

/// Who a node is in its cluster. The certificate says the same as the fields beside it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// CN of the certificate.
    pub node: NodeId,
    /// O of the certificate.
    pub cluster: ClusterId,
    /// OU of the certificate.
    pub role: Role,
    /// Certificate chain, PEM.
    pub certificate: String,
    /// Private key, PEM.
    pub key: String,
    /// Root certificates trusted, PEM.
    pub trust_root: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("node", &self.node)
            .field("cluster", &self.cluster)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// File name of the identity in a node's state directory.
const FILE: &str = "identity.json";

/// Credentials that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file could not be read or written.
    #[error("cannot {verb} {path}")]
    File {
        /// `read`, `write` or `remove`.
        verb: &'static str,
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is no identity.
    #[error("{path} holds no identity")]
    Format {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A certificate or key is malformed, or they do not belong together.
    #[error("unusable {what}: {cause}")]
    Unusable {
        /// `certificate`, `key` or `root certificate`.
        what: &'static str,
        /// Why.
        cause: String,
    },
}

fn unusable(what: &'static str) -> impl Fn(String) -> CredentialsError {
    move |cause| CredentialsError::Unusable { what, cause }
}

/// Writes `bytes` to `path` so that after a crash the file is the old one or the new one, whole,
/// and readable by its owner only.
///
/// # Errors
/// When any step fails; the old file is still there then.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    if let Some(directory) = path.parent() {
        fs::File::open(directory)?.sync_all()?;
    }
    Ok(())
}

impl Identity {
    /// The identity kept in `state_dir`; `None` if the node belongs to no cluster.
    ///
    /// # Errors
    /// When the file is there but cannot be read.
    pub fn load(state_dir: &Path) -> Result<Option<Self>, CredentialsError> {
        let path = state_dir.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(CredentialsError::File {
                    verb: "read",
                    path: path.display().to_string(),
                    source,
                });
            }
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| CredentialsError::Format {
                path: path.display().to_string(),
                source,
            })
    }

    /// Keeps the identity in `state_dir`, which must exist.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, state_dir: &Path) -> Result<(), CredentialsError> {
        let path = state_dir.join(FILE);
        let text = serde_json::to_vec_pretty(self).map_err(|source| CredentialsError::Format {
            path: path.display().to_string(),
            source,
        })?;
        write_private(&path, &text).map_err(|source| CredentialsError::File {
            verb: "write",
            path: path.display().to_string(),
            source,
        })
    }

    /// Forgets the identity kept in `state_dir`; fine if there is none.
    ///
    /// # Errors
    /// When the file is there but cannot be removed.
    pub fn forget(state_dir: &Path) -> Result<(), CredentialsError> {
        let path = state_dir.join(FILE);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(CredentialsError::File {
                    verb: "remove",
                    path: path.display().to_string(),
                    source,
                })
            }
            _ => Ok(()),
        }
    }
}

/// An identity ready for use on connections, replaceable while they live: a connection keeps what
/// it was made with, the next one takes the newest.
#[derive(Clone)]
pub struct Credentials(Arc<ArcSwap<Ready>>);

struct Ready {
    identity: Arc<Identity>,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Credentials")
            .field(&self.identity())
            .finish()
    }
}

impl Credentials {
    /// Credentials from an identity.
    ///
    /// # Errors
    /// When its certificate, key or root is malformed or they do not fit together.
    pub fn new(identity: Identity) -> Result<Self, CredentialsError> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(Ready::new(identity)?))))
    }

    /// Replaces the identity for all connections made from now on.
    ///
    /// # Errors
    /// As [`Credentials::new`]; the old identity stays then.
    pub fn swap(&self, identity: Identity) -> Result<(), CredentialsError> {
        self.0.store(Arc::new(Ready::new(identity)?));
        Ok(())
    }

    /// The identity in force.
    #[must_use]
    pub fn identity(&self) -> Arc<Identity> {
        self.0.load().identity.clone()
    }

    /// TLS for connections that this node makes.
    #[must_use]
    pub fn client_config(&self) -> Arc<ClientConfig> {
        self.0.load().client.clone()
    }

    /// TLS for connections that this node accepts: callers without a certificate are let in (they
    /// may want to join), callers with one from a stranger are not.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.0.load().server.clone()
    }
}

/// The one provider of cryptography.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The roots in a PEM text, at least one.
pub(crate) fn roots(pem: &str) -> Result<RootCertStore, CredentialsError> {
    let fail = unusable("root certificate");
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let root = root.map_err(|error| fail(error.to_string()))?;
        roots.add(root).map_err(|error| fail(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(fail("no certificate in the text".to_owned()));
    }
    Ok(roots)
}

impl Ready {
    fn new(identity: Identity) -> Result<Self, CredentialsError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(identity.certificate.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| unusable("certificate")(error.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())
            .map_err(|error| unusable("key")(error.to_string()))?;
        let roots = Arc::new(roots(&identity.trust_root)?);
        let fail = |error: rustls::Error| unusable("certificate")(error.to_string());

        let mut client = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(fail)?
            .with_root_certificates(Arc::clone(&roots))
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(fail)?;
        client.alpn_protocols = vec![b"h2".to_vec()];

        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .allow_unauthenticated()
            .build()
            .map_err(|error| unusable("root certificate")(error.to_string()))?;
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(fail)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(fail)?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            identity: Arc::new(identity),
            client: Arc::new(client),
            server: Arc::new(server),
        })
    }
}
