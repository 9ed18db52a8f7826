//! Stories: built here, told one at a time, the bed taken away afterwards whatever happened.
//!
//! With `WEFT_AGAINST=docker` in the environment they are told to the swarm mode of Docker's own engines instead.

use anyhow::Result;

use crate::run::run;
use crate::testbed::{self, Verb};
use crate::{build, place, rights, setup};

/// Tells the stories whose names hold one of `names`; without any, lists them.
///
/// # Errors
/// When a story fails.
pub(crate) fn story(names: &[String]) -> Result<()> {
    if names.is_empty() {
        return run("cargo test --quiet -p weft-tests --test stories -- --list")
            .dir(place::root())
            .show();
    }
    rights::require_root("story", rights::HOSTS)?;
    setup::setup()?;
    if !place::against_docker() {
        build::all()?;
    }
    build::static_programs()?;
    let told =
        run("cargo test --quiet -p weft-tests --test stories -- --test-threads=1 --nocapture")
            .args(names)
            .dir(place::root())
            .show();
    let down = testbed::act(Verb::Down);
    told.and(down)
}
