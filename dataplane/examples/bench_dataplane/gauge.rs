//! One measurement: a stream, or questions one after the other.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::sys::{
    socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, setsockopt, sockopt},
    time::TimeVal,
};

use crate::{Way, lan::within};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// One stream to the server.
    Up,
    /// One stream to the client.
    Down,
    /// One byte there and back on one connection, again and again.
    Ask,
    /// A connection, one byte there and back, a reset: again and again, by [`ASKERS`] at once.
    Connect,
}

/// How often each way has its turn in a round with questions: short turns that follow each other closely, so that
/// what else goes on in the machine meets all ways alike.
const PASSES: u32 = 4;

impl Kind {
    /// Turns in a round.
    pub(crate) fn passes(self) -> u32 {
        match self {
            Self::Up | Self::Down => 1,
            Self::Ask | Self::Connect => PASSES,
        }
    }

    pub(crate) const ALL: [Self; 4] = [Self::Up, Self::Down, Self::Ask, Self::Connect];

    fn letter(self) -> u8 {
        match self {
            Self::Up => b'u',
            Self::Down => b'd',
            Self::Ask => b'a',
            Self::Connect => b'c',
        }
    }
}

/// What was found.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    /// Gbit/s of a stream, or questions a second.
    pub(crate) rate: f64,
    /// Microseconds of the question in the middle, and of the hundredth slowest.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Seconds of all processors together, per Gbit of a stream or per question.
    pub(crate) cpu: f64,
    /// Connections that did not come about.
    pub(crate) failed: f64,
}

impl Sample {
    /// What stands for a sample that was not to be had.
    pub(crate) const MISSING: Self = Self {
        rate: f64::NAN,
        p50: f64::NAN,
        p99: f64::NAN,
        cpu: f64::NAN,
        failed: 0.0,
    };
}

const CHUNK: usize = 128 * 1024;
/// Seconds after which one side takes the other for gone.
const PATIENCE: i64 = 3;
/// Threads that serve at a port: more than ask there at once. A thread for each connection, and a buffer of its
/// own, would cost more than many a way from client to server, and make them all look alike.
const SERVERS: usize = ASKERS + 2;

/// Serves all kinds at a port of a namespace, until that is gone.
pub(crate) fn serve(namespace: &Path, port: u16) -> Result<()> {
    let place = namespace.to_owned();
    within(namespace, move || {
        let listener = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
        // What is accepted has these too.
        setsockopt(&listener, sockopt::TcpNoDelay, &true)?;
        be_patient(&listener)?;
        let listener = Arc::new(listener);
        for _ in 0..SERVERS {
            let (listener, place) = (Arc::clone(&listener), place.clone());
            std::thread::spawn(move || {
                let mut bytes = vec![0; CHUNK];
                loop {
                    match listener.accept() {
                        Ok((stream, _)) => answer(stream, &mut bytes),
                        // Nobody came for a while, or one went before it was taken.
                        Err(_) if place.exists() => {}
                        Err(_) => return,
                    }
                }
            });
        }
        Ok(())
    })
}

fn be_patient(socket: &impl std::os::fd::AsFd) -> Result<()> {
    let patience = TimeVal::new(PATIENCE, 0);
    setsockopt(socket, sockopt::SendTimeout, &patience)?;
    setsockopt(socket, sockopt::ReceiveTimeout, &patience)?;
    Ok(())
}

/// One byte says which kind it is; the first question may come with it.
fn answer(mut stream: TcpStream, bytes: &mut [u8]) {
    // Clients reset their connections when they have enough: every error is an end.
    let Ok(came @ 1..) = stream.read(bytes) else {
        return;
    };
    match bytes[0] {
        b'u' => while matches!(stream.read(bytes), Ok(1..)) {},
        b'd' => while stream.write_all(bytes).is_ok() {},
        _ => {
            let mut questions = came - 1;
            loop {
                if questions > 0 && stream.write_all(&bytes[..questions]).is_err() {
                    return;
                }
                match stream.read(bytes) {
                    Ok(more @ 1..) => questions = more,
                    _ => return,
                }
            }
        }
    }
}

/// Busy time of all processors since the machine started, in seconds.
fn busy() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|word| word.parse().ok())
        .collect();
    // user, nice, system, and interrupts of both kinds.
    [0, 1, 2, 5, 6]
        .iter()
        .filter_map(|at| ticks.get(*at))
        .sum::<f64>()
        / 100.0
}

/// Connects, with as few system calls as there can be.
fn connect(to: SocketAddr) -> Result<TcpStream> {
    let family = if to.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let socket = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    be_patient(&socket)?;
    // A reset at the end: no port stays behind, waiting.
    setsockopt(
        &socket,
        sockopt::Linger,
        &libc::linger {
            l_onoff: 1,
            l_linger: 0,
        },
    )?;
    socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(TcpStream::from(socket))
}

fn stream(to: SocketAddr, kind: Kind, time: Duration) -> Result<Sample> {
    let mut stream = connect(to)?;
    stream.write_all(&[kind.letter()])?;
    let mut bytes = vec![0; CHUNK];
    let mut pass = |until: Instant| -> Result<f64> {
        let mut count = 0;
        while Instant::now() < until {
            count += if kind == Kind::Up {
                stream.write(&bytes)?
            } else {
                stream.read(&mut bytes)?
            };
        }
        Ok(count as f64 * 8e-9)
    };
    // The window opens first.
    pass(Instant::now() + time / 5)?;
    let (begun, before) = (Instant::now(), busy());
    let gigabits = pass(begun + time)?;
    Ok(Sample {
        rate: gigabits / begun.elapsed().as_secs_f64(),
        cpu: (busy() - before) / gigabits,
        ..Sample::default()
    })
}

/// Who open connections at once: enough that no processor waits.
pub(crate) const ASKERS: usize = 4;

/// Microseconds that each question took, and how many connections did not come about.
fn ask(to: SocketAddr, kind: Kind, time: Duration) -> Result<(Vec<f64>, f64)> {
    let mut kept = None;
    let mut waits = Vec::new();
    let mut failed = 0.0;
    let begun = Instant::now();
    while begun.elapsed() < time {
        let asked = Instant::now();
        let mut said = &[kind.letter(), b'?'][..];
        let mut stream = match kept.take() {
            Some(stream) => {
                said = b"?";
                stream
            }
            None => match connect(to) {
                Ok(stream) => stream,
                Err(error) => {
                    eprintln!(
                        "no connection to {to} after {:?}: {error:#}",
                        asked.elapsed()
                    );
                    failed += 1.0;
                    anyhow::ensure!(failed < 5.0, "no connection to {to}: {error:#}");
                    continue;
                }
            },
        };
        stream.write_all(said)?;
        stream.read_exact(&mut [0]).context("read an answer")?;
        if kind == Kind::Ask {
            kept = Some(stream);
        } else {
            drop(stream);
        }
        waits.push(asked.elapsed().as_secs_f64() * 1e6);
    }
    Ok((waits, failed))
}

fn questions(to: SocketAddr, kind: Kind, time: Duration) -> Result<Sample> {
    let askers = if kind == Kind::Ask { 1 } else { ASKERS };
    let (begun, before) = (Instant::now(), busy());
    let all: Vec<(Vec<f64>, f64)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..askers)
            .map(|_| scope.spawn(move || ask(to, kind, time)))
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("an asker panicked"))?
        };
        threads.into_iter().map(join).collect::<Result<_>>()
    })?;
    let (took, cpu) = (begun.elapsed().as_secs_f64(), busy() - before);
    let failed = all.iter().map(|(_, failed)| failed).sum();
    let mut waits: Vec<f64> = all.into_iter().flat_map(|(waits, _)| waits).collect();
    waits.sort_by(f64::total_cmp);
    let at = |part: f64| {
        waits
            .get((waits.len() as f64 * part) as usize)
            .copied()
            .unwrap_or(0.0)
    };
    Ok(Sample {
        rate: waits.len() as f64 / took,
        p50: at(0.5),
        p99: at(0.99),
        cpu: cpu / waits.len().max(1) as f64,
        failed,
    })
}

/// Measures one kind on one way.
pub(crate) fn measure(way: &Way, kind: Kind, time: Duration) -> Result<Sample> {
    let to = way.to;
    within(&way.client, move || match kind {
        Kind::Up | Kind::Down => stream(to, kind, time),
        Kind::Ask | Kind::Connect => questions(to, kind, time / PASSES),
    })
}
