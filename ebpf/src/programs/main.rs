//! The programs, one hook each, in one object: `target/ebpf/weft.bpf.o`.
#![no_std]
#![no_main]
#![expect(
    unsafe_code,
    reason = "helpers and map values of the kernel are raw pointers"
)]
#![expect(
    unreachable_pub,
    reason = "a program is found by its symbol, not by a path"
)]

mod hook;
mod host_out;
mod maps;
mod overlay_in;
mod skb;
mod sock;
mod tables;
mod task_in;
mod uplink_in;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Some helpers of the kernel are only for programs under a compatible licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
