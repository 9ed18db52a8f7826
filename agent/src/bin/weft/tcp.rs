//! Flags of the front door over TCP, named as dockerd's.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use weft_docker::TcpDoor;

/// Where else the front door is, and who may come in.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TcpFlags {
    /// Also listen on tcp://ADDRESS:PORT, for clients with a certificate only; may be given often.
    #[arg(short = 'H', long = "host", value_name = "URL")]
    hosts: Vec<String>,
    /// For dockerd's sake: clients that come over TCP are always verified.
    #[arg(long, requires = "hosts")]
    tlsverify: bool,
    /// PEM file of the authority that clients' certificates are of.
    #[arg(long, value_name = "FILE")]
    tlscacert: Option<PathBuf>,
    /// PEM file of this host's certificate.
    #[arg(long, value_name = "FILE")]
    tlscert: Option<PathBuf>,
    /// PEM file of its key.
    #[arg(long, value_name = "FILE")]
    tlskey: Option<PathBuf>,
}

impl TcpFlags {
    /// The doors asked for.
    ///
    /// # Errors
    /// When a URL is none, or one is asked for without all three files: the API is root on this host.
    pub(crate) fn doors(&self) -> Result<Vec<TcpDoor>> {
        let doors = self.hosts.iter().map(|host| {
            let Some(address) = host.strip_prefix("tcp://") else {
                bail!("--host {host}: only tcp://ADDRESS:PORT is served so; the unix socket is --socket PATH");
            };
            let address: SocketAddr = address.parse().with_context(|| {
                format!("--host {host}: give the address and the port, such as tcp://192.0.2.11:2376")
            })?;
            let (Some(authority), Some(certificate), Some(key)) =
                (&self.tlscacert, &self.tlscert, &self.tlskey)
            else {
                bail!("--host {host}: whoever talks to this API is root here, so it is served over TCP to TLS clients with a certificate only: give --tlscacert, --tlscert and --tlskey");
            };
            Ok(TcpDoor {
                address,
                authority: authority.clone(),
                certificate: certificate.clone(),
                key: key.clone(),
            })
        });
        doors.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_door_is_open_without_certificates() {
        let flags = |host: &str| TcpFlags {
            hosts: vec![host.to_owned()],
            ..TcpFlags::default()
        };
        for (host, words) in [
            ("tcp://0.0.0.0:2376", "--tlscacert"),
            ("tcp://0.0.0.0", "port"),
            ("unix:///x", "--socket"),
        ] {
            let refusal = format!("{:#}", flags(host).doors().expect_err(host));
            assert!(refusal.contains(words), "{refusal}");
        }
        let file = |name: &str| Some(PathBuf::from(name));
        let whole = TcpFlags {
            tlscacert: file("ca"),
            tlscert: file("cert"),
            tlskey: file("key"),
            ..flags("tcp://[::]:2376")
        };
        assert_eq!(whole.doors().expect("a door").len(), 1);
        assert!(TcpFlags::default().doors().expect("none").is_empty());
    }
}
