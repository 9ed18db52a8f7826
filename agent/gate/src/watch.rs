//! Hearing a stop signal while waiting, and giving the program its signals back as they were.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Stop signals held back and read from a descriptor. Dropping it restores the mask, so that the program inherits nothing of ours.
pub(crate) struct Signals {
    reader: Option<SignalFd>,
    before: Option<SigSet>,
}

impl Signals {
    /// Starts holding. Where the kernel refuses, waiting still works, only deaf to signals as any process 1.
    pub(crate) fn hold() -> Self {
        let mut stops = SigSet::empty();
        for signal in [
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGQUIT,
            Signal::SIGHUP,
        ] {
            stops.add(signal);
        }
        let before = SigSet::thread_get_mask().ok();
        let reader = stops
            .thread_block()
            .and_then(|()| {
                SignalFd::with_flags(&stops, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            })
            .ok();
        Signals { reader, before }
    }

    /// Sleeps for `pause`, or less when a stop signal comes, whose number it answers.
    pub(crate) fn wait(&mut self, pause: Duration) -> Option<u8> {
        let Some(reader) = &self.reader else {
            std::thread::sleep(pause);
            return None;
        };
        let mut watched = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(pause).unwrap_or(PollTimeout::ZERO);
        let _ = poll(&mut watched, timeout);
        reader
            .read_signal()
            .ok()
            .flatten()
            .and_then(|heard| u8::try_from(heard.ssi_signo).ok())
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = before.thread_set_mask();
        }
    }
}
