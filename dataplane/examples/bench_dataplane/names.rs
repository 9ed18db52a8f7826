//! Names: queries a second of the resolver inside a container, by dnsperf with four clients.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use weft_dns::{
    Asker, Attachment, Forwarder, Mode, Resolver, Servers, ServiceNames, ZoneBuilder, Zones,
};
use weft_types::{NetworkId, TaskId};

use crate::{
    docker::{self, Engines},
    lan::{Lan, run},
    peers::has,
    record::Record,
};

/// Seconds that a resolver is asked in its turn.
const SECONDS: u32 = 2;
/// Names on the networks of ours that are asked for.
const SIZES: [u32; 3] = [10, 1_000, 100_000];

/// A resolver, seen from a namespace, and a file of questions for it.
struct Asked {
    name: String,
    namespace: PathBuf,
    questions: PathBuf,
}

fn questions(dir: &Path, name: &str, count: u32) -> Result<PathBuf> {
    let path = dir.join(name);
    // Far from the order in which they were added, the same each time.
    let lines = (0..count).map(|at| {
        let number = u64::from(at) * 7_919 % u64::from(count);
        format!("name{number} A\n")
    });
    std::fs::write(&path, lines.collect::<String>())?;
    Ok(path)
}

fn zone(count: u32) -> Result<ZoneBuilder> {
    let mut zone = ZoneBuilder::new("net", &["10.0.0.0/8".parse()?]);
    for number in 0..count {
        let name = format!("name{number}");
        let vips = [Ipv4Addr::from_bits(0x0a00_0002 + number).into()];
        zone.service(&ServiceNames {
            names: &[&name],
            mode: Mode::Vip(&vips),
            tasks: &[],
        });
    }
    Ok(zone)
}

/// A sandbox with our resolver for each size.
async fn ours(lan: &mut Lan, dir: &Path) -> Result<(Vec<Asked>, Vec<Attachment>)> {
    let resolver = Resolver::new(Forwarder::new(Servers::Listed(Vec::new())));
    let mut zones = Zones::default();
    for size in SIZES {
        let network = NetworkId::numbered(u128::from(size));
        zones.networks.insert(network, zone(size)?.build().into());
    }
    resolver.publish(zones);
    let (mut asked, mut attached) = (Vec::new(), Vec::new());
    for (place, size) in SIZES.into_iter().enumerate() {
        let number = 90 + place as u32;
        let name = format!("t{number}");
        lan.add_namespace(&name)?;
        let spec = weft_dataplane::SandboxSpec {
            task: TaskId::numbered(u128::from(number)),
            attachments: Vec::new(),
        };
        let netns = weft_dataplane::NetnsRef::Path(lan.netns_path(&name));
        let host = lan.hosts.get(&1).context("host 1")?;
        let sockets = host
            .create_sandbox(spec, netns)
            .await?
            .open_resolver()
            .await?;
        let asker = Asker {
            networks: vec![NetworkId::numbered(u128::from(size))],
            ..Asker::default()
        };
        attached.push(resolver.attach_std(sockets.udp, sockets.tcp, asker)?);
        asked.push(Asked {
            name: format!("weft's resolver, {size} names"),
            namespace: lan.netns_path(&name),
            questions: questions(dir, &name, size)?,
        });
    }
    Ok((asked, attached))
}

/// Queries a second, and microseconds of one on average.
fn ask(asked: &Asked) -> Result<(f64, f64)> {
    let (namespace, file) = (asked.namespace.display(), asked.questions.display());
    let said = run(&format!(
        "nsenter --net={namespace} dnsperf -s 127.0.0.11 -d {file} -c 4 -l {SECONDS} 2>&1"
    ))?;
    let figure = |label: &str| {
        let line = said
            .lines()
            .find_map(|line| line.trim().strip_prefix(label));
        let word = line.and_then(|rest| rest.split_whitespace().next());
        let value = word.and_then(|word| word.trim_end_matches(',').parse::<f64>().ok());
        value.with_context(|| format!("no \"{label}\" in what dnsperf said: {said}"))
    };
    anyhow::ensure!(
        figure("Queries lost:")? < figure("Queries sent:")? / 100.0,
        "{}: queries were lost: {said}",
        asked.name
    );
    Ok((
        figure("Queries per second:")?,
        figure("Average Latency (s):")? * 1e6,
    ))
}

/// Asks every resolver in turn, `rounds` times over.
pub(crate) async fn measure(
    record: &mut Record,
    lan: &mut Lan,
    engines: Option<&Engines>,
    rounds: u32,
) -> Result<()> {
    if !has("dnsperf") {
        record.leave_out(
            "names",
            &anyhow::anyhow!("dnsperf is not installed (package dnsperf)"),
        );
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let (mut all, _attached) = ours(lan, dir.path()).await?;
    if let Some(engines) = engines {
        all.insert(
            0,
            Asked {
                name: format!("Docker's resolver, {} names", docker::NAMES),
                namespace: engines.resolver()?,
                questions: questions(dir.path(), "docker", docker::NAMES as u32)?,
            },
        );
    }
    for _ in 0..rounds {
        for asked in &all {
            let (rate, wait) = tokio::task::block_in_place(|| ask(asked)).unwrap_or_else(|error| {
                record.fell_through(&asked.name, &error);
                (f64::NAN, f64::NAN)
            });
            record.add_names(&asked.name, rate, wait);
        }
        // Nobody always goes first.
        all.reverse();
    }
    eprintln!("names are done");
    Ok(())
}
