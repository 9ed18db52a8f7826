//! What may be left out, to see that it is missed.
//!
//! Each is one thing that keeps a cluster right under a fault. A life that goes well with it and
//! badly without shows that the fault reaches it, and that somebody looks.

use serde::{Deserialize, Serialize};

/// One thing left out, on all hosts for a whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lapse {
    /// A member says what depends on a write before that is kept.
    SpeaksTooSoon,
    /// A leader counts itself among those who keep an entry before it does.
    CountsTooSoon,
    /// For whom a member voted is not kept.
    ForgetsVotes,
    /// What was written after a torn write is read back, as if nothing was missing.
    ReadsOnAfterTorn,
    /// A manager goes on whose disk had no room.
    GoesOnWhenFull,
    /// A disk without room says that it kept what it was given.
    HidesThatItIsFull,
    /// An agent's deadlines move with the clock of its machine.
    FollowsTheClock,
}

impl Lapse {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::SpeaksTooSoon,
        Self::CountsTooSoon,
        Self::ForgetsVotes,
        Self::ReadsOnAfterTorn,
        Self::GoesOnWhenFull,
        Self::HidesThatItIsFull,
        Self::FollowsTheClock,
    ];
}
