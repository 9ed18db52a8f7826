//! Load from the client host: so many requests a second, each on a connection of its own, and every one that failed is told.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns};

use crate::{Host, client};

/// Who asks at the same time: enough for the slow questions among the many quick ones.
const ASKERS: u32 = 32;

/// One question in so many takes the task half a second, so that some are always under way.
const SLOW_ONE_IN: u32 = 20;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Requests that go on until [`Load::end`].
pub struct Load {
    shared: Arc<Shared>,
    askers: Vec<JoinHandle<Result<()>>>,
}

/// What came of a load.
#[derive(Debug)]
pub struct Told {
    /// Requests made.
    pub asked: usize,
    /// What went wrong, each with the step and the time at which it did.
    pub failed: Vec<String>,
    /// Containers that answered.
    pub served: BTreeSet<String>,
    /// The longest time that a question of the quick kind took.
    pub slowest: Duration,
}

impl Told {
    /// Whether every request was answered.
    ///
    /// # Errors
    /// When one was not; the message has them all.
    pub fn none_failed(&self) -> Result<()> {
        ensure!(
            self.failed.is_empty(),
            "{} of {} requests failed: {:#?}",
            self.failed.len(),
            self.asked,
            self.failed
        );
        Ok(())
    }
}

struct Shared {
    begun: Instant,
    port: u16,
    rate: u32,
    state: Mutex<State>,
}

struct State {
    done: bool,
    step: String,
    /// Each with the address that its task must see.
    addresses: Vec<(IpAddr, IpAddr)>,
    under_way: Vec<IpAddr>,
    told: Told,
}

impl Load {
    /// Begins to ask `weft/whoami` at this port, `rate` times a second, all addresses of all hosts in turn.
    ///
    /// # Errors
    /// When a host's address is none.
    pub fn start(rate: u32, port: u16, hosts: &[Host]) -> Result<Self> {
        let mut addresses = Vec::new();
        for host in hosts {
            addresses.push((host.v4().parse()?, client::V4.parse()?));
            addresses.push((host.v6().parse()?, client::V6.parse()?));
        }
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            port,
            rate,
            state: Mutex::new(State {
                done: false,
                step: "begin".to_owned(),
                addresses,
                under_way: Vec::new(),
                told: Told {
                    asked: 0,
                    failed: Vec::new(),
                    served: BTreeSet::new(),
                    slowest: Duration::ZERO,
                },
            }),
        });
        let askers = (0..ASKERS)
            .map(|number| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.ask_on(number))
            })
            .collect();
        Ok(Self { shared, askers })
    }

    /// Names what is being done now: failures are told with it.
    pub fn step(&self, name: &str) {
        name.clone_into(&mut self.shared.state().step);
    }

    /// Asks this host no more, as a balancer in front would before a host is taken away; returns when nothing is under way there.
    ///
    /// # Errors
    /// When a question does not end.
    pub fn spare(&self, host: Host) -> Result<()> {
        let faces: [IpAddr; 2] = [host.v4().parse()?, host.v6().parse()?];
        let mut state = self.shared.state();
        state
            .addresses
            .retain(|(address, _)| !faces.contains(address));
        drop(state);
        crate::eventually(PATIENCE * 2, "questions under way to end", || {
            let state = self.shared.state();
            let left = state
                .under_way
                .iter()
                .filter(|at| faces.contains(at))
                .count();
            ensure!(left == 0, "{left} are");
            Ok(())
        })
    }

    /// Ends it and says what came of it.
    ///
    /// # Errors
    /// When an asker could not ask at all.
    pub fn end(self) -> Result<Told> {
        self.shared.state().done = true;
        for asker in self.askers {
            let ended = asker.join();
            ended.map_err(|_| anyhow!("an asker panicked"))??;
        }
        let mut state = self.shared.state();
        Ok(std::mem::replace(
            &mut state.told,
            Told {
                asked: 0,
                failed: Vec::new(),
                served: BTreeSet::new(),
                slowest: Duration::ZERO,
            },
        ))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks every question whose number is this asker's, each at its time or as soon after as may be.
    fn ask_on(&self, asker: u32) -> Result<()> {
        let namespace = File::open("/run/netns/weft-client").context("no client host")?;
        setns(&namespace, CloneFlags::CLONE_NEWNET).context("cannot become the client host")?;
        for number in (asker..).step_by(ASKERS as usize) {
            let due = self.begun + Duration::from_secs(1) * number / self.rate;
            // The rate is what is asked for, not how long anything may take.
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let (address, expected) = {
                let mut state = self.state();
                if state.done {
                    return Ok(());
                }
                let turn = number as usize % state.addresses.len();
                let (address, expected) = state.addresses[turn];
                state.told.asked += 1;
                state.under_way.push(address);
                (address, expected)
            };
            let is_slow = number.is_multiple_of(SLOW_ONE_IN);
            let begun = Instant::now();
            let answer = ask(
                SocketAddr::new(address, self.port),
                if is_slow { "/slow/500" } else { "/" },
            );
            let took = begun.elapsed();
            let mut state = self.state();
            let one = state.under_way.iter().position(|at| *at == address);
            if let Some(one) = one {
                state.under_way.swap_remove(one);
            }
            let fault = match answer {
                Ok(who) if who.client == expected.to_string() => {
                    state.told.served.insert(who.hostname);
                    None
                }
                Ok(who) => Some(format!("the task saw {} for {expected}", who.client)),
                Err(error) => Some(format!("{error:#}")),
            };
            if !is_slow {
                state.told.slowest = state.told.slowest.max(took);
            }
            if let Some(fault) = fault {
                let line = format!(
                    "{} at {:.3} s, {address} after {:.3} s: {fault}",
                    state.step,
                    (begun - self.begun).as_secs_f64(),
                    took.as_secs_f64()
                );
                state.told.failed.push(line);
            }
        }
        Ok(())
    }
}

fn ask(address: SocketAddr, path: &str) -> Result<client::Whoami> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).context("cannot connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let question = format!("GET {path} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n");
    stream
        .write_all(question.as_bytes())
        .context("cannot write the question")?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .context("cannot read the answer")?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("answered `{answer}`"))?;
    ensure!(head.starts_with("HTTP/1.1 200"), "answered `{head}`");
    client::read(body)
}
