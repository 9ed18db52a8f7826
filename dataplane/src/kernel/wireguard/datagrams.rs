//! A UDP socket that sends and takes many datagrams of one size in one call.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
    sync::atomic::{AtomicBool, Ordering},
};

use gotatun::packet::Packet;
use nix::{
    cmsg_space,
    errno::Errno,
    poll::{PollFd, PollFlags, poll},
    sys::socket::{
        AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
        SockaddrIn6, SockaddrStorage, bind, recvmsg, sendmsg, setsockopt, socket, sockopt,
    },
};

use super::protocol::Outgoing;

/// Room for bursts, in bytes.
const BUFFER: usize = 4 << 20;

/// Datagrams of one call: the kernel cuts no more pieces, and a packet has no more bytes.
const BURST: usize = 64;
const BURST_BYTES: usize = 65_000;

/// How long a full way out is waited for, in milliseconds, before datagrams are lost.
const PATIENCE: u16 = 100;

/// The socket. It never waits to receive.
pub(super) struct Datagrams {
    socket: UdpSocket,
    /// Addresses of IPv4 are written as such of IPv6.
    mapped: bool,
    /// The way out takes no bursts.
    one_by_one: AtomicBool,
}

/// Datagrams of one size, the last may be shorter, one after the other in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) length: usize,
    pub(super) size: usize,
    pub(super) from: SocketAddr,
}

impl Datagrams {
    /// Binds a port for both families, or for IPv4 where there is no other.
    ///
    /// # Errors
    /// When the port is taken.
    pub(super) fn bind(port: u16) -> io::Result<Self> {
        let both = both_families(port);
        let (socket, mapped) = match both {
            Ok(socket) => (socket, true),
            Err(Errno::EADDRINUSE) => return Err(Errno::EADDRINUSE.into()),
            Err(_) => (UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?, false),
        };
        socket.set_nonblocking(true)?;
        // With less room, and without bursts, everything goes slower.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &BUFFER);
        let _ = setsockopt(&socket, sockopt::SndBufForce, &BUFFER);
        let _ = setsockopt(&socket, sockopt::UdpGroSegment, &true);
        Ok(Self {
            socket,
            mapped,
            one_by_one: AtomicBool::new(false),
        })
    }

    /// Takes what came together; the buffer holds 64 KiB.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut control = cmsg_space!(libc::c_int);
        let mut pieces = [IoSliceMut::new(buffer)];
        let message = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut pieces,
            Some(&mut control),
            MsgFlags::MSG_DONTWAIT,
        )?;
        let from = message.address.as_ref().and_then(address);
        let from = from.ok_or_else(|| io::Error::other("a datagram without a source"))?;
        let size = message.cmsgs()?.find_map(|told| match told {
            ControlMessageOwned::UdpGroSegments(size) => usize::try_from(size).ok(),
            _ => None,
        });
        let length = message.bytes;
        Ok(Received {
            length,
            size: size.filter(|size| *size > 0).unwrap_or(length.max(1)),
            from: SocketAddr::new(from.ip().to_canonical(), from.port()),
        })
    }

    /// Sends all; what cannot be sent is lost, as datagrams are.
    pub(super) fn send(&self, out: &mut Outgoing) {
        let mut rest = out.as_slice();
        while !rest.is_empty() {
            let many = !self.one_by_one.load(Ordering::Relaxed);
            let count = if many { burst(rest) } else { 1 };
            let (now, later) = rest.split_at(count);
            match self.send_burst(now) {
                // No checksum offload on the way out, or a tunnel below that cannot cut.
                Err(errno) if count > 1 && REFUSALS.contains(&errno) => {
                    self.one_by_one.store(true, Ordering::Relaxed);
                    continue;
                }
                // The way is narrower than it was: one by one they may be cut on it.
                Err(Errno::EMSGSIZE) if count > 1 => {
                    for one in now.chunks(1) {
                        lost(self.send_burst(one));
                    }
                }
                sent => lost(sent),
            }
            rest = later;
        }
        out.clear();
    }

    fn send_burst(&self, burst: &[(Packet, SocketAddr)]) -> nix::Result<()> {
        let Some((first, to)) = burst.first() else {
            return Ok(());
        };
        let ip = match to.ip() {
            IpAddr::V4(ip) if self.mapped => ip.to_ipv6_mapped().into(),
            ip => ip,
        };
        let to = SockaddrStorage::from(SocketAddr::new(ip, to.port()));
        let size = u16::try_from(first.len()).map_err(|_| Errno::EMSGSIZE)?;
        let mut pieces = [IoSlice::new(&[]); BURST];
        for (piece, (packet, _)) in pieces.iter_mut().zip(burst) {
            *piece = IoSlice::new(packet);
        }
        let pieces = &pieces[..burst.len().min(BURST)];
        let told = [ControlMessage::UdpGsoSegments(&size)];
        let told = if burst.len() > 1 { &told[..] } else { &[] };
        let raw = self.socket.as_raw_fd();
        let send = || sendmsg(raw, pieces, told, MsgFlags::MSG_DONTWAIT, Some(&to)).map(drop);
        match send() {
            Err(Errno::EAGAIN) => {
                let mut room = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
                poll(&mut room, PATIENCE)?;
                send()
            }
            sent => sent,
        }
    }
}

impl AsFd for Datagrams {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

const REFUSALS: [Errno; 3] = [Errno::EIO, Errno::EINVAL, Errno::EOPNOTSUPP];

fn both_families(port: u16) -> nix::Result<UdpSocket> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet6, SockType::Datagram, flags, None)?;
    // Hosts may have it the other way round, and it cannot be changed once a port is bound.
    setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
    let any = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0);
    bind(socket.as_raw_fd(), &SockaddrIn6::from(any))?;
    Ok(socket.into())
}

fn lost(sent: nix::Result<()>) {
    if let Err(error) = sent {
        tracing::trace!(%error, "datagrams not sent");
    }
}

fn address(from: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = from.as_sockaddr_in().map(|from| SocketAddr::from(*from));
    v4.or_else(|| from.as_sockaddr_in6().map(|from| SocketAddr::from(*from)))
}

/// How many of the first datagrams can go in one call: to one place, of one size but for the last.
fn burst(packets: &[(Packet, SocketAddr)]) -> usize {
    let Some((first, to)) = packets.first() else {
        return 0;
    };
    let (mut count, mut bytes) = (1, first.len());
    for (packet, other) in packets.iter().skip(1).take(BURST - 1) {
        bytes += packet.len();
        if other != to || packet.len() > first.len() || bytes > BURST_BYTES {
            break;
        }
        count += 1;
        if packet.len() < first.len() {
            break;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(length: usize) -> Packet {
        Packet::copy_from(&vec![length as u8; length][..])
    }

    #[test]
    fn a_burst_goes_to_one_place_and_ends_with_a_shorter_one() {
        let place = |number| SocketAddr::from(([192, 0, 2, 1], number));
        let of = |all: &[(usize, u16)]| {
            let packets: Vec<_> = all
                .iter()
                .map(|(length, port)| (packet(*length), place(*port)))
                .collect();
            burst(&packets)
        };
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&[(9, 1)]), 1);
        assert_eq!(of(&[(9, 1), (9, 1), (9, 2)]), 2);
        assert_eq!(of(&[(9, 1), (8, 1), (8, 1)]), 2);
        assert_eq!(of(&[(8, 1), (9, 1)]), 1);
        assert_eq!(of(&[(1, 1); 100]), BURST);
        assert_eq!(of(&[(1500, 1); 100]), BURST_BYTES / 1500);
    }

    #[test]
    fn all_datagrams_of_a_burst_arrive_as_they_were() -> io::Result<()> {
        let (one, other) = (Datagrams::bind(0)?, Datagrams::bind(0)?);
        let port = other.socket.local_addr()?.port();
        let to = [
            SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
        ];
        for to in to {
            let mut out: Outgoing = [1000, 1000, 1000, 10, 1400, 3]
                .map(|length| (packet(length), to))
                .into();
            one.send(&mut out);
            let mut sizes = Vec::new();
            let mut buffer = vec![0; 65_536];
            while sizes.len() < 6 {
                let mut ready = [PollFd::new(other.as_fd(), PollFlags::POLLIN)];
                assert_eq!(
                    poll(&mut ready, 5_000_u16)?,
                    1,
                    "no more than {sizes:?} came"
                );
                let received = other.receive(&mut buffer)?;
                assert_eq!(received.from.ip(), to.ip());
                for datagram in buffer[..received.length].chunks(received.size) {
                    assert!(datagram.iter().all(|byte| *byte == datagram.len() as u8));
                    sizes.push(datagram.len());
                }
            }
            assert_eq!(sizes, [1000, 1000, 1000, 10, 1400, 3]);
        }
        Ok(())
    }
}
