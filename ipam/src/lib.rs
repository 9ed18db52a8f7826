//! Which address is free: pools are cut into subnets, subnets into addresses.
//!
//! PURE arithmetic over what the caller says is taken; remembers nothing. Who holds which address,
//! and which rest after use, is the store's to know (`weft-control`, `store::Ledger`). Never
//! touches a socket, a route or a clock.

mod pool;
mod subnet;

pub use pool::{PoolExhausted, cut, overlapping};
pub use subnet::{Subnet, SubnetError};
