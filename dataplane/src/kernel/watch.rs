//! Hears of changed links, addresses and routes as the kernel makes them, on a thread of its own.

use std::{
    io,
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::{
    errno::Errno,
    sys::{
        socket::{MsgFlags, recv, setsockopt, sockopt},
        time::{TimeVal, TimeValLike as _},
    },
};

use super::{error::DataplaneError, prober::Wake};

/// Links, addresses of both families. Routes are written by ourselves with every change: they would
/// wake us for our own deeds, and are looked at from time to time.
const GROUPS: u32 = 1 | 0x10 | 0x100;

/// One address seldom comes alone: what comes within this time is one change.
const TOGETHER: Duration = Duration::from_millis(20);

/// How often the thread looks whether it is still wanted.
const LOOK: Duration = Duration::from_secs(1);

/// The thread's handle. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    ended: Arc<AtomicBool>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

impl Watch {
    /// Begins, in the calling thread's namespace, to call `wake` after each change.
    pub(crate) fn start(wake: Wake) -> Result<Self, DataplaneError> {
        let fail = |source| DataplaneError::Link {
            operation: "follow",
            object: "links and addresses".to_owned(),
            source,
        };
        let socket = open().map_err(fail)?;
        let ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ended);
        let thread = std::thread::Builder::new()
            .name("links".to_owned())
            .spawn(move || run(&socket, &told, &wake));
        thread.map_err(fail)?;
        Ok(Self { ended })
    }
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, GROUPS))?;
    Ok(socket)
}

/// Waits for a message. True when one came, or more than could be kept.
fn hear(socket: &Socket, time: Duration, bytes: &mut [u8]) -> io::Result<bool> {
    let wait = TimeVal::microseconds(time.as_micros() as i64);
    setsockopt(socket, sockopt::ReceiveTimeout, &wait)?;
    match recv(socket.as_raw_fd(), bytes, MsgFlags::empty()) {
        Ok(_) | Err(Errno::ENOBUFS) => Ok(true),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn run(socket: &Socket, ended: &AtomicBool, wake: &Wake) {
    let mut bytes = vec![0; 32 * 1024];
    while !ended.load(Ordering::Relaxed) {
        match hear(socket, LOOK, &mut bytes) {
            Ok(false) => continue,
            Ok(true) => {}
            Err(error) => {
                tracing::warn!(%error, "changes of links and addresses are seen only from time to time");
                return;
            }
        }
        while matches!(hear(socket, TOGETHER, &mut bytes), Ok(true)) {}
        wake();
    }
}
