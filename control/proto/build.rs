//! Generates the gRPC services from the list below; there are no `.proto` files, the messages are
//! the crate's own serde structs.

use tonic_build::manual::{Builder, Method, Service};

fn method(
    name: &str,
    route: &str,
    input: &str,
    output: &str,
) -> tonic_build::manual::MethodBuilder {
    Method::builder()
        .name(name)
        .route_name(route)
        .input_type(input)
        .output_type(output)
        .codec_path("crate::codec::MessagePack")
}

fn main() {
    let service = |name: &str| Service::builder().name(name).package("weft.v1");
    Builder::new().compile(&[
        service("Dispatcher")
            .method(
                method(
                    "session",
                    "Session",
                    "crate::dispatcher::NodeMessage",
                    "crate::dispatcher::ManagerMessage",
                )
                .client_streaming()
                .server_streaming()
                .build(),
            )
            .method(
                method(
                    "ask",
                    "Ask",
                    "crate::ControlRequest",
                    "crate::ControlResult",
                )
                .build(),
            )
            .build(),
        service("Control")
            .method(
                method(
                    "call",
                    "Call",
                    "crate::ControlRequest",
                    "crate::ControlResult",
                )
                .build(),
            )
            .method(
                method("logs", "Logs", "crate::LogSelector", "crate::LogItem")
                    .server_streaming()
                    .build(),
            )
            .build(),
        service("Ca")
            .method(
                method(
                    "root",
                    "Root",
                    "crate::ca::RootRequest",
                    "crate::ca::RootReply",
                )
                .build(),
            )
            .method(
                method(
                    "issue",
                    "Issue",
                    "crate::ca::IssueRequest",
                    "crate::ca::IssueReply",
                )
                .build(),
            )
            .build(),
        service("Raft")
            .method(
                method(
                    "message",
                    "Message",
                    "crate::raft::RaftMessage",
                    "crate::raft::RaftMessage",
                )
                .build(),
            )
            .method(
                method(
                    "join",
                    "Join",
                    "crate::raft::JoinRequest",
                    "crate::raft::MembersReply",
                )
                .build(),
            )
            .method(
                method(
                    "leave",
                    "Leave",
                    "crate::raft::LeaveRequest",
                    "crate::raft::MembersReply",
                )
                .build(),
            )
            .build(),
    ]);
    println!("cargo::rerun-if-changed=build.rs");
}
