//! Who a node is: its certificate, its key, and the root it trusts.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
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
    /// Private key, PEM; empty while it is locked.
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

/// What lies on disk.
#[derive(Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    identity: Identity,
    /// The private key as a [`KeyLock`] locked it; `key` is empty then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    locked_key: Option<String>,
}

/// Locks a node's private key on disk, and opens it again.
pub trait KeyLock: Send + Sync {
    /// The key, locked, as text.
    fn lock(&self, key: &str) -> String;

    /// The key that was locked; `None` if another lock did that, or the text was changed.
    fn open(&self, locked: &str) -> Option<String>;
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

impl Kept {
    fn load(state_dir: &Path) -> Result<Option<Self>, CredentialsError> {
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

    fn save(&self, state_dir: &Path) -> Result<(), CredentialsError> {
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
}

impl Identity {
    /// The identity kept in `state_dir`; `None` if the node belongs to no cluster. Its key is empty
    /// if it is locked.
    ///
    /// # Errors
    /// When the file is there but cannot be read.
    pub fn load(state_dir: &Path) -> Result<Option<Self>, CredentialsError> {
        Ok(Kept::load(state_dir)?.map(|kept| kept.identity))
    }

    /// Keeps the identity in `state_dir`, which must exist. A key that is locked there stays so if
    /// this identity has none.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, state_dir: &Path) -> Result<(), CredentialsError> {
        let locked_key = if self.key.is_empty() {
            Kept::load(state_dir)?.and_then(|kept| kept.locked_key)
        } else {
            None
        };
        let identity = self.clone();
        Kept {
            identity,
            locked_key,
        }
        .save(state_dir)
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
///
/// Without its key, while that is locked, a node proves nothing to anybody.
#[derive(Clone)]
pub struct Credentials(Arc<Held>);

struct Held {
    ready: ArcSwap<Ready>,
    /// Locks a manager's key on disk.
    lock: Mutex<Option<Arc<dyn KeyLock>>>,
}

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
        Ok(Self(Arc::new(Held {
            ready: ArcSwap::from_pointee(Ready::new(identity)?),
            lock: Mutex::default(),
        })))
    }

    /// Keeps `identity` in `state_dir`, its key locked if that is the rule here, and uses it from
    /// now on.
    ///
    /// # Errors
    /// When the file cannot be written or the identity is malformed; the old one stays then.
    pub fn keep(&self, state_dir: &Path, identity: Identity) -> Result<(), CredentialsError> {
        let ready = Ready::new(identity)?;
        let lock = self.rule();
        write(state_dir, &ready.identity, lock.as_deref())?;
        self.0.ready.store(Arc::new(ready));
        Ok(())
    }

    /// From now on a manager's key is locked by `lock` when it is kept, or lies open for `None`.
    /// The file in `state_dir` follows.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn lock(
        &self,
        state_dir: &Path,
        lock: Option<Arc<dyn KeyLock>>,
    ) -> Result<(), CredentialsError> {
        let mut rule = self.rule();
        *rule = lock;
        write(state_dir, &self.identity(), rule.as_deref())
    }

    /// Opens the key that is locked in `state_dir`, and uses it from now on; fine if none is.
    ///
    /// # Errors
    /// When `lock` does not open it.
    pub fn unlock(&self, state_dir: &Path, lock: Arc<dyn KeyLock>) -> Result<(), CredentialsError> {
        let Some(kept) = Kept::load(state_dir)? else {
            return Ok(());
        };
        let Some(locked) = kept.locked_key else {
            return Ok(());
        };
        let key = lock.open(&locked).ok_or_else(|| {
            unusable("key")("it is locked by another lock, or damaged".to_owned())
        })?;
        self.swap(Identity {
            key,
            ..kept.identity
        })?;
        *self.rule() = Some(lock);
        Ok(())
    }

    /// How keys are locked on disk here; held while the file is written.
    fn rule(&self) -> MutexGuard<'_, Option<Arc<dyn KeyLock>>> {
        self.0.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the identity for all connections made from now on.
    ///
    /// # Errors
    /// As [`Credentials::new`]; the old identity stays then.
    pub fn swap(&self, identity: Identity) -> Result<(), CredentialsError> {
        self.0.ready.store(Arc::new(Ready::new(identity)?));
        Ok(())
    }

    /// The identity in force.
    #[must_use]
    pub fn identity(&self) -> Arc<Identity> {
        self.0.ready.load().identity.clone()
    }

    /// TLS for connections that this node makes.
    #[must_use]
    pub fn client_config(&self) -> Arc<ClientConfig> {
        self.0.ready.load().client.clone()
    }

    /// TLS for connections that this node accepts: callers without a certificate are let in (they
    /// may want to join), callers with one from a stranger are not.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.0.ready.load().server.clone()
    }
}

/// Keeps an identity; a manager's key locked by `lock`.
fn write(
    state_dir: &Path,
    identity: &Identity,
    lock: Option<&dyn KeyLock>,
) -> Result<(), CredentialsError> {
    match lock {
        Some(lock) if identity.role == Role::Manager && !identity.key.is_empty() => Kept {
            locked_key: Some(lock.lock(&identity.key)),
            identity: Identity {
                key: String::new(),
                ..identity.clone()
            },
        }
        .save(state_dir),
        _ => identity.save(state_dir),
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

/// Shows no certificate to anybody.
#[derive(Debug)]
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

impl Ready {
    fn new(identity: Identity) -> Result<Self, CredentialsError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(identity.certificate.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| unusable("certificate")(error.to_string()))?;
        let key = match identity.key.as_str() {
            "" => None,
            pem => Some(
                PrivateKeyDer::from_pem_slice(pem.as_bytes())
                    .map_err(|error| unusable("key")(error.to_string()))?,
            ),
        };
        let roots = Arc::new(roots(&identity.trust_root)?);
        let fail = |error: rustls::Error| unusable("certificate")(error.to_string());

        let client = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(fail)?
            .with_root_certificates(Arc::clone(&roots));
        let mut client = match &key {
            Some(key) => client
                .with_client_auth_cert(chain.clone(), key.clone_key())
                .map_err(fail)?,
            None => client.with_no_client_auth(),
        };
        client.alpn_protocols = vec![b"h2".to_vec()];

        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .allow_unauthenticated()
            .build()
            .map_err(|error| unusable("root certificate")(error.to_string()))?;
        let server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(fail)?
            .with_client_cert_verifier(verifier);
        let mut server = match key {
            Some(key) => server.with_single_cert(chain, key).map_err(fail)?,
            None => server.with_cert_resolver(Arc::new(Nobody)),
        };
        server.alpn_protocols = vec![b"h2".to_vec(), crate::tunnel::ALPN.to_vec()];
        Ok(Self {
            identity: Arc::new(identity),
            client: Arc::new(client),
            server: Arc::new(server),
        })
    }
}
