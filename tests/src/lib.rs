//! Stories told on the testbed: real engines, real packets, the stock docker CLI.
//!
//! A story gets a bed (hosts, a client, a switch, a swarm), says what a user does, and waits for what a user would see. It never sleeps for
//! luck: it waits for a condition, with a deadline, and says what it waited for. A story that fails keeps logs, tables and a capture under
//! `target/evidence`. Stories run one at a time, for there is one testbed per machine; `cargo xtask test` and `cargo xtask story` take the
//! bed away afterwards, whatever happened.

pub mod bed;
pub mod census;
pub mod client;
pub mod command;
pub mod golden;
pub mod held;
pub mod host;
pub mod load;
pub mod story;
pub mod wait;
pub mod world;

pub use bed::{Bed, Shape};
pub use command::{Answer, command};
pub use held::Held;
pub use host::{Cli, Host, LISTENS};
pub use story::story;
pub use wait::eventually;
