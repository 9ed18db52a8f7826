//! The gate that holds a container's program back until its network is there.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use tokio::time::{Instant, sleep};

use super::body::GATE_TARGET;
use crate::task::Failure;

/// The program, static, as `cargo xtask build` left it.
static GATE: &[u8] = include_bytes!(env!("WEFT_GATE"));

/// Exit statuses of a gate that could not let the program go.
pub(super) const STATUSES: std::ops::RangeInclusive<i64> = 125..=127;
/// How its words begin then.
pub(super) const WORDS: [&str; 2] = ["exec: \"", "weft-gate: "];

/// Longer than the gate's own patience, so that its message comes first.
const PATIENCE: Duration = Duration::from_secs(65);
/// Between two looks. The gate itself looks every 20 ms at least.
const PAUSE: Duration = Duration::from_millis(4);

/// Writes the gate to `path`, executable by all; one that is the same is left alone, because
/// running gates keep it busy.
pub(super) fn write(path: &Path) -> io::Result<()> {
    if fs::read(path).is_ok_and(|held| held == GATE) {
        return Ok(());
    }
    // Where what a container binds is missing, the engine makes a directory.
    if path.is_dir() {
        fs::remove_dir(path)?;
    }
    let fresh = path.with_extension("new");
    fs::write(&fresh, GATE)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    fs::rename(&fresh, path)
}

/// Returns when neither process `pid` nor a child of it is the gate: the program has taken its
/// place, or the container has ended.
pub(super) async fn await_passed(pid: i64) -> Result<(), Failure> {
    let begun = Instant::now();
    while is_held(pid) {
        if begun.elapsed() > PATIENCE {
            return Err(Failure::lasting(
                "the gate did not let the program go: its network did not come in 60 s",
            ));
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Whether the gate still stands in the way. With an init, process `pid` is the init and the gate
/// its child.
fn is_held(pid: i64) -> bool {
    if is_gate(pid) {
        return true;
    }
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let mut children = children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok());
    children.any(is_gate)
}

fn is_gate(pid: i64) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.as_os_str() == GATE_TARGET)
}
