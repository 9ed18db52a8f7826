//! Ending when asked. Process 1 of a container is deaf to signals that it does not ask for, and each of our programs is process 1.

use nix::sys::signal::{SigSet, Signal};

/// Ends the program, content, at the first stop signal. Call it before any thread is started: they inherit what is blocked here.
pub fn on_signal() {
    let mut stops = SigSet::empty();
    stops.add(Signal::SIGTERM);
    stops.add(Signal::SIGINT);
    if stops.thread_block().is_ok() {
        std::thread::spawn(move || {
            // Whoever sent the signal has drained us first, or does not care.
            let _ = stops.wait();
            std::process::exit(0);
        });
    }
}
