//! The data plane beside its peers, in one run, interleaved, medians: `cargo xtask bench dataplane`,
//! or `cargo run --release -p weft-dataplane --example bench_dataplane`. Needs root.
//!
//! Everything is on one machine: a switch, a client and hosts as network namespaces, one TCP stream or
//! one asker at a time. So the figures compare paths through one kernel; they say nothing of network
//! cards. `WEFT_BENCH_ROUNDS` (5) and `WEFT_BENCH_SECONDS` (1) change how long it takes.

#[path = "../../tests/lan/mod.rs"]
mod lan;

mod gauge;
mod peers;
mod record;

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use gauge::{Kind, Sample};
use lan::{Lan, host4, ingress};
use peers::Peers;
use record::Record;
use weft_types::{
    BackendId, NetworkId, NodeId, ServiceId, TaskId,
    netstate::{EndpointPhase, NetEndpoint},
    service::Protocol,
};

/// One way from a client to a server.
pub(crate) struct Way {
    pub(crate) name: &'static str,
    /// Namespace of the client, without the lan's tag.
    pub(crate) client: &'static str,
    pub(crate) to: std::net::SocketAddr,
}

const RED: u128 = 2;
const SECRET: u128 = 3;

/// Two hosts of ours with a service on the second and a network with a task on each.
async fn ours() -> Result<(Lan, Vec<Way>)> {
    let mut lan = Lan::new(2)?;
    lan.start_all_with_keys().await?;
    let (red, secret) = (NetworkId::numbered(RED), NetworkId::numbered(SECRET));
    lan.add_network(red, 4097, &["10.0.1.0/24"], false);
    lan.add_network(secret, 4098, &["10.0.2.0/24"], false);
    lan.state
        .networks
        .get_mut(&secret)
        .context("it was just added")?
        .encrypted = true;
    let web = lan.add_service(1, &[(Protocol::Tcp, 8000, 80)]);
    let vips = [(red, vec!["10.0.1.100".parse()?])];
    lan.state
        .services
        .get_mut(&web)
        .context("it was just added")?
        .vips
        .extend(vips);
    lan.add_task(
        1,
        Some(web),
        2,
        &[
            (ingress(), &["10.0.0.5/24"]),
            (red, &["10.0.1.1/24"]),
            (secret, &["10.0.2.1/24"]),
        ],
    )
    .await?;
    lan.add_task(
        2,
        None,
        1,
        &[(red, &["10.0.1.2/24"]), (secret, &["10.0.2.2/24"])],
    )
    .await?;
    lan.apply().await?;
    gauge::serve(&lan, "t1", 80)?;
    let way = |name, client, to: std::net::SocketAddr| Way { name, client, to };
    let ways = vec![
        way(
            "weft: published port, local task",
            "c",
            (host4(2), 8000).into(),
        ),
        way(
            "weft: published port, remote task",
            "c",
            (host4(1), 8000).into(),
        ),
        way("weft: task to task", "t2", "10.0.1.1:80".parse()?),
        way(
            "weft: task to service address",
            "t2",
            "10.0.1.100:80".parse()?,
        ),
        way(
            "weft: task to task, encrypted",
            "t2",
            "10.0.2.1:80".parse()?,
        ),
    ];
    Ok((lan, ways))
}

/// Services that nobody calls, so that the tables hold `count` in all.
fn crowd(lan: &mut Lan, count: u32) {
    for number in 2..=count {
        let port = 9_999 + number as u16;
        let service = lan.add_service(u128::from(number), &[(Protocol::Tcp, port, 80)]);
        let low = number % 250 + 2;
        let addr = format!(
            "10.{}.{}.{low}/8",
            100 + number / 62_500,
            number / 250 % 250
        );
        lan.state.endpoints.insert(
            BackendId(1_000_000 + number),
            NetEndpoint {
                task: TaskId::numbered(1_000_000 + u128::from(number)),
                network: ingress(),
                node: NodeId::numbered(2),
                addresses: addr.parse().into_iter().collect(),
                service: Some(ServiceId::numbered(u128::from(number))),
                name: format!("t{number}"),
                names: Vec::new(),
                phase: EndpointPhase::Serving,
                host_ports: Vec::new(),
            },
        );
        debug_assert_eq!(service, ServiceId::numbered(u128::from(number)));
    }
}

fn number(name: &str, usual: f64) -> f64 {
    let told = std::env::var(name).ok();
    told.and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Measures every way once for each kind, one after the other, `rounds` times over.
fn interleaved(
    lan: &Lan,
    ways: &[Way],
    rounds: u32,
    time: Duration,
) -> Result<BTreeMap<(String, Kind), Vec<Sample>>> {
    let mut all: BTreeMap<(String, Kind), Vec<Sample>> = BTreeMap::new();
    for round in 1..=rounds {
        for way in ways {
            for kind in Kind::ALL {
                let sample = gauge::measure(lan, way, kind, time)
                    .with_context(|| format!("{} ({kind:?})", way.name))?;
                all.entry((way.name.to_owned(), kind))
                    .or_default()
                    .push(sample);
            }
        }
        eprintln!("round {round} of {rounds} is done");
    }
    Ok(all)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let rounds = number("WEFT_BENCH_ROUNDS", 5.0) as u32;
    let time = Duration::from_secs_f64(number("WEFT_BENCH_SECONDS", 1.0));
    let (mut lan, own_ways) = ours().await?;
    let mut peers = Peers::default();
    let mut ways = peers.build(&mut lan)?;
    ways.extend(own_ways);
    let mut record = Record::begin(rounds, time)?;
    record.add(interleaved(&lan, &ways, rounds, time)?);
    let watched: Vec<Way> = ways
        .into_iter()
        .filter(|way| {
            way.name.ends_with("remote task") && way.name.starts_with("weft")
                || way.name.ends_with("service address")
        })
        .collect();
    for services in [100, 10_000] {
        crowd(&mut lan, services);
        let begun = std::time::Instant::now();
        lan.apply().await?;
        record.applied(services, begun.elapsed());
        let found = interleaved(&lan, &watched, rounds, time)?;
        record.add(
            found
                .into_iter()
                .map(|((name, kind), samples)| {
                    ((format!("{name}, {services} services"), kind), samples)
                })
                .collect(),
        );
    }
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/bench");
    record.write(&dir)?;
    println!("{}", record.table());
    Ok(())
}
