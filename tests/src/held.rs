//! A connection from the client host that stays open: what it lives through is told by its next question.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns};

use crate::client::{self, Whoami};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to `weft/whoami`.
pub struct Held {
    stream: TcpStream,
    /// The container that took it.
    pub hostname: String,
    /// The client's end.
    pub client: SocketAddr,
}

impl Held {
    /// Opens it to an address, as it stands in a URL, and asks once.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn open(address: &str, port: u16) -> Result<Self> {
        let to = format!("{address}:{port}");
        // A thread of its own is what moves to the client's namespace; the socket stays there.
        let opened = std::thread::spawn(move || -> Result<TcpStream> {
            let namespace = File::open("/run/netns/weft-client").context("no client host")?;
            setns(&namespace, CloneFlags::CLONE_NEWNET).context("cannot become the client host")?;
            TcpStream::connect(&to).with_context(|| format!("cannot connect to {to}"))
        });
        let stream = opened.join().map_err(|_| anyhow!("a thread panicked"))??;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut held = Self {
            client: stream.local_addr()?,
            stream,
            hostname: String::new(),
        };
        held.hostname = held.question()?.hostname;
        Ok(held)
    }

    /// Asks again, on the same connection: the same container answers.
    ///
    /// # Errors
    /// When the connection is lost, or led elsewhere.
    pub fn ask(&mut self) -> Result<()> {
        let answer = self.question()?;
        ensure!(
            answer.hostname == self.hostname,
            "{} answers on a connection of {}",
            answer.hostname,
            self.hostname
        );
        Ok(())
    }

    fn question(&mut self) -> Result<Whoami> {
        self.stream
            .write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
            .context("cannot write the question")?;
        let mut answer = Vec::new();
        let mut byte = [0];
        // The body is one object, flat, and ends as it does.
        while answer.last() != Some(&b'}') {
            let read = self.stream.read(&mut byte).context("no answer")?;
            ensure!(
                read == 1,
                "closed after {:?}",
                String::from_utf8_lossy(&answer)
            );
            answer.push(byte[0]);
        }
        let answer = String::from_utf8(answer).context("an answer that is no text")?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
        client::read(body)
    }
}
