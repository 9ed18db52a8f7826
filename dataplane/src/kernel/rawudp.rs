//! Options of raw UDP sockets that have no safe wrapper.
#![expect(
    unsafe_code,
    reason = "path MTU discovery and the place of a checksum are bare socket options"
)]

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

fn set(
    socket: &OwnedFd,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the option takes an int, whose size is told.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(&value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Forbids everybody on the way to cut what is sent, whatever was learnt about the path before. Over
/// IPv6, where a datagram must have one, the kernel fills in its checksum.
pub(super) fn forbid_cutting(socket: &OwnedFd, is_ipv4: bool) -> io::Result<()> {
    if is_ipv4 {
        return set(
            socket,
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_PROBE,
        );
    }
    const CHECKSUM_AT: libc::c_int = 6;
    const IPV6_CHECKSUM: libc::c_int = 7;
    set(socket, libc::IPPROTO_IPV6, IPV6_CHECKSUM, CHECKSUM_AT)?;
    set(
        socket,
        libc::IPPROTO_IPV6,
        libc::IPV6_MTU_DISCOVER,
        libc::IPV6_PMTUDISC_PROBE,
    )
}
