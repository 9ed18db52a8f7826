//! What can go wrong at the kernel's door.

use std::{io, path::PathBuf};

/// An operation of the data plane that failed: what was tried, on what, and why.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// A request over netlink.
    #[error("{operation} {object}: {source}")]
    Link {
        /// What was tried.
        operation: &'static str,
        /// On which link, route or neighbour.
        object: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Entering or opening a network namespace.
    #[error("enter network namespace {object}: {source}")]
    Netns {
        /// Which one.
        object: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// Loading, attaching, pinning or replacing a program, or reading or writing a map.
    #[error("{operation} {object}: {cause}")]
    Bpf {
        /// What was tried.
        operation: &'static str,
        /// Which program or map.
        object: String,
        /// Why not.
        cause: String,
    },
    /// A file of `/proc/sys`, a pin directory, a mount.
    #[error("{operation} {}: {source}", .path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The firewall's tool.
    #[error("nft: {0}")]
    Firewall(String),
    /// The wish itself cannot be met.
    #[error("{0}")]
    Refused(String),
}
