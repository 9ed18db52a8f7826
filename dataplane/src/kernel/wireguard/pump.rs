//! WireGuard in this process: two threads between a TAP and a UDP socket.
//!
//! One takes long packets from the kernel, cuts and encrypts them, and sends the datagrams in bursts;
//! the other decrypts bursts, and gives the kernel long packets again. Nothing passes from thread to
//! thread: on machines with few processors, handing packets over costs more than encrypting them.

use std::{
    io,
    net::Ipv4Addr,
    os::{fd::AsFd, unix::net::UnixStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use gotatun::packet::{Packet, PacketBufPool};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, poll},
};

use super::{
    super::tap::{self, Tap},
    datagrams::Datagrams,
    protocol::{Outgoing, Protocol},
};
use crate::{
    cipher::{Changes, Plan},
    offload::{Header, cut::cut, merge::Merger},
};

/// Packets that one thread holds at a time, at most: short ones wait for each other as long as more
/// are there.
const TOGETHER: usize = 64;

/// Between two looks at the protocol's timers.
const TICK: Duration = Duration::from_millis(250);

/// The two threads. They end with the value, and the device with them.
pub(super) struct Pump {
    shared: Arc<Shared>,
    /// Closed when the threads shall end.
    stop: Option<UnixStream>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    protocol: Protocol,
    tap: Tap,
    socket: Datagrams,
    vxlan_port: u16,
    /// Readable when it is time to end: for threads that wait.
    stopped: UnixStream,
    /// The same for threads that do not.
    over: AtomicBool,
}

impl Pump {
    /// Makes the device `name` in the calling thread's namespace, and begins. Peers are told later.
    ///
    /// # Errors
    /// When device, port or threads cannot be had.
    pub(super) fn start(name: &str, plan: &Plan) -> io::Result<Self> {
        let mtu = u16::try_from(plan.mtu).unwrap_or(u16::MAX);
        let (stop, stopped) = UnixStream::pair()?;
        let shared = Arc::new(Shared {
            protocol: Protocol::new(&plan.own.key, mtu),
            tap: Tap::open(name)?,
            socket: Datagrams::bind(plan.own.port)?,
            vxlan_port: plan.vxlan_port,
            stopped,
            over: AtomicBool::new(false),
        });
        let mut pump = Self {
            shared,
            stop: Some(stop),
            threads: Vec::new(),
        };
        for (name, work) in [
            ("wireguard-out", Shared::outward as fn(&Shared)),
            ("wireguard-in", Shared::inward),
        ] {
            let shared = pump.shared.clone();
            let thread = std::thread::Builder::new().name(name.to_owned());
            pump.threads.push(thread.spawn(move || work(&shared))?);
        }
        Ok(pump)
    }

    /// Removes and adds peers.
    pub(super) fn change(&self, changes: &Changes) {
        self.shared.protocol.change(changes);
    }

    /// Whether both threads are at work.
    pub(super) fn is_running(&self) -> bool {
        !self.threads.iter().any(JoinHandle::is_finished)
    }

    /// The public keys of its peers, and how long ago the last handshake with each was.
    pub(super) fn peers(&self) -> Vec<([u8; 32], Option<Duration>)> {
        self.shared.protocol.peers()
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        drop(self.stop.take());
        for thread in self.threads.drain(..) {
            // One that panicked has ended too.
            let _ = thread.join();
        }
    }
}

/// Whether a device was removed by others.
fn is_gone(error: &io::Error) -> bool {
    let gone = [Errno::EBADFD, Errno::EBADF, Errno::ENODEV];
    let raw = error.raw_os_error();
    gone.iter().any(|errno| raw == Some(*errno as i32))
}

/// Copies bytes into a packet of the pool.
fn packet(pool: &PacketBufPool, pieces: &[&[u8]]) -> Packet {
    let mut packet = pool.get();
    let bytes = packet.buf_mut();
    bytes.clear();
    for piece in pieces {
        bytes.extend_from_slice(piece);
    }
    packet
}

/// Where an IPv4 packet goes.
fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let header: &[u8; 20] = packet.first_chunk()?;
    let [.., a, b, c, d] = *header;
    (header[0] >> 4 == 4).then(|| Ipv4Addr::new(a, b, c, d))
}

impl Shared {
    /// Waits until something can be read, or the time is over. False when it is time to end.
    fn wait(&self, source: &impl AsFd, time: Option<Duration>) -> bool {
        let mut ready = [
            PollFd::new(source.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.stopped.as_fd(), PollFlags::POLLIN),
        ];
        let time = time.map(|time| u16::try_from(time.as_millis()).unwrap_or(u16::MAX));
        let waited = match time {
            Some(time) => poll(&mut ready, time),
            None => poll(&mut ready, nix::poll::PollTimeout::NONE),
        };
        let stopped = ready[1].any().unwrap_or(true);
        matches!(waited, Ok(_) | Err(Errno::EINTR)) && !stopped
    }

    /// From the kernel to peers.
    fn outward(&self) {
        let pool = PacketBufPool::new(TOGETHER);
        let mut bytes = vec![0; tap::LONGEST];
        let mut out = Outgoing::new();
        while !self.over.load(Ordering::Relaxed) {
            match self.tap.read(&mut bytes) {
                Ok(length) => {
                    self.seal(&mut bytes[..length], &pool, &mut out);
                    if out.len() < TOGETHER {
                        continue;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if out.is_empty() && !self.wait(&self.tap, None) {
                        return;
                    }
                }
                Err(error) if is_gone(&error) => {
                    return tracing::info!(%error, "the TAP is gone");
                }
                // One packet that the kernel cannot give in this form.
                Err(error) => tracing::debug!(%error, "nothing read from the TAP"),
            }
            self.socket.send(&mut out);
        }
    }

    fn seal(&self, bytes: &mut [u8], pool: &PacketBufPool, out: &mut Outgoing) {
        let Some((header, long)) = Header::split(bytes) else {
            return;
        };
        let Some(party) = destination(long).and_then(|to| self.protocol.at(to)) else {
            return;
        };
        let is_whole = cut(header, long, self.vxlan_port, |head, body| {
            let packet = packet(pool, &[head, body]);
            self.protocol.seal(&party, packet, out);
        });
        if !is_whole {
            tracing::debug!(?header, "a packet of the TAP cannot be cut");
        }
    }

    /// From peers to the kernel.
    fn inward(&self) {
        let pool = PacketBufPool::new(TOGETHER);
        let mut merger = Merger::new(self.vxlan_port, self.tap.tunnels);
        let mut bytes = vec![0; 65_536];
        let mut out = Outgoing::new();
        let mut due = Instant::now();
        while !self.over.load(Ordering::Relaxed) {
            match self.socket.receive(&mut bytes) {
                Ok(received) => {
                    for datagram in bytes[..received.length].chunks(received.size) {
                        let datagram = packet(&pool, &[datagram]);
                        let inside = |packet: &[u8]| self.take(&mut merger, packet);
                        self.protocol
                            .open(datagram, received.from, &mut out, inside);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.flush(&mut merger);
                    let time = due.saturating_duration_since(Instant::now());
                    if !self.wait(&self.socket, Some(time)) {
                        return;
                    }
                }
                // Refusals that others sent are told here.
                Err(error) => tracing::trace!(%error, "nothing received"),
            }
            let now = Instant::now();
            if now >= due {
                due = now + TICK;
                self.protocol.tick(&mut out);
            }
            self.socket.send(&mut out);
        }
    }

    fn take(&self, merger: &mut Merger, packet: &[u8]) {
        if !merger.add(packet) {
            self.flush(merger);
            merger.add(packet);
        }
        if !merger.is_open() {
            self.flush(merger);
        }
    }

    fn flush(&self, merger: &mut Merger) {
        if let Some(bytes) = merger.finish()
            && let Err(error) = self.tap.write(bytes)
        {
            // Lost, as packets are: a link that is down takes none.
            tracing::trace!(%error, "packet not taken by the TAP");
        }
        merger.clear();
    }
}
