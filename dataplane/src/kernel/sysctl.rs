//! Switches under `/proc/sys/net` of the calling thread's namespace.

use std::{fs, path::PathBuf};

use super::error::DataplaneError;

fn path(key: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net").join(key)
}

/// The value now, if the kernel has this switch.
pub(crate) fn get(key: &str) -> Option<String> {
    fs::read_to_string(path(key))
        .ok()
        .map(|value| value.trim().to_owned())
}

/// Sets a switch, unless it has the value or the kernel does not know it. Whether it was changed.
pub(crate) fn set(key: &str, value: &str) -> Result<bool, DataplaneError> {
    match get(key) {
        None => Ok(false),
        Some(now) if now == value => Ok(false),
        Some(_) => {
            let path = path(key);
            fs::write(&path, value).map_err(|source| DataplaneError::File {
                operation: "write",
                path,
                source,
            })?;
            Ok(true)
        }
    }
}
