//! Programs, links and map entries removed by hand are put back without anybody asking, and counted;
//! an agent that goes and comes back holds nobody up. Needs root.

mod lan;

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use lan::{CLIENT4, Lan, eventually, host4};
use weft_abi::{FrontKey, maps};
use weft_dataplane::Repairs;

/// The directory of a host's maps.
fn maps_of(lan: &Lan, host: u32) -> Result<PathBuf> {
    let mut entries = std::fs::read_dir(lan.pin_dir(host))?.flatten();
    let found = entries.find(|entry| entry.file_name().to_string_lossy().starts_with("maps-"));
    Ok(found.context("a directory of maps")?.path())
}

/// A map as somebody else would open it: by its pin.
type Front = aya::maps::HashMap<aya::maps::MapData, [u8; size_of::<FrontKey>()], [u8; FRONT_BYTES]>;
const FRONT_BYTES: usize = size_of::<weft_abi::Front>();

fn front_of(lan: &Lan, host: u32) -> Result<Front> {
    let map = aya::maps::MapData::from_pin(maps_of(lan, host)?.join(maps::FRONT.name))?;
    Ok(Front::try_from(aya::maps::Map::HashMap(map))?)
}

async fn repairs(lan: &Lan, host: u32) -> Repairs {
    lan.hosts[&host].status().await.repairs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_entry_deleted_by_hand_comes_back_and_is_counted() -> Result<()> {
    let lan = Lan::published(2, 2).await?;
    lan.ask_tcp("c", (host4(1), 8000))?;
    let mut front = front_of(&lan, 1)?;
    let before: BTreeMap<_, _> = front.iter().collect::<Result<_, _>>()?;
    assert!(!before.is_empty());
    for key in before.keys() {
        front.remove(key)?;
    }
    // Nobody applies anything: the keeper looks for itself.
    eventually("the entries are back", async || {
        let now: BTreeMap<_, _> = front.iter().collect::<Result<_, _>>()?;
        Ok(now == before)
    })
    .await?;
    lan.ask_tcp("c", (host4(1), 8000))?;
    let expected = Repairs {
        entries: before.len() as u64,
        ..Repairs::default()
    };
    assert_eq!(repairs(&lan, 1).await, expected);
    assert_eq!(repairs(&lan, 2).await, Repairs::default());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_taken_off_by_their_pins_are_attached_again_and_counted() -> Result<()> {
    let lan = Lan::published(2, 2).await?;
    lan.ask_tcp("c", (host4(1), 8000))?;
    for (host, program) in [(1, "uplink_in-"), (2, "task_in-")] {
        let links = lan.pin_dir(host).join("links");
        let list = || -> Result<Vec<PathBuf>> {
            let entries = std::fs::read_dir(&links)?.flatten();
            let named = entries.filter(|e| e.file_name().to_string_lossy().starts_with(program));
            Ok(named.map(|entry| entry.path()).collect())
        };
        let pins = list()?;
        assert_eq!(pins.len(), 1, "{pins:?}");
        // The pin alone holds the link: with it the program goes off its interface.
        std::fs::remove_file(&pins[0])?;
        eventually("the program is attached again", async || {
            Ok(list()? == pins && repairs(&lan, host).await.programs > 0)
        })
        .await?;
        let expected = Repairs {
            programs: 1,
            ..Repairs::default()
        };
        assert_eq!(repairs(&lan, host).await, expected, "{program}");
        assert_eq!(
            lan.ask_tcp("c", (host4(1), 8000))?,
            format!("t1 {CLIENT4}"),
            "{program}"
        );
    }
    Ok(())
}

/// One request after the other on one connection, and how long the slowest took.
struct Steady {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    thread: JoinHandle<Result<Duration>>,
}

impl Steady {
    fn start(lan: &Lan, to: SocketAddr) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let (ends, counts) = (Arc::clone(&stop), Arc::clone(&answered));
        let thread = lan.within("c", move || {
            let (mut stream, _) = lan::greeted(to)?;
            stream.set_nodelay(true)?;
            Ok(std::thread::spawn(move || {
                let mut worst = Duration::ZERO;
                while !ends.load(Ordering::Relaxed) {
                    let number = counts.load(Ordering::Relaxed);
                    let begun = Instant::now();
                    stream.write_all(&number.to_be_bytes())?;
                    let mut back = [0; 8];
                    stream
                        .read_exact(&mut back)
                        .with_context(|| format!("answer {number} is lost"))?;
                    anyhow::ensure!(back == number.to_be_bytes(), "another's answer");
                    worst = worst.max(begun.elapsed());
                    counts.fetch_add(1, Ordering::Relaxed);
                    // Leaves the processors to those who take over.
                    std::thread::sleep(Duration::from_micros(200));
                }
                Ok(worst)
            }))
        })?;
        Ok(Self {
            stop,
            answered,
            thread,
        })
    }

    /// Waits until a thousand more were answered, or one was lost.
    async fn more(&self, when: &str) -> Result<()> {
        let enough = self.answered.load(Ordering::Relaxed) + 1000;
        eventually(&format!("a thousand more answers {when}"), async || {
            anyhow::ensure!(!self.thread.is_finished(), "requests ended {when}");
            Ok(self.answered.load(Ordering::Relaxed) >= enough)
        })
        .await
    }

    fn finish(self) -> Result<(u64, Duration)> {
        self.stop.store(true, Ordering::Relaxed);
        let worst = self
            .thread
            .join()
            .map_err(|_| anyhow::anyhow!("panicked"))??;
        Ok((self.answered.load(Ordering::Relaxed), worst))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_answered_while_the_keeper_goes_and_another_takes_over() -> Result<()> {
    let mut lan = Lan::published(2, 2).await?;
    let steady = Steady::start(&lan, (host4(1), 8000).into())?;
    steady.more("with both agents").await?;
    for round in 1..=3 {
        lan.hosts.clear();
        steady
            .more(&format!("with no agent, round {round}"))
            .await?;
        for host in [1, 2] {
            lan.start(host).await?;
        }
        steady.more(&format!("taken over, round {round}")).await?;
        lan.apply().await?;
        steady.more(&format!("applied, round {round}")).await?;
    }
    let (answered, worst) = steady.finish()?;
    println!("{answered} requests answered, none lost, the slowest took {worst:?}");
    for host in [1, 2] {
        let found = repairs(&lan, host).await;
        assert_eq!(found, Repairs::default(), "a take-over is no drift");
    }
    Ok(())
}
