//! The door over TCP.

use std::{io, net::SocketAddr, path::Path, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};
use weft_docker::{DoorConfig, DoorError, TcpDoor, serve};

use crate::{bed::soon, cluster::FakeNode};

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Issuer {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// PEM of a certificate and its key.
fn certificate(issuer: &Issuer) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (
        params.signed_by(&key, issuer).unwrap().pem(),
        key.serialize_pem(),
    )
}

fn files(folder: &Path, address: SocketAddr, issuer: &Issuer) -> TcpDoor {
    let (certificate, key) = certificate(issuer);
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    TcpDoor {
        address,
        authority: file("ca.pem", &issuer.pem()),
        certificate: file("cert.pem", &certificate),
        key: file("key.pem", &key),
    }
}

fn config(folder: &Path, tcp: TcpDoor) -> DoorConfig {
    DoorConfig {
        socket: folder.join("docker.sock"),
        group: Some("0".into()),
        engine_socket: folder.join("engine.sock"),
        tcp: vec![tcp],
    }
}

/// What is answered to `GET /nodes` by this client, whose request has a body of so many bytes.
async fn ask(
    address: SocketAddr,
    trust: &Issuer,
    own: Option<(String, String)>,
    body: usize,
) -> io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(trust.pem().as_bytes()).unwrap())
        .unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, stream).await?;
    let mut answer = Vec::new();
    let head = format!(
        "GET /v1.41/nodes HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: {body}\r\n\r\n"
    );
    if body > 0 {
        // The door has said what it says of the certificate.
        stream.get_ref().0.readable().await?;
    }
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&vec![b' '; body]).await?;
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn only_clients_with_a_certificate_are_answered_over_tcp() {
    let folder = tempfile::tempdir().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let issuer = authority();
    let config = config(folder.path(), files(folder.path(), address, &issuer));
    let socket = config.socket.clone();
    let (stop, stopped) = oneshot::channel::<()>();
    let door = tokio::spawn(serve(config, FakeNode::manager(), async {
        let _ = stopped.await;
    }));
    let open = async {
        while !socket.exists() {
            tokio::task::yield_now().await;
        }
    };
    soon("the door to open", open).await;

    let known = ask(address, &issuer, Some(certificate(&issuer)), 0);
    let known = soon("an answer", known).await.unwrap();
    assert!(known.starts_with("HTTP/1.1 200 "), "{known:?}");
    let stranger = certificate(&authority());
    // Refused while they still speak, they read why.
    for (own, why) in [
        (None, "CertificateRequired"),
        (Some(stranger), "DecryptError"),
    ] {
        let refused = soon("a refusal", ask(address, &issuer, own, 1 << 20)).await;
        let refused = refused.expect_err("it was answered").to_string();
        assert!(refused.contains(why), "{refused}");
    }
    let mut plain = TcpStream::connect(address).await.unwrap();
    let request = b"GET /v1.41/nodes HTTP/1.1\r\nHost: d\r\n\r\n";
    plain.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let end = soon("the end", plain.read_to_end(&mut answer)).await;
    end.expect("no reset");
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    drop(stop);
    soon("the door to close", door).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_door_over_tcp_without_its_files_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let address = "127.0.0.1:0".parse().unwrap();
    let good = files(folder.path(), address, &authority());
    let missing = folder.path().join("missing.pem");
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let doors = [
        TcpDoor {
            authority: missing.clone(),
            ..good.clone()
        },
        TcpDoor {
            certificate: empty,
            ..good.clone()
        },
        TcpDoor {
            key: missing,
            ..good.clone()
        },
    ];
    for tcp in doors {
        let config = config(folder.path(), tcp);
        let socket = config.socket.clone();
        let refusal = serve(config, FakeNode::manager(), std::future::ready(())).await;
        assert!(matches!(refusal, Err(DoorError::Tcp { .. })), "{refusal:?}");
        assert!(refusal.unwrap_err().to_string().contains(".pem"));
        assert!(!socket.exists());
    }
}
