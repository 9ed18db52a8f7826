//! Samples of decisions that the programs leave in a ring buffer.

use std::path::Path;

use aya::maps::{Map, MapData, RingBuf};
use weft_abi::Event;

use super::{error::DataplaneError, syscall};

/// The one reader of this node's samples: they are gone once read.
pub(crate) struct Events(RingBuf<MapData>);

impl Events {
    /// Opens the pinned ring buffer.
    pub(crate) fn open(path: &Path) -> Result<Self, DataplaneError> {
        let fail = |cause: String| DataplaneError::Bpf {
            operation: "open map",
            object: "events".to_owned(),
            cause,
        };
        let map = MapData::from_pin(path).map_err(|error| fail(error.to_string()))?;
        let ring = RingBuf::try_from(Map::RingBuf(map)).map_err(|error| fail(error.to_string()))?;
        Ok(Self(ring))
    }

    /// The next sample, if there is one.
    pub(crate) fn take(&mut self) -> Option<Event> {
        self.0.next().and_then(|bytes| syscall::value(&bytes))
    }
}
