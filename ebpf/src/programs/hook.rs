//! From a verdict to what the kernel does, counted.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::BPF_F_INGRESS;
use aya_ebpf::helpers::{bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer};
use aya_ebpf::programs::TcContext;
use weft_abi::{Addr, Drop, Event, Program, config, counter_index, event};
use weft_ebpf::packet::Packet;
use weft_ebpf::tables::Tables;
use weft_ebpf::verdict::Verdict;
use weft_ebpf::work::Work;

use crate::maps::{COUNTERS, EVENTS, SAMPLED, WORK};
use crate::skb::Skb;
use crate::tables::Maps;

/// On to the next program of the chain. `TC_ACT_OK` would end it.
pub const TCX_NEXT: i32 = -1;
const TCX_DROP: i32 = 2;
/// Nanoseconds between two samples of one reason.
const SAMPLE_EVERY: u64 = 100_000_000;

/// What a hook judges with.
#[inline(always)]
pub fn begin(ctx: &TcContext) -> Option<(Skb, Maps, &'static mut Work)> {
    let raw = ctx.as_ptr().cast();
    let maps = Maps { dry: false };
    let skb = Skb::new(raw, maps.config());
    let maps = Maps { dry: skb.is_dry() };
    let work = WORK.get_ptr_mut(0)?;
    // SAFETY: this CPU's own, and no hook runs inside another; nothing is read that this run did not write.
    Some((skb, maps, unsafe { &mut *work }))
}

/// Does what was judged.
#[inline(always)]
pub fn finish(skb: &Skb, maps: &Maps, program: Program, verdict: Verdict) -> i32 {
    // SAFETY: the redirect helpers take plain numbers; a null next hop means "by the routes".
    unsafe {
        let (done, code, place, vni) = match verdict {
            Verdict::Next(done) => (done, TCX_NEXT, 0, 0),
            Verdict::Peer(link, done) => (done, bpf_redirect_peer(link, 0) as i32, link, 0),
            Verdict::Neighbour(link, done) => (
                done,
                bpf_redirect_neigh(link, core::ptr::null_mut(), 0, 0) as i32,
                link,
                0,
            ),
            Verdict::Out(link, done) => (done, bpf_redirect(link, 0) as i32, link, 0),
            Verdict::In(link, done) => (
                done,
                bpf_redirect(link, BPF_F_INGRESS as u64) as i32,
                link,
                0,
            ),
            Verdict::Tunnel(tunnel, done) => {
                let Some(cfg) = maps.config() else {
                    return refuse(skb, maps, program, Drop::NoConfig);
                };
                if !skb.set_tunnel(&tunnel, cfg) {
                    return refuse(skb, maps, program, Drop::TunnelRefused);
                }
                (
                    done,
                    bpf_redirect(cfg.overlay, 0) as i32,
                    tunnel.remote.v4_word(),
                    tunnel.vni,
                )
            }
            Verdict::Encap(tunnel, done) => {
                let Some(cfg) = maps.config() else {
                    return refuse(skb, maps, program, Drop::NoConfig);
                };
                if !skb.set_tunnel(&tunnel, cfg) {
                    return refuse(skb, maps, program, Drop::TunnelRefused);
                }
                (done, TCX_NEXT, tunnel.remote.v4_word(), tunnel.vni)
            }
            Verdict::Drop(reason) => return refuse(skb, maps, program, reason),
        };
        count(skb.len(), maps, counter_index(program, done as u8));
        skb.tell(done as u8, place, vni);
        code
    }
}

#[inline(always)]
fn count(len: u32, maps: &Maps, index: u32) {
    if maps.dry {
        return;
    }
    if let Some(counter) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: this CPU's own element.
        unsafe {
            (*counter).packets += 1;
            (*counter).bytes += len as u64;
        }
    }
}

#[inline(always)]
fn refuse(skb: &Skb, maps: &Maps, program: Program, reason: Drop) -> i32 {
    let index = counter_index(program, reason as u8);
    count(skb.len(), maps, index);
    skb.tell(reason as u8, 0, 0);
    if maps.dry || matches!(maps.config(), Some(cfg) if cfg.flags & config::QUIET != 0) {
        return TCX_DROP;
    }
    let Some(last) = SAMPLED.get_ptr_mut(index) else {
        return TCX_DROP;
    };
    let now = skb.now();
    // SAFETY: an element of an array; two CPUs may both take a sample, which harms nobody.
    unsafe {
        if now - *last > SAMPLE_EVERY {
            *last = now;
            sample(skb, program, reason, now);
        }
    }
    TCX_DROP
}

#[inline(always)]
fn sample(skb: &Skb, program: Program, reason: Drop, now: u64) {
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        return;
    };
    let e = entry.as_mut_ptr();
    // SAFETY: reserved memory of this size; the helper's targets lie inside it.
    unsafe {
        *e = Event {
            at: now,
            ifindex: skb.ifindex(),
            len: skb.len(),
            kind: event::DROP,
            program: program as u8,
            reason: reason as u8,
            ..Event::default()
        };
        let mut ports_at = 0;
        match skb.load::<2>(12) {
            Some([0x08, 0x00]) => {
                (*e).src = Addr::v4([0; 4]);
                (*e).dst = Addr::v4([0; 4]);
                skb.load_into(26, (&raw mut (*e).src).cast::<u8>().add(12), 4);
                skb.load_into(30, (&raw mut (*e).dst).cast::<u8>().add(12), 4);
                skb.load_into(23, &raw mut (*e).proto, 1);
                ports_at = 34;
            }
            Some([0x86, 0xdd]) => {
                skb.load_into(22, (&raw mut (*e).src).cast(), 16);
                skb.load_into(38, (&raw mut (*e).dst).cast(), 16);
                skb.load_into(20, &raw mut (*e).proto, 1);
                ports_at = 54;
            }
            _ => {}
        }
        if ports_at != 0 && ((*e).proto == 6 || (*e).proto == 17) {
            skb.load_into(ports_at, (&raw mut (*e).sport).cast(), 2);
            skb.load_into(ports_at + 2, (&raw mut (*e).dport).cast(), 2);
        }
        if let Some(tunnel) = skb.tunnel() {
            (*e).net = tunnel.vni;
            if matches!(reason, Drop::NotANode) {
                (*e).src = tunnel.remote;
            }
        }
    }
    entry.submit(0);
}
