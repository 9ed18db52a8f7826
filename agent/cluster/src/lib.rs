//! Many hosts as one engine, the way classic (standalone) Swarm showed them.
//!
//! PURE: no runtime, clock, file, socket or randomness. The cluster socket of the front door
//! (`weft-docker`) looks at the hosts, asks here, and does what it is told.
//!
//! ```text
//! host         what is known of hosts, containers and images
//! expression   `key==value`, globs, regular expressions, soft rules
//! wish         what a request to make a container asks of its place
//! filter       which hosts may have it
//! strategy     which of those should
//! place        both together: (hosts, wish) -> host, or why none
//! reference    `name`, `node/name` or id -> the container that is meant
//! merge        answers of many hosts as one
//! reschedule   (hosts, containers, now) -> what to make anew elsewhere, and what to remove
//! ```

pub mod expression;
pub mod filter;
pub mod host;
pub mod merge;
pub mod place;
pub mod reference;
pub mod reschedule;
pub mod strategy;
pub mod wish;

pub use expression::{Expression, ParseExpressionError};
pub use filter::Filter;
pub use host::{Container, Facts, Host, Image, Port};
pub use place::{Policy, Unplaced, place};
pub use reference::{Reference, find};
pub use strategy::Strategy;
pub use wish::Wish;
