//! Keys and values written by the agent and read by the programs.

use crate::{Addr, Be16, Mac, NETS_PER_TASK};

/// What a client may address. Looked up as
/// - `{net: 0, addr: ANY, port, proto}`: a published port on every address of this node (needs the
///   destination in `local_addrs` too);
/// - `{net: 0, addr, port, proto}`: a published port on one address; tried first, and only when
///   [`config::LISTEN`] is set;
/// - `{net: 0, addr: CARRIED, port, proto}`: the same port for a packet that another node took in, which
///   alone knows its addresses; tried first, and only when [`config::CARRIED`] is set;
/// - `{net, addr, port: 0, proto: 0}`: a VIP on the network with this VNI, all ports.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct FrontKey {
    /// VNI, or 0 for the mesh.
    pub net: u32,
    /// VIP, one own address, or [`Addr::ANY`].
    pub addr: Addr,
    /// Published port, or 0 for all.
    pub port: Be16,
    /// IP protocol (6, 17), or 0 for all.
    pub proto: u8,
    /// Zero.
    pub pad: u8,
}

impl FrontKey {
    /// Address under which a packet that another node took in looks for its port. Nobody's: of multicast.
    pub const CARRIED: Addr = Addr::from_words([u32::MAX; 4]);

    /// A port published on one address, or on all ([`Addr::ANY`]).
    pub const fn published(addr: Addr, port: Be16, proto: u8) -> Self {
        Self {
            net: 0,
            addr,
            port,
            proto,
            pad: 0,
        }
    }

    /// A VIP on the network with this VNI.
    pub const fn vip(net: u32, addr: Addr) -> Self {
        Self {
            net,
            addr,
            port: Be16::new(0),
            proto: 0,
            pad: 0,
        }
    }
}

/// The service behind a front.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Front {
    /// Key of `rings`, `rings_before` and `services`. One ring per (service, kind of front) that has
    /// its own set of backends: a `mode=host` port needs a ring of its own with local backends only.
    pub service: u32,
    /// See [`front`].
    pub flags: u32,
    /// Port the task listens on; 0 keeps the wire's. Of a range, the first.
    pub port: Be16,
    /// First published port of a range; 0 when it is one port.
    pub base: Be16,
    /// Seconds for which a client stays with its backend after it last opened a flow; 0: each flow chooses.
    pub affinity: u32,
    /// Rises with each change; shown by explain, not read by the programs.
    pub generation: u32,
}

/// Bits of [`Front::flags`].
pub mod front {
    /// `mode=host`: its ring holds only tasks of this node. Informational: the ring decides.
    pub const HOST_MODE: u32 = 1;
    /// Only sources in `allowed` may ask.
    pub const ALLOWED: u32 = 2;
    /// A new TCP connection goes to the less loaded of two backends: see [`crate::Load`].
    pub const LEAST: u32 = 4;
}

impl Front {
    /// Port of the task for one who asked for `asked`.
    #[inline(always)]
    pub const fn target(&self, asked: Be16) -> Be16 {
        if self.port.is_zero() {
            return asked;
        }
        if self.base.is_zero() {
            return self.port;
        }
        let offset = asked.get().wrapping_sub(self.base.get());
        Be16::new(self.port.get().wrapping_add(offset))
    }
}

/// Key of a longest-prefix map, as the kernel wants it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Prefixed<K> {
    /// Bits of `data` that count, from its first byte on.
    pub prefix: u32,
    /// The rest is ignored.
    pub data: K,
}

/// A piece of a published range of ports: in [`Prefixed`], key of the longest-prefix map `front_ranges`, whose value is a
/// [`Front`]. Prefix length is [`RangeKey::WHOLE`] less the bits of the port that may differ.
///
/// Looked up after `front`, at one address and then at [`Addr::ANY`] alike, and only when
/// [`config::RANGES`] is set.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct RangeKey {
    /// One own address, or [`Addr::ANY`].
    pub addr: Addr,
    /// IP protocol.
    pub proto: u8,
    /// Zero.
    pub pad: u8,
    /// First port of the piece.
    pub port: Be16,
}

impl RangeKey {
    /// Prefix length of a single port.
    pub const WHOLE: u32 = 160;
}

/// The fewest pieces that make up the ports from `first` to `last`: each the piece's first port and how many
/// of its low bits may differ. At most 30.
pub fn range_pieces(first: u16, last: u16) -> impl Iterator<Item = (u16, u32)> {
    let mut at = first as u32;
    let end = last as u32 + 1;
    core::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let aligned = if at == 0 { 16 } else { at.trailing_zeros() };
        let bits = aligned.min((end - at).ilog2());
        let piece = (at as u16, bits);
        at += 1 << bits;
        Some(piece)
    })
}

/// A source that may ask a service: in [`Prefixed`], key of the longest-prefix map `allowed`, whose value is a u32 (any).
///
/// Prefix length is 32 and that of the address over sixteen bytes: an IPv4 /24 is 32 + 96 + 24.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct AllowKey {
    /// Key of `services`.
    pub service: u32,
    /// The prefix; bits beyond the length are ignored.
    pub addr: Addr,
}

impl AllowKey {
    /// Prefix length of a single source.
    pub const WHOLE: u32 = 160;
}

/// What a service's backends on this node may receive, and send, together. Key: service u32.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cap {
    /// Bytes a second, each way, counted from the Ethernet header on; 0 is no limit.
    pub rate: u64,
    /// Bytes that may come at once after a rest.
    pub burst: u64,
}

/// One task's attachment to one network, anywhere in the cluster, as a target.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Backend {
    /// IPv4 address on `net`, or `::`.
    pub addr4: Addr,
    /// IPv6 address on `net`, or `::`.
    pub addr6: Addr,
    /// Node that runs it.
    pub node: u32,
    /// VNI it is attached to.
    pub net: u32,
    /// See [`backend`].
    pub flags: u32,
}

/// Bits of [`Backend::flags`].
pub mod backend {
    /// Leaving: keeps its TCP flows, gets no new ones; its UDP flows choose again.
    pub const DRAINING: u32 = 1;
    /// Must not be chosen even if a ring still names it.
    pub const DOWN: u32 = 2;
}

/// A host of the cluster.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Node {
    /// Where its VXLAN packets go: the outer destination. IPv4 or IPv6, one family per cluster.
    pub underlay: Addr,
    /// Its address inside the encrypted underlay ([`crate::Addr::is_ciphered`]), or `::` when it has no key:
    /// outer destination of packets of networks in `ciphered`.
    pub encrypted: Addr,
    /// See [`node`].
    pub flags: u32,
    /// Longest IP packet that the tunnel carries to it, in bytes; 0 when not known. Who sends a longer one that
    /// must not be cut is told.
    pub mtu: u32,
    /// The same inside the encrypted underlay.
    pub mtu_encrypted: u32,
}

/// Bits of [`Node::flags`].
pub mod node {
    /// Does not answer: rings skip its backends, answers to it go to `owner`.
    pub const DEAD: u32 = 1;
}

/// What an address of a host means. Key of the map: [`Addr`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NodeAddr {
    /// The host.
    pub node: u32,
    /// See [`node_addr`].
    pub flags: u32,
}

/// Bits of [`NodeAddr::flags`].
pub mod node_addr {
    /// Tunnelled packets may come from this address.
    pub const UNDERLAY: u32 = 1;
    /// The host's own stack answers on it: tasks' packets to it are tunnelled there, and its processes
    /// may send from it to tasks.
    pub const HOST: u32 = 2;
    /// Tunnelled packets may come from this address, and were decrypted on their way: it is inside the
    /// encrypted underlay, never on a link to the world.
    pub const CIPHERED: u32 = 4;
}

/// An address on a network: key of `tasks`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct NetAddr {
    /// VNI.
    pub net: u32,
    /// The address.
    pub addr: Addr,
}

/// Where an address of a network lives.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Task {
    /// Backend id of the attachment: names its MAC.
    pub id: u32,
    /// Node that runs it.
    pub node: u32,
    /// Host side veth's index when it runs here, else 0.
    pub ifindex: u32,
}

/// One local task's interface. Value of both `endpoints` (by host side ifindex) and `local_tasks` (by
/// backend id).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Endpoint {
    /// Backend id; 0 for an interface that only leads to the world (egress pool).
    pub id: u32,
    /// Index of the host side veth, in the host's own namespace.
    pub ifindex: u32,
    /// VNI; 0 for an interface that only leads to the world.
    pub net: u32,
    /// See [`endpoint`].
    pub flags: u32,
    /// The only IPv4 address it may send from, or `::`.
    pub addr4: Addr,
    /// The only IPv6 address it may send from besides link-local neighbour discovery, or `::`.
    pub addr6: Addr,
    /// The interface's own address; [`crate::task_mac`] of `id` unless that is 0.
    pub mac: Mac,
    /// Zero.
    pub pad: [u8; 2],
}

/// Bits of [`Endpoint::flags`].
pub mod endpoint {
    /// The network is internal: nothing but its own tasks and VIPs is reachable.
    pub const INTERNAL: u32 = 1;
}

/// A prefix of an overlay network: key of the longest-prefix map `subnets`, whose value is the VNI (u32).
///
/// aya's `lpm_trie::Key::new(prefix_len, Addr)` has this layout.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SubnetKey {
    /// Length over the sixteen bytes: an IPv4 /24 is 96 + 24.
    pub prefix: u32,
    /// The prefix; bits beyond the length are ignored.
    pub addr: Addr,
}

/// What the processes of a network namespace may be helped with. Key: the namespace's cookie (u64).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Netns {
    /// See [`netns`].
    pub flags: u32,
    /// How many of `nets` count.
    pub count: u32,
    /// VNIs whose VIPs its processes may use.
    pub nets: [u32; NETS_PER_TASK],
}

/// Bits of [`Netns::flags`].
pub mod netns {
    /// The host's own namespace: published ports at loopback and own addresses.
    pub const HOST: u32 = 1;
}

/// What the programs must know before any packet. One entry, key 0.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Config {
    /// Seed of [`crate::ring_hash`]; the same on every node of the cluster.
    pub seed: u64,
    /// This node's id; never 0.
    pub node: u32,
    /// VNI of the ingress network, on which the mesh travels; 0 while there is none.
    pub mesh: u32,
    /// Index of the VXLAN device.
    pub overlay: u32,
    /// Index of the interface through which clients are answered when nothing better is known.
    pub uplink: u32,
    /// See [`config`].
    pub flags: u32,
    /// UDP port of the VXLAN device.
    pub vxlan_port: Be16,
    /// Zero.
    pub pad: u16,
    /// Outer source of this node's VXLAN packets: the data path address.
    pub underlay: Addr,
}

/// Bits of [`Config::flags`].
pub mod config {
    /// The kernel takes `BPF_F_IPV6` in `bpf_l4_csum_replace`; the agent probes it.
    pub const CSUM_IPV6: u32 = 1;
    /// Put a checksum into the outer UDP header over IPv4 too.
    pub const OUTER_CSUM: u32 = 2;
    /// Some front names one own address: look for it first.
    pub const LISTEN: u32 = 4;
    /// Counted, not shown: no samples go to `events`.
    pub const QUIET: u32 = 8;
    /// Some network must be encrypted: look into `ciphered`.
    pub const CIPHERED: u32 = 16;
    /// Some range of ports is published: look into `front_ranges`.
    pub const RANGES: u32 = 32;
    /// Some service has a [`crate::Cap`]: look into `caps`.
    pub const CAPS: u32 = 64;
    /// Each front that names one own address has one at [`crate::FrontKey::CARRIED`] beside it. With [`LISTEN`]
    /// alone, as an older agent left it, packets that another node took in are looked up by their address.
    pub const CARRIED: u32 = 128;
}

/// What happened to a service on this node. Value of `services`, per CPU; the agent creates the entry.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ServiceCount {
    /// Flows begun at a backend of this node.
    pub flows: u64,
    /// Flows whose client port had to be changed.
    pub remapped: u64,
    /// Packets for which there was no backend.
    pub no_backend: u64,
    /// Segments after which a flow should have moved to the table that never evicts, which was full.
    pub unpromoted: u64,
}

const _: () = {
    assert!(size_of::<FrontKey>() == 24);
    assert!(size_of::<Front>() == 20);
    assert!(size_of::<Backend>() == 44);
    assert!(size_of::<Node>() == 44);
    assert!(size_of::<NodeAddr>() == 8);
    assert!(size_of::<NetAddr>() == 20);
    assert!(size_of::<Task>() == 12);
    assert!(size_of::<Endpoint>() == 56);
    assert!(size_of::<SubnetKey>() == 20);
    assert!(size_of::<Netns>() == 72);
    assert!(size_of::<Config>() == 48);
    assert!(size_of::<ServiceCount>() == 32);
    assert!(size_of::<Prefixed<RangeKey>>() == 24);
    assert!(size_of::<Prefixed<AllowKey>>() == 24);
    assert!(size_of::<Cap>() == 16);
};
