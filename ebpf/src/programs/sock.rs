//! Socket hooks: a choice once per socket instead of once per packet.
//!
//! The programs of every agent on this kernel see every socket; one that is not of a namespace in our
//! `netns` map is none of our business.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::{
    bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_set_retval,
};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use weft_abi::{Addr, Be16, Counter, Done, Drop, Program, SockKey, SockOrigin, counter_index};
use weft_ebpf::socket::{Request, lead, may_bind};
use weft_ebpf::tables::Tables;

use crate::maps::{COUNTERS, NETNS, SK_REV};
use crate::tables::Maps;

const GO: i32 = 1;
const REFUSE: i32 = 0;
const CONNECTION_REFUSED: i32 = -111;
const ADDRESS_IN_USE: i32 = -98;

#[inline(always)]
fn tell(reason: u8) {
    if let Some(counter) = COUNTERS.get_ptr_mut(counter_index(Program::Sock, reason)) {
        // SAFETY: this CPU's own element.
        unsafe {
            *counter = Counter {
                packets: (*counter).packets + 1,
                bytes: 0,
            }
        };
    }
}

#[inline(always)]
fn asked(ctx: *mut bpf_sock_addr, v6: bool) -> (Addr, Be16) {
    // SAFETY: the context pointer is valid during the program; the verifier checks each field's use.
    unsafe {
        let port = Be16::from_raw((*ctx).user_port as u16);
        if v6 {
            let a = [
                core::ptr::read_volatile(&raw const (*ctx).user_ip6[0]),
                core::ptr::read_volatile(&raw const (*ctx).user_ip6[1]),
                core::ptr::read_volatile(&raw const (*ctx).user_ip6[2]),
                core::ptr::read_volatile(&raw const (*ctx).user_ip6[3]),
            ];
            (Addr::from_words(a), port)
        } else {
            (Addr::from_v4_word((*ctx).user_ip4), port)
        }
    }
}

#[inline(always)]
fn change(ctx: *mut bpf_sock_addr, v6: bool, addr: &Addr, port: Be16) {
    // SAFETY: as in `asked`; written word by word, as the verifier wants.
    unsafe {
        if v6 {
            let w = addr.words();
            core::ptr::write_volatile(&raw mut (*ctx).user_ip6[0], w[0]);
            core::ptr::write_volatile(&raw mut (*ctx).user_ip6[1], w[1]);
            core::ptr::write_volatile(&raw mut (*ctx).user_ip6[2], w[2]);
            core::ptr::write_volatile(&raw mut (*ctx).user_ip6[3], w[3]);
        } else {
            (*ctx).user_ip4 = addr.v4_word();
        }
        (*ctx).user_port = port.raw() as u32;
    }
}

/// The address the socket is bound to.
#[inline(always)]
fn bound(ctx: *mut bpf_sock_addr, v6: bool) -> Addr {
    // SAFETY: as in `asked`; the socket may be absent, and is checked.
    unsafe {
        let sk = (*ctx).__bindgen_anon_1.sk;
        if sk.is_null() {
            return Addr::ANY;
        }
        if v6 {
            let a = [
                core::ptr::read_volatile(&raw const (*sk).src_ip6[0]),
                core::ptr::read_volatile(&raw const (*sk).src_ip6[1]),
                core::ptr::read_volatile(&raw const (*sk).src_ip6[2]),
                core::ptr::read_volatile(&raw const (*sk).src_ip6[3]),
            ];
            Addr::from_words(a)
        } else {
            Addr::from_v4_word((*sk).src_ip4)
        }
    }
}

#[inline(always)]
fn outward(ctx: &SockAddrContext, v6: bool) -> i32 {
    let raw = ctx.sock_addr;
    let maps = Maps { dry: false };
    let Some(cfg) = maps.config() else { return GO };
    // SAFETY: valid context.
    let namespace = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    let Some(ns) = NETNS.get_ptr(&namespace) else {
        return GO;
    };
    // SAFETY: from a lookup of this run.
    let ns = unsafe { &*ns };
    let (addr, port) = asked(raw, v6);
    // SAFETY: valid context.
    let (cookie, proto) = unsafe { (bpf_get_socket_cookie(ctx.as_ptr()), (*raw).protocol as u8) };
    let request = Request {
        cookie,
        namespace,
        // SAFETY: takes nothing.
        now: unsafe { bpf_ktime_get_ns() },
        bound: bound(raw, v6),
        addr,
        port,
        proto,
        v6,
    };
    match lead(&maps, cfg, ns, &request) {
        Ok(None) => GO,
        Ok(Some((to, to_port))) => {
            let key = SockKey {
                cookie,
                addr: to,
                port: to_port,
                pad: [0; 6],
            };
            let origin = SockOrigin {
                addr,
                port,
                proto,
                pad: 0,
            };
            let _ = SK_REV.insert(&key, &origin, 0);
            change(raw, v6, &to, to_port);
            tell(Done::SocketLed as u8);
            GO
        }
        Err(reason) => {
            tell(reason as u8);
            // SAFETY: takes a plain number.
            unsafe { bpf_set_retval(CONNECTION_REFUSED) };
            REFUSE
        }
    }
}

#[inline(always)]
fn inward(ctx: &SockAddrContext, v6: bool) -> i32 {
    let raw = ctx.sock_addr;
    // SAFETY: valid context.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    if NETNS.get_ptr(&cookie).is_none() {
        return GO;
    }
    let (addr, port) = asked(raw, v6);
    // SAFETY: valid context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let key = SockKey {
        cookie,
        addr,
        port,
        pad: [0; 6],
    };
    if let Some(origin) = SK_REV.get_ptr(&key) {
        // SAFETY: from a lookup of this run.
        let origin = unsafe { *origin };
        change(raw, v6, &origin.addr, origin.port);
        tell(Done::SocketRestored as u8);
    }
    GO
}

#[inline(always)]
fn binds(ctx: &SockAddrContext, v6: bool) -> i32 {
    let maps = Maps { dry: false };
    let Some(cfg) = maps.config() else { return GO };
    // SAFETY: valid context.
    let namespace = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    let Some(ns) = NETNS.get_ptr(&namespace) else {
        return GO;
    };
    // SAFETY: from a lookup of this run.
    let ns = unsafe { &*ns };
    let (addr, port) = asked(ctx.sock_addr, v6);
    let request = Request {
        cookie: 0,
        namespace,
        now: 0,
        bound: Addr::ANY,
        addr,
        port,
        // SAFETY: valid context.
        proto: unsafe { (*ctx.sock_addr).protocol as u8 },
        v6,
    };
    if may_bind(&maps, cfg, ns, &request) {
        return GO;
    }
    tell(Drop::PortTaken as u8);
    // SAFETY: takes a plain number.
    unsafe { bpf_set_retval(ADDRESS_IN_USE) };
    REFUSE
}

#[cgroup_sock_addr(bind4)]
pub fn bind4(ctx: SockAddrContext) -> i32 {
    binds(&ctx, false)
}

#[cgroup_sock_addr(bind6)]
pub fn bind6(ctx: SockAddrContext) -> i32 {
    binds(&ctx, true)
}

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    outward(&ctx, false)
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    outward(&ctx, true)
}

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    outward(&ctx, false)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    outward(&ctx, true)
}

#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    inward(&ctx, false)
}

#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    inward(&ctx, true)
}

#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    inward(&ctx, false)
}

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    inward(&ctx, true)
}
