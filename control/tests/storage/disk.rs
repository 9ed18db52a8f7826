//! A disk in memory that fails as disks do: power cuts, no space, flipped bits.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use redb::StorageBackend;

/// What a disk writes whole or not at all.
const BLOCK: usize = 512;

/// `ENOSPC`.
const NO_SPACE: i32 = 28;

/// A small generator, so that a seed gives the same faults everywhere and always.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }
}

#[derive(Debug, Clone, Copy)]
struct Space {
    /// Blocks that can still be given out.
    left: u64,
    /// Whether a block that is written again takes a new one, as on a copy-on-write file system.
    copies: bool,
}

#[derive(Debug, Clone)]
enum Pending {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Pending {
    fn done_to(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length, 0),
            Self::Write(at, data) => bytes[*at..at + data.len()].copy_from_slice(data),
        }
    }
}

#[derive(Debug, Default)]
struct Platter {
    /// What a power cut leaves for sure.
    synced: Vec<u8>,
    /// What a read sees.
    now: Vec<u8>,
    /// What made `now` of `synced`, in order.
    pending: Vec<Pending>,
    /// Blocks given out.
    used: BTreeSet<usize>,
    space: Option<Space>,
    /// Writes and syncs until the power is cut.
    fuse: Option<u64>,
    /// Of how many reads one has a flipped bit.
    flips: Option<(u64, Dice)>,
}

impl Platter {
    fn burn(&mut self) -> io::Result<()> {
        match &mut self.fuse {
            Some(0) => Err(io::Error::other("the power is cut")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Takes the blocks that a write of `length` bytes at `at` needs.
    fn take(&mut self, at: usize, length: usize) -> io::Result<()> {
        for block in at / BLOCK..(at + length).div_ceil(BLOCK) {
            let new = self.used.insert(block);
            if let Some(space) = &mut self.space
                && (new || space.copies)
            {
                if space.left == 0 {
                    if new {
                        self.used.remove(&block);
                    }
                    return Err(io::Error::from_raw_os_error(NO_SPACE));
                }
                space.left -= 1;
            }
        }
        Ok(())
    }
}

/// One disk. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<Platter>>);

impl Disk {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn holding(bytes: Vec<u8>) -> Self {
        let used = (0..bytes.len().div_ceil(BLOCK)).collect();
        Self(Arc::new(Mutex::new(Platter {
            now: bytes.clone(),
            synced: bytes,
            used,
            ..Platter::default()
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another disk with the same on it, and no faults.
    pub(crate) fn copy(&self) -> Self {
        Self::holding(self.lock().now.clone())
    }

    /// After so many more writes and syncs the power is cut: nothing works any more.
    pub(crate) fn cut_after(&self, operations: u64) {
        self.lock().fuse = Some(operations);
    }

    /// What is found when the power is back: all that was synced, and any of the blocks that were
    /// not.
    pub(crate) fn after_power_cut(&self, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let platter = self.lock();
        let mut bytes = platter.synced.clone();
        for pending in &platter.pending {
            let Pending::Write(at, data) = pending else {
                continue;
            };
            let end = at + data.len();
            bytes.resize(bytes.len().max(end), 0);
            for block in at / BLOCK..end.div_ceil(BLOCK) {
                if dice.below(2) == 0 {
                    continue;
                }
                let (from, to) = ((block * BLOCK).max(*at), ((block + 1) * BLOCK).min(end));
                bytes[from..to].copy_from_slice(&data[from - at..to - at]);
            }
        }
        // The length is one block of the file system's own: the old one or the new one.
        let length = match dice.below(2) {
            0 => platter.now.len(),
            _ => platter.synced.len(),
        };
        bytes.resize(length, 0);
        Self::holding(bytes)
    }

    /// Leaves so many free blocks; `copies` where a block written again needs a new one.
    pub(crate) fn leave_room(&self, blocks: u64, copies: bool) {
        let left = blocks;
        self.lock().space = Some(Space { left, copies });
    }

    /// There is room again.
    pub(crate) fn make_room(&self) {
        self.lock().space = None;
    }

    /// Flips one bit, in a block that holds anything but zeros.
    pub(crate) fn flip_somewhere(&self, dice: &mut Dice) {
        let mut platter = self.lock();
        let written: Vec<usize> = (0..platter.now.len() / BLOCK)
            .filter(|block| {
                let block = &platter.now[block * BLOCK..(block + 1) * BLOCK];
                block.iter().any(|byte| *byte != 0)
            })
            .collect();
        let block = written[dice.below(written.len() as u64) as usize];
        let at = block * BLOCK + dice.below(BLOCK as u64) as usize;
        let bit = 1 << dice.below(8);
        platter.now[at] ^= bit;
        platter.synced[at] ^= bit;
    }

    /// Flips a bit wherever `text` is written; how often it was.
    pub(crate) fn flip_in(&self, text: &[u8]) -> usize {
        let mut platter = self.lock();
        let places: Vec<usize> = (0..platter.now.len().saturating_sub(text.len()))
            .filter(|at| platter.now[*at..].starts_with(text))
            .collect();
        for at in &places {
            platter.now[*at] ^= 1;
            platter.synced[*at] ^= 1;
        }
        places.len()
    }

    /// From now on one of so many reads sees a flipped bit.
    pub(crate) fn flip_one_read_of(&self, reads: u64, dice: Dice) {
        self.lock().flips = Some((reads, dice));
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut platter = self.lock();
        if platter.fuse == Some(0) {
            return Err(io::Error::other("the power is cut"));
        }
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let data = from
            .checked_add(out.len())
            .and_then(|end| platter.now.get(from..end))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(data);
        if let Some((reads, dice)) = &mut platter.flips
            && !out.is_empty()
            && dice.below(*reads) == 0
        {
            let at = dice.below(out.len() as u64) as usize;
            out[at] ^= 1 << dice.below(8);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let length = usize::try_from(len).map_err(io::Error::other)?;
        let mut platter = self.lock();
        platter.burn()?;
        let grows = length > platter.now.len();
        if grows && platter.space.is_some_and(|space| space.left == 0) {
            return Err(io::Error::from_raw_os_error(NO_SPACE));
        }
        if !grows {
            platter.used.split_off(&length.div_ceil(BLOCK));
        }
        let pending = Pending::Length(length);
        pending.done_to(&mut platter.now);
        platter.pending.push(pending);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.lock();
        platter.burn()?;
        for pending in std::mem::take(&mut platter.pending) {
            pending.done_to(&mut platter.synced);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let mut platter = self.lock();
        platter.burn()?;
        if at + data.len() > platter.now.len() {
            return Err(io::Error::other("written past the end of the storage"));
        }
        platter.take(at, data.len())?;
        let pending = Pending::Write(at, data.to_vec());
        pending.done_to(&mut platter.now);
        platter.pending.push(pending);
        Ok(())
    }
}
