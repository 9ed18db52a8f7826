//! Room for what the agent must remember.

use std::path::Path;

use nix::sys::statvfs::statvfs;

/// With less than this, what the agent writes for the next task may not fit.
const LEAST_BYTES: u64 = 1 << 20;

/// What is wrong with the room under the state directory, and what to do; `None` when there is enough, or when nobody knows.
pub(super) fn lacks(state_dir: &Path) -> Option<String> {
    let disk = statvfs(state_dir).ok()?;
    let left = disk.blocks_available().saturating_mul(disk.fragment_size());
    told(left, state_dir)
}

fn told(left_bytes: u64, state_dir: &Path) -> Option<String> {
    (left_bytes < LEAST_BYTES).then(|| {
        format!(
            "full: {} KiB are left under {}; tasks that start wait, and a restart of the agent would not know what changed: make room, nothing else is needed",
            left_bytes / 1024,
            state_dir.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_room_is_told_with_what_to_do() {
        let told = |left| told(left, Path::new("/var/lib/weft"));
        assert_eq!(told(LEAST_BYTES), None);
        let words = told(12_345).expect("words about a full disk");
        assert!(
            words.starts_with("full: 12 KiB are left under /var/lib/weft;"),
            "{words}"
        );
        assert!(words.contains("make room"), "{words}");
    }
}
