//! The record of a run: a table and a chart under `docs/bench/`.

use std::{collections::BTreeMap, fmt::Write as _, path::Path, time::Duration};

use anyhow::{Context as _, Result};

use crate::{
    Way, chart,
    gauge::{ASKERS, Kind, Sample},
    goals, misses,
};

/// Everything that a run found: by way and kind, a sample of each round.
pub(crate) struct Record {
    about: String,
    order: Vec<String>,
    found: BTreeMap<(String, Kind), Vec<Sample>>,
    /// Queries a second and microseconds of one, by resolver.
    names: Vec<(String, Vec<(f64, f64)>)>,
    /// Seconds that it took to apply a crowd, in each round.
    applied: Vec<(String, Vec<f64>)>,
    /// Rows of the table of take-overs.
    takeovers: Vec<String>,
    left_out: Vec<String>,
    fell_through: Vec<String>,
}

/// The middle of those values that are there: what was not found is no number.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.retain(|value| !value.is_nan());
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn positive(ratio: f64) -> Option<f64> {
    (ratio.is_finite() && ratio > 0.0).then_some(ratio)
}

/// A ratio of two ways' figures, each of one turn: what came and went meanwhile is in both.
#[derive(Clone, Copy)]
pub(crate) struct Ratio {
    /// In the middle of all turns.
    pub(crate) middle: f64,
    /// How far turns lay apart: what differs by less is noise.
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Ratio {
    fn of(turns: impl Iterator<Item = f64>) -> Option<Self> {
        let turns: Vec<f64> = turns.filter_map(positive).collect();
        Some(Self {
            least: turns.iter().copied().reduce(f64::min)?,
            most: turns.iter().copied().reduce(f64::max)?,
            middle: median(turns),
        })
    }
}

fn first_line(command: &str) -> String {
    let output = crate::lan::run(command).unwrap_or_default();
    output.lines().next().unwrap_or("?").trim().to_owned()
}

impl Record {
    pub(crate) fn begin(rounds: u32, time: Duration) -> Result<Self> {
        let load = std::fs::read_to_string("/proc/loadavg").context("read /proc/loadavg")?;
        let about = format!(
            "{} × {}, kernel {}, {} MiB; {}; load average before the run {}; commit {}. Medians of {rounds} rounds, all ways \
             in turn in each round and made anew for it, {:.1} s a stream, {} turns of {:.2} s of questions. One stream or asker at a time; \
             connections are opened by {ASKERS} at once, so that no processor waits.",
            first_line("nproc"),
            first_line("sed -n 's/^model name.*: //p' /proc/cpuinfo"),
            first_line("uname -r"),
            first_line("free -m | awk '/^Mem/ {print $2}'"),
            first_line("date -u +%Y-%m-%d"),
            load.split(' ').next().unwrap_or("?"),
            first_line("git rev-parse --short HEAD"),
            time.as_secs_f64(),
            Kind::Ask.passes(),
            time.as_secs_f64() / f64::from(Kind::Ask.passes()),
        );
        Ok(Self {
            about,
            order: Vec::new(),
            found: BTreeMap::new(),
            names: Vec::new(),
            applied: Vec::new(),
            takeovers: Vec::new(),
            left_out: Vec::new(),
            fell_through: Vec::new(),
        })
    }

    /// In this order ways stand in the table.
    pub(crate) fn order(&mut self, ways: &[Way]) {
        self.order = ways.iter().map(|way| way.name.clone()).collect();
    }

    /// Takes over the next round's sample.
    pub(crate) fn add(&mut self, way: &str, kind: Kind, sample: Sample) {
        let samples = self.found.entry((way.to_owned(), kind)).or_default();
        samples.push(sample);
    }

    /// The next round's sample was not to be had. Its turn stays in the count, so that turns of two ways still
    /// belong together.
    pub(crate) fn failed(&mut self, way: &str, kind: Kind, why: &anyhow::Error) {
        self.add(way, kind, Sample::MISSING);
        self.fell_through(&format!("{way} ({kind:?})"), why);
    }

    /// A measurement was begun and gave nothing.
    pub(crate) fn fell_through(&mut self, what: &str, why: &anyhow::Error) {
        eprintln!("failed: {what}: {why:#}");
        self.fell_through
            .push(format!("**Failed: {what}: {why:#}.**\n"));
    }

    /// How many measurements gave nothing.
    pub(crate) fn failures(&self) -> usize {
        self.fell_through.len()
    }

    /// Takes over the next round's answers of a resolver.
    pub(crate) fn add_names(&mut self, resolver: &str, rate: f64, wait: f64) {
        match self.names.iter_mut().find(|(name, _)| name == resolver) {
            Some((_, samples)) => samples.push((rate, wait)),
            None => self.names.push((resolver.to_owned(), vec![(rate, wait)])),
        }
    }

    /// How long it took in this round to apply that much.
    pub(crate) fn applied(&mut self, what: &str, took: Duration) {
        let took = took.as_secs_f64();
        match self.applied.iter_mut().find(|(name, _)| name == what) {
            Some((_, times)) => times.push(took),
            None => self.applied.push((what.to_owned(), vec![took])),
        }
    }

    fn told_applied(&self) -> String {
        let told = self.applied.iter().map(|(what, times)| {
            let took = median(times.clone());
            format!("{what} were applied to two hosts in {took:.1} s")
        });
        told.collect::<Vec<_>>().join("; ")
    }

    /// The slowest answer while something happened to the agents, in milliseconds: the middle of all rounds
    /// and the most of them; and how many seconds it took, in the middle.
    pub(crate) fn took_over(&mut self, what: &str, middle: f64, most: f64, took: f64) {
        self.takeovers
            .push(format!("| {what} | {middle:.1} | {most:.1} | {took:.1} |"));
    }

    /// The table of take-overs.
    pub(crate) fn takeovers(&self) -> String {
        format!(
            "| on both hosts | slowest answer ms, median of rounds | worst round | until applied s |\n|---|---|---|---|\n{}\n",
            self.takeovers.join("\n")
        )
    }

    /// What could not be measured here, and why.
    pub(crate) fn leave_out(&mut self, what: &str, why: &anyhow::Error) {
        let told = format!("Left out: {what}: {why:#}.");
        // Each round finds it out again.
        if !self.left_out.contains(&told) {
            eprintln!("{told}");
            self.left_out.push(told);
        }
    }

    /// Ways in the table's order.
    pub(crate) fn ways(&self) -> &[String] {
        &self.order
    }

    /// The middle of each figure over all rounds.
    pub(crate) fn middle(&self, way: &str, kind: Kind) -> Sample {
        let samples = self.found.get(&(way.to_owned(), kind));
        let samples = samples.map_or(&[][..], Vec::as_slice);
        let of = |pick: fn(&Sample) -> f64| median(samples.iter().map(pick).collect());
        Sample {
            rate: of(|sample| sample.rate),
            p50: of(|sample| sample.p50),
            p99: of(|sample| sample.p99),
            cpu: of(|sample| sample.cpu),
            failed: samples.iter().map(|sample| sample.failed).sum(),
        }
    }

    /// The ratio of two ways' figures.
    pub(crate) fn ratio(
        &self,
        of: (&str, Kind),
        to: (&str, Kind),
        pick: fn(&Sample) -> f64,
    ) -> Option<Ratio> {
        let samples = |(way, kind): (&str, Kind)| self.found.get(&(way.to_owned(), kind));
        let turns = samples(of)?.iter().zip(samples(to)?);
        Ratio::of(turns.map(|(of, to)| pick(of) / pick(to)))
    }

    /// How many times less processor time than `than` a way takes for a connection, beyond what `base` takes.
    pub(crate) fn cheaper(&self, of: &str, than: &str, base: &str) -> Option<f64> {
        let cpu = |way| self.middle(way, Kind::Connect).cpu;
        positive((cpu(than) - cpu(base)) / (cpu(of) - cpu(base)))
    }

    fn middle_of_names(&self, resolver: &str, pick: fn((f64, f64)) -> f64) -> f64 {
        let found = self.names.iter().find(|(name, _)| name == resolver);
        let samples = found.map(|(_, samples)| samples.iter().copied().map(pick).collect());
        median(samples.unwrap_or_default())
    }

    /// The ratio of two resolvers' figures.
    pub(crate) fn ratio_of_names(
        &self,
        of: &str,
        to: &str,
        pick: fn((f64, f64)) -> f64,
    ) -> Option<Ratio> {
        let samples = |name: &str| {
            let found = self.names.iter().find(|(resolver, _)| resolver == name);
            found.map(|(_, samples)| samples)
        };
        let turns = samples(of)?.iter().zip(samples(to)?);
        Ratio::of(turns.map(|(of, to)| pick(*of) / pick(*to)))
    }

    pub(crate) fn table(&self) -> String {
        let mut text = String::from(
            "| way | Gbit/s up | CPU s/Gbit | Gbit/s down | CPU s/Gbit | questions/s | p50 µs | p99 µs | connections/s | p50 µs | p99 µs | CPU µs |\n\
             |---|---|---|---|---|---|---|---|---|---|---|---|\n",
        );
        for name in &self.order {
            let [up, down, ask, connect] = Kind::ALL.map(|kind| self.middle(name, kind));
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "| {name} | {:.2} | {:.3} | {:.2} | {:.3} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |",
                up.rate,
                up.cpu,
                down.rate,
                down.cpu,
                ask.rate,
                ask.p50,
                ask.p99,
                connect.rate,
                connect.p50,
                connect.p99,
                connect.cpu * 1e6
            );
        }
        if !self.names.is_empty() {
            text += "\n| resolver inside a container | queries/s | average latency µs |\n|---|---|---|\n";
        }
        for (name, _) in &self.names {
            let rate = self.middle_of_names(name, |(rate, _)| rate);
            let wait = self.middle_of_names(name, |(_, wait)| wait);
            let _ = writeln!(text, "| {name} | {rate:.0} | {wait:.0} |");
        }
        text
    }

    /// Ways on which connections did not come about, and what could not be measured.
    fn told_failures(&self) -> String {
        let all = self.found.iter();
        let counts = all.map(|((name, _), samples)| {
            let failed: f64 = samples.iter().map(|sample| sample.failed).sum();
            (name, failed)
        });
        counts
            .filter(|(_, failed)| *failed > 0.0)
            .map(|(name, failed)| format!("**{failed} connections did not come about: {name}.**\n"))
            .chain(self.fell_through.iter().cloned())
            .collect()
    }

    fn page(&self) -> String {
        let (goals, missed) = goals::table(self);
        format!(
            "# The data plane beside its peers\n\n\
             Made by `cargo xtask bench dataplane`; do not edit. {}\n\n\
             Everything runs on one machine, hosts being network namespaces around a bridge, with segmentation offloads as veth \
             has them: the figures compare paths through one kernel and say nothing of network cards. CPU is that of the whole \
             machine, both ends included. Where others share the machine a figure may be off by a third: ratios within one run \
             are what to look at.\n\n\
             {}\n{}\n## Goals\n\nAs medians of the ratios within each turn, with the least and the most of all turns: what is missed by less than \
             they lie apart is not told from noise by one run.\n\n{}\n{}{}.\n\n{}\n\n\
             ## Taking over\n\nOne connection at a remote published port, one question after the other, and no answer lost.\n\n{}\n\
             {}\n\n![throughput and connections](dataplane.svg)\n",
            self.about,
            self.table(),
            self.told_failures(),
            goals,
            misses::told(self, &missed),
            self.told_applied(),
            self.left_out.join(" "),
            self.takeovers(),
            NOTES
        )
    }

    /// Writes table and chart.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir)?;
        std::fs::write(dir.join("dataplane.md"), self.page())?;
        std::fs::write(dir.join("dataplane.svg"), chart::svg(self))?;
        Ok(())
    }
}

/// How the ways were made, for who reads the table.
const NOTES: &str = "\
- Docker's overlay: two engines in swarm mode, each in namespaces of its own, and a container on each, asked by its address. \
Published ports and service addresses of Docker's need IPVS, which this kernel has not.\n\
- A remote published port crosses one host more than task to task does, so nftables DNAT to a remote task, which crosses the \
same hosts, stands beside it too.\n\
- wireguard-go is measured between hosts, without the VXLAN that ours carries inside.\n\
- nftables DNAT masquerades, as kube-proxy's nftables mode does; HAProxy and the userland proxy end connections and open their own.\n\
- All hosts but Docker's engines are made anew for each round: the same way made twice differs by a tenth and more, whoever made it.\n\
- 100 services, 10,000 services, 10,000 backends: hosts of their own, measured in the same rounds; the service that is asked has \
one task, the others are asked by nobody.\n\
- Names: `dnsperf -c 4` for 2 s a turn inside the container's network namespace against 127.0.0.11. It has two threads of its \
own beside the resolver on these two processors, and a share of what it takes is in each figure.";
