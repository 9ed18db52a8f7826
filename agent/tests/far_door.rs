//! A running agent's door over TCP, as the stock client knocks at it.

#![cfg(feature = "doors")]
#![expect(clippy::unwrap_used, reason = "a test ends where its world is broken")]

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

const PATIENCE: Duration = Duration::from_secs(30);

/// A clients' or servers' authority with one certificate of it, as files.
struct Papers {
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

fn papers(folder: &Path, name: &str) -> Papers {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let certificate = CertificateParams::new(names).unwrap();
    let certificate = certificate.signed_by(&key, &issuer).unwrap().pem();
    let file = |kind: &str, text: &str| {
        let path = folder.join(format!("{name}-{kind}.pem"));
        std::fs::write(&path, text).unwrap();
        path
    };
    Papers {
        authority: file("ca", &issuer.pem()),
        certificate: file("cert", &certificate),
        key: file("key", &key.serialize_pem()),
    }
}

impl Papers {
    fn flags(&self, command: &mut Command) {
        for (flag, file) in [
            ("--tlscacert", &self.authority),
            ("--tlscert", &self.certificate),
            ("--tlskey", &self.key),
        ] {
            command.arg(flag).arg(file);
        }
    }
}

fn agent(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    command.arg("agent");
    for (flag, name) in [
        ("--state-dir", "state"),
        ("--socket", "docker.sock"),
        ("--engine", "engine.sock"),
        ("--pin-dir", "pins"),
    ] {
        command.arg(flag).arg(folder.join(name));
    }
    command.stdin(Stdio::null());
    command
}

/// The agent; ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn docker(folder: &Path, host: &str, papers: Option<&Papers>, line: &str) -> Option<Output> {
    let client = ["/usr/local/bin/docker", "/usr/bin/docker"]
        .into_iter()
        .find(|path| Path::new(path).exists())?;
    let mut command = Command::new(client);
    command.arg("-H").arg(host);
    if let Some(papers) = papers {
        command.arg("--tlsverify");
        papers.flags(&mut command);
    }
    let command = command.args(line.split(' ')).env("DOCKER_CONFIG", folder);
    for name in [
        "DOCKER_HOST",
        "DOCKER_CONTEXT",
        "DOCKER_CERT_PATH",
        "DOCKER_TLS_VERIFY",
    ] {
        command.env_remove(name);
    }
    Some(command.output().unwrap())
}

#[test]
fn the_stock_client_comes_in_with_a_certificate_and_not_without() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (ours, strangers) = (papers(folder, "ours"), papers(folder, "strangers"));
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let host = format!("tcp://{address}");
    let mut command = agent(folder);
    command.args(["--host", &host, "--tlsverify"]);
    ours.flags(&mut command);
    let _agent = Running(command.spawn().unwrap());
    let begun = Instant::now();
    while !folder.join("docker.sock").exists() {
        assert!(begun.elapsed() < PATIENCE, "waited for the door to open");
        std::thread::sleep(Duration::from_millis(50));
    }
    let Some(known) = docker(folder, &host, Some(&ours), "node ls") else {
        return;
    };
    let words = String::from_utf8_lossy(&known.stderr);
    assert!(
        words.contains("This node is not a swarm manager"),
        "{words}"
    );
    let version = docker(
        folder,
        &host,
        Some(&ours),
        "version --format {{.Server.Os}}",
    )
    .unwrap();
    assert!(version.status.success(), "{version:?}");
    // A stranger that trusts this host, and one without any papers.
    let stranger = Papers {
        authority: ours.authority.clone(),
        ..strangers
    };
    for papers in [Some(&stranger), None] {
        let refused = docker(folder, &host, papers, "node ls").unwrap();
        let words = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success(), "{refused:?}");
        assert!(!words.contains("swarm manager"), "{words}");
    }
}

#[test]
fn a_door_over_tcp_without_certificates_is_refused_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let refused = agent(folder.path())
        .args(["--host", "tcp://127.0.0.1:0"])
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "{words}");
    for word in ["root here", "--tlscacert", "--tlscert", "--tlskey"] {
        assert!(words.contains(word), "{words}");
    }
    assert!(!folder.path().join("docker.sock").exists());
}
