//! Where things lie in the tree: every path the verbs share is written once, here.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The clone's top folder, wherever the caller stands.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_path_buf()
}

/// Everything that is built or run lands under here, and nowhere else in the tree.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// The loaded half's objects, one folder the agent embeds from.
pub(crate) fn ebpf_objects() -> PathBuf {
    target().join("ebpf")
}

/// Tools built for this clone alone, such as `bpf-linker`.
pub(crate) fn tools() -> PathBuf {
    target().join("tools")
}

/// The program that holds a container back until its network is there.
pub(crate) fn gate() -> PathBuf {
    target().join("gate/weft-gate")
}

/// Static programs for images are built here: other flags, so another folder than the workspace's.
pub(crate) fn static_build() -> PathBuf {
    target().join("static-build")
}

/// What this process was told to run as the agent.
static AGENT: OnceLock<PathBuf> = OnceLock::new();

/// From now on, and for this process alone, the testbed runs the agent at `path`.
pub(crate) fn run_agent(path: PathBuf) {
    // Whoever says it first is right: a bed never has two kinds of agents.
    let _kept = AGENT.set(path);
}

/// The agent that the testbed runs: this clone's, or the one that `WEFT_AGENT` names.
pub(crate) fn agent() -> PathBuf {
    let named = || std::env::var_os("WEFT_AGENT").map(PathBuf::from);
    let told = AGENT.get().cloned().or_else(named);
    told.unwrap_or_else(|| target().join("debug/weft"))
}

/// Whether stories are told to the swarm mode of Docker's own engines, for comparison: `WEFT_AGAINST=docker`.
pub(crate) fn against_docker() -> bool {
    std::env::var_os("WEFT_AGAINST").is_some_and(|name| name == "docker")
}

/// What a failed story leaves to look at.
pub(crate) fn evidence() -> PathBuf {
    target().join("evidence")
}
