//! A TUN that exchanges long packets with the kernel, and a UDP socket that sends many datagrams at
//! once: what a WireGuard in this process stands between.
#![expect(
    unsafe_code,
    reason = "a TUN is made by ioctl calls that nobody wraps with offloads"
)]

use std::{
    fs::OpenOptions,
    io,
    net::SocketAddr,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use gotatun::{
    packet::{Ip, Packet, PacketBufPool},
    tun::{IpRecv, IpSend, MtuWatcher},
    udp::{
        UdpSend, UdpTransportFactory, UdpTransportFactoryParams,
        socket::{UdpSocket, UdpSocketFactory},
    },
};
use nix::{
    errno::Errno,
    sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
};

use crate::offload::{HEADER, Header, cut::cut, merge::Merger};

/// Checksums and segments of TCP may be left to us.
const PLAIN: libc::c_ulong = 0x01 | 0x02 | 0x04 | 0x08;
/// The same of TCP inside a UDP tunnel. Since Linux 6.17.
const TUNNELS: libc::c_ulong = 0x080;

/// The longest that is read at once: header and packet.
const LONGEST: usize = HEADER + 65_536;

/// Packets that wait for the writer.
const WAITING: usize = 1024;

/// Opens the TUN `name` in the calling thread's namespace: for packets to the kernel, and from it.
/// `vxlan_port` is where tunnels lead that it will carry. Needs a runtime.
///
/// # Errors
/// When the kernel has no TUN, or the name is taken.
pub(super) fn open(name: &str, mtu: u16, vxlan_port: u16) -> io::Result<(Writer, Reader)> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    let descriptor = OwnedFd::from(file);
    // SAFETY: all bytes zero are a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(15)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags =
        (libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    let check = |result: libc::c_int| match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    let size = HEADER as libc::c_int;
    let raw = descriptor.as_raw_fd();
    // SAFETY: the descriptor is open, and what the pointers lead to lives longer than the calls.
    unsafe {
        check(libc::ioctl(raw, libc::TUNSETIFF as _, &raw const request))?;
        check(libc::ioctl(
            raw,
            libc::TUNSETVNETHDRSZ as _,
            &raw const size,
        ))?;
    }
    // SAFETY: the argument is a number.
    let offer =
        |what: libc::c_ulong| check(unsafe { libc::ioctl(raw, libc::TUNSETOFFLOAD as _, what) });
    let tunnels = offer(PLAIN | TUNNELS).is_ok();
    if !tunnels {
        offer(PLAIN)?;
    }
    tracing::debug!(name, tunnels, "TUN with offloads");
    // SAFETY: the descriptor stays open, and the same, as long as its owner, who is not reached but by
    // reference.
    let device = Arc::new(unsafe { AsyncFd::register(descriptor) }?);
    let (packets, waiting) = mpsc::channel(WAITING);
    // A TUN gives long packets in tunnels and refuses to take them: the kernel (6.18) counts an Ethernet
    // header that only a TAP has.
    let merger = Merger::new(vxlan_port, false);
    tokio::spawn(write_all(device.clone(), waiting, merger));
    let reader = Reader {
        device,
        mtu,
        vxlan_port,
        bytes: vec![0; LONGEST],
        pieces: Vec::new(),
    };
    Ok((Writer { packets }, reader))
}

fn write(device: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(nix::unistd::write(device, bytes)?)
}

/// Writes what waits, long packets made of as many as follow each other, until nobody can send more.
async fn write_all(
    device: Arc<AsyncFd<OwnedFd>>,
    mut waiting: mpsc::Receiver<Packet<Ip>>,
    mut merger: Merger,
) {
    let mut packets = Vec::with_capacity(WAITING);
    while waiting.recv_many(&mut packets, WAITING).await > 0 {
        for packet in packets.drain(..) {
            let packet = packet.into_bytes();
            if !merger.add(&packet) {
                flush(&device, &mut merger).await;
                merger.add(&packet);
            }
        }
        flush(&device, &mut merger).await;
    }
}

async fn flush(device: &AsyncFd<OwnedFd>, merger: &mut Merger) {
    if let Some(bytes) = merger.finish() {
        let written = device.async_io(Interest::WRITABLE, |device| write(device, bytes));
        if let Err(error) = written.await {
            // Lost, as packets are: a link that is down takes none.
            tracing::trace!(%error, "packet not taken by the TUN");
        }
    }
    merger.clear();
}

/// Takes packets for the kernel.
#[derive(Clone)]
pub(super) struct Writer {
    packets: mpsc::Sender<Packet<Ip>>,
}

impl IpSend for Writer {
    async fn send(&mut self, packet: Packet<Ip>) -> io::Result<()> {
        let sent = self.packets.send(packet).await;
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Gives packets from the kernel, cut to the size of the wire.
pub(super) struct Reader {
    device: Arc<AsyncFd<OwnedFd>>,
    mtu: u16,
    vxlan_port: u16,
    bytes: Vec<u8>,
    pieces: Vec<Packet<Ip>>,
}

impl IpRecv for Reader {
    async fn recv<'a>(
        &'a mut self,
        pool: &mut PacketBufPool,
    ) -> io::Result<impl Iterator<Item = Packet<Ip>> + Send + 'a> {
        let bytes = &mut self.bytes;
        let read = self.device.async_io(Interest::READABLE, |device| {
            Ok(nix::unistd::read(device, bytes)?)
        });
        let length = read.await?;
        self.pieces.clear();
        if let Some(header) = Header::read(&self.bytes[..length]) {
            let (pieces, packet) = (&mut self.pieces, &mut self.bytes[HEADER..length]);
            let is_whole = cut(header, packet, self.vxlan_port, |head, body| {
                let mut piece = pool.get();
                piece.buf_mut().clear();
                piece.buf_mut().extend_from_slice(head);
                piece.buf_mut().extend_from_slice(body);
                pieces.extend(piece.try_into_ip().ok());
            });
            if !is_whole {
                tracing::debug!(?header, length, "a packet of the TUN cannot be cut");
            }
        }
        Ok(self.pieces.drain(..))
    }

    fn mtu(&self) -> MtuWatcher {
        MtuWatcher::new(self.mtu)
    }
}

/// Makes sockets that send many datagrams of one size in one call.
pub(super) struct Sockets(pub(super) UdpSocketFactory);

impl UdpTransportFactory for Sockets {
    type Send = Burst;
    type Recv = UdpSocket;

    async fn bind(
        &mut self,
        params: &UdpTransportFactoryParams,
    ) -> io::Result<(Self::Send, Self::Recv)> {
        let (socket, receiver) = self.0.bind(params).await?;
        let burst = Burst {
            socket,
            one_by_one: Arc::default(),
        };
        Ok((burst, receiver))
    }
}

/// The sending side of a socket.
#[derive(Clone)]
pub(super) struct Burst {
    socket: UdpSocket,
    /// The way out takes no bursts.
    one_by_one: Arc<AtomicBool>,
}

/// Datagrams of one call: the kernel cuts no more pieces, and a packet has no more bytes.
const BURST: usize = 64;
const BURST_BYTES: usize = 65_000;

/// How many of the first packets can go in one call: to one place, of one size but for the last.
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

impl Burst {
    async fn send_burst(&self, packets: &[(Packet, SocketAddr)]) -> io::Result<()> {
        let Some((first, to)) = packets.first() else {
            return Ok(());
        };
        let socket = self.socket.socket();
        let to = SockaddrStorage::from(*to);
        let size = u16::try_from(first.len()).map_err(io::Error::other)?;
        let pieces: Vec<io::IoSlice<'_>> = packets
            .iter()
            .map(|(packet, _)| io::IoSlice::new(packet))
            .collect();
        let control = [ControlMessage::UdpGsoSegments(&size)];
        let send = || {
            let flags = MsgFlags::MSG_DONTWAIT;
            Ok(sendmsg(
                socket.as_raw_fd(),
                &pieces,
                &control,
                flags,
                Some(&to),
            )?)
        };
        socket.async_io(Interest::WRITABLE, send).await.map(drop)
    }
}

impl UdpSend for Burst {
    type SendManyBuf = <UdpSocket as UdpSend>::SendManyBuf;

    async fn send_to(&self, packet: Packet, destination: SocketAddr) -> io::Result<()> {
        self.socket.send_to(packet, destination).await
    }

    fn max_number_of_packets_to_send(&self) -> usize {
        self.socket.max_number_of_packets_to_send()
    }

    async fn send_many_to(
        &self,
        buffer: &mut Self::SendManyBuf,
        packets: &mut Vec<(Packet, SocketAddr)>,
    ) -> io::Result<()> {
        while !packets.is_empty() {
            let count = burst(packets);
            if count > 1 && !self.one_by_one.load(Ordering::Relaxed) {
                match self.send_burst(&packets[..count]).await {
                    Ok(()) => {
                        packets.drain(..count);
                        continue;
                    }
                    // No checksum offload on the way out, or a tunnel below that cannot cut.
                    Err(error) if is(&error, &REFUSALS) => {
                        self.one_by_one.store(true, Ordering::Relaxed);
                    }
                    // The way is narrower than it was: one by one they may be cut on it.
                    Err(error) if is(&error, &[Errno::EMSGSIZE]) => {}
                    Err(error) => return Err(error),
                }
            }
            let mut few: Vec<_> = packets.drain(..count).collect();
            self.socket.send_many_to(buffer, &mut few).await?;
        }
        Ok(())
    }

    fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        UdpSend::local_addr(&self.socket)
    }

    fn set_fwmark(&self, mark: u32) -> io::Result<()> {
        self.socket.set_fwmark(mark)
    }
}

const REFUSALS: [Errno; 3] = [Errno::EIO, Errno::EINVAL, Errno::EOPNOTSUPP];

fn is(error: &io::Error, any: &[Errno]) -> bool {
    let raw = error.raw_os_error();
    any.iter().any(|errno| raw == Some(*errno as i32))
}
