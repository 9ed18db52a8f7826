//! Connections to managers: with a node's certificate, or, to join, with a token alone.
//!
//! A manager's certificate carries the DNS name `swarm-manager`; that name is what callers check,
//! whatever address they dialled, so a worker cannot pose as a manager.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint, Uri},
};
use weft_types::node::Availability;

use crate::{
    ControlError, ErrorCode, MAX_MESSAGE_BYTES,
    ca::{IssueReply, IssueRequest, RootRequest},
    clocks,
    identity::{Credentials, CredentialsError, Identity, provider, roots},
    last_words::Listening,
    service::{
        ca_client::CaClient, control_client::ControlClient, dispatcher_client::DispatcherClient,
        raft_client::RaftClient,
    },
    token::{JoinToken, ParseTokenError},
};

/// How long a connection may take to stand, TLS included.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How long one RPC of the join may take.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// Silence after which a connection is asked whether it lives, and how long the answer may take.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(3));

/// The same of a node's session. A manager whose host is gone says nothing more, and the next leader waits for the node
/// only so long.
const SESSION_KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(2));

/// After so long a node knows that the manager of its session is gone, though nothing told it.
pub const SESSION_SILENCE: Duration = SESSION_KEEP_ALIVE.0.saturating_add(SESSION_KEEP_ALIVE.1);

/// How the cause of a connection begins that nobody answered.
const NO_ANSWER: &str = "no answer";

/// The name that every manager's certificate carries.
const MANAGER_NAME: &str = "swarm-manager";

/// A dial that failed.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The token is no token.
    #[error(transparent)]
    Token(#[from] ParseTokenError),
    /// The address is no `ip:port`.
    #[error("{0:?} is not an address of the form ip:port")]
    Address(String),
    /// No connection.
    #[error("connection error: cannot reach the manager at {addr}: {cause}")]
    Connect {
        /// Which manager.
        addr: SocketAddr,
        /// Why.
        cause: String,
    },
    /// Another cluster's root certificate, or somebody in between.
    #[error("remote CA does not match fingerprint. Expected: {expected}")]
    Digest {
        /// Digest in the token, hexadecimal.
        expected: String,
    },
    /// The manager refused.
    #[error("{0}")]
    Refused(ControlError),
    /// The manager answered nonsense, or the node's own files hold some.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

impl DialError {
    /// Whether the same dial may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } => true,
            Self::Refused(error) => matches!(
                error.code,
                ErrorCode::Unavailable | ErrorCode::DeadlineExceeded | ErrorCode::Unknown
            ),
            _ => false,
        }
    }
}

impl DialError {
    /// Whether nobody said anything, not even that nobody listens there.
    #[must_use]
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Connect { cause, .. } if cause.starts_with(NO_ANSWER))
    }
}

impl From<DialError> for ControlError {
    /// In Docker's words, where the CLI shows them.
    fn from(error: DialError) -> Self {
        match error {
            DialError::Refused(error) => Self {
                message: format!(
                    "rpc error: code = {:?} desc = {}",
                    error.code, error.message
                ),
                ..error
            },
            DialError::Connect { .. } => {
                Self::unavailable(format!("rpc error: code = Unavailable desc = {error}"))
            }
            DialError::Address(_) => Self::invalid(error.to_string()),
            other => Self::unknown(other.to_string()),
        }
    }
}

/// What `error` says and, where that is not all, what led to it.
#[must_use]
pub fn told(error: &(dyn std::error::Error + 'static)) -> String {
    with_causes(error.to_string(), error.source())
}

fn with_causes(said: String, cause: Option<&(dyn std::error::Error + 'static)>) -> String {
    let mut text = said;
    let causes = std::iter::successors(cause, |cause| cause.source());
    for more in causes.map(ToString::to_string) {
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
    }
    text
}

/// Why a call failed: what the other end said or, if it was not reached, what the connection met.
#[must_use]
pub fn reason(status: &Status) -> String {
    let said = status.message().to_owned();
    with_causes(said, std::error::Error::source(status))
}

/// A gRPC status as a control error: same code, same reason.
#[must_use]
pub fn from_status(status: &Status) -> ControlError {
    let code = match status.code() {
        Code::InvalidArgument | Code::OutOfRange => ErrorCode::InvalidArgument,
        Code::NotFound => ErrorCode::NotFound,
        Code::AlreadyExists => ErrorCode::AlreadyExists,
        Code::PermissionDenied => ErrorCode::PermissionDenied,
        Code::FailedPrecondition => ErrorCode::FailedPrecondition,
        Code::Unimplemented => ErrorCode::Unimplemented,
        Code::Unavailable => ErrorCode::Unavailable,
        Code::Unauthenticated => ErrorCode::Unauthenticated,
        Code::DeadlineExceeded | Code::Cancelled => ErrorCode::DeadlineExceeded,
        Code::Aborted => ErrorCode::Aborted,
        _ => ErrorCode::Unknown,
    };
    ControlError::new(code, reason(status))
}

pub(crate) async fn tls(
    addr: SocketAddr,
    config: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(MANAGER_NAME).map_err(std::io::Error::other)?;
    let connected = TlsConnector::from(config).connect(name, stream).await;
    connected.map_err(clocks::named)
}

async fn listening(
    addr: SocketAddr,
    config: Arc<ClientConfig>,
) -> std::io::Result<TokioIo<Listening<TlsStream<TcpStream>>>> {
    let stream = tls(addr, config).await?;
    Ok(TokioIo::new(Listening::welcomed(stream).await?))
}

fn endpoint((interval, limit): (Duration, Duration)) -> Endpoint {
    Endpoint::from(Uri::from_static("http://swarm-manager"))
        .connect_timeout(CONNECT_LIMIT)
        .http2_keep_alive_interval(interval)
        .keep_alive_timeout(limit)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
}

fn lazy(
    addr: SocketAddr,
    config: impl Fn() -> Arc<ClientConfig> + Send + Sync + 'static,
) -> Channel {
    let config = Arc::new(config);
    let connector = tower::service_fn(move |_: Uri| {
        let config = config();
        async move { listening(addr, config).await }
    });
    endpoint(KEEP_ALIVE).connect_with_connector_lazy(connector)
}

async fn eager(
    addr: SocketAddr,
    config: Arc<ClientConfig>,
    keep_alive: (Duration, Duration),
) -> Result<Channel, DialError> {
    let fail = |cause: String| DialError::Connect { addr, cause };
    let first = tokio::time::timeout(CONNECT_LIMIT, listening(addr, Arc::clone(&config)))
        .await
        .map_err(|_| fail(format!("{NO_ANSWER} in {} s", CONNECT_LIMIT.as_secs())))?
        .map_err(|error| fail(error.to_string()))?;
    // The first stream is handed over as it is, so that its failure could be named.
    let first = Arc::new(std::sync::Mutex::new(Some(first)));
    let connector = tower::service_fn(move |_: Uri| {
        let (first, config) = (Arc::clone(&first), Arc::clone(&config));
        async move {
            let ready = first.lock().ok().and_then(|mut first| first.take());
            match ready {
                Some(stream) => Ok(stream),
                None => listening(addr, config).await,
            }
        }
    });
    endpoint(keep_alive)
        .connect_with_connector(connector)
        .await
        .map_err(|error| fail(told(&error)))
}

/// A connection to the manager at `addr`, proving who this node is. Stands when this returns.
///
/// # Errors
/// When it does not stand within [`CONNECT_LIMIT`], or the other end proves to be no manager of
/// this cluster.
pub async fn connect(addr: SocketAddr, credentials: &Credentials) -> Result<Channel, DialError> {
    eager(addr, credentials.client_config(), KEEP_ALIVE).await
}

/// As [`connect`], for a node's session: broken [`SESSION_SILENCE`] after the manager is gone.
///
/// # Errors
/// As [`connect`].
pub async fn connect_session(
    addr: SocketAddr,
    credentials: &Credentials,
) -> Result<Channel, DialError> {
    eager(addr, credentials.client_config(), SESSION_KEEP_ALIVE).await
}

/// A connection to the manager at `addr` that is made at its first use, and again when it broke,
/// each time with the newest certificate.
#[must_use]
pub fn connect_lazily(addr: SocketAddr, credentials: &Credentials) -> Channel {
    let credentials = credentials.clone();
    lazy(addr, move || credentials.client_config())
}

/// The dispatcher behind `channel`, with our message limits.
#[must_use]
pub fn dispatcher(channel: Channel) -> DispatcherClient<Channel> {
    DispatcherClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// The control API behind `channel`, with our message limits.
#[must_use]
pub fn control(channel: Channel) -> ControlClient<Channel> {
    ControlClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// The consensus engine behind `channel`, with our message limits.
#[must_use]
pub fn raft(channel: Channel) -> RaftClient<Channel> {
    RaftClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// A new key and the request to certify it, both PEM.
///
/// # Errors
/// When the system has no randomness.
pub fn new_key() -> Result<(String, String), CredentialsError> {
    let fail = |error: rcgen::Error| CredentialsError::Unusable {
        what: "key",
        cause: error.to_string(),
    };
    let key = KeyPair::generate().map_err(fail)?;
    let request = CertificateParams::default()
        .serialize_request(&key)
        .and_then(|request| request.pem())
        .map_err(fail)?;
    Ok((key.serialize_pem(), request))
}

/// What a joining node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinWish {
    /// The token as the user gave it.
    pub token: String,
    /// Availability wished.
    pub availability: Availability,
    /// `ip:port` at which peers would reach it as a manager.
    pub advertise_addr: String,
}

/// What a node gets that joins.
#[derive(Debug)]
pub struct Joined {
    /// Who it is from now on.
    pub identity: Identity,
    /// Managers to turn to, the leader first.
    pub managers: Vec<SocketAddr>,
}

/// Joins the cluster of the manager at `addr`: fetches the root certificate, checks it against the
/// token's digest, and has a new key certified. Nothing is stored.
///
/// # Errors
/// With Docker's texts for a malformed token, a wrong digest and a wrong secret.
pub async fn join(addr: SocketAddr, wish: &JoinWish) -> Result<Joined, DialError> {
    let token: JoinToken = wish.token.trim().parse()?;
    let trust_root = fetch_root(addr, &token).await?;
    let config = anonymous(known_root(&trust_root)?)?;
    let mut ca = CaClient::new(eager(addr, config, KEEP_ALIVE).await?);
    let (key, csr) = new_key()?;
    let request = IssueRequest {
        csr,
        token: wish.token.trim().to_owned(),
        availability: wish.availability,
        advertise_addr: wish.advertise_addr.clone(),
        on_behalf_of: None,
        certified: None,
    };
    let reply = limited(addr, ca.issue(request)).await?;
    let managers = reply.managers.iter().filter_map(|addr| addr.parse().ok());
    Ok(Joined {
        managers: managers.collect(),
        identity: identity(reply, key),
    })
}

/// Has a new key certified for a node that already has an identity; the managers say in which
/// role. Used before the certificate ends and when the role changes.
///
/// # Errors
/// When no connection stands or the manager refuses (the node was removed).
pub async fn renew(addr: SocketAddr, credentials: &Credentials) -> Result<Identity, DialError> {
    let mut ca = CaClient::new(connect(addr, credentials).await?);
    let (key, csr) = new_key()?;
    let request = IssueRequest {
        csr,
        token: String::new(),
        availability: Availability::default(),
        advertise_addr: String::new(),
        on_behalf_of: None,
        certified: None,
    };
    let reply = limited(addr, ca.issue(request)).await?;
    Ok(identity(reply, key))
}

fn identity(reply: IssueReply, key: String) -> Identity {
    Identity {
        node: reply.node,
        cluster: reply.cluster,
        role: reply.role,
        certificate: reply.certificate,
        key,
        trust_root: reply.trust_root,
    }
}

/// Waits for an answer of the manager at `addr`, but not for ever.
async fn limited<T>(
    addr: SocketAddr,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, DialError> {
    match tokio::time::timeout(CALL_LIMIT, call).await {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) => Err(DialError::Refused(from_status(&status))),
        Err(_) => Err(DialError::Connect {
            addr,
            cause: format!("{NO_ANSWER} in {} s", CALL_LIMIT.as_secs()),
        }),
    }
}

/// The root certificate of the cluster at `addr`, checked against the token's digest.
async fn fetch_root(addr: SocketAddr, token: &JoinToken) -> Result<String, DialError> {
    let config = anonymous(Arc::new(AnyServer(provider())))?;
    let mut ca = CaClient::new(eager(addr, config, KEEP_ALIVE).await?);
    let root = limited(addr, ca.root(RootRequest {})).await?.certificate;
    if token.knows(&root) {
        Ok(root)
    } else {
        Err(DialError::Digest {
            expected: token.digest_hex(),
        })
    }
}

/// Accepts managers that `trust_root` vouches for.
fn known_root(trust_root: &str) -> Result<Arc<dyn ServerCertVerifier>, CredentialsError> {
    let roots = Arc::new(roots(trust_root)?);
    match WebPkiServerVerifier::builder_with_provider(roots, provider()).build() {
        Ok(verifier) => Ok(verifier),
        Err(error) => Err(CredentialsError::Unusable {
            what: "root certificate",
            cause: error.to_string(),
        }),
    }
}

/// TLS without a certificate of our own.
fn anonymous(verifier: Arc<dyn ServerCertVerifier>) -> Result<Arc<ClientConfig>, CredentialsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| CredentialsError::Unusable {
            what: "root certificate",
            cause: error.to_string(),
        })?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Accepts any server: only for fetching the root certificate, which the token's digest proves.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
