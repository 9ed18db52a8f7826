//! A TAP that exchanges long packets with the kernel, inside VXLAN too.
#![expect(
    unsafe_code,
    reason = "a TAP is made by ioctl calls that nobody wraps with offloads"
)]

use std::{
    fs::OpenOptions,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
};

use crate::offload::{HEADER, LINK_ADDRESS, PREFIX};

/// Checksums and segments of TCP may be left to us.
const PLAIN: libc::c_ulong = 0x01 | 0x02 | 0x04 | 0x08;
/// The same of TCP inside a UDP tunnel. Since Linux 6.17.
const TUNNELS: libc::c_ulong = 0x080;

/// The longest that is read at once: what stands before the packet, and the packet.
pub(super) const LONGEST: usize = PREFIX + 65_536;

/// A device whose other end is this process. Goes with the value.
pub(super) struct Tap {
    descriptor: OwnedFd,
    /// Whether the kernel exchanges long packets inside tunnels.
    pub(super) tunnels: bool,
}

impl Tap {
    /// Makes the device `name` in the calling thread's namespace. It never waits.
    ///
    /// A TAP, though its packets need no Ethernet: the kernel (6.18) takes long packets inside tunnels
    /// from nothing else, since it counts an Ethernet header before them.
    ///
    /// # Errors
    /// When the kernel has no TAP, or the name is taken.
    pub(super) fn open(name: &str) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")?;
        let descriptor = OwnedFd::from(file);
        // SAFETY: all bytes zero are a valid request.
        let (mut request, mut link): (libc::ifreq, libc::ifreq) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(15)) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags =
            (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
        let mut address = libc::sockaddr {
            sa_family: libc::ARPHRD_ETHER,
            sa_data: [0; 14],
        };
        for (to, from) in address.sa_data.iter_mut().zip(LINK_ADDRESS) {
            *to = from as libc::c_char;
        }
        link.ifr_ifru.ifru_hwaddr = address;
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
            check(libc::ioctl(raw, libc::SIOCSIFHWADDR as _, &raw const link))?;
        }
        // SAFETY: the argument is a number.
        let offer = |what: libc::c_ulong| {
            check(unsafe { libc::ioctl(raw, libc::TUNSETOFFLOAD as _, what) })
        };
        let tunnels = offer(PLAIN | TUNNELS).is_ok();
        if !tunnels {
            offer(PLAIN)?;
        }
        tracing::debug!(name, tunnels, "TAP with offloads");
        Ok(Self {
            descriptor,
            tunnels,
        })
    }

    /// Reads one frame with what stands before it: at most [`LONGEST`] bytes.
    pub(super) fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        Ok(nix::unistd::read(&self.descriptor, bytes)?)
    }

    /// Writes one frame with what stands before it.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(nix::unistd::write(&self.descriptor, bytes)?)
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
