//! Host side of a task's veth.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use weft_abi::Program;

use crate::hook;

/// See `weft_ebpf::task`.
#[classifier]
pub fn task_in(ctx: TcContext) -> i32 {
    hook::run(&ctx, Program::TaskIn, weft_ebpf::task::judge)
}
