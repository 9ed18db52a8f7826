//! The world outside, as far as a story needs one: a resolver on the client host, which every host of the bed asks.

use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};

/// Answers every question with one address, until dropped.
pub struct Resolver {
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Resolver {
    /// Starts answering on the client host, port 53, over UDP.
    ///
    /// # Errors
    /// When the client host is not there or the port is taken.
    pub fn start(address: Ipv4Addr) -> Result<Self> {
        // A thread of its own is what moves to the client's namespace; the socket stays there.
        let socket = std::thread::spawn(|| -> Result<UdpSocket> {
            let namespace = File::open("/run/netns/weft-client").context("no client host")?;
            setns(&namespace, CloneFlags::CLONE_NEWNET).context("cannot become the client host")?;
            UdpSocket::bind((crate::client::V4, 53)).context("cannot bind port 53 on the client")
        });
        let socket = socket
            .join()
            .map_err(|_| anyhow!("the resolver's thread panicked"))??;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let done = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&done);
        let thread = std::thread::spawn(move || {
            let mut question = [0; 1500];
            while !until.load(Ordering::Relaxed) {
                if let Ok((length, asker)) = socket.recv_from(&mut question)
                    && let Some(answer) = answer(&question[..length], address)
                {
                    let _ = socket.send_to(&answer, asker);
                }
            }
        });
        Ok(Resolver {
            done,
            thread: Some(thread),
        })
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The question with one A record behind it (RFC 1035 section 4.1); other types get an answer without records.
fn answer(question: &[u8], address: Ipv4Addr) -> Option<Vec<u8>> {
    let name = question.get(12..)?;
    let end = 12 + name.iter().position(|byte| *byte == 0)? + 5;
    let kind = question.get(end - 4..end - 2)?;
    let count = u8::from(kind == [0, 1]);
    let mut bytes = question.get(..2)?.to_vec();
    bytes.extend([0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0]);
    bytes.extend(question.get(12..end)?);
    if count == 1 {
        bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
        bytes.extend(address.octets());
    }
    Some(bytes)
}
