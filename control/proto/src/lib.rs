//! The wire between processes of weft: messages, their encoding, and the services they belong to.
//!
//! gRPC frames (tonic) with MessagePack bodies ([`codec`]) over TLS with the cluster's own
//! certificates ([`identity`], [`dial`]). The messages are plain serde structs over the words of
//! `weft-types`. This crate decides nothing.

pub mod ca;
mod clocks;
pub mod codec;
pub mod control;
pub mod dial;
pub mod dispatcher;
pub mod error;
pub mod identity;
pub mod last_words;
pub mod raft;
pub mod token;
pub mod tunnel;

pub use control::{
    ControlApi, ControlReply, ControlRequest, Event, LogItem, LogLine, LogSelector, LogStream,
    ManagerStanding, Move, Object,
};
pub use error::{ControlError, ErrorCode};
pub use tunnel::{Tunnel, TunnelAsk, TunnelToken};

/// Version of this wire. History:
///
/// - 1 (2026-11): first.
pub const WIRE_VERSION: u32 = 1;

/// Largest message, in bytes. Snapshots are cut into chunks of 1 MiB; the largest other message
/// is a node's first assignment set.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// Result of a control call as the wire carries it: refusals are answers, not transport errors.
pub type ControlResult = Result<ControlReply, ControlError>;

/// Generated clients and servers: `dispatcher_client`, `dispatcher_server`, and so on.
///
/// Who may call what is checked by the servers, by the role in the caller's certificate.
pub mod service {
    include!(concat!(env!("OUT_DIR"), "/weft.v1.Dispatcher.rs"));
    include!(concat!(env!("OUT_DIR"), "/weft.v1.Control.rs"));
    include!(concat!(env!("OUT_DIR"), "/weft.v1.Ca.rs"));
    include!(concat!(env!("OUT_DIR"), "/weft.v1.Raft.rs"));

    /// The paths of all calls of all services.
    pub const CALLS: &[&str] = include!(concat!(env!("OUT_DIR"), "/calls.rs"));
}
