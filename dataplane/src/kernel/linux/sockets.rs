//! Connected sockets: told, and ended.

use std::os::fd::BorrowedFd;

use super::Result;
use crate::{
    kernel::{netlink::Diag, netns},
    led::Connected,
};

/// Runs `work` in a sandbox, or where this thread is.
pub(super) fn within<T: Send>(
    sandbox: Option<BorrowedFd<'_>>,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    match sandbox {
        Some(sandbox) => netns::within(sandbox, work),
        None => work(),
    }
}

/// The UDP sockets that are connected.
pub(super) fn connected(v6: bool) -> Result<Vec<Connected>> {
    let mut diag = Diag::open()?;
    let mut all = diag.connected(false)?;
    if v6 {
        all.extend(diag.connected(true)?);
    }
    Ok(all)
}

/// Ends sockets; how many were there.
pub(super) fn end(sockets: &[Connected]) -> Result<usize> {
    let mut diag = Diag::open()?;
    let mut left = sockets.to_vec();
    // Of sockets that share their addresses the kernel finds one at a time, in an order of its own.
    loop {
        let before = left.len();
        let mut missed = Vec::new();
        for socket in left {
            if !diag.end(&socket)? {
                missed.push(socket);
            }
        }
        left = missed;
        if left.is_empty() || left.len() == before {
            return Ok(sockets.len() - left.len());
        }
    }
}
