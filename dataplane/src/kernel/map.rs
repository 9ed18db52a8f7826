//! Maps as bytes: read, write, walk.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use super::{error::DataplaneError, syscall};

/// An open map with keys `K` and values `V`.
#[derive(Debug)]
pub(crate) struct Map<K, V> {
    fd: OwnedFd,
    name: &'static str,
    shape: syscall::MapShape,
    types: PhantomData<fn() -> (K, V)>,
}

/// A per-CPU map has a value for each possible CPU, each padded to eight bytes.
fn possible_cpus() -> usize {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    let last = text
        .trim()
        .rsplit(['-', ','])
        .next()
        .and_then(|last| last.parse::<usize>().ok());
    last.map_or(1, |last| last + 1)
}

/// Entries read by one call.
const READ_AT_ONCE: u32 = 4096;

/// How often, and after what rest, an entry is tried again for which there was no memory.
const TRIES: u32 = 200;
const REFILL: std::time::Duration = std::time::Duration::from_millis(5);

impl<K: aya::Pod, V: aya::Pod> Map<K, V> {
    /// Opens the pinned map and checks that it is what this program expects.
    pub(crate) fn open(path: &Path, name: &'static str) -> Result<Self, DataplaneError> {
        let fail = |cause: String| DataplaneError::Bpf {
            operation: "open map",
            object: name.to_owned(),
            cause,
        };
        let fd = syscall::open_pin(path)
            .map_err(|error| fail(format!("{}: {error}", path.display())))?;
        let shape = syscall::map_shape(fd.as_fd()).map_err(|error| fail(error.to_string()))?;
        let expected = (size_of::<K>() as u32, size_of::<V>() as u32);
        if (shape.key_size, shape.value_size) != expected {
            return Err(fail(format!(
                "key and value are {} and {} bytes, expected {} and {}: the object and this binary differ, \
                 run `cargo xtask build-ebpf` and build again",
                shape.key_size, shape.value_size, expected.0, expected.1
            )));
        }
        Ok(Self {
            fd,
            name,
            shape,
            types: PhantomData,
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn fail(&self, operation: &'static str, error: &io::Error) -> DataplaneError {
        let full = error.raw_os_error() == Some(libc::E2BIG);
        let hint = if full {
            format!(" ({} entries are all in use)", self.shape.entries)
        } else {
            String::new()
        };
        DataplaneError::Bpf {
            operation,
            object: self.name.to_owned(),
            cause: format!("{error}{hint}"),
        }
    }

    /// The value of `key`.
    pub(crate) fn get(&self, key: &K) -> Result<Option<V>, DataplaneError> {
        let mut bytes = vec![0; size_of::<V>()];
        let found = syscall::lookup(self.fd(), syscall::bytes(key), &mut bytes)
            .map_err(|error| self.fail("read map", &error))?;
        Ok(if found { syscall::value(&bytes) } else { None })
    }

    /// Writes one entry.
    pub(crate) fn put(&self, key: &K, value: &V) -> Result<(), DataplaneError> {
        self.write(syscall::bytes(key), syscall::bytes(value))
    }

    /// Writes one entry. The kernel refills its reserve of elements behind our back: when entries come
    /// faster than that, there is no memory for a moment.
    fn write(&self, key: &[u8], value: &[u8]) -> Result<(), DataplaneError> {
        let mut tries = 0;
        loop {
            match syscall::update(self.fd(), key, value) {
                Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && tries < TRIES => {
                    tries += 1;
                    std::thread::sleep(REFILL);
                }
                result => return result.map_err(|error| self.fail("write map", &error)),
            }
        }
    }

    /// Removes one entry and gives what it was, in one step. Of hashes, since Linux 5.14.
    pub(crate) fn take(&self, key: &K) -> Result<Option<V>, DataplaneError> {
        let mut bytes = vec![0; size_of::<V>()];
        let found = syscall::take(self.fd(), syscall::bytes(key), &mut bytes)
            .map_err(|error| self.fail("take from map", &error))?;
        Ok(if found { syscall::value(&bytes) } else { None })
    }

    /// Writes one entry, unless there is one.
    pub(crate) fn insert(&self, key: &K, value: &V) -> Result<(), DataplaneError> {
        syscall::insert(self.fd(), syscall::bytes(key), syscall::bytes(value))
            .map(drop)
            .map_err(|error| self.fail("write map", &error))
    }

    /// Removes one entry, if it is there.
    pub(crate) fn remove(&self, key: &K) -> Result<(), DataplaneError> {
        syscall::delete(self.fd(), syscall::bytes(key))
            .map_err(|error| self.fail("remove from map", &error))
    }

    /// All keys. While others write, some may be seen twice or not at all.
    pub(crate) fn keys(&self) -> Result<Vec<K>, DataplaneError> {
        let mut keys: Vec<K> = Vec::new();
        let mut next = vec![0; size_of::<K>()];
        // A key removed under our feet starts the walk again; the bound keeps that from lasting.
        while keys.len() <= 2 * self.shape.entries as usize
            && syscall::next_key(self.fd(), keys.last().map(syscall::bytes), &mut next)
                .map_err(|error| self.fail("walk map", &error))?
        {
            keys.extend(syscall::value::<K>(&next));
        }
        Ok(keys)
    }

    /// All entries, many at once. While others write, some may be seen twice or not at all. Not for per-CPU maps.
    pub(crate) fn entries(&self) -> Result<Vec<(K, V)>, DataplaneError> {
        let (key, value) = (size_of::<K>(), size_of::<V>());
        let mut entries = Vec::new();
        let mut room = READ_AT_ONCE.min(self.shape.entries.max(1));
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        let mut from: Option<Vec<u8>> = None;
        while entries.len() <= 2 * self.shape.entries as usize {
            keys.resize(room as usize * key, 0);
            values.resize(room as usize * value, 0);
            // A place is a key, or a number of the kernel's.
            let mut next = vec![0; key.max(size_of::<u32>())];
            let into = (&mut keys[..], &mut values[..]);
            match syscall::lookup_batch(self.fd(), from.as_deref(), &mut next, into, room) {
                Ok(batch) => {
                    let read = keys.chunks_exact(key).zip(values.chunks_exact(value));
                    entries.extend(read.take(batch.count).filter_map(|(key, value)| {
                        Some((syscall::value(key)?, syscall::value(value)?))
                    }));
                    if batch.last {
                        break;
                    }
                    from = Some(next);
                }
                // More of them lie at one place than there is room for.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => room *= 2,
                Err(error) => return Err(self.fail("walk map", &error)),
            }
        }
        Ok(entries)
    }

    /// The values of `key` on all CPUs, of a per-CPU map.
    pub(crate) fn get_per_cpu(&self, key: &K) -> Result<Vec<V>, DataplaneError> {
        let step = size_of::<V>().next_multiple_of(8);
        let mut bytes = vec![0; step * possible_cpus()];
        let found = syscall::lookup(self.fd(), syscall::bytes(key), &mut bytes)
            .map_err(|error| self.fail("read map", &error))?;
        let values = bytes.chunks(step).filter_map(syscall::value);
        Ok(if found { values.collect() } else { Vec::new() })
    }

    /// Makes an all-zero entry of a per-CPU map, unless there is one.
    pub(crate) fn put_zero_per_cpu(&self, key: &K) -> Result<(), DataplaneError> {
        let step = size_of::<V>().next_multiple_of(8);
        let zero = vec![0; step * possible_cpus()];
        if self.get_per_cpu(key)?.is_empty() {
            self.write(syscall::bytes(key), &zero)?;
        }
        Ok(())
    }
}

/// Numbers as keys or values of a batch.
fn packed(numbers: impl Iterator<Item = u32>) -> Vec<u8> {
    numbers.flat_map(u32::to_ne_bytes).collect()
}

/// Inner maps of different sizes may stand in one outer map only with this flag.
const INNER_MAP: u32 = 0x1000;

impl Map<u32, u32> {
    /// Swaps in a whole ring. Waits until no program reads the old one.
    pub(crate) fn put_ring(&self, ring: u32, slots: &[u32]) -> Result<(), DataplaneError> {
        let inner = self.make_ring(slots)?;
        let fd = inner.as_raw_fd() as u32;
        syscall::update(self.fd(), syscall::bytes(&ring), syscall::bytes(&fd))
            .map_err(|error| self.fail("swap ring in", &error))
    }

    /// Swaps in many, and waits once. When it fails some are in.
    pub(crate) fn put_rings(&self, rings: &[(u32, &[u32])]) -> Result<(), DataplaneError> {
        let made: Vec<OwnedFd> = rings
            .iter()
            .map(|(_, slots)| self.make_ring(slots))
            .collect::<Result<_, _>>()?;
        let keys = packed(rings.iter().map(|(ring, _)| *ring));
        let fds = packed(made.iter().map(|inner| inner.as_raw_fd() as u32));
        syscall::update_batch(self.fd(), &keys, &fds, rings.len() as u32)
            .map_err(|error| self.fail("swap rings in", &error))
    }

    /// Removes many, and waits once. When it fails some are gone.
    pub(crate) fn remove_rings(&self, rings: &[u32]) -> Result<(), DataplaneError> {
        let keys = packed(rings.iter().copied());
        syscall::delete_batch(self.fd(), &keys, rings.len() as u32)
            .map_err(|error| self.fail("remove rings from", &error))
    }

    /// A ring for [`Map::put_ring`]: element 0 is the number of slots, the slots follow.
    fn make_ring(&self, slots: &[u32]) -> Result<OwnedFd, DataplaneError> {
        let size = slots.len() as u32;
        let inner = syscall::create_array(4, size + 1, INNER_MAP)
            .map_err(|error| self.fail("make ring for", &error))?;
        let keys = packed(0..=size);
        let values = packed(std::iter::once(size).chain(slots.iter().copied()));
        syscall::update_batch(inner.as_fd(), &keys, &values, size + 1)
            .map_err(|error| self.fail("fill ring for", &error))?;
        Ok(inner)
    }

    /// Id of the inner map of `ring`: another one means that somebody swapped it.
    pub(crate) fn ring_id(&self, ring: u32) -> Result<Option<u32>, DataplaneError> {
        self.get(&ring)
    }

    /// Slots of the ring behind an inner map's id.
    pub(crate) fn ring_slots(&self, id: u32) -> Result<Vec<u32>, DataplaneError> {
        let fail = |error: io::Error| self.fail("read ring of", &error);
        let inner = syscall::map_by_id(id).map_err(fail)?;
        let room = syscall::map_shape(inner.as_fd()).map_err(fail)?.entries;
        let mut keys = vec![0; size_of::<u32>() * room as usize];
        let mut values = keys.clone();
        let mut slots = Vec::with_capacity(room as usize);
        let mut from: Option<[u8; 4]> = None;
        // An array is walked in order; a large ring by one call instead of one for each slot.
        while slots.len() < room as usize {
            let mut next = [0; 4];
            let place = from.as_ref().map(|from| &from[..]);
            let into = (&mut keys[..], &mut values[..]);
            let batch =
                syscall::lookup_batch(inner.as_fd(), place, &mut next, into, room).map_err(fail)?;
            let read = values.chunks_exact(size_of::<u32>()).take(batch.count);
            slots.extend(read.filter_map(syscall::value::<u32>));
            if batch.last {
                break;
            }
            from = Some(next);
        }
        // The first element is their number.
        slots.drain(..slots.len().min(1));
        Ok(slots)
    }
}
