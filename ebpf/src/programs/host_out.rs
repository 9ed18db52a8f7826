//! Egress of the VXLAN device.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use weft_abi::Program;

use crate::hook;

/// See `weft_ebpf::host`.
#[classifier]
pub fn host_out(ctx: TcContext) -> i32 {
    hook::run(&ctx, Program::HostOut, weft_ebpf::host::judge)
}
