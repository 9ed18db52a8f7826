//! The doors to the kernel: the only place with `unsafe`.

mod advice;
mod aside;
pub(crate) mod bpf;
pub(crate) mod clock;
pub(crate) mod door;
pub(crate) mod error;
pub(crate) mod events;
#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod firewall;
mod layout;
pub(crate) mod linux;
pub(crate) mod map;
pub(crate) mod netlink;
pub(crate) mod netns;
pub(crate) mod prober;
mod rawudp;
pub(crate) mod resolver;
pub(crate) mod surveyor;
mod switches;
mod syscall;
pub(crate) mod sysctl;
mod tap;
mod verified;
pub(crate) mod watch;
pub(crate) mod wireguard;
