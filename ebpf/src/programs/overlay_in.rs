//! Ingress of the VXLAN device.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use weft_abi::Program;

use crate::hook;

/// See `weft_ebpf::overlay`.
#[classifier]
pub fn overlay_in(ctx: TcContext) -> i32 {
    let Some((mut skb, maps, work)) = hook::begin(&ctx) else {
        return hook::TCX_NEXT;
    };
    let verdict = weft_ebpf::overlay::judge(&mut skb, &maps, work);
    hook::finish(&skb, &maps, Program::OverlayIn, verdict)
}
