//! Who runs us: most verbs make namespaces and start daemons, which only root may.

use anyhow::{Result, bail};

/// What most verbs that need root do with it.
pub(crate) const HOSTS: &str = "makes network namespaces and starts daemons";

/// Stops with a sentence unless we are root; `does` says what `cargo xtask VERB` needs it for.
pub(crate) fn require_root(verb: &str, does: &str) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("`cargo xtask {verb}` {does}, so it needs root; run it from a root shell (sudo -s)");
    }
    Ok(())
}
