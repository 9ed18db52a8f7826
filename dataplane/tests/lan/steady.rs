//! One who asks the same thing over and over, and notices every answer that is late or lost.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{Lan, eventually, greeted};

/// One request after the other on one connection, and how long the slowest took.
pub(crate) struct Steady {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    worst_micros: Arc<AtomicU64>,
    thread: JoinHandle<Result<()>>,
}

impl Steady {
    /// Begins to ask, from the client, a server of [`Lan::serve`].
    pub(crate) fn start(lan: &Lan, to: SocketAddr) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let worst_micros = Arc::new(AtomicU64::new(0));
        let (ends, counts, worst) = (stop.clone(), answered.clone(), worst_micros.clone());
        let thread = lan.within("c", move || {
            let (mut stream, _) = greeted(to)?;
            stream.set_nodelay(true)?;
            Ok(std::thread::spawn(move || {
                while !ends.load(Ordering::Relaxed) {
                    let number = counts.load(Ordering::Relaxed);
                    let begun = Instant::now();
                    stream.write_all(&number.to_be_bytes())?;
                    let mut back = [0; 8];
                    stream
                        .read_exact(&mut back)
                        .with_context(|| format!("answer {number} is lost"))?;
                    anyhow::ensure!(back == number.to_be_bytes(), "another's answer");
                    worst.fetch_max(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
                    counts.fetch_add(1, Ordering::Relaxed);
                    // Leaves the processors to those who take over.
                    std::thread::sleep(Duration::from_micros(200));
                }
                Ok(())
            }))
        })?;
        Ok(Self {
            stop,
            answered,
            worst_micros,
            thread,
        })
    }

    /// Waits until a thousand more were answered, or one was lost.
    pub(crate) async fn more(&self, when: &str) -> Result<()> {
        let enough = self.answered.load(Ordering::Relaxed) + 1000;
        eventually(&format!("a thousand more answers {when}"), async || {
            anyhow::ensure!(!self.thread.is_finished(), "requests ended {when}");
            Ok(self.answered.load(Ordering::Relaxed) >= enough)
        })
        .await
    }

    /// How long the slowest took since this was last asked.
    pub(crate) fn worst(&self) -> Duration {
        Duration::from_micros(self.worst_micros.swap(0, Ordering::Relaxed))
    }

    /// How many were answered; an error when one was lost.
    pub(crate) fn finish(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.join();
        ended.map_err(|_| anyhow::anyhow!("panicked"))??;
        Ok(self.answered.load(Ordering::Relaxed))
    }
}
