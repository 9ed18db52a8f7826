//! What users can do about a kernel that refuses.

use super::error::DataplaneError;
use crate::links::OVERLAY;

/// The oldest kernel with all that the programs need: tcx.
const OLDEST: (u32, u32) = (6, 6);

/// Major and minor number of the kernel; zeros when it does not say.
pub(super) fn release() -> (u32, u32) {
    version(&release_text())
}

fn release_text() -> String {
    let name = nix::sys::utsname::uname();
    name.map_or_else(
        |_| String::new(),
        |name| name.release().to_string_lossy().into_owned(),
    )
}

fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(['.', '-'])
        .map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Names the kernel where it is the likely cause that programs do not load.
pub(super) fn on_old_kernel(error: DataplaneError) -> DataplaneError {
    advise_on(error, &release_text())
}

fn advise_on(error: DataplaneError, release: &str) -> DataplaneError {
    if version(release) >= OLDEST || matches!(error, DataplaneError::Refused(_)) {
        return error;
    }
    let (major, minor) = OLDEST;
    DataplaneError::Refused(format!(
        "{error}: weft needs Linux {major}.{minor} or newer, and this is {release}"
    ))
}

/// What to do about an overlay device that cannot be had; other errors stay what they are.
pub(super) fn no_overlay(error: DataplaneError, port: u16) -> DataplaneError {
    let DataplaneError::Link { source, .. } = &error else {
        return error;
    };
    let way_out = match source.raw_os_error() {
        Some(libc::EADDRINUSE | libc::EEXIST) => format!(
            "UDP port {port} is taken on this host: find who has it (`ss -lunp`, `ip -d link show type vxlan`; a swarm of Docker's own has 4789), or begin the swarm with another --data-path-port"
        ),
        Some(libc::EOPNOTSUPP) => {
            "this kernel cannot make VXLAN devices: load the module (`modprobe vxlan`)".to_owned()
        }
        _ => return error,
    };
    DataplaneError::Refused(format!("overlay device {OVERLAY}: {error}: {way_out}"))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn link(errno: i32) -> DataplaneError {
        DataplaneError::Link {
            operation: "take up link",
            object: "weft0".to_owned(),
            source: io::Error::from_raw_os_error(errno),
        }
    }

    #[test]
    fn old_kernels_are_named_and_new_ones_are_not() {
        let told = |release| advise_on(link(libc::EINVAL), release).to_string();
        for old in ["5.15.0-91-generic", "6.5", "4.19.0"] {
            let text = told(old);
            assert!(
                text.contains("6.6 or newer") && text.contains(old),
                "{text}"
            );
        }
        for new in ["6.6.1", "6.12.4-amd64", "7.0"] {
            assert!(!told(new).contains("newer"), "{new}");
        }
    }

    #[test]
    fn a_port_that_is_taken_is_told_with_two_ways_out() {
        let text = no_overlay(link(libc::EADDRINUSE), 4790).to_string();
        assert!(
            text.contains("4790") && text.contains("--data-path-port"),
            "{text}"
        );
        let other = no_overlay(link(libc::ENODEV), 4790).to_string();
        assert!(!other.contains("4790"), "{other}");
    }
}
