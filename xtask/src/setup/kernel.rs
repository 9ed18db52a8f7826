//! The kernel below: the one need that no package of the list brings.

use std::fs;

/// The oldest that has what the agent loads (tcx).
const OLDEST: (u32, u32) = (6, 6);

/// What to do when the running kernel is too old for agents; building goes on without.
pub(super) fn advice() -> Option<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    advice_on(release.trim())
}

fn advice_on(release: &str) -> Option<String> {
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.parse().ok());
    let (major, minor) = (numbers.next()?, numbers.next()?);
    ((major, minor) < OLDEST).then(|| {
        let (oldest, since) = OLDEST;
        format!(
            "this machine runs Linux {release}; agents need {oldest}.{since} or newer: on Debian 12, install linux-image-amd64 from its backports and boot it"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::advice_on;

    #[test]
    fn old_kernels_are_named_and_others_passed() {
        for release in [
            "6.6.0",
            "6.12.38+deb13-amd64",
            "6.18.44-fc-v669",
            "10.0-rc1",
            "odd",
        ] {
            assert_eq!(advice_on(release), None, "{release}");
        }
        for release in ["6.1.0-37-amd64", "5.15.0", "6.5-rc1"] {
            let words = advice_on(release).unwrap_or_default();
            assert!(words.contains(release) && words.contains("6.6"), "{words}");
        }
    }
}
