//! Host side of a task's veth.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use weft_abi::Program;

use crate::hook;

/// See `weft_ebpf::task`.
#[classifier]
pub fn task_in(ctx: TcContext) -> i32 {
    let Some((mut skb, maps, work)) = hook::begin(&ctx) else {
        return hook::TCX_NEXT;
    };
    let verdict = weft_ebpf::task::judge(&mut skb, &maps, work);
    hook::finish(&skb, &maps, Program::TaskIn, verdict)
}
