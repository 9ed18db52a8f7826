//! Names, shapes and sizes of the maps.

/// A map of the object: what both halves must agree on besides its key and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSpec {
    /// Name in the object file and of its pin.
    pub name: &'static str,
    /// Entries it is made for; the loader may ask for another number.
    pub entries: u32,
}

macro_rules! maps {
    ($($(#[$meta:meta])* $name:ident, $text:literal, $entries:expr;)*) => {
        /// Every map, with who writes it.
        pub mod maps {
            use super::MapSpec;
            $($(#[$meta])* pub const $name: MapSpec = MapSpec { name: $text, entries: $entries };)*
            /// All of them.
            pub const ALL: &[MapSpec] = &[$($name,)*];
        }
    };
}

maps! {
    /// Array: 0 -> [`crate::Config`]. Agent.
    CONFIG, "config", 1;
    /// Hash: [`crate::FrontKey`] -> [`crate::Front`]. Agent.
    FRONT, "front", 65_536;
    /// Longest prefix: [`crate::Prefixed`] [`crate::RangeKey`] -> [`crate::Front`]. Agent.
    FRONT_RANGES, "front_ranges", 16_384;
    /// Longest prefix: [`crate::Prefixed`] [`crate::AllowKey`] -> u32 (any value): who may ask services whose fronts are
    /// [`crate::front::ALLOWED`]. Agent.
    ALLOWED, "allowed", 65_536;
    /// Hash: service u32 -> [`crate::Cap`]. Agent.
    CAPS, "caps", 16_384;
    /// LRU hash: service u32 -> [`crate::Spent`]. Programs.
    SPENT, "spent", 16_384;
    /// LRU hash: [`crate::StickyKey`] -> [`crate::Sticky`]. Programs.
    STICKY, "sticky", 65_536;
    /// LRU hash: backend id u32 -> [`crate::Load`]. Of this node's backends: agent, and programs between its counts; of
    /// others: programs.
    LOADS, "loads", 16_384;
    /// Hash of arrays: service u32 -> array of u32. Element 0 is the number of slots, the slots follow,
    /// each a backend id or 0. A ring of 256 slots is an array of 257. Inner arrays carry
    /// `BPF_F_INNER_MAP` (0x1000), so that sizes may differ. Swapped whole. Agent.
    RINGS, "rings", 16_384;
    /// Hash of arrays, same shape: the ring before the last change, while that is young. Agent.
    RINGS_BEFORE, "rings_before", 16_384;
    /// Hash: backend id u32 -> [`crate::Backend`]. Agent.
    BACKENDS, "backends", 131_072;
    /// Hash: node id u32 -> [`crate::Node`], own node included. Agent.
    NODES, "nodes", 4_096;
    /// Hash: [`crate::Addr`] -> [`crate::NodeAddr`], own addresses included. Agent.
    NODE_BY_ADDR, "node_by_addr", 16_384;
    /// Hash: [`crate::Addr`] -> u32 (any value): addresses of this node at which published ports answer,
    /// loopback not included. Agent.
    LOCAL_ADDRS, "local_addrs", 4_096;
    /// Hash: published or floating [`crate::Addr`] -> u32 node that holds it now. Agent.
    OWNER, "owner", 4_096;
    /// Hash: [`crate::NetAddr`] -> [`crate::Task`], every task of every network this node takes part in. Agent.
    TASKS, "tasks", 262_144;
    /// Longest prefix: [`crate::SubnetKey`] -> VNI u32, all overlay networks known here. Agent.
    SUBNETS, "subnets", 8_192;
    /// Hash: VNI u32 -> u32 (any value): networks whose packets travel between nodes only encrypted. Looked
    /// up only when [`crate::config::CIPHERED`] is set. Agent.
    CIPHERED, "ciphered", 8_192;
    /// Hash: ifindex u32 of a host side veth -> [`crate::Endpoint`]. Agent.
    ENDPOINTS, "endpoints", 8_192;
    /// Hash: backend id u32 -> [`crate::Endpoint`] of this node's tasks. Agent.
    LOCAL_TASKS, "local_tasks", 8_192;
    /// Hash: namespace cookie u64 -> [`crate::Netns`]. Agent.
    NETNS, "netns", 8_192;
    /// Per-CPU hash: service u32 -> [`crate::ServiceCount`]. Agent creates, programs add.
    SERVICES, "services", 16_384;
    /// LRU hash: [`crate::FlowKey`] -> [`crate::Flow`], not yet accepted by the task. Programs.
    FLOW_NEW, "flow_new", 65_536;
    /// Hash: [`crate::FlowKey`] -> [`crate::Flow`], accepted by the task. Programs insert, agent collects.
    FLOW, "flow", 524_288;
    /// LRU hash: wire [`crate::FlowKey`] -> [`crate::Pick`]. Programs.
    PICK, "pick", 65_536;
    /// LRU hash: [`crate::FragKey`] -> [`crate::FragPorts`]. Programs.
    FRAG, "frag", 4_096;
    /// LRU hash: [`crate::SockKey`] -> [`crate::SockOrigin`]. Programs.
    SK_REV, "sk_rev", 65_536;
    /// Per-CPU array: [`crate::counter_index`] -> [`crate::Counter`]. Programs.
    COUNTERS, "counters", crate::COUNTERS;
    /// Per-CPU array: 0 -> u64 time until which the ICMP errors told so far take at their rate. Programs.
    TOLD, "told", 1;
    /// Array: same index -> u64 time of the last sample. Programs.
    SAMPLED, "sampled", crate::COUNTERS;
    /// Ring buffer of [`crate::Event`]; size in bytes. Programs.
    EVENTS, "events", 262_144;
}
