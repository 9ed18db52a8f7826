//! `bpf(2)` for maps, pins and links. Programs are loaded by aya; the rest is a handful of commands
//! for which raw bytes and interface indices fit better: names would be looked up in the wrong
//! namespace, and aya has no batch reads.
#![expect(
    unsafe_code,
    reason = "bpf(2) has no safe wrapper that takes interface indices and raw keys"
)]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP: libc::c_int = 1;
const MAP_UPDATE: libc::c_int = 2;
const MAP_DELETE: libc::c_int = 3;
const MAP_NEXT_KEY: libc::c_int = 4;
const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
const MAP_BY_ID: libc::c_int = 14;
const OBJ_INFO: libc::c_int = 15;
const MAP_TAKE: libc::c_int = 21;
const MAP_LOOKUP_BATCH: libc::c_int = 24;
const MAP_UPDATE_BATCH: libc::c_int = 26;
const MAP_DELETE_BATCH: libc::c_int = 27;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;

/// Size that the kernel accepts for every command used here; unused bytes are zero.
const ATTR: usize = 128;

/// The attribute union of `bpf(2)` as bytes.
#[repr(C, align(8))]
struct Attr([u8; ATTR]);

impl Attr {
    fn new() -> Self {
        Self([0; ATTR])
    }

    fn u32(mut self, at: usize, value: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn u64(mut self, at: usize, value: u64) -> Self {
        self.0[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn fd(self, at: usize, fd: BorrowedFd<'_>) -> Self {
        self.u32(at, fd.as_raw_fd() as u32)
    }

    /// # Safety
    /// Every address put into the attribute must be valid for what the command reads or writes.
    unsafe fn call(&mut self, command: libc::c_int) -> io::Result<i64> {
        // SAFETY: the attribute is ATTR bytes of plain data; the caller answers for its addresses.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, self.0.as_mut_ptr(), ATTR) };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(result)
        }
    }
}

fn owned(result: i64) -> OwnedFd {
    // SAFETY: the kernel just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(result as i32) }
}

/// Makes a map of `entries` values without keys of its own (an array).
pub(super) fn create_array(value_size: u32, entries: u32, flags: u32) -> io::Result<OwnedFd> {
    const ARRAY: u32 = 2;
    let mut attr = Attr::new()
        .u32(0, ARRAY)
        .u32(4, 4)
        .u32(8, value_size)
        .u32(12, entries)
        .u32(16, flags);
    // SAFETY: the command takes no addresses.
    unsafe { attr.call(MAP_CREATE) }.map(owned)
}

/// Makes a hash of up to `entries` values.
pub(super) fn create_hash(key_size: u32, value_size: u32, entries: u32) -> io::Result<OwnedFd> {
    const HASH: u32 = 1;
    const NO_PREALLOC: u32 = 1;
    let mut attr = Attr::new()
        .u32(0, HASH)
        .u32(4, key_size)
        .u32(8, value_size)
        .u32(12, entries)
        .u32(16, NO_PREALLOC);
    // SAFETY: the command takes no addresses.
    unsafe { attr.call(MAP_CREATE) }.map(owned)
}

/// Reads the value of `key` into `value`; false when there is none.
pub(super) fn lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    read(MAP_LOOKUP, map, key, value)
}

/// Removes one entry and reads what it was into `value`, in one step; false when there is none.
pub(super) fn take(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    read(MAP_TAKE, map, key, value)
}

/// A command that answers with an entry's value.
fn read(
    command: libc::c_int,
    map: BorrowedFd<'_>,
    key: &[u8],
    value: &mut [u8],
) -> io::Result<bool> {
    let mut attr = Attr::new()
        .fd(0, map)
        .u64(8, key.as_ptr() as u64)
        .u64(16, value.as_mut_ptr() as u64);
    // SAFETY: `Map` made key and value of the sizes that the map has.
    match unsafe { attr.call(command) } {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes one entry that is not there; false when it is.
pub(super) fn insert(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<bool> {
    const NOEXIST: u64 = 1;
    let mut attr = Attr::new()
        .fd(0, map)
        .u64(8, key.as_ptr() as u64)
        .u64(16, value.as_ptr() as u64)
        .u64(24, NOEXIST);
    // SAFETY: `Map` made key and value of the sizes that the map has.
    match unsafe { attr.call(MAP_UPDATE) } {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes one entry.
pub(super) fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    let mut attr = Attr::new()
        .fd(0, map)
        .u64(8, key.as_ptr() as u64)
        .u64(16, value.as_ptr() as u64);
    // SAFETY: `Map` made key and value of the sizes that the map has.
    unsafe { attr.call(MAP_UPDATE) }.map(drop)
}

/// Writes `count` entries, keys and values packed one after the other.
pub(super) fn update_batch(
    map: BorrowedFd<'_>,
    keys: &[u8],
    values: &[u8],
    count: u32,
) -> io::Result<()> {
    let keys = keys.as_ptr() as u64;
    let mut attr = Attr::new()
        .u64(16, keys)
        .u64(24, values.as_ptr() as u64)
        .u32(32, count)
        .fd(36, map);
    // SAFETY: the caller packed `count` keys and values of the sizes that the map has.
    unsafe { attr.call(MAP_UPDATE_BATCH) }.map(drop)
}

/// Removes `count` entries, keys packed one after the other. An error when one is not there.
pub(super) fn delete_batch(map: BorrowedFd<'_>, keys: &[u8], count: u32) -> io::Result<()> {
    let mut attr = Attr::new()
        .u64(16, keys.as_ptr() as u64)
        .u32(32, count)
        .fd(36, map);
    // SAFETY: the caller packed `count` keys of the size that the map has.
    unsafe { attr.call(MAP_DELETE_BATCH) }.map(drop)
}

/// What a batch read gave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Batch {
    /// Entries read.
    pub(super) count: usize,
    /// Whether there are no more.
    pub(super) last: bool,
}

/// Reads up to `count` entries, from the place `from` on (the beginning when `None`), and writes into `next` from
/// which place on the others are.
pub(super) fn lookup_batch(
    map: BorrowedFd<'_>,
    from: Option<&[u8]>,
    next: &mut [u8],
    (keys, values): (&mut [u8], &mut [u8]),
    count: u32,
) -> io::Result<Batch> {
    let mut attr = Attr::new()
        .u64(0, from.map_or(0, |from| from.as_ptr() as u64))
        .u64(8, next.as_mut_ptr() as u64)
        .u64(16, keys.as_mut_ptr() as u64)
        .u64(24, values.as_mut_ptr() as u64)
        .u32(32, count)
        .fd(36, map);
    // SAFETY: `Map` made room for `count` keys and values of the sizes that the map has, and for a place.
    let result = unsafe { attr.call(MAP_LOOKUP_BATCH) };
    let count = word(&attr.0, 32) as usize;
    match result {
        Ok(_) => Ok(Batch { count, last: false }),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT) => Ok(Batch { count, last: true }),
            // One that was removed under the kernel's feet: what was read before it is good.
            Some(libc::EINTR) if count > 0 => Ok(Batch { count, last: false }),
            _ => Err(error),
        },
    }
}

/// Removes one entry; one that is not there is fine.
pub(super) fn delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<()> {
    let mut attr = Attr::new().fd(0, map).u64(8, key.as_ptr() as u64);
    // SAFETY: `Map` made the key of the size that the map has.
    match unsafe { attr.call(MAP_DELETE) } {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ => Ok(()),
    }
}

/// The key after `key` (the first when `None`) into `next`; false at the end.
pub(super) fn next_key(
    map: BorrowedFd<'_>,
    key: Option<&[u8]>,
    next: &mut [u8],
) -> io::Result<bool> {
    let from = key.map_or(0, |key| key.as_ptr() as u64);
    let mut attr = Attr::new()
        .fd(0, map)
        .u64(8, from)
        .u64(16, next.as_mut_ptr() as u64);
    // SAFETY: `Map` made both keys of the size that the map has.
    match unsafe { attr.call(MAP_NEXT_KEY) } {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The map with this id.
pub(super) fn map_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = Attr::new().u32(0, id);
    // SAFETY: the command takes no addresses.
    unsafe { attr.call(MAP_BY_ID) }.map(owned)
}

/// The kernel's description of a map or link, as many bytes as it gave.
fn info(fd: BorrowedFd<'_>) -> io::Result<[u8; 256]> {
    let mut bytes = [0_u8; 256];
    let mut attr = Attr::new()
        .fd(0, fd)
        .u32(4, bytes.len() as u32)
        .u64(8, bytes.as_mut_ptr() as u64);
    // SAFETY: `bytes` lives until the call returns and has the length told.
    unsafe { attr.call(OBJ_INFO) }?;
    Ok(bytes)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_ne_bytes(word)
}

/// Shape of a map, as the kernel has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct MapShape {
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) entries: u32,
}

/// Shape of the map behind `fd`.
pub(super) fn map_shape(fd: BorrowedFd<'_>) -> io::Result<MapShape> {
    let info = info(fd)?;
    Ok(MapShape {
        key_size: word(&info, 8),
        value_size: word(&info, 12),
        entries: word(&info, 16),
    })
}

/// Where a link attaches.
#[derive(Debug, Clone, Copy)]
pub(super) struct LinkShape {
    /// For tcx: the interface, 0 when it is gone or the link was detached. For cgroups: the low half
    /// of the cgroup's id, 0 likewise.
    pub(super) target: u32,
}

/// Shape of the link behind `fd`. Both tcx and cgroup links keep their target at the same place.
pub(super) fn link_shape(fd: BorrowedFd<'_>) -> io::Result<LinkShape> {
    let info = info(fd)?;
    Ok(LinkShape {
        target: word(&info, 16),
    })
}

/// Attaches a program to an interface (by index in the calling thread's namespace) or to a cgroup
/// (by descriptor). With `first`, before all others at that hook.
pub(super) fn create_link(
    program: BorrowedFd<'_>,
    target: u32,
    attach_type: u32,
    first: bool,
) -> io::Result<OwnedFd> {
    const BEFORE: u32 = 1 << 3;
    let flags = if first { BEFORE } else { 0 };
    let mut attr = Attr::new()
        .fd(0, program)
        .u32(4, target)
        .u32(8, attach_type)
        .u32(12, flags);
    // SAFETY: the command takes no addresses.
    unsafe { attr.call(LINK_CREATE) }.map(owned)
}

/// Puts another program behind a link, atomically.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = Attr::new().fd(0, link).fd(4, program);
    // SAFETY: the command takes no addresses.
    unsafe { attr.call(LINK_UPDATE) }.map(drop)
}

/// Pins a map, program or link.
pub(super) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = Attr::new().u64(0, path.as_ptr() as u64).fd(8, fd);
    // SAFETY: `path` lives until the call returns and ends with a zero.
    unsafe { attr.call(OBJ_PIN) }.map(drop)
}

/// Opens what is pinned at `path`.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = Attr::new().u64(0, path.as_ptr() as u64);
    // SAFETY: `path` lives until the call returns and ends with a zero.
    unsafe { attr.call(OBJ_GET) }.map(owned)
}

/// The bytes of a plain value.
pub(super) fn bytes<T: aya::Pod>(value: &T) -> &[u8] {
    // SAFETY: Pod types have no padding that matters and live as long as the slice.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// A plain value from bytes; `None` when there are too few.
pub(super) fn value<T: aya::Pod>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: there are enough bytes, and any bytes are a value of a Pod type.
    Some(unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
}
