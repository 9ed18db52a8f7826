//! Sends probes and hears answers, on a thread of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, recvfrom, setsockopt,
            socket, sockopt,
        },
        time::{TimeVal, TimeValLike as _},
    },
};
use weft_abi::{Leg, task_mac, wire_mac};

use super::error::DataplaneError;
use crate::probe::{self, PERIOD, Peers};

/// Called when it changed who is dead.
pub(crate) type Wake = Arc<dyn Fn() + Send + Sync>;

/// Who is probed, and who is dead.
#[derive(Debug, Default)]
struct Board {
    /// This node's number and the VNI that probes travel on; 0 before the first state.
    node: u32,
    vni: u32,
    wanted: BTreeMap<u32, IpAddr>,
    dead: BTreeSet<u32>,
}

/// The thread's handle. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Prober {
    board: Arc<Mutex<Board>>,
}

struct Sockets {
    own: IpAddr,
    port: u16,
    identity: u16,
    tunnel: UdpSocket,
    answers: OwnedFd,
}

impl Prober {
    /// Begins, in the calling thread's namespace, with nobody to probe.
    pub(crate) fn start(own: IpAddr, vxlan_port: u16, wake: Wake) -> Result<Self, DataplaneError> {
        let fail = |source| DataplaneError::Link {
            operation: "open",
            object: "probe sockets".to_owned(),
            source,
        };
        let sockets = Sockets::open(own, vxlan_port).map_err(fail)?;
        let board = Arc::new(Mutex::new(Board::default()));
        let shared = Arc::downgrade(&board);
        let thread = std::thread::Builder::new()
            .name("probes".to_owned())
            .spawn(move || run(&sockets, &shared, &wake));
        thread.map_err(fail)?;
        Ok(Self { board })
    }

    /// Probes these hosts from now on: number and underlay address of each.
    pub(crate) fn follow(&self, node: u32, vni: u32, wanted: BTreeMap<u32, IpAddr>) {
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        (board.node, board.vni, board.wanted) = (node, vni, wanted);
    }

    /// Hosts that do not answer any more.
    pub(crate) fn dead(&self) -> BTreeSet<u32> {
        let board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        board.dead.clone()
    }
}

fn run(sockets: &Sockets, shared: &Weak<Mutex<Board>>, wake: &Wake) {
    let mut peers = Peers::default();
    let mut sequence = 0_u16;
    loop {
        let Some(board) = shared.upgrade() else {
            return;
        };
        let (node, vni, changed) = {
            let mut board = board.lock().unwrap_or_else(PoisonError::into_inner);
            peers.follow(&board.wanted);
            let dead = peers.dead();
            let changed = dead != board.dead;
            board.dead = dead;
            (board.node, board.vni, changed)
        };
        drop(board);
        if changed {
            wake();
        }
        if vni != 0 {
            sequence = sequence.wrapping_add(1);
            for (peer, addr) in peers.probe() {
                if let Err(error) = sockets.send(node, vni, peer, addr, sequence) {
                    tracing::trace!(%error, %addr, "probe not sent");
                }
            }
        }
        let until = Instant::now() + PERIOD;
        // Answers that came while this thread was not scheduled are read before anybody is judged.
        while let Some((peer, from)) = sockets.hear(until) {
            peers.answered(peer, from);
        }
    }
}

impl Sockets {
    fn open(own: IpAddr, port: u16) -> io::Result<Self> {
        let tunnel = UdpSocket::bind(SocketAddr::new(own, 0))?;
        let (family, protocol) = match own {
            IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
            IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let answers = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        let identity = tunnel.local_addr()?.port();
        Ok(Self {
            own,
            port,
            identity,
            tunnel,
            answers,
        })
    }

    /// Sends one probe as the programs would send a packet of this host's stack to that host's.
    fn send(&self, node: u32, vni: u32, peer: u32, to: IpAddr, sequence: u16) -> io::Result<()> {
        let Some(inner) = probe::request(self.own, to, self.identity, peer, sequence) else {
            return Ok(());
        };
        let [_, a, b, c] = vni.to_be_bytes();
        let mut packet = vec![0x08, 0, 0, 0, a, b, c, 0];
        packet.extend(task_mac(0));
        packet.extend(wire_mac(Leg::Host, node));
        packet.extend(if to.is_ipv4() {
            [0x08, 0x00]
        } else {
            [0x86, 0xdd]
        });
        packet.extend(inner);
        self.tunnel
            .send_to(&packet, SocketAddr::new(to, self.port))
            .map(drop)
    }

    /// The next answer until then: who, and from where.
    fn hear(&self, until: Instant) -> Option<(u32, IpAddr)> {
        let mut bytes = [0; 256];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let wait = left.max(Duration::from_millis(1)).as_micros() as i64;
            setsockopt(
                &self.answers,
                sockopt::ReceiveTimeout,
                &TimeVal::microseconds(wait),
            )
            .ok()?;
            match recvfrom::<SockaddrStorage>(self.answers.as_raw_fd(), &mut bytes) {
                Ok((count, from)) => {
                    if let Some(heard) = self.understand(&bytes[..count], from.as_ref()) {
                        return Some(heard);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(_) => return None,
            }
            if left.is_zero() {
                return None;
            }
        }
    }

    fn understand(&self, bytes: &[u8], from: Option<&SockaddrStorage>) -> Option<(u32, IpAddr)> {
        let from = from?;
        let v4 = from.as_sockaddr_in().map(|from| IpAddr::V4(from.ip()));
        let addr = v4.or_else(|| from.as_sockaddr_in6().map(|from| IpAddr::V6(from.ip())))?;
        // A raw IPv4 socket shows the IP header, an IPv6 one does not.
        let header = if addr.is_ipv4() {
            usize::from(bytes.first()? & 15) * 4
        } else {
            0
        };
        let node = probe::answer(bytes.get(header..)?, addr.is_ipv4(), self.identity)?;
        Some((node, addr))
    }
}
