//! What the resolver of a node has done so far.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Totals since the process started, over all sandboxes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Counts { $($(#[$doc])* pub $name: u64,)* }

        /// The running counters behind [`Counts`].
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub(crate) $name: Counter,)* }

        impl Counters {
            pub(crate) fn read(&self) -> Counts {
                Counts { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }

        impl Counts {
            /// Every counter with its name, for a metrics page.
            #[must_use]
            pub fn rows(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters! {
    /// Questions understood.
    questions,
    /// Answered from our zones with records.
    answered,
    /// Ours, but nothing of the wanted type.
    no_data,
    /// Could only be ours, and is not.
    no_such_name,
    /// Sent on to resolvers outside.
    forwarded,
    /// Sent on, and no resolver outside gave an answer.
    forward_failed,
    /// Refused because too many were being forwarded.
    refused,
    /// Packets that are no question, answered with an error.
    malformed,
    /// Packets without anybody to answer: shorter than a head, or answers themselves.
    dropped,
    /// TCP connections closed because too many were open.
    connections_refused,
    /// Answers that could not be handed to the socket.
    unsent,
}

/// One running total.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn up(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }
}
