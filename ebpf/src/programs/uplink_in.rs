//! Ingress of a link to the world.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use weft_abi::Program;

use crate::hook;

/// See `weft_ebpf::uplink`.
#[classifier]
pub fn uplink_in(ctx: TcContext) -> i32 {
    hook::run(&ctx, Program::UplinkIn, weft_ebpf::uplink::judge)
}
