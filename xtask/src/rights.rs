//! Who runs us: most verbs make namespaces and start daemons, which only root may.

use anyhow::{Result, bail};

/// Stops with a sentence unless we are root.
pub(crate) fn require_root(verb: &str) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "`cargo xtask {verb}` makes network namespaces and starts daemons, so it needs root; run it from a root shell (sudo -s)"
        );
    }
    Ok(())
}
