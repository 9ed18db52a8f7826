//! The read-only gate, and its counterpart that repairs.

use anyhow::Result;

use crate::run::run;
use crate::{build, ebpf, place, tidy};

/// Format, lints and tidy; changes nothing in the tree.
pub(crate) fn check() -> Result<()> {
    run("cargo fmt --all --check").dir(place::root()).show()?;
    tidy::tidy()?;
    // The agent embeds both, so lints need them built.
    ebpf::build()?;
    build::gate()?;
    run("cargo clippy --quiet --workspace --all-targets -- -D warnings")
        .dir(place::root())
        .show()
}

/// Formats, and applies what clippy can apply by itself.
pub(crate) fn fix() -> Result<()> {
    run("cargo clippy --quiet --workspace --all-targets --fix --allow-dirty --allow-staged")
        .dir(place::root())
        .show()?;
    run("cargo fmt --all").dir(place::root()).show()
}
