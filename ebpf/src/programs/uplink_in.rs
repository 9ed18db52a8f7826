//! Ingress of a link to the world.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use weft_abi::Program;

use crate::hook;

/// See `weft_ebpf::uplink`.
#[classifier]
pub fn uplink_in(ctx: TcContext) -> i32 {
    let Some((mut skb, maps, work)) = hook::begin(&ctx) else {
        return hook::TCX_NEXT;
    };
    let verdict = weft_ebpf::uplink::judge(&mut skb, &maps, work);
    hook::finish(&skb, &maps, Program::UplinkIn, verdict)
}
