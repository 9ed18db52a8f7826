//! The loaded programs. Needs root and `target/ebpf/weft.bpf.o` (`cargo xtask build-ebpf`).

use anyhow::{Context as _, Result};
use aya::programs::{CgroupSockAddr, Program, SchedClassifier};
use aya::{Ebpf, EbpfLoader};

/// The object, with tables small enough for a test.
fn load() -> Result<Ebpf> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/ebpf/weft.bpf.o");
    let bytes = std::fs::read(path)
        .with_context(|| format!("read {path}; run `cargo xtask build-ebpf`"))?;
    let mut loader = EbpfLoader::new();
    for map in ["flow_new", "flow", "pick", "sk_rev"] {
        loader.map_max_entries(map, 1024);
    }
    loader.load(&bytes).context("load the object")
}

#[test]
fn every_program_passes_the_verifier() -> Result<()> {
    let mut ebpf = load()?;
    let mut names = Vec::new();
    for (name, program) in ebpf.programs_mut() {
        match program {
            Program::SchedClassifier(p) => SchedClassifier::load(p),
            Program::CgroupSockAddr(p) => CgroupSockAddr::load(p),
            other => anyhow::bail!("{name} is of an unexpected kind: {other:?}"),
        }
        .with_context(|| format!("load {name}"))?;
        let info = program.info()?;
        println!(
            "{name}: {:?} walked, {:?} bytes",
            info.verified_instruction_count(),
            info.size_translated()
        );
        names.push(name.to_owned());
    }
    names.sort();
    let expected = [
        "connect4",
        "connect6",
        "getpeername4",
        "getpeername6",
        "host_out",
        "overlay_in",
        "recvmsg4",
        "recvmsg6",
        "sendmsg4",
        "sendmsg6",
        "task_in",
        "uplink_in",
    ];
    assert_eq!(names, expected);
    Ok(())
}
