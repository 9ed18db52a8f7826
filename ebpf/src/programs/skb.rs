//! [`Packet`] over a socket buffer.
//!
//! Everything is read and written by helpers that take offsets: no pointer into the packet is ever
//! held, so nothing here depends on how the buffer is laid out.

use core::mem::{MaybeUninit, zeroed};

use aya_ebpf::bindings::{
    __sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_TUNINFO_IPV6, BPF_F_ZERO_CSUM_TX,
    BPF_FIB_LOOKUP_SKIP_NEIGH, bpf_fib_lookup as fib, bpf_sock_tuple, bpf_tunnel_key,
};
use aya_ebpf::helpers::{
    bpf_csum_diff, bpf_fib_lookup, bpf_ktime_get_ns, bpf_l3_csum_replace, bpf_l4_csum_replace,
    bpf_sk_lookup_udp, bpf_sk_release, bpf_skb_change_head, bpf_skb_change_tail,
    bpf_skb_change_type, bpf_skb_get_tunnel_key, bpf_skb_load_bytes, bpf_skb_set_tunnel_key,
    bpf_skb_store_bytes, bpf_skc_lookup_tcp,
};
use weft_abi::{Addr, Config, DRY_RUN, REHEARSAL, config};
use weft_ebpf::packet::{Packet, Sum, Tunnel};
use weft_ebpf::translate::Tuple;
use weft_ebpf::work::Paper;

/// Kernels since 6.16: adjust a sum over an IPv6 packet rightly when the device made it.
const BPF_F_IPV6: u64 = 1 << 7;
const PACKET_HOST: u32 = 0;
/// The namespace of the interface.
const THIS_NAMESPACE: u64 = -1i32 as u32 as u64;
/// State of a TCP socket that listens.
const LISTEN: u32 = 10;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const TTL: u8 = 64;

/// A socket buffer.
pub struct Skb {
    raw: *mut __sk_buff,
    sum6: u64,
    note: u32,
}

impl Skb {
    /// Wraps the buffer a program was called with.
    #[inline(always)]
    pub fn new(raw: *mut __sk_buff, cfg: Option<&Config>) -> Self {
        let sum6 = match cfg {
            Some(cfg) if cfg.flags & config::CSUM_IPV6 != 0 => BPF_F_IPV6,
            _ => 0,
        };
        // SAFETY: the context pointer is valid during the program.
        let note = unsafe { (*raw).cb[0] };
        Self { raw, sum6, note }
    }

    /// Whether this is a test run that changes no map.
    #[inline(always)]
    pub fn is_dry(&self) -> bool {
        self.note == DRY_RUN
    }

    /// Whether this is a test run of either kind.
    #[inline(always)]
    fn is_test(&self) -> bool {
        self.note == DRY_RUN || self.note == REHEARSAL
    }

    /// Tells a test run what was decided.
    #[inline(always)]
    pub fn tell(&self, reason: u8, place: u32, vni: u32) {
        if self.is_test() {
            // SAFETY: the context pointer is valid during the program, and these words are ours to write.
            // Volatile, so that each is one store at a constant offset, as the verifier wants.
            unsafe {
                core::ptr::write_volatile(&raw mut (*self.raw).cb[1], reason as u32);
                core::ptr::write_volatile(&raw mut (*self.raw).cb[2], place);
                core::ptr::write_volatile(&raw mut (*self.raw).cb[3], vni);
            }
        }
    }

    /// Loads bytes straight into memory that the caller has, of which the verifier knows the size.
    ///
    /// # Safety
    /// `to` must be valid for `len` bytes.
    #[inline(always)]
    pub unsafe fn load_into(&self, at: u32, to: *mut u8, len: u32) -> bool {
        // SAFETY: the caller answers for `to`.
        unsafe { bpf_skb_load_bytes(self.raw.cast(), at, to.cast(), len) == 0 }
    }

    /// Sets the outer header that the VXLAN device will write.
    #[inline(always)]
    pub fn set_tunnel(&self, tunnel: &Tunnel, cfg: &Config) -> bool {
        // SAFETY: a plain structure of integers.
        let mut key: bpf_tunnel_key = unsafe { zeroed() };
        key.tunnel_id = tunnel.vni;
        key.tunnel_ttl = TTL;
        let flags = if tunnel.remote.is_v4() {
            // The helper wants host order here, and network order everywhere else.
            key.__bindgen_anon_1.remote_ipv4 = u32::from_be(tunnel.remote.v4_word());
            // Inside the encrypted underlay, the route knows this node's own address.
            if !tunnel.remote.is_ciphered() {
                key.__bindgen_anon_3.local_ipv4 = u32::from_be(cfg.underlay.v4_word());
            }
            if cfg.flags & config::OUTER_CSUM != 0 {
                0
            } else {
                BPF_F_ZERO_CSUM_TX as u64
            }
        } else {
            key.__bindgen_anon_1.remote_ipv6 = tunnel.remote.words();
            key.__bindgen_anon_3.local_ipv6 = cfg.underlay.words();
            BPF_F_TUNINFO_IPV6 as u64
        };
        // SAFETY: valid context, key of the size given.
        unsafe {
            bpf_skb_set_tunnel_key(
                self.raw,
                &mut key,
                size_of::<bpf_tunnel_key>() as u32,
                flags,
            ) == 0
        }
    }
}

impl Packet for Skb {
    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: the context pointer is valid during the program.
        unsafe { (*self.raw).len }
    }

    #[inline(always)]
    fn segment(&self) -> u32 {
        // SAFETY: the context pointer is valid during the program.
        unsafe { (*self.raw).gso_size }
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the context pointer is valid during the program.
        unsafe { (*self.raw).ifindex }
    }

    #[inline(always)]
    fn is_for_host(&self) -> bool {
        // SAFETY: the context pointer is valid during the program.
        unsafe { (*self.raw).pkt_type == PACKET_HOST }
    }

    #[inline(always)]
    fn is_received(&self) -> bool {
        // SAFETY: the context pointer is valid during the program.
        unsafe { (*self.raw).ingress_ifindex != 0 }
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: takes nothing.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: room for N bytes, all written when the helper answers 0.
        unsafe {
            if bpf_skb_load_bytes(self.raw.cast(), at, bytes.as_mut_ptr().cast(), N as u32) != 0 {
                return None;
            }
            Some(bytes.assume_init())
        }
    }

    #[inline(always)]
    fn load_to<const N: usize>(&self, at: u32, to: &mut [u8; N]) -> bool {
        // SAFETY: room for N bytes.
        unsafe { bpf_skb_load_bytes(self.raw.cast(), at, to.as_mut_ptr().cast(), N as u32) == 0 }
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, at: u32, bytes: &[u8; N]) -> bool {
        // SAFETY: N bytes to read.
        unsafe { bpf_skb_store_bytes(self.raw, at, bytes.as_ptr().cast(), N as u32, 0) == 0 }
    }

    #[inline(always)]
    fn sum_ip(&mut self, at: u32, from: u32, to: u32) -> bool {
        // SAFETY: valid context.
        unsafe { bpf_l3_csum_replace(self.raw, at, from as u64, to as u64, 4) == 0 }
    }

    #[inline(always)]
    fn sum_transport(&mut self, at: u32, from: u32, to: u32, what: Sum, udp: bool) -> bool {
        let flags = match what {
            Sum::Word16 => 2,
            Sum::Pseudo4 => BPF_F_PSEUDO_HDR as u64 | 4,
            Sum::Payload => 0,
            Sum::Pseudo6 => BPF_F_PSEUDO_HDR as u64 | self.sum6,
        };
        let flags = if udp {
            flags | BPF_F_MARK_MANGLED_0 as u64
        } else {
            flags
        };
        // SAFETY: valid context.
        unsafe { bpf_l4_csum_replace(self.raw, at, from as u64, to as u64, flags) == 0 }
    }

    #[inline(always)]
    fn difference(from: &[u32; 4], to: &[u32; 4]) -> u32 {
        // SAFETY: sixteen bytes each, only read.
        unsafe { bpf_csum_diff(from.as_ptr().cast_mut(), 16, to.as_ptr().cast_mut(), 16, 0) as u32 }
    }

    #[inline(always)]
    fn sum<const N: usize>(bytes: &[u8; N]) -> u16 {
        // SAFETY: N bytes, only read; no first string.
        let sum = unsafe {
            bpf_csum_diff(
                core::ptr::null_mut(),
                0,
                bytes.as_ptr().cast_mut().cast(),
                N as u32,
                0,
            ) as u32
        };
        let folded = (sum & 0xffff) + (sum >> 16);
        ((folded & 0xffff) + (folded >> 16)) as u16
    }

    #[inline(always)]
    fn set_len(&mut self, len: u32) -> bool {
        // SAFETY: valid context.
        unsafe { bpf_skb_change_tail(self.raw, len, 0) == 0 }
    }

    #[inline(always)]
    fn grow_head(&mut self, by: u32) -> bool {
        // SAFETY: valid context.
        unsafe { bpf_skb_change_head(self.raw, by, 0) == 0 }
    }

    #[inline(always)]
    fn claim(&mut self) {
        // SAFETY: valid context.
        let _ = unsafe { bpf_skb_change_type(self.raw, PACKET_HOST) };
    }

    #[inline(always)]
    fn tunnel(&self) -> Option<Tunnel> {
        // SAFETY: a plain structure of integers, of the size given; the helper fails when the family differs.
        unsafe {
            let mut key: bpf_tunnel_key = zeroed();
            let size = size_of::<bpf_tunnel_key>() as u32;
            if bpf_skb_get_tunnel_key(self.raw, &mut key, size, 0) == 0 {
                let remote = Addr::from_v4_word(key.__bindgen_anon_1.remote_ipv4.to_be());
                return Some(Tunnel {
                    vni: key.tunnel_id,
                    remote,
                });
            }
            if bpf_skb_get_tunnel_key(self.raw, &mut key, size, BPF_F_TUNINFO_IPV6 as u64) == 0 {
                let remote = Addr::from_words(key.__bindgen_anon_1.remote_ipv6);
                return Some(Tunnel {
                    vni: key.tunnel_id,
                    remote,
                });
            }
            if self.is_test() {
                // Volatile, or these loads are merged with those of the key, through a computed address.
                let remote = core::ptr::read_volatile(&raw const (*self.raw).cb[2]);
                let vni = core::ptr::read_volatile(&raw const (*self.raw).cb[1]);
                if remote != 0 {
                    return Some(Tunnel {
                        vni,
                        remote: Addr::from_v4_word(remote),
                    });
                }
            }
        }
        None
    }

    #[inline(always)]
    fn is_connected(&self, ends: &Tuple, tcp: bool, paper: &mut Paper) -> bool {
        let ports = ends.sport.raw() as u32 | (ends.dport.raw() as u32) << 16;
        let (src, dst) = (ends.src.words(), ends.dst.words());
        let v4 = ends.dst.is_v4();
        // The kernel tells the families apart by length.
        paper.words = if v4 {
            [src[3], dst[3], ports, 0, 0, 0, 0, 0, 0]
        } else {
            [
                src[0], src[1], src[2], src[3], dst[0], dst[1], dst[2], dst[3], ports,
            ]
        };
        paper.number.set(if v4 { 0 } else { 1 });
        let length = 12 + (paper.number.get() & 1) * 24;
        let tuple = (&raw mut paper.words).cast::<bpf_sock_tuple>();
        // SAFETY: the tuple has room for the longer form; a socket is used before it is let go, once. The two kinds
        // are read in different words, for one load may not serve both.
        unsafe {
            let raw = self.raw.cast();
            paper.number.set(0);
            if tcp {
                let socket = bpf_skc_lookup_tcp(raw, tuple, length, THIS_NAMESPACE, 0);
                if !socket.is_null() {
                    let state = core::ptr::read_volatile(&raw const (*socket).state);
                    paper.number.set((state != LISTEN) as u32);
                    bpf_sk_release(socket.cast());
                }
            } else {
                let socket = bpf_sk_lookup_udp(raw, tuple, length, THIS_NAMESPACE, 0);
                if !socket.is_null() {
                    let port = core::ptr::read_volatile(&raw const (*socket).dst_port);
                    paper.number.set(port as u32);
                    bpf_sk_release(socket.cast());
                }
            }
        }
        paper.number.get() != 0
    }

    #[inline(always)]
    fn route(&self, src: &Addr, dst: &Addr) -> Option<u32> {
        // SAFETY: a plain structure of integers and unions of such, of the size given.
        unsafe {
            let mut params: fib = zeroed();
            params.ifindex = self.ifindex();
            if dst.is_v4() {
                params.family = AF_INET;
                params.__bindgen_anon_3.ipv4_src = src.v4_word();
                params.__bindgen_anon_4.ipv4_dst = dst.v4_word();
            } else {
                params.family = AF_INET6;
                params.__bindgen_anon_3.ipv6_src = src.words();
                params.__bindgen_anon_4.ipv6_dst = dst.words();
            }
            let answer = bpf_fib_lookup(
                self.raw.cast(),
                &mut params,
                size_of::<fib>() as i32,
                BPF_FIB_LOOKUP_SKIP_NEIGH,
            );
            if answer == 0 {
                Some(params.ifindex)
            } else {
                None
            }
        }
    }
}
