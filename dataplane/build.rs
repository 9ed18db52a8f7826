//! Finds the kernel half, which is built apart because it is for another machine.

use std::{env, path::PathBuf, process::exit};

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let object = root.join("../target/ebpf/weft.bpf.o");
    println!("cargo::rerun-if-changed={}", object.display());
    println!("cargo::rustc-env=WEFT_EBPF_OBJECT={}", object.display());
    if !object.exists() {
        println!(
            "cargo::error=target/ebpf/weft.bpf.o is not there: run `cargo xtask build-ebpf` first"
        );
        exit(1);
    }
}
