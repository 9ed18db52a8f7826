//! Work inside another network namespace, on a thread of its own.
#![expect(unsafe_code, reason = "SO_NETNS_COOKIE has no safe wrapper")]

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use nix::sched::{CloneFlags, setns};

use super::error::DataplaneError;
use crate::sandbox::NetnsRef;

fn fail(object: String) -> impl FnOnce(io::Error) -> DataplaneError {
    move |source| DataplaneError::Netns { object, source }
}

/// Opens the namespace that `netns` names.
pub(crate) fn open(netns: NetnsRef) -> Result<OwnedFd, DataplaneError> {
    let path = match netns {
        NetnsRef::Fd(fd) => return Ok(fd),
        NetnsRef::Path(path) => path,
        NetnsRef::Pid(pid) => PathBuf::from(format!("/proc/{pid}/ns/net")),
    };
    let file = File::open(&path).map_err(fail(path.display().to_string()))?;
    Ok(file.into())
}

/// Runs `work` in the namespace, on a thread that ends with it: a thread that has entered a namespace
/// is never given back to anybody.
pub(crate) fn within<T: Send>(
    netns: BorrowedFd<'_>,
    work: impl FnOnce() -> Result<T, DataplaneError> + Send,
) -> Result<T, DataplaneError> {
    let inside = || {
        enter(netns)?;
        work()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("sandbox".to_owned())
            .spawn_scoped(scope, inside);
        let thread = thread.map_err(fail("(thread)".to_owned()))?;
        thread
            .join()
            .unwrap_or_else(|_| Err(fail("(thread)".to_owned())(io::Error::other("it panicked"))))
    })
}

/// Moves the calling thread for good.
pub(crate) fn enter(netns: BorrowedFd<'_>) -> Result<(), DataplaneError> {
    let object = format!("fd {}", netns.as_raw_fd());
    setns(netns, CloneFlags::CLONE_NEWNET).map_err(|errno| fail(object)(errno.into()))
}

/// Cookie of the calling thread's namespace.
pub(crate) fn cookie() -> Result<u64, DataplaneError> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let here = || fail("of this thread".to_owned());
    let socket = UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)).map_err(here())?;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the option writes eight bytes into `cookie`, whose size is told.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(cookie)
    } else {
        Err(here()(io::Error::last_os_error()))
    }
}
