//! The record of a run: a table and a chart under `docs/bench/`.

use std::{collections::BTreeMap, fmt::Write as _, path::Path, time::Duration};

use anyhow::{Context as _, Result};

use crate::gauge::{Kind, Sample};

/// Everything that a run found, by way and kind.
pub(crate) struct Record {
    about: String,
    order: Vec<String>,
    found: BTreeMap<(String, Kind), Sample>,
    applied: Vec<(u32, Duration)>,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn first_line(command: &str) -> String {
    let output = crate::lan::run(command).unwrap_or_default();
    output.lines().next().unwrap_or("?").trim().to_owned()
}

impl Record {
    pub(crate) fn begin(rounds: u32, time: Duration) -> Result<Self> {
        let load = std::fs::read_to_string("/proc/loadavg").context("read /proc/loadavg")?;
        let about = format!(
            "{} × {}, kernel {}, {} MiB; load average before the run {}; commit {}. Medians of {rounds} rounds, all ways \
             in turn in each round, {:.1} s a stream, half of that a row of questions, one client at a time.",
            first_line("nproc"),
            first_line("sed -n 's/^model name.*: //p' /proc/cpuinfo"),
            first_line("uname -r"),
            first_line("free -m | awk '/^Mem/ {print $2}'"),
            load.split(' ').next().unwrap_or("?"),
            first_line("git rev-parse --short HEAD"),
            time.as_secs_f64(),
        );
        Ok(Self {
            about,
            order: Vec::new(),
            found: BTreeMap::new(),
            applied: Vec::new(),
        })
    }

    /// Takes over samples. Those that come later stand below in the table.
    pub(crate) fn add(&mut self, all: BTreeMap<(String, Kind), Vec<Sample>>) {
        for ((name, kind), samples) in all {
            let of = |pick: fn(&Sample) -> f64| median(samples.iter().map(pick).collect());
            let middle = Sample {
                rate: of(|sample| sample.rate),
                p50: of(|sample| sample.p50),
                p99: of(|sample| sample.p99),
                cpu: of(|sample| sample.cpu),
                failed: samples.iter().map(|sample| sample.failed).sum(),
            };
            if !self.order.contains(&name) {
                self.order.push(name.clone());
            }
            self.found.insert((name, kind), middle);
        }
    }

    /// How long it took to apply that many services.
    pub(crate) fn applied(&mut self, services: u32, took: Duration) {
        self.applied.push((services, took));
    }

    fn get(&self, name: &str, kind: Kind) -> Sample {
        self.found
            .get(&(name.to_owned(), kind))
            .copied()
            .unwrap_or_default()
    }

    pub(crate) fn table(&self) -> String {
        let mut text = String::from(
            "| way | Gbit/s up | down | CPU s/Gbit | questions/s | p50 µs | p99 µs | connections/s | p50 µs | p99 µs |\n\
             |---|---|---|---|---|---|---|---|---|---|\n",
        );
        for name in &self.order {
            let [up, down, ask, connect] = Kind::ALL.map(|kind| self.get(name, kind));
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "| {name} | {:.2} | {:.2} | {:.3} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |",
                up.rate,
                down.rate,
                up.cpu,
                ask.rate,
                ask.p50,
                ask.p99,
                connect.rate,
                connect.p50,
                connect.p99
            );
        }
        text
    }

    /// Ways on which connections did not come about.
    fn failures(&self) -> String {
        let failed = self.found.iter().filter(|(_, sample)| sample.failed > 0.0);
        let lines = failed.map(|((name, _), sample)| {
            let count = sample.failed;
            format!("**{count} connections did not come about: {name}.** ")
        });
        lines.collect()
    }

    fn goals(&self) -> String {
        let mut text = String::from("| goal | asked | found | met |\n|---|---|---|---|\n");
        let mut goal = |what: &str, asked: f64, of: (&str, Kind), to: (&str, Kind)| {
            let ratio = self.get(of.0, of.1).rate / self.get(to.0, to.1).rate;
            if ratio.is_finite() && ratio > 0.0 {
                let met = if ratio >= asked { "yes" } else { "**no**" };
                let _ = writeln!(text, "| {what} | ≥ {asked:.2} | {ratio:.2} | {met} |");
            }
        };
        let remote = "weft: published port, remote task";
        let local = "weft: published port, local task";
        let direct = "weft: task to task";
        let vip = "weft: task to service address";
        let bridge = "bridge + VXLAN, task to task";
        goal(
            "remote published port to bridge + VXLAN, throughput",
            0.95,
            (remote, Kind::Up),
            (bridge, Kind::Up),
        );
        goal(
            "the same, down",
            0.95,
            (remote, Kind::Down),
            (bridge, Kind::Down),
        );
        goal(
            "task to task to bridge + VXLAN, throughput",
            0.95,
            (direct, Kind::Up),
            (bridge, Kind::Up),
        );
        goal(
            "the same, questions",
            0.95,
            (direct, Kind::Ask),
            (bridge, Kind::Ask),
        );
        goal(
            "local published port to kernel forwarding, throughput",
            0.95,
            (local, Kind::Up),
            ("kernel forwarding", Kind::Up),
        );
        goal(
            "connections, local, to nftables DNAT",
            1.0,
            (local, Kind::Connect),
            ("nftables DNAT, local task", Kind::Connect),
        );
        goal(
            "connections, remote, to nftables DNAT",
            1.0,
            (remote, Kind::Connect),
            ("nftables DNAT, remote task", Kind::Connect),
        );
        goal(
            "connections, remote, to HAProxy",
            3.0,
            (remote, Kind::Connect),
            ("HAProxy (TCP), remote task", Kind::Connect),
        );
        goal(
            "service address to task address, questions",
            0.98,
            (vip, Kind::Ask),
            (direct, Kind::Ask),
        );
        goal(
            "service address to task address, connections",
            0.98,
            (vip, Kind::Connect),
            (direct, Kind::Connect),
        );
        goal(
            "encrypted to wireguard-go, throughput",
            1.5,
            ("weft: task to task, encrypted", Kind::Up),
            ("wireguard-go, host to host", Kind::Up),
        );
        for services in [100, 10_000] {
            let many = format!("{remote}, {services} services");
            goal(
                &format!("{services} services to one, throughput"),
                0.95,
                (&many, Kind::Up),
                (remote, Kind::Up),
            );
            goal(
                &format!("{services} services to one, connections"),
                0.95,
                (&many, Kind::Connect),
                (remote, Kind::Connect),
            );
        }
        text
    }

    fn page(&self) -> String {
        let applied: Vec<String> = self
            .applied
            .iter()
            .map(|(services, took)| {
                format!(
                    "{services} services were applied to two hosts in {:.1} s",
                    took.as_secs_f64()
                )
            })
            .collect();
        format!(
            "# The data plane beside its peers\n\n\
             Made by `cargo xtask bench dataplane`; do not edit. {}\n\n\
             Everything runs on one machine, hosts being network namespaces around a bridge, with segmentation offloads as veth \
             has them: the figures compare paths through one kernel and say nothing of network cards. The machine is shared \
             with other work, so that a figure may be off by a third; ratios within one run are what to look at.\n\n\
             {}\n{}\n## Goals\n\nAs ratios of medians of this run.\n\n{}\n{}.\n\n\
             Docker's own overlay is not among the peers: its ingress needs IPVS, which this kernel has not. \
             wireguard-go is measured between hosts, without the VXLAN that ours carries inside.\n\n\
             ![connections per second and throughput](dataplane.svg)\n",
            self.about,
            self.table(),
            self.failures(),
            self.goals(),
            applied.join("; ")
        )
    }

    fn chart(&self) -> String {
        let row = 22;
        let height = 60 + row * self.order.len();
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1000\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"330\" y=\"24\" font-weight=\"bold\">Gbit/s up</text>\
             <text x=\"670\" y=\"24\" font-weight=\"bold\">connections/s</text>\n"
        );
        for (left, kind) in [(330.0, Kind::Up), (670.0, Kind::Connect)] {
            let most = self
                .order
                .iter()
                .map(|name| self.get(name, kind).rate)
                .fold(f64::MIN_POSITIVE, f64::max);
            for (place, name) in self.order.iter().enumerate() {
                let rate = self.get(name, kind).rate;
                let (y, width) = (40 + row * place, 250.0 * rate / most);
                let colour = if name.starts_with("weft") {
                    "#2b6cb0"
                } else {
                    "#a0aec0"
                };
                let label = if kind == Kind::Up {
                    format!("{rate:.1}")
                } else {
                    format!("{rate:.0}")
                };
                let _ = writeln!(
                    svg,
                    "<rect x=\"{left}\" y=\"{y}\" width=\"{width:.0}\" height=\"14\" fill=\"{colour}\"/>\
                     <text x=\"{:.0}\" y=\"{}\">{label}</text>",
                    left + width + 5.0,
                    y + 12
                );
            }
        }
        for (place, name) in self.order.iter().enumerate() {
            let _ = writeln!(
                svg,
                "<text x=\"10\" y=\"{}\">{name}</text>",
                52 + row * place
            );
        }
        svg + "</svg>\n"
    }

    /// Writes table and chart.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir)?;
        std::fs::write(dir.join("dataplane.md"), self.page())?;
        std::fs::write(dir.join("dataplane.svg"), self.chart())?;
        Ok(())
    }
}
