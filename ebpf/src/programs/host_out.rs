//! Egress of the VXLAN device.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use weft_abi::Program;

use crate::hook;

/// See `weft_ebpf::host`.
#[classifier]
pub fn host_out(ctx: TcContext) -> i32 {
    let Some((mut skb, maps, work)) = hook::begin(&ctx) else {
        return hook::TCX_NEXT;
    };
    let verdict = weft_ebpf::host::judge(&mut skb, &maps, work);
    hook::finish(&skb, &maps, Program::HostOut, verdict)
}
