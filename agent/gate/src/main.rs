//! Holds a container's program back until its sandbox has its network, then becomes that program.
//!
//! The agent makes the links of a task after its container has started, and opens the resolver at 127.0.0.11:53 last of all.
//! So a connection to that address says that everything is there. The gate is the container's entry point; it runs as whoever
//! the image says, with the image's environment, and leaves nothing behind: it is replaced, not a parent.
//!
//! Exit statuses are a shell's and Docker's: 127 when the program is not there, 126 when it cannot be run,
//! 125 when the network did not come, 128 + n when signal n arrives while waiting.

mod program;
mod watch;

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Where the resolver of every sandbox listens.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const RESOLVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(ADDRESS), 53);
/// After this long the task is better replaced than kept waiting.
const PATIENCE: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let Some((program, arguments)) = words.split_first() else {
        eprintln!("weft-gate: no program was given to start");
        return ExitCode::from(125);
    };
    match await_network() {
        Ok(()) => program::become_it(program, arguments),
        Err(Refusal::Signal(number)) => ExitCode::from(128_u8.saturating_add(number)),
        Err(Refusal::Silence) => {
            eprintln!(
                "weft-gate: the network of this task did not come within {} s; see the log of the node's agent",
                PATIENCE.as_secs()
            );
            ExitCode::from(125)
        }
    }
}

/// Why the program is not started.
enum Refusal {
    /// Somebody wants us to end.
    Signal(u8),
    /// The resolver never answered.
    Silence,
}

/// Where this namespace's listening sockets are told.
const SOCKETS: &str = "/proc/self/net/tcp";

/// Whether somebody listens at [`RESOLVER`] itself. On a network of the engine's a connection to that address comes about
/// without: it is led to the engine's own resolver. Where nobody tells, a connection must do.
fn is_there() -> bool {
    let row = format!(
        "{:08X}:{:04X} 00000000:0000 0A",
        u32::from_ne_bytes(ADDRESS.octets()),
        RESOLVER.port()
    );
    std::fs::read_to_string(SOCKETS).map_or(true, |sockets| sockets.contains(&row))
}

/// Returns once the resolver accepts a connection.
///
/// As process 1 of a container we would not even hear a stop signal, so it is watched for between two tries.
fn await_network() -> Result<(), Refusal> {
    let mut signals = watch::Signals::hold();
    let begun = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        if is_there() && TcpStream::connect_timeout(&RESOLVER, Duration::from_secs(1)).is_ok() {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            return Err(Refusal::Silence);
        }
        if let Some(number) = signals.wait(pause) {
            return Err(Refusal::Signal(number));
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
