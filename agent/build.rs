//! Finds the gate that the agent embeds.

use std::{env, path::Path};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let root = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let gate = Path::new(&root).join("../target/gate/weft-gate");
    println!("cargo::rerun-if-changed={}", gate.display());
    if !gate.exists() {
        println!(
            "cargo::error=the gate is missing at {}: run `cargo xtask build`, which builds it before the agent",
            gate.display()
        );
        return;
    }
    println!("cargo::rustc-env=WEFT_GATE={}", gate.display());
}
