//! The wire: accepting connections, knowing who calls, and serving the four services.
//!
//! TLS lets callers without a certificate in, because a joining node has none yet; so each method
//! says who may call it ([`guard`]), by role, cluster, and the list of removed nodes.

mod accept;
mod ca;
mod control;
mod dispatcher;
pub mod guard;
mod raft;

use std::{sync::Arc, time::Duration};

use tonic::transport::{Server, server::Router};
use weft_proto::{
    MAX_MESSAGE_BYTES,
    service::{
        ca_server::CaServer, control_server::ControlServer, dispatcher_server::DispatcherServer,
        raft_server::RaftServer,
    },
};

pub use accept::{Connections, Peer, bind};
pub(crate) use accept::{Reception, serve};

use crate::runtime::Manager;

/// Silence after which a connection is asked whether it lives, and how long the answer may take.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(3));

/// The four services of a manager.
pub(crate) fn router(manager: &Arc<Manager>) -> Router {
    let manager = || Arc::clone(manager);
    Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE.0))
        .http2_keepalive_timeout(Some(KEEP_ALIVE.1))
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .add_service(
            DispatcherServer::new(dispatcher::Dispatcher(manager()))
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
        )
        .add_service(
            ControlServer::new(control::Control(manager()))
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
        )
        .add_service(CaServer::new(ca::Ca(manager())))
        .add_service(
            RaftServer::new(raft::Consensus(manager()))
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
        )
}
