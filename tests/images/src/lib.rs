//! What the programs of the testbed's images share: just enough HTTP, and the facts a server knows about a caller.
//!
//! These programs are cargo for the network under test. They never retry, cache or smooth over a fault: what happened shows.

pub mod dial;
pub mod facts;
pub mod http;
pub mod redis;
pub mod stop;
