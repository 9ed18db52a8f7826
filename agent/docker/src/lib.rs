//! The front door: Docker Engine API, passed through or answered.
//!
//! One unix socket per node. What Docker's swarm mode would answer is answered here, from the
//! manager in this process ([`weft_proto::ControlApi`]) and the node ([`NodeControl`]); everything
//! else goes to the container engine below byte for byte, hijacked streams included, in bounded
//! memory and without limits of time or size.
//!
//! ```text
//! server   accept, one task per connection
//! door     version prefix, then route: ours, merged, or passed
//! engine   the way down: one connection per request
//! swarm nodes services tasks secrets networks logs events info      one file per kind of object
//! view     what objects look like in Docker's JSON
//! cluster  the other socket: all hosts behind one API
//! ```

pub mod address;
mod body;
mod cluster;
mod containers;
mod dated;
mod door;
mod engine;
mod events;
mod filter;
#[cfg(test)]
mod fuzz;
mod go_json;
mod go_types;
mod history;
mod info;
mod logs;
mod names;
mod networks;
mod node;
mod nodes;
mod ordered;
mod query;
mod reply;
mod route;
mod secrets;
mod server;
mod services;
mod spec;
mod swarm;
mod tasks;
mod version;
mod view;
mod words;

// The fakes that the tests over sockets share with `fuzz` name this crate as its users do.
#[cfg(test)]
extern crate self as weft_docker;

pub use cluster::{ClusterConfig, serve as serve_cluster};
pub use engine::Engine;
pub use node::{
    AttachRequest, DetachRequest, InitRequest, JoinRequest, LocalState, LocalStatus, NodeControl,
    NotManager,
};
pub use server::{DoorConfig, DoorError, TcpDoor, serve};
pub use weft_cluster::{Filter, Policy, Strategy};
