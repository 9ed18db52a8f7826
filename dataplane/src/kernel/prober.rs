//! Sends probes and hears answers, on a thread of its own.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind,
            recvfrom, sendto, setsockopt, socket, sockopt,
        },
        time::{TimeVal, TimeValLike as _},
    },
};

use super::error::DataplaneError;
use crate::probe::{self, Peers, TURN, Verdicts};

/// Called when it changed who answers.
pub(crate) type Wake = Arc<dyn Fn() + Send + Sync>;

/// Who is probed, and who answers.
#[derive(Debug, Default)]
struct Board {
    wanted: BTreeMap<u32, IpAddr>,
    verdicts: Verdicts,
}

/// The thread's handle. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Prober {
    board: Arc<Mutex<Board>>,
}

struct Echo {
    is_ipv4: bool,
    identity: u16,
    socket: OwnedFd,
}

impl Prober {
    /// Begins, in the calling thread's namespace, with nobody to probe.
    pub(crate) fn start(own: IpAddr, wake: Wake) -> Result<Self, DataplaneError> {
        let fail = |source| DataplaneError::Link {
            operation: "open",
            object: "probe socket".to_owned(),
            source,
        };
        let echo = Echo::open(own).map_err(fail)?;
        let board = Arc::new(Mutex::new(Board::default()));
        let shared = Arc::downgrade(&board);
        let thread = std::thread::Builder::new()
            .name("probes".to_owned())
            .spawn(move || run(&echo, &shared, &wake));
        thread.map_err(fail)?;
        Ok(Self { board })
    }

    /// Probes these hosts from now on: number and underlay address of each.
    pub(crate) fn follow(&self, wanted: BTreeMap<u32, IpAddr>) {
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        board.wanted = wanted;
    }

    /// Who answers, and who does not any more.
    pub(crate) fn verdicts(&self) -> Verdicts {
        let board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        board.verdicts.clone()
    }
}

fn run(echo: &Echo, shared: &Weak<Mutex<Board>>, wake: &Wake) {
    let mut peers = Peers::default();
    let mut sequence = 0_u16;
    loop {
        let Some(board) = shared.upgrade() else {
            return;
        };
        let changed = {
            let mut board = board.lock().unwrap_or_else(PoisonError::into_inner);
            peers.follow(&board.wanted);
            let verdicts = peers.verdicts();
            let changed = verdicts != board.verdicts;
            board.verdicts = verdicts;
            changed
        };
        drop(board);
        if changed {
            wake();
        }
        sequence = sequence.wrapping_add(1);
        for (peer, addr) in peers.probe() {
            if let Err(error) = echo.send(peer, addr, sequence) {
                tracing::trace!(%error, %addr, "probe not sent");
            }
        }
        let until = Instant::now() + TURN;
        // Answers that came while this thread was not scheduled are read before anybody is judged.
        while let Some((peer, from)) = echo.hear(until) {
            peers.answered(peer, from);
        }
    }
}

impl Echo {
    fn open(own: IpAddr) -> io::Result<Self> {
        let (family, protocol) = match own {
            IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
            IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(
            socket.as_raw_fd(),
            &SockaddrStorage::from(SocketAddr::new(own, 0)),
        )?;
        // Nodes that share a kernel have the same process ids: the address tells them apart.
        let identity = std::process::id() as u16;
        Ok(Self {
            is_ipv4: own.is_ipv4(),
            identity,
            socket,
        })
    }

    fn send(&self, peer: u32, to: IpAddr, sequence: u16) -> io::Result<()> {
        let message = probe::request(self.is_ipv4, self.identity, peer, sequence);
        let to = SockaddrStorage::from(SocketAddr::new(to, 0));
        sendto(
            self.socket.as_raw_fd(),
            &message,
            &to,
            MsgFlags::MSG_DONTWAIT,
        )?;
        Ok(())
    }

    /// The next answer until then: who, and from where.
    fn hear(&self, until: Instant) -> Option<(u32, IpAddr)> {
        let mut bytes = [0; 256];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let wait = left.max(Duration::from_millis(1)).as_micros() as i64;
            setsockopt(
                &self.socket,
                sockopt::ReceiveTimeout,
                &TimeVal::microseconds(wait),
            )
            .ok()?;
            match recvfrom::<SockaddrStorage>(self.socket.as_raw_fd(), &mut bytes) {
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
