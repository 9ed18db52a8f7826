//! What this node's network should be, and making it so.
//!
//! The way through it: [`Desired::of`] turns the cluster's network state into what this node must
//! hold (pure); [`Dataplane::apply`] merges it with the sandboxes that live here, reads back what
//! the kernel holds, and writes the difference. Sandboxes are made by [`Dataplane::create_sandbox`]
//! without waiting for the rest. Programs, links and maps are pinned: packets flow while nobody
//! runs this code.

mod apply;
mod cipher;
mod collector;
mod config;
pub mod desired;
mod explain;
mod flow_rows;
mod flows;
mod forget;
mod interfaces;
mod keeper;
mod kernel;
mod led;
mod links;
pub mod mesh;
mod offload;
mod path;
mod probe;
mod report;
pub mod sandbox;
mod tables;

pub use apply::{Applied, Dataplane, cookie, open_resolver};
pub use cipher::{KeyState, WIREGUARD_PORT, WireGuard, WireGuardKey};
pub use config::{Config, EGRESS_POOL, Uplinks};
pub use desired::{DesireError, Desired};
pub use explain::{Question, Step};
pub use flow_rows::{FlowPair, FlowRow, FlowState, flow_pairs};
pub use kernel::error::DataplaneError;
pub use path::{PathReport, PathState};
pub use report::{DropCount, DropSample, Repairs, Status};
pub use sandbox::{Attachment, NetnsRef, ResolverSockets, Sandbox, SandboxSpec};
