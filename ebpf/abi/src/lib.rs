//! The layout both halves of the data plane agree on.
//!
//! Every key and value here is `#[repr(C)]`, has no hidden padding (checked at compile time) and is
//! valid for any bit pattern. Integers are in host order unless their type is [`Be16`] or [`Addr`],
//! whose *memory* is in network order. Both halves run on one machine, so host order is safe.
//!
//! A change of a layout or of a map's shape must raise [`LAYOUT`]: pins are kept per layout.
#![no_std]

mod addr;
mod hash;
mod load;
mod mac;
mod map;
#[cfg(feature = "user")]
mod pod;
mod reason;
mod table;
mod track;

pub use addr::{Addr, Be16};
pub use hash::{ring_hash, ring_slot, socket_hash};
pub use load::Load;
pub use mac::{GATEWAY_MAC, Leg, Mac, task_mac, task_of_mac, wire_mac};
pub use map::{MapSpec, maps};
pub use reason::{
    COUNTERS, Counter, Done, Drop, Event, PROGRAMS, Program, SLOTS, counter_index, event,
};
pub use table::{
    AllowKey, Backend, Cap, Config, Endpoint, Front, FrontKey, NetAddr, Netns, Node, NodeAddr,
    Prefixed, RangeKey, ServiceCount, SubnetKey, Task, backend, config, endpoint, front, netns,
    node, node_addr, range_pieces,
};
pub use track::{
    Flow, FlowKey, FragKey, FragPorts, Pick, SockKey, SockOrigin, Spent, Sticky, StickyKey, flow,
    tcp,
};

/// Version of every layout in this crate; part of the pin directory's name.
pub const LAYOUT: u32 = 2;

/// Sizes a ring may have, by how many backends there are. Each is a multiple of the one before, so that a
/// slot of one, by [`ring_slot`], is whole slots of the next. The smallest is for one backend.
pub const RING_SIZES: [u32; 6] = [256, 1_024, 4_096, 32_768, 131_072, 262_144];

/// Next hop of every task's IPv4 default route. Answered by `task_in`, owned by no interface.
pub const GATEWAY4: [u8; 4] = [169, 254, 1, 1];

/// Next hop of every task's IPv6 default route. Answered by `task_in`, owned by no interface.
pub const GATEWAY6: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// `cb[0]` of a test run that must decide and change no map (`weft explain`). Real packets never carry it.
///
/// Such a run brings its outer header in `cb[1]` (VNI) and `cb[2]` (IPv4 source, as in memory), and takes
/// back in `cb[1]` the number of the [`Done`] or [`Drop`], in `cb[2]` the interface or the IPv4 node it goes
/// to, and in `cb[3]` the VNI. Which backend: see the hardware addresses of the packet that comes back.
pub const DRY_RUN: u32 = 0x7765_6674;

/// Like [`DRY_RUN`], but maps are changed as by a real packet: for tests of loaded programs.
pub const REHEARSAL: u32 = 0x7765_6675;

/// Networks that one task can be attached to and still use socket hooks for; beyond it packets decide.
pub const NETS_PER_TASK: usize = 16;
