//! Those who talk over the network: servers that say who they are, clients that ask.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::Lan;

/// How long an answer may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
/// How long nobody answers where nobody should.
const SILENCE: Duration = Duration::from_secs(2);

/// A socket that asks `to` by datagrams and waits a moment for each answer.
pub(crate) fn asking(to: SocketAddr) -> Result<UdpSocket> {
    let any: SocketAddr = if to.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(Duration::from_millis(300)))?;
    socket.connect(to)?;
    Ok(socket)
}

impl Lan {
    /// TCP and UDP servers at `port` in a namespace, of both families, which answer
    /// `<name> <client address>`.
    pub(crate) fn serve(&self, name: &str, port: u16) -> Result<()> {
        let label = name.to_owned();
        self.within(name, move || {
            let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
            let listener = TcpListener::bind(any)?;
            let socket = UdpSocket::bind(any)?;
            let said = label.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let Ok(mut stream) = stream else { return };
                    let said = said.clone();
                    std::thread::spawn(move || answer(&mut stream, &said));
                }
            });
            std::thread::spawn(move || {
                let mut bytes = [0; 2048];
                while let Ok((_, from)) = socket.recv_from(&mut bytes) {
                    let text = format!("{label} {}", plain(from.ip()));
                    if socket.send_to(text.as_bytes(), from).is_err() {
                        return;
                    }
                }
            });
            Ok(())
        })
    }

    /// What the server at `to` says to a client in `name`, over TCP.
    pub(crate) fn ask_tcp(&self, name: &str, to: impl Into<SocketAddr>) -> Result<String> {
        let to = to.into();
        self.within(name, move || ask_tcp(to))
            .with_context(|| format!("{name} asks {to}/tcp\n{}", self.report()))
    }

    /// Whether a client in `name` is let in by nobody at `to`, over TCP: refused, or met by silence.
    pub(crate) fn is_shut(&self, name: &str, to: impl Into<SocketAddr>) -> Result<bool> {
        let to = to.into();
        self.within(name, move || {
            Ok(TcpStream::connect_timeout(&to, SILENCE).is_err())
        })
    }

    /// The same over UDP.
    pub(crate) fn ask_udp(&self, name: &str, to: impl Into<SocketAddr>) -> Result<String> {
        let to = to.into();
        self.within(name, move || ask_udp(to))
            .with_context(|| format!("{name} asks {to}/udp\n{}", self.report()))
    }
}

/// Listens until somebody says something, or for as long as the socket is patient. The data plane starts programs, and
/// when one of them ends, the kernel gives up whatever patient listening it finds in this process.
pub(crate) fn hear<T>(mut listen: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    loop {
        match listen() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            heard => return heard,
        }
    }
}

/// A connection to the server at `to`, which has said who it is: that and the client's address.
pub(crate) fn greeted(to: SocketAddr) -> Result<(TcpStream, String)> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut said = String::new();
    let mut byte = [0];
    while hear(|| stream.read(&mut byte))? == 1 && byte[0] != b'\n' {
        said.push(byte[0] as char);
    }
    Ok((stream, said))
}

/// Says `word` to a server that says everything back.
pub(crate) fn echo(stream: &mut TcpStream, word: &[u8]) -> Result<()> {
    stream.write_all(word)?;
    let mut back = vec![0; word.len()];
    stream.read_exact(&mut back)?;
    anyhow::ensure!(back == word, "the echo differs");
    Ok(())
}

fn answer(stream: &mut TcpStream, label: &str) {
    let Ok(peer) = stream.peer_addr() else { return };
    let text = format!("{label} {}\n", plain(peer.ip()));
    // A client may go away at any time.
    let _ = stream.write_all(text.as_bytes());
    let mut bytes = [0; 65536];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
}

fn plain(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

pub(crate) fn ask_tcp(to: SocketAddr) -> Result<String> {
    let (mut stream, text) = greeted(to)?;
    // More than one segment, both ways: offloads and MTU take part.
    let sent: Vec<u8> = (0..200_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    let mut writer = stream.try_clone()?;
    let copy = sent.clone();
    let write = std::thread::spawn(move || writer.write_all(&copy));
    let mut back = vec![0; sent.len()];
    stream.read_exact(&mut back).context("read the echo")?;
    write
        .join()
        .map_err(|_| anyhow::anyhow!("writer panicked"))??;
    anyhow::ensure!(back == sent, "the echo differs");
    Ok(text)
}

/// A socket for asking `to`, from a port that this process did not ask from before: a datagram from one
/// that it did is the same flow still, and stays where that went.
fn fresh_udp(to: SocketAddr) -> Result<UdpSocket> {
    static ASKED: AtomicU16 = AtomicU16::new(0);
    let any: IpAddr = if to.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    loop {
        let port = 33_000 + ASKED.fetch_add(1, Ordering::Relaxed) % 27_000;
        match UdpSocket::bind((any, port)) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            bound => return bound.with_context(|| format!("UDP port {port}")),
        }
    }
}

pub(crate) fn ask_udp(to: SocketAddr) -> Result<String> {
    let socket = fresh_udp(to)?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    socket.connect(to)?;
    let deadline = Instant::now() + PATIENCE;
    let mut bytes = [0; 2048];
    loop {
        socket.send(b"who?")?;
        match socket.recv(&mut bytes) {
            Ok(count) => return Ok(String::from_utf8_lossy(&bytes[..count]).into_owned()),
            Err(error) if Instant::now() > deadline => return Err(error).context("no answer"),
            Err(_) => {}
        }
    }
}
