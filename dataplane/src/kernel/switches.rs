//! What the host's switches under `/proc/sys/net` were before we turned them.
//!
//! Remembered in a pinned map: it lives exactly as long as the switches themselves do, until the
//! machine stops, whatever happens to this process.

pub(crate) mod reserved;

use std::{os::fd::AsFd as _, path::Path};

use super::{error::DataplaneError, map::Map, syscall, sysctl};

/// A switch's key below `/proc/sys/net`, filled up with zeros.
type Name = [u8; 64];
/// A value before, and the value that we set.
type Values = [[u8; 16]; 2];

const PIN: &str = "switches";
/// As many as a host may have links, and a few.
const ENTRIES: u32 = 4096;

/// The memory of one host.
pub(super) struct Switches(Map<Name, Values>);

fn padded<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    bytes
        .get_mut(..text.len())?
        .copy_from_slice(text.as_bytes());
    Some(bytes)
}

fn text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// The pinned map of this name, made when there is none yet.
fn memory<K: aya::Pod, V: aya::Pod>(
    pin_dir: &Path,
    pin: &'static str,
    entries: u32,
) -> Result<Map<K, V>, DataplaneError> {
    let path = pin_dir.join(pin);
    if !path.exists() {
        let fail = |error: std::io::Error| DataplaneError::Bpf {
            operation: "make map",
            object: pin.to_owned(),
            cause: error.to_string(),
        };
        let map = syscall::create_hash(size_of::<K>() as u32, size_of::<V>() as u32, entries)
            .map_err(fail)?;
        syscall::pin(map.as_fd(), &path).map_err(fail)?;
    }
    Map::open(&path, pin)
}

impl Switches {
    /// Opens the memory, or begins it.
    pub(super) fn open(pin_dir: &Path) -> Result<Self, DataplaneError> {
        memory(pin_dir, PIN, ENTRIES).map(Self)
    }

    /// Sets a switch, remembering what it was when we touch it for the first time.
    pub(super) fn set(&self, key: &str, value: &str) -> Result<(), DataplaneError> {
        let before = sysctl::get(key);
        if !sysctl::set(key, value)? {
            return Ok(());
        }
        let entry = before.as_deref().and_then(padded).zip(padded(value));
        let (Some(name), Some((before, now))) = (padded(key), entry) else {
            tracing::warn!(
                key,
                "too long to be remembered: it stays as it is set at uninstall"
            );
            return Ok(());
        };
        let first = self.0.get(&name)?.map_or(before, |[first, _]| first);
        self.0.put(&name, &[first, now])
    }

    /// Puts every switch back, unless somebody else has turned it since.
    pub(super) fn restore(&self) -> Result<(), DataplaneError> {
        for (name, [before, set]) in self.0.entries()? {
            let key = text(&name);
            if sysctl::get(&key) == Some(text(&set)) {
                sysctl::set(&key, &text(&before))?;
            }
            self.0.remove(&name)?;
        }
        Ok(())
    }
}

/// Removes the memory.
pub(super) fn forget(pin_dir: &Path) -> Result<(), DataplaneError> {
    super::bpf::remove_pin(&pin_dir.join(PIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_went_in() {
        let key = "ipv6/conf/a-link-named-15/accept_ra";
        assert_eq!(
            padded::<64>(key).map(|bytes| text(&bytes)).as_deref(),
            Some(key)
        );
        assert_eq!(
            padded::<16>("0123456789abcdef")
                .map(|b| text(&b))
                .as_deref(),
            Some("0123456789abcdef")
        );
        assert_eq!(padded::<16>("0123456789abcdefg"), None);
    }
}
