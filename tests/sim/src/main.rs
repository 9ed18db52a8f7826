//! `weft-sim`: lives through many seeds, on every core, and keeps what fails.

use std::{
    fs,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Parser;
use weft_sim::{Script, lapse::Lapse, run, shrink};

/// Whole clusters under virtual time
#[derive(Parser)]
struct Options {
    /// How many worlds
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of their seeds
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Only this seed, told step by step
    #[arg(long, conflicts_with_all = ["seeds", "trace"])]
    seed: Option<u64>,
    /// Only the life written in this file
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Leave this out, to see that it is missed
    #[arg(long, value_parser = lapse)]
    lapse: Option<Lapse>,
    /// Where lives that fail are kept, shortened
    #[arg(long, default_value = "target/sim")]
    keep: PathBuf,
}

impl Options {
    fn script(&self, seed: u64) -> Script {
        Script {
            lapse: self.lapse,
            ..Script::of(seed)
        }
    }
}

/// The lapse of a name.
fn lapse(name: &str) -> Result<Lapse, String> {
    serde_json::from_value(name.into()).map_err(|error| error.to_string())
}

/// Failures after which no more seeds are begun.
const ENOUGH: usize = 8;

fn main() -> ExitCode {
    // What goes wrong in a life is caught and told once, by its seed.
    std::panic::set_hook(Box::new(|_| {}));
    match act(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(options: &Options) -> Result<bool> {
    if let Some(path) = &options.trace {
        let text = fs::read_to_string(path)
            .with_context(|| format!("cannot read the life in {}", path.display()))?;
        let script = serde_json::from_str(&text)
            .with_context(|| format!("{} is no life", path.display()))?;
        return Ok(tell(&script));
    }
    if let Some(seed) = options.seed {
        return Ok(tell(&options.script(seed)));
    }
    many(options)
}

/// Lives through one script, step by step.
fn tell(script: &Script) -> bool {
    match run(script, true) {
        Ok(life) => {
            eprintln!("{life:?}");
            true
        }
        Err(failure) => {
            eprintln!("at {} ms: {}", failure.at, failure.what);
            false
        }
    }
}

fn many(options: &Options) -> Result<bool> {
    let begun = Instant::now();
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let (commits, virtual_ms) = (AtomicU64::new(0), AtomicU64::new(0));
    let failed = Mutex::new(Vec::new());
    let is_over = AtomicBool::new(false);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cores)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let nth = next.fetch_add(1, Ordering::Relaxed);
                        if nth >= options.seeds || is_over.load(Ordering::Relaxed) {
                            return;
                        }
                        let seed = options.first + nth;
                        match run(&options.script(seed), false) {
                            Ok(life) => {
                                commits.fetch_add(life.commits, Ordering::Relaxed);
                                virtual_ms.fetch_add(life.lasted, Ordering::Relaxed);
                            }
                            Err(failure) => {
                                eprintln!("seed {seed} failed: {}", shrink::kind(&failure.what));
                                if let Ok(mut failed) = failed.lock() {
                                    failed.push((seed, failure));
                                    is_over.fetch_or(failed.len() >= ENOUGH, Ordering::Relaxed);
                                }
                            }
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let mut told = Instant::now();
        while !workers.iter().all(thread::ScopedJoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(50));
            if told.elapsed() >= Duration::from_secs(5) {
                told = Instant::now();
                let failed = failed.lock().map_or(0, |failed| failed.len());
                let done = done.load(Ordering::Relaxed);
                let seconds = begun.elapsed().as_secs();
                eprintln!(
                    "{seconds:>4} s: {done} of {} worlds, {failed} failed",
                    options.seeds
                );
            }
        }
    });
    let mut failed = failed.into_inner().unwrap_or_default();
    failed.sort_by_key(|(seed, _)| *seed);
    for (seed, failure) in &failed {
        eprintln!("seed {seed}, at {} ms: {}", failure.at, failure.what);
        eprintln!("  again: cargo xtask sim --seed {seed}");
        let script = options.script(*seed);
        let (short, _) = shrink::shrink(&script, failure);
        fs::create_dir_all(&options.keep)
            .with_context(|| format!("cannot make {}", options.keep.display()))?;
        let path = options.keep.join(format!("seed-{seed}.json"));
        fs::write(&path, serde_json::to_string_pretty(&short)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!(
            "  {} of {} deeds are enough: cargo xtask sim --trace {}",
            short.deeds.len(),
            script.deeds.len(),
            path.display()
        );
    }
    println!(
        "{} worlds, {} commits, {:.1} days of virtual time in {:.0} s on {cores} cores: {} failed",
        done.load(Ordering::Relaxed),
        commits.load(Ordering::Relaxed),
        virtual_ms.load(Ordering::Relaxed) as f64 / 86_400_000.0,
        begun.elapsed().as_secs_f64(),
        failed.len()
    );
    Ok(failed.is_empty())
}
