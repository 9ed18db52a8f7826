//! Randomness that comes in as an argument.

use rand::{RngExt, SeedableRng, rngs::StdRng};
use weft_types::Id;

/// Makes ids and other random numbers from a seed: the same seed gives the same series.
#[derive(Debug)]
pub struct IdSource(StdRng);

impl IdSource {
    /// A source seeded by 32 random bytes; on a live manager they come from the system.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        Self(StdRng::from_seed(seed))
    }

    /// A source for tests and simulations.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// A new id.
    pub fn id<T>(&mut self) -> Id<T> {
        Id::from_random(self.bytes())
    }

    /// A random number.
    pub fn number(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    /// Random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill(&mut bytes);
        bytes
    }
}
