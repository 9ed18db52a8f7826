//! Building what runs on hosts: the loaded object, the gate, the programs of images, the agent.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::run::run;
use crate::{ebpf, place};

/// Everything the agent needs, in the order it needs it.
pub(crate) fn all() -> Result<()> {
    ebpf::build()?;
    gate()?;
    agent()
}

/// One binary to put on hosts, optimised; says where it lies.
pub(crate) fn deployable() -> Result<()> {
    ebpf::build()?;
    gate()?;
    println!("building weft with optimisation (minutes, the first time)");
    run("cargo build --quiet --release -p weft-agent --bin weft")
        .dir(place::root())
        .show()?;
    let weft = place::target().join("release/weft");
    let size = fs::metadata(&weft)
        .with_context(|| format!("cannot read {}", weft.display()))?
        .len();
    println!("{} ({} MB)", weft.display(), size / 1_000_000);
    Ok(())
}

/// The agent itself. The object and the gate must be there: it embeds both.
pub(crate) fn agent() -> Result<()> {
    run("cargo build --quiet -p weft-agent --bin weft")
        .dir(place::root())
        .show()
}

/// The gate, at the place that the agent embeds it from.
pub(crate) fn gate() -> Result<()> {
    static_programs()?;
    let (built, home) = (static_program("weft-gate"), place::gate());
    let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    // Rewritten only when it changed: the agent's build looks at its date.
    if fs::read(&home).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    fs::create_dir_all(place::target().join("gate"))?;
    fs::copy(&built, &home)
        .with_context(|| format!("cannot copy the gate to {}", home.display()))?;
    Ok(())
}

/// Builds every static program: the gate, and those that run inside our images.
///
/// They run in images that have no libraries, so the C library is linked in; the folder is their own because the flags are.
pub(crate) fn static_programs() -> Result<()> {
    run("cargo build --quiet --release -p weft-gate -p weft-images")
        .arg("--target")
        .arg(triple())
        .dir(place::root())
        .env("CARGO_TARGET_DIR", place::static_build())
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_STRIP", "true")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
        .show()
        .context(
            "cannot build the static programs (is the C library's static half there? libc6-dev)",
        )
}

/// Where a static program lies once built.
pub(crate) fn static_program(name: &str) -> PathBuf {
    place::static_build()
        .join(triple())
        .join("release")
        .join(name)
}

fn triple() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}
