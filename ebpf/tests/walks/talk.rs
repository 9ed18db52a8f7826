//! Servers that tell who asks, and clients that ask.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::netns::Netns;

/// Nothing here is slow, but the machine may be busy; a packet that is not there after this is lost.
const PATIENCE: Duration = Duration::from_secs(15);

/// A port of an address.
pub(crate) fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap_or(IpAddr::from([0, 0, 0, 0])), port)
}

/// Answers on port 80 of both families, TCP and UDP, with its name and the address it sees.
pub(crate) fn serve(ns: &Netns, name: &'static str) -> Result<()> {
    let (tcp, udp) =
        ns.inside(|| Ok((TcpListener::bind("[::]:80")?, UdpSocket::bind("[::]:80")?)))?;
    std::thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            std::thread::spawn(move || answer(stream, name));
        }
    });
    std::thread::spawn(move || {
        let mut buffer = vec![0; 9000];
        while let Ok((n, peer)) = udp.recv_from(&mut buffer) {
            // As long as what was asked, so that answers are fragmented too.
            let mut text = format!("{name} {} {n} ", plain(peer)).into_bytes();
            text.resize(n.max(text.len()), b'.');
            let _ = udp.send_to(&text, peer);
        }
    });
    Ok(())
}

fn answer(mut stream: TcpStream, name: &str) {
    let Ok(peer) = stream.peer_addr() else { return };
    let mut buffer = [0; 65536];
    let mut total = 0;
    while let Ok(n) = stream.read(&mut buffer) {
        if n == 0 {
            break;
        }
        if let Some(wanted) = wish(&buffer[..n]) {
            if stream.write_all(&vec![b'.'; wanted]).is_err() {
                break;
            }
            continue;
        }
        if buffer.starts_with(b"echo ") {
            if stream.write_all(&buffer[..n]).is_err() {
                break;
            }
            continue;
        }
        total += n;
        if stream
            .write_all(format!("{name} {} {total}\n", plain(peer)).as_bytes())
            .is_err()
        {
            break;
        }
    }
}

/// How many bytes "send N" asks for.
fn wish(said: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(said).ok()?;
    text.strip_prefix("send ")?.trim().parse().ok()
}

fn plain(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// What a server said: its name, and the client it saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) name: String,
    pub(crate) saw: SocketAddr,
    pub(crate) me: SocketAddr,
}

fn said(text: &str, me: SocketAddr) -> Result<Said> {
    let mut words = text.split_whitespace();
    let name = words.next().context("no name")?.to_owned();
    Ok(Said {
        name,
        saw: words.next().context("no address")?.parse()?,
        me,
    })
}

/// Asks over TCP.
pub(crate) fn ask(ns: &Netns, to: SocketAddr) -> Result<Said> {
    ns.inside(|| {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)
            .with_context(|| format!("connect to {to}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"hello")?;
        let mut buffer = [0; 256];
        let n = stream
            .read(&mut buffer)
            .with_context(|| format!("answer of {to}"))?;
        said(&String::from_utf8_lossy(&buffer[..n]), stream.local_addr()?)
    })
}

/// A connection that is kept.
pub(crate) struct Held {
    stream: TcpStream,
}

impl Held {
    /// Opens one, from this port if it is not 0.
    pub(crate) fn open(ns: &Netns, from: u16, to: SocketAddr) -> Result<Self> {
        let any = if to.is_ipv4() {
            IpAddr::from([0; 4])
        } else {
            IpAddr::from([0; 16])
        };
        Self::bound(ns, SocketAddr::new(any, from), to)
    }

    /// Opens one from this address.
    pub(crate) fn bound(ns: &Netns, from: SocketAddr, to: SocketAddr) -> Result<Self> {
        ns.inside(|| {
            let domain = if to.is_ipv4() {
                libc::AF_INET
            } else {
                libc::AF_INET6
            };
            // SAFETY: takes plain numbers; the new descriptor belongs to the stream alone.
            let mut stream =
                unsafe { TcpStream::from_raw_fd(libc::socket(domain, libc::SOCK_STREAM, 0)) };
            use nix::sys::socket::{self, SockaddrStorage, sockopt};
            socket::setsockopt(&stream, sockopt::ReuseAddr, &true)?;
            socket::bind(stream.as_raw_fd(), &SockaddrStorage::from(from))?;
            socket::setsockopt(
                &stream,
                sockopt::SendTimeout,
                &nix::sys::time::TimeVal::new(PATIENCE.as_secs() as i64, 0),
            )?;
            socket::connect(stream.as_raw_fd(), &SockaddrStorage::from(to))
                .with_context(|| format!("connect to {to}"))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.flush()?;
            Ok(Self { stream })
        })
    }

    /// One question, one answer.
    pub(crate) fn ask(&mut self) -> Result<Said> {
        self.stream.write_all(b"more")?;
        let mut buffer = [0; 256];
        let n = self
            .stream
            .read(&mut buffer)
            .context("answer on a held connection")?;
        said(
            &String::from_utf8_lossy(&buffer[..n]),
            self.stream.local_addr()?,
        )
    }
}

/// A socket for datagrams that is kept.
pub(crate) struct Loose {
    socket: UdpSocket,
}

impl Loose {
    /// Opens one at this address.
    pub(crate) fn bound(ns: &Netns, from: SocketAddr) -> Result<Self> {
        let socket = ns.inside(|| Ok(UdpSocket::bind(from)?))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket })
    }

    /// Connects it, which sends nothing.
    pub(crate) fn connect(&self, to: SocketAddr) -> Result<()> {
        Ok(self.socket.connect(to)?)
    }

    /// One question, one answer, and who answered.
    pub(crate) fn ask(&self, to: SocketAddr) -> Result<(Said, SocketAddr)> {
        if self.socket.peer_addr().is_ok() {
            self.socket.send(b"hello")?;
        } else {
            self.socket.send_to(b"hello", to)?;
        }
        let mut buffer = [0; 256];
        let (n, from) = self
            .socket
            .recv_from(&mut buffer)
            .with_context(|| format!("datagram from {to}"))?;
        let me = self.socket.local_addr()?;
        Ok((said(&String::from_utf8_lossy(&buffer[..n]), me)?, from))
    }
}

/// Asks over UDP by an unconnected socket; also tells who answered.
pub(crate) fn ask_loose(ns: &Netns, to: SocketAddr) -> Result<(Said, SocketAddr)> {
    let any = if to.is_ipv4() {
        IpAddr::from([0; 4])
    } else {
        IpAddr::from([0; 16])
    };
    Loose::bound(ns, SocketAddr::new(any, 0))?.ask(to)
}

/// The peer that a connected socket is told.
pub(crate) fn peer(ns: &Netns, to: SocketAddr) -> Result<SocketAddr> {
    ns.inside(|| {
        Ok(TcpStream::connect_timeout(&to, PATIENCE)
            .with_context(|| format!("connect to {to}"))?
            .peer_addr()?)
    })
}

/// Asks over UDP with a datagram of this size.
pub(crate) fn ask_udp(ns: &Netns, to: SocketAddr, size: usize) -> Result<Said> {
    ns.inside(|| {
        let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send(&vec![7; size])?;
        let mut buffer = [0; 256];
        let n = socket
            .recv(&mut buffer)
            .with_context(|| format!("datagram from {to}"))?;
        said(&String::from_utf8_lossy(&buffer[..n]), socket.local_addr()?)
    })
}

/// Sends frames as they are.
pub(crate) fn send_raw(
    ns: &Netns,
    link: u32,
    frames: impl Iterator<Item = Vec<u8>> + Send,
) -> Result<()> {
    ns.inside(|| {
        // SAFETY: takes plain numbers; the new descriptor is owned here alone.
        let socket = unsafe {
            std::os::fd::OwnedFd::from_raw_fd(libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0))
        };
        for frame in frames {
            // SAFETY: a plain structure of integers, and a buffer of the length given.
            let sent = unsafe {
                let mut to: libc::sockaddr_ll = std::mem::zeroed();
                to.sll_family = libc::AF_PACKET as u16;
                to.sll_ifindex = link as i32;
                libc::sendto(
                    socket.as_raw_fd(),
                    frame.as_ptr().cast(),
                    frame.len(),
                    0,
                    (&raw const to).cast(),
                    size_of::<libc::sockaddr_ll>() as libc::socklen_t,
                )
            };
            anyhow::ensure!(
                sent >= 0,
                "send a frame: {}",
                std::io::Error::last_os_error()
            );
        }
        Ok(())
    })
}
