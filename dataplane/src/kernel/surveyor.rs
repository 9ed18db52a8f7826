//! Looks at the paths to other hosts, on a thread of its own: each when it is new, soon again while
//! something is wrong, and every ten seconds.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
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

use super::{error::DataplaneError, prober::Wake, rawudp};
use crate::{
    links::OVERLAY,
    path::{self, Findings, Heard, PathReport, PathState, Route, Search},
};

/// Between two looks at a path that is well.
const EVERY: Duration = Duration::from_secs(10);
/// Between two looks at one that is not.
const SOON: Duration = Duration::from_secs(3);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_millis(250);
/// Messages that are read while an answer is waited for: everybody's echoes are among them.
const MANY: u32 = 10_000;
/// Tries, for packets may be lost for no reason.
const TRIES: u16 = 3;
/// A packet so short that it passes anywhere.
const SHORT: u16 = 100;

#[derive(Debug, Default)]
struct Board {
    wanted: BTreeMap<u32, Route>,
    reports: BTreeMap<u32, PathReport>,
}

/// The thread's handle. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Surveyor {
    board: Arc<Mutex<Board>>,
}

impl Surveyor {
    /// Begins, in the calling thread's namespace, with nothing to look at.
    pub(crate) fn start(wake: Wake) -> Result<Self, DataplaneError> {
        let board = Arc::new(Mutex::new(Board::default()));
        let shared = Arc::downgrade(&board);
        let thread = std::thread::Builder::new()
            .name("paths".to_owned())
            .spawn(move || run(&shared, &wake));
        thread.map_err(|source| DataplaneError::Link {
            operation: "start",
            object: "thread for paths".to_owned(),
            source,
        })?;
        Ok(Self { board })
    }

    /// Looks at these paths from now on.
    pub(crate) fn follow(&self, wanted: BTreeMap<u32, Route>) {
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        board.reports.retain(|node, _| wanted.contains_key(node));
        board.wanted = wanted;
    }

    /// What is known.
    pub(crate) fn reports(&self) -> BTreeMap<u32, PathReport> {
        let board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        let unknown = board
            .wanted
            .iter()
            .map(|(node, route)| (*node, PathReport::unknown(route)));
        let mut reports: BTreeMap<u32, PathReport> = unknown.collect();
        reports.extend(board.reports.clone());
        reports
    }
}

/// When a path is to be looked at next, and how often nothing came through.
struct Turn {
    route: Route,
    at: Instant,
    failures: u32,
}

fn run(shared: &Weak<Mutex<Board>>, wake: &Wake) {
    let mut turns: BTreeMap<u32, Turn> = BTreeMap::new();
    let mut sequence = 0_u16;
    while let Some(board) = shared.upgrade() {
        let wanted = {
            let board = board.lock().unwrap_or_else(PoisonError::into_inner);
            board.wanted.clone()
        };
        drop(board);
        let now = Instant::now();
        turns.retain(|node, turn| wanted.get(node) == Some(&turn.route));
        for (node, route) in wanted {
            turns.entry(node).or_insert(Turn {
                route,
                at: now,
                failures: 0,
            });
        }
        let due = turns.values_mut().filter(|turn| turn.at <= now);
        let Some(turn) = due.min_by_key(|turn| turn.at) else {
            std::thread::sleep(Duration::from_millis(200));
            continue;
        };
        let found = Survey::open(&turn.route, sequence).and_then(|mut survey| {
            let found = survey.look();
            sequence = survey.sequence;
            found
        });
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, to = %turn.route.addr, "cannot look at a path; tried again");
                turn.at = Instant::now() + SOON;
                continue;
            }
        };
        turn.failures = if found.longest.is_some() {
            0
        } else {
            turn.failures + 1
        };
        let report = PathReport::of(&turn.route, &found, turn.failures);
        let is_well = report.state == PathState::Open && report.faults.is_empty();
        turn.at = Instant::now() + if is_well { EVERY } else { SOON };
        let Some(board) = shared.upgrade() else {
            return;
        };
        let changed = {
            let mut board = board.lock().unwrap_or_else(PoisonError::into_inner);
            let old = board.reports.insert(turn.route.node, report.clone());
            old.as_ref() != Some(&report)
        };
        drop(board);
        if changed {
            for fault in &report.faults {
                tracing::warn!(fault, "a path is not as it should be");
            }
            wake();
        }
    }
}

/// One look at one path.
struct Survey<'a> {
    route: &'a Route,
    identity: u16,
    sequence: u16,
    ear: OwnedFd,
    mouth: OwnedFd,
}

fn raw(of: IpAddr, icmp: bool) -> io::Result<OwnedFd> {
    let (family, protocol) = match (of, icmp) {
        (IpAddr::V4(_), true) => (AddressFamily::Inet, SockProtocol::Icmp),
        (IpAddr::V6(_), true) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        (IpAddr::V4(_), false) => (AddressFamily::Inet, SockProtocol::Udp),
        (IpAddr::V6(_), false) => (AddressFamily::Inet6, SockProtocol::Udp),
    };
    let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    let at = SockaddrStorage::from(SocketAddr::new(of, 0));
    bind(socket.as_raw_fd(), &at)?;
    Ok(socket)
}

impl<'a> Survey<'a> {
    fn open(route: &'a Route, sequence: u16) -> io::Result<Self> {
        let mouth = raw(route.outer_own, false)?;
        rawudp::forbid_cutting(&mouth, route.outer.is_ipv4())?;
        Ok(Self {
            route,
            // Not the probes' own, which count answers.
            identity: (std::process::id() as u16) ^ 0x5a5a,
            sequence,
            ear: raw(route.own, true)?,
            mouth,
        })
    }

    fn look(&mut self) -> io::Result<Findings> {
        let mut found = Findings {
            answers: self.answers_plain()?,
            ..Findings::default()
        };
        let promised = self.route.promised;
        if self.through(&[promised])?.contains(&promised) {
            found.longest = Some(promised);
        } else if self.through(&[SHORT])?.contains(&SHORT) {
            let mut search = Search::between(SHORT, promised);
            loop {
                let sizes = search.sizes();
                if sizes.is_empty() {
                    break;
                }
                search.learn(&self.through(&sizes)?);
            }
            found.longest = Some(search.best());
        }
        if found.longest.is_some() && !self.route.is_encrypted() {
            (found.takes_made, found.takes_offloaded) = self.sums()?;
        }
        Ok(found)
    }

    fn say(socket: &OwnedFd, to: IpAddr, bytes: &[u8]) -> io::Result<()> {
        let to = SockaddrStorage::from(SocketAddr::new(to, 0));
        match sendto(socket.as_raw_fd(), bytes, &to, MsgFlags::MSG_DONTWAIT) {
            Ok(_) => Ok(()),
            // Too long for this host's own link, refused on the way, or no room for the moment: the
            // packet is lost, as packets are.
            Err(
                Errno::EMSGSIZE
                | Errno::EAGAIN
                | Errno::ENOBUFS
                | Errno::EPERM
                | Errno::ENETUNREACH
                | Errno::EHOSTUNREACH
                | Errno::ECONNREFUSED,
            ) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn next(&mut self) -> u16 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn answers_plain(&mut self) -> io::Result<bool> {
        for _ in 0..TRIES {
            let sequence = self.next();
            let message = path::echo(self.route, self.identity, sequence, SHORT);
            Self::say(&self.ear, self.route.addr, &message)?;
            if self.hear(|heard| heard == Heard::Echo(sequence))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Which of these sizes come through the tunnel.
    fn through(&mut self, sizes: &[u16]) -> io::Result<BTreeSet<u16>> {
        let mut through = BTreeSet::new();
        for _ in 0..TRIES {
            let mut asked = BTreeMap::new();
            for size in sizes.iter().filter(|size| !through.contains(*size)) {
                let sequence = self.next();
                asked.insert(sequence, *size);
                let datagram = path::tunnelled_echo(self.route, self.identity, sequence, *size);
                Self::say(&self.mouth, self.route.outer, &datagram)?;
            }
            self.hear(|heard| {
                if let Heard::Echo(sequence) = heard
                    && let Some(size) = asked.remove(&sequence)
                {
                    through.insert(size);
                }
                asked.is_empty()
            })?;
            if through.len() == sizes.len() {
                break;
            }
        }
        Ok(through)
    }

    /// Whether datagrams are received whose checksum this program made, and such whose checksum the
    /// kernel or the card makes.
    fn sums(&mut self) -> io::Result<(bool, bool)> {
        let any: IpAddr = match self.route.own {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // Bound to the tunnel's device, and only then to the address, which stands on another link.
        let device = UdpSocket::bind(SocketAddr::new(any, 0))?;
        setsockopt(&device, sockopt::BindToDevice, &OVERLAY.into())?;
        let device_port = device.local_addr()?.port();
        let made_port = device_port ^ 1;
        let (mut made, mut offloaded) = (false, false);
        for turn in 0..TRIES {
            let datagram = path::tunnelled_datagram(self.route, made_port, turn);
            Self::say(&self.mouth, self.route.outer, &datagram)?;
            if let Err(error) = device.send_to(&path::PAYLOAD, path::closed_port(self.route, turn))
            {
                tracing::trace!(%error, "datagram not sent");
            }
            self.hear(|heard| {
                made |= heard == Heard::NobodyListens(made_port);
                offloaded |= heard == Heard::NobodyListens(device_port);
                made && offloaded
            })?;
            if offloaded {
                break;
            }
        }
        Ok((made, offloaded))
    }

    /// Listens for a while, or until `enough` says so. Whether it did.
    fn hear(&self, mut enough: impl FnMut(Heard) -> bool) -> io::Result<bool> {
        let until = Instant::now() + ANSWER;
        let mut bytes = vec![0; 256];
        // Answers that came while this thread was not scheduled are read too, whatever others ask meanwhile.
        for _ in 0..MANY {
            let left = until.saturating_duration_since(Instant::now());
            let wait = TimeVal::microseconds(left.max(Duration::from_millis(1)).as_micros() as i64);
            setsockopt(&self.ear, sockopt::ReceiveTimeout, &wait)?;
            match recvfrom::<SockaddrStorage>(self.ear.as_raw_fd(), &mut bytes) {
                Ok((count, from)) => {
                    let heard = from.and_then(|from| self.understand(&bytes[..count], &from));
                    if heard.is_some_and(&mut enough) {
                        return Ok(true);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) if left.is_zero() => return Ok(false),
                Err(Errno::EAGAIN) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(false)
    }

    fn understand(&self, bytes: &[u8], from: &SockaddrStorage) -> Option<Heard> {
        let v4 = from.as_sockaddr_in().map(|from| IpAddr::V4(from.ip()));
        let addr = v4.or_else(|| from.as_sockaddr_in6().map(|from| IpAddr::V6(from.ip())))?;
        if addr != self.route.addr {
            return None;
        }
        // A raw IPv4 socket shows the IP header, an IPv6 one does not.
        let header = if addr.is_ipv4() {
            usize::from(bytes.first()? & 15) * 4
        } else {
            0
        };
        path::hear(bytes.get(header..)?, addr.is_ipv4(), self.identity)
    }
}
