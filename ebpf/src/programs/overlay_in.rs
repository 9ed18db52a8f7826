//! Ingress of the VXLAN device.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use weft_abi::Program;

use crate::hook;

/// See `weft_ebpf::overlay`.
#[classifier]
pub fn overlay_in(ctx: TcContext) -> i32 {
    hook::run(&ctx, Program::OverlayIn, weft_ebpf::overlay::judge)
}
