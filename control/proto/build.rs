//! Generates the gRPC services from the list below; there are no `.proto` files, the messages are
//! the crate's own serde structs.

use std::{env, fs, path::Path};

use tonic_build::manual::{Builder, Method, Service};

/// Calls of one service, each with its name, its path, what it takes and what it answers; `stream`
/// before a type is a stream of it.
type Calls = &'static [(&'static str, &'static str, &'static str, &'static str)];

const SERVICES: [(&str, Calls); 4] = [
    (
        "Dispatcher",
        &[
            (
                "session",
                "Session",
                "stream crate::dispatcher::NodeMessage",
                "stream crate::dispatcher::ManagerMessage",
            ),
            (
                "ask",
                "Ask",
                "crate::ControlRequest",
                "crate::ControlResult",
            ),
        ],
    ),
    (
        "Control",
        &[
            (
                "call",
                "Call",
                "crate::ControlRequest",
                "crate::ControlResult",
            ),
            (
                "logs",
                "Logs",
                "crate::LogSelector",
                "stream crate::LogItem",
            ),
        ],
    ),
    (
        "Ca",
        &[
            (
                "root",
                "Root",
                "crate::ca::RootRequest",
                "crate::ca::RootReply",
            ),
            (
                "issue",
                "Issue",
                "crate::ca::IssueRequest",
                "crate::ca::IssueReply",
            ),
        ],
    ),
    (
        "Raft",
        &[
            (
                "message",
                "Message",
                "crate::raft::RaftMessage",
                "crate::raft::RaftMessage",
            ),
            (
                "join",
                "Join",
                "crate::raft::JoinRequest",
                "crate::raft::MembersReply",
            ),
            (
                "leave",
                "Leave",
                "crate::raft::LeaveRequest",
                "crate::raft::MembersReply",
            ),
        ],
    ),
];

const PACKAGE: &str = "weft.v1";

fn main() {
    let mut paths = Vec::new();
    let mut services = Vec::new();
    for (name, calls) in SERVICES {
        let mut service = Service::builder().name(name).package(PACKAGE);
        for (call, route, input, output) in calls {
            paths.push(format!("/{PACKAGE}.{name}/{route}"));
            service = service.method(method(call, route, input, output));
        }
        services.push(service.build());
    }
    Builder::new().compile(&services);
    let out = env::var_os("OUT_DIR").expect("cargo names a directory");
    let calls = format!("&{paths:?}");
    fs::write(Path::new(&out).join("calls.rs"), calls).expect("the list of calls is written");
    println!("cargo::rerun-if-changed=build.rs");
}

fn method(name: &str, route: &str, input: &str, output: &str) -> Method {
    let plain = |text: &str| text.trim_start_matches("stream ").to_owned();
    let mut method = Method::builder()
        .name(name)
        .route_name(route)
        .input_type(plain(input))
        .output_type(plain(output))
        .codec_path("crate::codec::MessagePack");
    if plain(input) != input {
        method = method.client_streaming();
    }
    if plain(output) != output {
        method = method.server_streaming();
    }
    method.build()
}
