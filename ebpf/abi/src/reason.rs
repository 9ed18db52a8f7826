//! Why a packet went where it went, and how it is counted. There is no reason called "unknown".

use crate::{Addr, Be16};

/// The program that decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Program {
    /// Ingress of a link to the world.
    UplinkIn = 0,
    /// Ingress of the VXLAN device.
    OverlayIn = 1,
    /// Egress of the VXLAN device.
    HostOut = 2,
    /// Host side of a task's interface.
    TaskIn = 3,
    /// Socket hooks.
    Sock = 4,
}

impl Program {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; PROGRAMS as usize] = [
        Self::UplinkIn,
        Self::OverlayIn,
        Self::HostOut,
        Self::TaskIn,
        Self::Sock,
    ];

    /// Its name in the object file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UplinkIn => "uplink_in",
            Self::OverlayIn => "overlay_in",
            Self::HostOut => "host_out",
            Self::TaskIn => "task_in",
            Self::Sock => "sock",
        }
    }
}

/// Number of [`Program`]s.
pub const PROGRAMS: u32 = 5;

macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $n:literal, $text:literal;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum $name { $($(#[$vmeta])* #[doc = $text] $variant = $n,)* }

        impl $name {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// One sentence fragment for people.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The one with this number.
            pub const fn from_u8(n: u8) -> Option<Self> {
                match n { $($n => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

reasons! {
    /// Where a packet that was not dropped went. Numbers are below 64.
    Done {
        NotOurs = 0, "not ours: left to the host's stack";
        ToTask = 1, "delivered to a local task";
        ToTaskTranslated = 2, "translated and delivered to a local task";
        ToNode = 3, "tunnelled to the task's node";
        ToBackendNode = 4, "tunnelled to the chosen backend's node";
        SecondChance = 5, "tunnelled on to the backend of the previous ring";
        AnswerToClient = 6, "answer sent to the client through this node's link";
        AnswerToNode = 7, "answer tunnelled to the node the client came in by";
        AnswerToTask = 8, "answer delivered to a local task";
        ToHost = 9, "passed to this node's own stack";
        ToWorld = 10, "passed to this node's stack towards the world";
        Answered = 11, "neighbour or echo request answered";
        IcmpTranslated = 12, "ICMP error translated and passed on";
        SocketLed = 13, "socket led to a backend";
        SocketRestored = 14, "socket shown the address it asked for";
        Refused = 15, "no backend: refused at once";
        TooBigTold = 16, "too long for the tunnel: its sender was told what fits";
        HostsOwn = 17, "left to a process of this host, whose connection it is";
    }
}

reasons! {
    /// Why a packet was dropped. Numbers are from 64 to 127.
    Drop {
        Malformed = 64, "header cut short or inconsistent";
        UnsupportedExtension = 65, "IPv6 extension headers deeper than we walk";
        NotANode = 66, "tunnelled packet from an address that is no node";
        OverlaySource = 67, "source inside an overlay network, on an uplink";
        OverlayDestination = 68, "destination inside an overlay network, on an uplink";
        NoBackend = 69, "service has no backend that can be chosen";
        NoAddress = 70, "backend has no address of this family";
        NoSuchNode = 71, "backend's node is not known";
        NoSuchTask = 72, "no task with this address on the network";
        WrongNetwork = 73, "tunnelled on another network than the task's";
        Isolated = 74, "destination on a network the task is not attached to";
        Internal = 75, "network is internal";
        SpoofedMac = 76, "task sent from a hardware address not its own";
        SpoofedAddress = 77, "task sent from an address not its own";
        ForgedSource = 78, "tunnelled source is neither a task of the network nor a node";
        BadLeg = 79, "inner header names no leg we know";
        NotPublished = 80, "answer from an address and port that publish nothing";
        NoFront = 81, "no service at this address and port on the backend's node";
        FlowTableFull = 82, "no room for a new flow";
        NoFreePort = 83, "all tries to find a free client port collided";
        FragmentLost = 84, "fragment without its first part";
        Multicast = 85, "multicast and broadcast do not cross the overlay";
        AddressProbe = 86, "probe for an address, never answered";
        Forwarded = 87, "packet from elsewhere routed into the overlay";
        UnknownEndpoint = 88, "interface of no known task";
        UnsupportedEther = 89, "Ethernet type that tasks may not send";
        NoUplink = 90, "no interface towards the client";
        TunnelRefused = 91, "kernel refused the tunnel key";
        RewriteRefused = 92, "kernel refused to change the packet";
        NoConfig = 93, "node not configured yet";
        UnsupportedIcmp = 94, "ICMP message that the service path does not carry";
        TinyFragment = 95, "fragment too small to hold its transport header, or that would overwrite it";
        DeadIngress = 96, "ingress node is dead and nobody took its address over";
        ClearRefused = 97, "network is encrypted and the packet came in clear";
        NoCipher = 98, "network is encrypted and the node has no key";
        TunnelForged = 99, "datagram for a node's tunnel port from one who is no node";
        TooBig = 100, "too long for the tunnel, and its sender could not be told";
        NotAllowed = 101, "source is not on the service's allow list";
        OverCap = 102, "over the service's bandwidth cap";
        PortTaken = 103, "process of the host may not bind a published port";
    }
}

/// Counters per program.
pub const SLOTS: u32 = 128;

/// Entries of the per-CPU array `counters`.
pub const COUNTERS: u32 = PROGRAMS * SLOTS;

/// Index into `counters` for a program and the number of a [`Done`] or [`Drop`].
#[inline(always)]
pub const fn counter_index(program: Program, reason: u8) -> u32 {
    program as u32 * SLOTS + (reason & 127) as u32
}

/// Exact count of one reason in one program; one per CPU.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counter {
    /// Packets (of a large segment: one).
    pub packets: u64,
    /// Bytes from the Ethernet header on.
    pub bytes: u64,
}

/// A sample in the ring buffer `events`: at most about ten a second per program and reason.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Event {
    /// Nanoseconds of the monotonic clock.
    pub at: u64,
    /// Source of the packet; of the outer packet for [`Drop::NotANode`].
    pub src: Addr,
    /// Destination of the packet.
    pub dst: Addr,
    /// VNI, or 0.
    pub net: u32,
    /// Interface the program ran on.
    pub ifindex: u32,
    /// Length from the Ethernet header on.
    pub len: u32,
    /// Source port, or 0.
    pub sport: Be16,
    /// Destination port, or 0.
    pub dport: Be16,
    /// See [`event`].
    pub kind: u8,
    /// Number of the [`Program`].
    pub program: u8,
    /// Number of the [`Drop`] or [`Done`].
    pub reason: u8,
    /// IP protocol, or 0.
    pub proto: u8,
    /// Zero.
    pub pad: [u8; 4],
}

/// Kinds of [`Event`].
pub mod event {
    /// A packet was dropped.
    pub const DROP: u8 = 1;
}

const _: () = {
    assert!(size_of::<Counter>() == 16);
    assert!(size_of::<Event>() == 64);
    assert!(COUNTERS == 640);
};
