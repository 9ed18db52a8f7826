//! The data plane beside its peers, in one run, interleaved, medians: `cargo xtask bench dataplane`,
//! or `cargo run --release -p weft-dataplane --example bench_dataplane`. Needs root.
//!
//! Everything is on one machine: switches, clients and hosts as network namespaces. So the figures
//! compare paths through one kernel; they say nothing of network cards. `WEFT_BENCH_ROUNDS` (5) and
//! `WEFT_BENCH_SECONDS` (1) change how long it takes; `WEFT_BENCH_ONLY` keeps the ways whose name
//! holds that text (crowds only when it names one, nothing but take-overs for `take-over`, nothing but resolvers for
//! `names`), and then nothing is written. What cannot be measured is told in the record, and the run fails at its end.

#[path = "../../tests/lan/mod.rs"]
mod lan;

mod chart;
mod docker;
mod gauge;
mod goals;
mod misses;
mod names;
mod own;
mod peers;
mod record;
mod takeover;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use gauge::Kind;
use lan::Lan;
use peers::Peers;
use record::Record;

/// One way from a client to a server.
pub(crate) struct Way {
    pub(crate) name: String,
    /// Namespace of the client.
    pub(crate) client: PathBuf,
    pub(crate) to: std::net::SocketAddr,
}

/// A way from a namespace of `lan`.
pub(crate) fn way(lan: &Lan, name: &str, client: &str, to: &str) -> Result<Way> {
    Ok(Way {
        name: name.to_owned(),
        client: lan.netns_path(client),
        to: to.parse().with_context(|| format!("address {to}"))?,
    })
}

fn number(name: &str, usual: f64) -> f64 {
    let told = std::env::var(name).ok();
    told.and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Hosts, peers and crowds as one round has them.
///
/// Made anew for each round: the same way made twice differs by a tenth and more, and all rounds over one making would
/// have the luck of that one.
struct Stage {
    ways: Vec<Way>,
    // In this order: peers run in the hosts' namespaces.
    _peers: Peers,
    _lans: Vec<Lan>,
}

impl Stage {
    async fn set(record: &mut Record, only: Option<&str>, engines: Option<Way>) -> Result<Self> {
        let (mut lan, own_ways) = own::small().await?;
        let mut peers = Peers::default();
        let mut ways = peers.build(&mut lan)?;
        for (peer, why) in &peers.left_out {
            record.leave_out(peer, why);
        }
        ways.extend(engines);
        ways.extend(own_ways);
        let mut lans = vec![lan];
        let wanted = |crowd: &own::Crowd| only.is_none_or(|only| only.contains(crowd.name));
        for crowd in own::CROWDS.into_iter().filter(wanted) {
            let (lan, more, took) = own::crowded(crowd).await?;
            record.applied(crowd.name, took);
            lans.push(lan);
            ways.extend(more);
        }
        record.order(&ways);
        if let Some(only) = only {
            ways.retain(|way| way.name.contains(only));
        }
        Ok(Self {
            ways,
            _peers: peers,
            _lans: lans,
        })
    }

    /// Measures every way for each kind, all ways of a kind one after the other, questions in several turns; every
    /// second time backwards, so that nobody always goes first.
    fn round(&self, record: &mut Record, round: u32, time: Duration) {
        let turns = Kind::ALL
            .into_iter()
            .flat_map(|kind| (0..kind.passes()).map(move |pass| (kind, pass)));
        for (kind, pass) in turns {
            let mut order: Vec<&Way> = self.ways.iter().collect();
            if (round + pass).is_multiple_of(2) {
                order.reverse();
            }
            for way in order {
                match gauge::measure(way, kind, time) {
                    Ok(sample) => record.add(&way.name, kind, sample),
                    Err(error) => record.failed(&way.name, kind, &error),
                }
            }
        }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let begun = Instant::now();
    let rounds = number("WEFT_BENCH_ROUNDS", 5.0) as u32;
    let time = Duration::from_secs_f64(number("WEFT_BENCH_SECONDS", 1.0));
    let only = std::env::var("WEFT_BENCH_ONLY").ok();
    let mut record = Record::begin(rounds, time)?;
    // One part alone, or everything.
    let part = |name: &str| only.as_ref().is_none_or(|only| only == name);
    // Docker's engines take long to start, and stay.
    let mut lan = Lan::new(2)?;
    let engines = match only {
        Some(_) if !part("names") => None,
        _ => docker::Engines::start(&mut lan).unwrap_or_else(|error| {
            record.leave_out("Docker's own overlay and resolver", &error);
            None
        }),
    };
    for round in 1..=rounds {
        let docker = engines.as_ref().map(docker::Engines::way);
        let stage = Stage::set(&mut record, only.as_deref(), docker).await?;
        stage.round(&mut record, round, time);
        drop(stage);
        let took = begun.elapsed();
        eprintln!("round {round} of {rounds} is done after {took:.0?}");
    }
    if part("take-over") {
        if let Err(error) = takeover::measure(&mut record, rounds).await {
            record.fell_through("taking over", &error);
        }
        println!("{}", record.takeovers());
    }
    if part("names") {
        lan.start_all().await?;
        let engines = engines.as_ref();
        if let Err(error) = names::measure(&mut record, &mut lan, engines, rounds).await {
            record.fell_through("names", &error);
        }
    }
    if only.is_none() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/bench");
        record.write(&dir)?;
        eprintln!("written after {:.0?}", begun.elapsed());
    }
    println!("{}\n{}", record.table(), goals::table(&record).0);
    anyhow::ensure!(
        record.failures() == 0,
        "{} measurements failed: the lines above that begin with \"failed\" say which",
        record.failures()
    );
    Ok(())
}
