//! The project's verbs: `cargo xtask VERB`.
//!
//! Each verb is the one command needed: what it stands on, it does itself. No crate of the workspace is used here, so that a verb
//! starts in a second and works when the rest does not compile.

mod bench;
mod build;
mod check;
mod clock;
mod compat;
mod demo;
mod ebpf;
mod evidence;
mod place;
mod rights;
mod run;
mod setup;
mod story;
mod test;
mod testbed;
mod tidy;
mod wait;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// The project's verbs
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_help_subcommand = true
)]
enum Verb {
    /// Name what this machine lacks, then install it (apt-get)
    Setup,
    /// Build the kernel half into target/ebpf
    BuildEbpf,
    /// Build the kernel half, the gate and the agent
    Build {
        /// With optimisation: the binary to put on hosts
        #[arg(long)]
        release: bool,
    },
    /// Read-only gate: format, lints, tidy
    Check,
    /// Format and apply the lints' own repairs
    Fix,
    /// Check the house rules: directions, file sizes, docs, names, unsafe
    Tidy,
    /// Everything: setup, build, host tests, loaded programs, stories (needs root)
    Test,
    /// Several hosts on this machine, each with its own engine and agent (needs root)
    #[command(subcommand)]
    Testbed(testbed::Verb),
    /// A real service published on three hosts, from nothing (needs root)
    Demo(demo::Demo),
    /// Run docker-py's tests of swarm objects against a fresh single host (needs root, python3, a package index)
    Compat {
        /// A part of the names of the tests to run
        only: Option<String>,
    },
    /// Run managers and agents through random faults under virtual time, and check the invariants after every step
    Sim {
        /// How many worlds
        #[arg(long, default_value_t = 1000)]
        seeds: u64,
        /// The first of their seeds
        #[arg(long, default_value_t = 1)]
        first: u64,
        /// Only this seed, told step by step
        #[arg(long)]
        seed: Option<u64>,
        /// Only the life written in this file
        #[arg(long)]
        trace: Option<std::path::PathBuf>,
    },
    /// Measure again what docs/bench tells, and write it down there
    Bench {
        /// What to measure
        part: bench::Part,
        /// This half of `control` alone; shown and not written down
        #[arg(long)]
        only: Option<bench::Half>,
    },
    /// Keep logs, tables and network state of the running testbed under target/evidence (needs root)
    Evidence {
        /// Folder's name
        name: String,
    },
    /// Tell stories on the testbed by parts of their names, or list them (needs root)
    #[command(
        after_help = "e.g. cargo xtask story names_\nWEFT_AGAINST=docker in the environment tells them to Docker's own swarm mode, to see where it answers otherwise"
    )]
    Story {
        /// Parts of the stories' names
        names: Vec<String>,
    },
}

fn main() -> ExitCode {
    match act(Verb::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(verb: Verb) -> Result<()> {
    match verb {
        Verb::Setup => setup::setup(),
        Verb::BuildEbpf => ebpf::build(),
        Verb::Build { release: true } => build::deployable(),
        Verb::Build { release: false } => build::all(),
        Verb::Check => check::check(),
        Verb::Fix => check::fix(),
        Verb::Tidy => tidy::tidy(),
        Verb::Test => test::test(),
        Verb::Testbed(verb) => testbed::act(verb),
        Verb::Demo(demo) => demo::demo(&demo),
        Verb::Compat { only } => compat::compat(only.as_deref()),
        Verb::Sim {
            seeds,
            first,
            seed,
            trace,
        } => {
            let mut sim = run::run("cargo run --quiet --release -p weft-sim --").dir(place::root());
            sim = match (seed, trace) {
                (Some(seed), _) => sim.args(["--seed", &seed.to_string()]),
                (None, Some(trace)) => sim.args(["--trace".as_ref(), trace.as_os_str()]),
                (None, None) => {
                    sim.args(["--seeds", &seeds.to_string(), "--first", &first.to_string()])
                }
            };
            sim.show()
        }
        Verb::Bench { part, only } => bench::bench(part, only),
        Verb::Evidence { name } => {
            rights::require_root("evidence", "looks into the hosts of the testbed")?;
            evidence::keep(&name);
            Ok(())
        }
        Verb::Story { names } => story::story(&names),
    }
}
