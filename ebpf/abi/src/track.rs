//! Keys and values written by the programs. The agent reads them for `flows`, drains and collection.

use crate::{Addr, Be16};

/// A tuple as the packet carries it on one side of the translation. Key of `flow` and `flow_new`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FlowKey {
    /// Source of the packet.
    pub src: Addr,
    /// Destination of the packet.
    pub dst: Addr,
    /// VNI the wire tuple travels on (the mesh's own for published ports), or, of a reply, the task's.
    pub net: u32,
    /// Source port.
    pub sport: Be16,
    /// Destination port.
    pub dport: Be16,
    /// IP protocol.
    pub proto: u8,
    /// [`flow::WIRE`] (client to service, as on the wire), [`flow::REPLY`] (task to client, as the
    /// task sends it) or, in `pick` alone, [`flow::HOST`] (task to another node's process).
    pub side: u8,
    /// Zero.
    pub pad: [u8; 2],
}

/// One direction of a translated flow: both tuples, so that either side can be written from it.
///
/// Every flow has two entries, one per side of [`FlowKey`]; counters and `last` of an entry are of the
/// packets that matched it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flow {
    /// The client, as on the wire.
    pub client: Addr,
    /// The address the client asked for.
    pub service: Addr,
    /// The client as the task sees it: the same, or the service's address when the client is the task itself.
    pub seen: Addr,
    /// The task's address.
    pub task: Addr,
    /// Packets that matched this entry.
    pub packets: u64,
    /// Bytes of them, from the Ethernet header on.
    pub bytes: u64,
    /// Nanoseconds of the monotonic clock at the last match.
    pub last: u64,
    /// Same clock, at creation.
    pub since: u64,
    /// VNI the wire tuple travels on.
    pub net: u32,
    /// The backend.
    pub backend: u32,
    /// Node through which answers go back; this node's own id when the client came in here.
    pub ingress: u32,
    /// Interface through which the client came in, when it came in here.
    pub link: u32,
    /// Key of `services`.
    pub front: u32,
    /// Client's port on the wire.
    pub cport: Be16,
    /// Port the client asked for.
    pub port: Be16,
    /// Client's port as the task sees it; differs from `cport` only after a collision.
    pub seen_port: Be16,
    /// Port the task listens on.
    pub task_port: Be16,
    /// See [`flow`].
    pub flags: u16,
    /// See [`tcp`]; bits seen by this entry's direction.
    pub tcp: u8,
    /// IP protocol.
    pub proto: u8,
}

/// Sides of a [`FlowKey`] and bits of [`Flow::flags`].
pub mod flow {
    /// Client to service, as on the wire.
    pub const WIRE: u8 = 0;
    /// Task to client, as the task sends it.
    pub const REPLY: u8 = 1;
    /// Task to a process of another node: `backend` of the [`Pick`] is that node.
    pub const HOST: u8 = 2;
    /// Asked by VIP, not by published port.
    pub const VIP: u16 = 1;
    /// The client is a task, which `link` or the network finds.
    pub const FROM_TASK: u16 = 2;
    /// The task reached itself: it sees the service's address as its client.
    pub const HAIRPIN: u16 = 4;
    /// A connection of a service that is [`crate::front::LEAST`]: counted in `loads`, and its answers tell the count.
    pub const COUNTED: u16 = 8;
}

/// Bits of [`Flow::tcp`].
pub mod tcp {
    /// A SYN passed.
    pub const SYN: u8 = 1;
    /// A segment with neither SYN nor RST passed.
    pub const DATA: u8 = 2;
    /// A FIN passed.
    pub const FIN: u8 = 4;
    /// A RST passed.
    pub const RST: u8 = 8;

    /// Whether a connection is over, by the bits of its two entries: one side reset it, or both closed it.
    #[inline(always)]
    pub const fn is_over(one: u8, other: u8) -> bool {
        (one | other) & RST != 0 || one & other & FIN != 0
    }
}

/// An ingress node's memory of a choice; may vanish at any time. Keyed by the wire [`FlowKey`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pick {
    /// Chosen or learnt backend.
    pub backend: u32,
    /// Interface through which the client came in.
    pub link: u32,
    /// Service it was chosen for.
    pub front: u32,
}

/// A client of a service with source affinity. Key of `sticky`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct StickyKey {
    /// Its address; of a socket, [`StickyKey::of_sockets`].
    pub client: Addr,
    /// Key of `services`.
    pub service: u32,
}

impl StickyKey {
    /// Stands for all sockets of the namespace with this cookie. No packet has such a source.
    #[inline(always)]
    pub const fn of_sockets(cookie: u64) -> Addr {
        Addr::from_words([u32::MAX, u32::MAX, (cookie >> 32) as u32, cookie as u32])
    }
}

/// Which backend a client stays with.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sticky {
    /// The backend.
    pub backend: u32,
    /// Zero.
    pub pad: u32,
    /// Nanoseconds of the monotonic clock when it last asked.
    pub last: u64,
}

/// How much of its [`crate::Cap`] a service has used up: until when its bytes so far take at its rate,
/// in nanoseconds of the monotonic clock. Key: service u32.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Spent {
    /// Towards its backends.
    pub asked: u64,
    /// From them.
    pub answered: u64,
}

/// A fragmented datagram. Key of `frag`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FragKey {
    /// Source of the packet.
    pub src: Addr,
    /// Destination of the packet.
    pub dst: Addr,
    /// Identification: sixteen bits for IPv4, as in the packet.
    pub id: u32,
    /// VNI or, on an uplink, 0; of a task's own packets, its VNI with the top bit set.
    pub net: u32,
    /// IP protocol.
    pub proto: u32,
}

/// The ports that the first fragment carried.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FragPorts {
    /// Source port.
    pub sport: Be16,
    /// Destination port.
    pub dport: Be16,
}

/// A socket that was led elsewhere. Key of `sk_rev`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct SockKey {
    /// The socket's cookie.
    pub cookie: u64,
    /// Where it was led.
    pub addr: Addr,
    /// Port there.
    pub port: Be16,
    /// Zero.
    pub pad: [u8; 6],
}

/// What the socket asked for.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SockOrigin {
    /// Address asked for.
    pub addr: Addr,
    /// Port asked for.
    pub port: Be16,
    /// IP protocol; 0 as programs of older versions left it, which did not tell.
    pub proto: u8,
    /// Zero.
    pub pad: u8,
}

const _: () = {
    assert!(size_of::<FlowKey>() == 44);
    assert!(size_of::<Flow>() == 128);
    assert!(size_of::<Pick>() == 12);
    assert!(size_of::<StickyKey>() == 20);
    assert!(size_of::<Sticky>() == 16);
    assert!(size_of::<Spent>() == 16);
    assert!(size_of::<FragKey>() == 44);
    assert!(size_of::<FragPorts>() == 4);
    assert!(size_of::<SockKey>() == 32);
    assert!(size_of::<SockOrigin>() == 20);
};
