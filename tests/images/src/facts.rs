//! Who answers, where it was reached, and who asked.

use std::fs;
use std::net::{IpAddr, SocketAddr};

/// This container's name.
pub fn hostname() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "unknown".into(), |name| name.trim_end().to_owned())
}

/// The address in its own family: a dual-stack socket shows an IPv4 caller as `::ffff:…`.
pub fn plain(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(six) => six
            .to_ipv4_mapped()
            .map_or(address, |four| SocketAddr::new(four.into(), address.port())),
        IpAddr::V4(_) => address,
    }
}

/// One line of JSON: hostname, the address and port that it was reached on, the client that it saw.
pub fn as_json(local: SocketAddr, client: SocketAddr) -> String {
    format!(
        "{{\"hostname\":\"{}\",\"local\":\"{}\",\"client\":\"{}\"}}\n",
        hostname(),
        plain(local),
        plain(client)
    )
}
