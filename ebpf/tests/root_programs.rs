//! The loaded programs. Needs root and `target/ebpf/weft.bpf.o` (`cargo xtask build-ebpf`).
#![expect(
    unsafe_code,
    reason = "the namespace cookie is a socket option that no safe wrapper reads"
)]

#[expect(dead_code, reason = "the walks use the rest")]
#[path = "walks/netns.rs"]
mod netns;
#[path = "programs/refusals.rs"]
mod refusals;
mod rows;

use anyhow::{Context as _, Result, bail};
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, HashOfMaps, LpmTrie, MapData, PerCpuArray, PerCpuValues};
use aya::programs::{CgroupSockAddr, Program, SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader, Pod};
use netns::Netns;
use rows::Step;
use rows::frames::{Frame, L4};
use rows::town::{OVERLAY, UPLINK, link_of};
use rows::world::World;
use weft_abi::{
    Config, Counter, DRY_RUN, Flow, FlowKey, FragKey, FragPorts, Load, Pick, REHEARSAL, Spent,
    Sticky, StickyKey,
};
use weft_ebpf::verdict::Verdict;

/// The object as it was built.
fn object() -> Result<Vec<u8>> {
    let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/ebpf/weft.bpf.o");
    let path = std::env::var("WEFT_OBJECT").unwrap_or_else(|_| built.to_owned());
    std::fs::read(&path).with_context(|| format!("read {path}; run `cargo xtask build-ebpf`"))
}

/// The object, with tables small enough for a test.
fn load() -> Result<Ebpf> {
    load_from(&object()?, 1024)
}

/// An object, with room for so many new flow entries.
fn load_from(bytes: &[u8], new_flows: u32) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    for map in ["flow", "pick", "sk_rev"] {
        loader.map_max_entries(map, 1024);
    }
    loader.map_max_entries("flow_new", new_flows);
    loader.load(bytes).context("load the object")
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
        "bind4",
        "bind6",
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

fn put<K: Pod, V: Pod>(
    ebpf: &mut Ebpf,
    map: &str,
    entries: impl IntoIterator<Item = (K, V)>,
) -> Result<()> {
    let map = ebpf.map_mut(map).with_context(|| format!("no map {map}"))?;
    let mut map = HashMap::<_, K, V>::try_from(map)?;
    let old = map.keys().collect::<Result<Vec<K>, _>>()?;
    for key in old {
        map.remove(&key)?;
    }
    for (key, value) in entries {
        map.insert(key, value, 0)?;
    }
    Ok(())
}

fn rings(
    ebpf: &mut Ebpf,
    map: &str,
    rings: &std::collections::BTreeMap<u32, Vec<u32>>,
) -> Result<()> {
    let map = ebpf.map_mut(map).with_context(|| format!("no map {map}"))?;
    let mut map = HashOfMaps::<_, u32, Array<MapData, u32>>::try_from(map)?;
    let old = map.keys().collect::<Result<Vec<u32>, _>>()?;
    for key in old {
        map.remove(&key)?;
    }
    for (service, ring) in rings {
        let mut inner = Array::<MapData, u32>::create(1 + ring.len() as u32, 0x1000)?;
        inner.set(0, ring.len() as u32, 0)?;
        for (slot, id) in ring.iter().enumerate() {
            inner.set(1 + slot as u32, *id, 0)?;
        }
        map.insert(service, &inner, 0)?;
    }
    Ok(())
}

/// Makes the maps say what the world says, and forget all else.
fn fill(ebpf: &mut Ebpf, world: &World) -> Result<()> {
    let map = ebpf.map_mut("config").context("no map config")?;
    Array::<_, Config>::try_from(map)?.set(0, world.config.unwrap_or_default(), 0)?;
    put(ebpf, "front", world.fronts.clone())?;
    put(ebpf, "backends", world.backends.clone())?;
    put(ebpf, "nodes", world.nodes.clone())?;
    put(ebpf, "node_by_addr", world.node_by_addr.clone())?;
    put(ebpf, "local_addrs", world.locals.iter().map(|a| (*a, 1u32)))?;
    put(ebpf, "owner", world.owners.clone())?;
    put(ebpf, "tasks", world.tasks.clone())?;
    put(ebpf, "endpoints", world.endpoints.clone())?;
    put(
        ebpf,
        "local_tasks",
        world.endpoints.values().map(|e| (e.id, *e)),
    )?;
    put(
        ebpf,
        "ciphered",
        world.ciphered.iter().map(|net| (*net, 1u32)),
    )?;
    put(ebpf, "caps", world.caps.clone())?;
    put::<u32, Spent>(ebpf, "spent", [])?;
    put(ebpf, "loads", world.loads.borrow().clone())?;
    put(ebpf, "sticky", world.sticky.borrow().clone())?;
    trie(
        ebpf,
        "front_ranges",
        world
            .ranges
            .iter()
            .map(|(len, key, front)| (*len, *key, *front)),
    )?;
    trie(
        ebpf,
        "allowed",
        world
            .allowed
            .iter()
            .map(|(len, key)| (32 + len, *key, 1u32)),
    )?;
    let cpus = vec![*world.told.borrow(); aya::util::nr_cpus().map_or(1, |cpus| cpus)];
    let map = ebpf.map_mut("told").context("no map told")?;
    PerCpuArray::<_, u64>::try_from(map)?.set(0, PerCpuValues::try_from(cpus)?, 0)?;
    put(ebpf, "flow", world.flow.borrow().clone())?;
    put(ebpf, "flow_new", world.flow_new.borrow().clone())?;
    put::<FlowKey, Pick>(ebpf, "pick", [])?;
    put::<FragKey, FragPorts>(ebpf, "frag", [])?;
    rings(ebpf, "rings", &world.rings)?;
    rings(ebpf, "rings_before", &world.rings_before)?;
    trie(ebpf, "subnets", world.subnets.iter().copied())
}

/// Makes a trie say what the world says, and forget all else.
fn trie<K: Pod, V: Pod>(
    ebpf: &mut Ebpf,
    map: &str,
    entries: impl IntoIterator<Item = (u32, K, V)>,
) -> Result<()> {
    let map = ebpf.map_mut(map).with_context(|| format!("no map {map}"))?;
    let mut map = LpmTrie::<_, K, V>::try_from(map)?;
    let old = map.keys().collect::<Result<Vec<Key<K>>, _>>()?;
    for key in old {
        map.remove(&key)?;
    }
    for (len, key, value) in entries {
        map.insert(&Key::new(len, key), value, 0)?;
    }
    Ok(())
}

/// The words of `__sk_buff` that a test run may give and take.
fn context(step: &Step, kind: u32) -> Vec<u8> {
    let mut words = [0u32; 48];
    words[9] = u32::from(step.received) * step.link;
    words[10] = step.link;
    words[12] = kind;
    words[44] = step.segment;
    if let Some(tunnel) = step.tunnel {
        words[13] = tunnel.vni;
        words[14] = tunnel.remote.v4_word();
    }
    words.iter().flat_map(|w| w.to_ne_bytes()).collect()
}

fn number(verdict: Verdict) -> (u32, [u32; 3]) {
    const NEXT: u32 = u32::MAX;
    const DROP: u32 = 2;
    const REDIRECT: u32 = 7;
    match verdict {
        Verdict::Next(done) => (NEXT, [done as u32, 0, 0]),
        Verdict::Peer(link, done)
        | Verdict::Neighbour(link, done)
        | Verdict::Out(link, done)
        | Verdict::In(link, done) => (REDIRECT, [done as u32, link, 0]),
        Verdict::Tunnel(t, done) => (REDIRECT, [done as u32, t.remote.v4_word(), t.vni]),
        Verdict::Encap(t, done) => (NEXT, [done as u32, t.remote.v4_word(), t.vni]),
        Verdict::Drop(reason) => (DROP, [reason as u32, 0, 0]),
    }
}

/// What a rehearsal gave.
struct Rehearsed {
    /// The program's own code.
    code: u32,
    /// What was decided, where to, and on which network.
    told: [u32; 3],
    packet: Vec<u8>,
    took: std::time::Duration,
}

fn rehearse(ebpf: &mut Ebpf, step: &Step, kind: u32) -> Result<Rehearsed> {
    let program: &mut SchedClassifier = ebpf
        .program_mut(step.program.name())
        .context("no such program")?
        .try_into()?;
    let input = context(step, kind);
    let mut output = vec![0; input.len()];
    let mut packet = vec![0; 4096];
    let mut options = TestRunOptions::new();
    options.data_in = Some(&step.bytes);
    options.data_out = Some(&mut packet);
    options.ctx_in = Some(&input);
    options.ctx_out = Some(&mut output);
    let result = program.test_run(options)?;
    let word = |n: usize| {
        output
            .get(n * 4..)
            .and_then(|b| b.first_chunk())
            .map_or(0, |b| u32::from_ne_bytes(*b))
    };
    packet.truncate(result.data_size_out as usize);
    Ok(Rehearsed {
        code: result.return_value,
        told: [word(13), word(14), word(15)],
        packet,
        took: result.duration,
    })
}

/// A namespace with the interfaces that the rows name: a test run wants real ones.
fn ground(name: &str) -> Result<Netns> {
    let ns = Netns::new(name)?;
    for link in (1..=6).map(link_of).chain([19, OVERLAY]) {
        ns.ip(&format!(
            "link add d{link} index {link} type veth peer name e{link} index {}",
            100 + link
        ))?;
    }
    Ok(ns)
}

/// The packet programs, loaded.
fn loaded() -> Result<Ebpf> {
    ready(load()?)
}

/// The same of an object.
fn ready(mut ebpf: Ebpf) -> Result<Ebpf> {
    for name in ["uplink_in", "overlay_in", "host_out", "task_in"] {
        let program: &mut SchedClassifier = ebpf
            .program_mut(name)
            .context("no such program")?
            .try_into()?;
        program.load()?;
    }
    Ok(ebpf)
}

#[test]
fn a_dry_run_decides_and_changes_nothing() -> Result<()> {
    let ns = ground("dry")?;
    ns.inside(|| {
        let mut ebpf = loaded()?;
        for row in rows::list::all() {
            fill(&mut ebpf, &row.world)?;
            // Each packet is judged dry, then for real: the two must agree, and only the second may count.
            for step in &row.steps {
                let place = format!("{}: {}", row.name, step.name);
                let before = written(&mut ebpf)?;
                let dry = rehearse(&mut ebpf, step, DRY_RUN)?;
                if written(&mut ebpf)? != before {
                    bail!("{place}: the dry run changed a map");
                }
                let real = rehearse(&mut ebpf, step, REHEARSAL)?;
                let seen = |r: &Rehearsed| (r.code, r.told, r.packet.clone());
                let (dry, real) = (seen(&dry), seen(&real));
                if dry != real {
                    bail!("{place}: dry {dry:?}, real {real:?}");
                }
            }
        }
        Ok(())
    })
}

/// Everything that the programs have written.
fn written(ebpf: &mut Ebpf) -> Result<String> {
    fn dump<K: Pod + std::fmt::Debug, V: Pod + std::fmt::Debug>(
        ebpf: &mut Ebpf,
        map: &str,
    ) -> Result<String> {
        let map = ebpf.map_mut(map).with_context(|| format!("no map {map}"))?;
        let map = HashMap::<_, K, V>::try_from(map)?;
        let mut rows = map
            .iter()
            .map(|e| e.map(|e| format!("{e:?}")))
            .collect::<Result<Vec<_>, _>>()?;
        rows.sort();
        Ok(rows.join("\n"))
    }
    let mut text = dump::<u32, Spent>(ebpf, "spent")?;
    text += &dump::<u32, Load>(ebpf, "loads")?;
    text += &dump::<StickyKey, Sticky>(ebpf, "sticky")?;
    text += &dump::<FlowKey, Flow>(ebpf, "flow")?;
    text += &dump::<FlowKey, Flow>(ebpf, "flow_new")?;
    text += &dump::<FlowKey, Pick>(ebpf, "pick")?;
    text += &dump::<FragKey, FragPorts>(ebpf, "frag")?;
    let counters = ebpf.map_mut("counters").context("no map counters")?;
    let counters = PerCpuArray::<_, Counter>::try_from(counters)?;
    for n in 0..weft_abi::COUNTERS {
        for (cpu, counter) in counters
            .get(&n, 0)?
            .iter()
            .enumerate()
            .filter(|(_, c)| c.packets != 0)
        {
            text += &format!("{n} {cpu} {counter:?}\n");
        }
    }
    Ok(text)
}

#[test]
fn every_row_through_the_loaded_programs() -> Result<()> {
    let ns = ground("rows")?;
    assert_eq!(UPLINK, 1, "the loopback interface's number");
    let failures = ns.inside(|| {
        let mut ebpf = loaded()?;
        let mut failures = Vec::new();
        for row in rows::list::all() {
            fill(&mut ebpf, &row.world).with_context(|| row.name.clone())?;
            for step in &row.steps {
                let place = format!("{}: {}", row.name, step.name);
                let reason = number(step.verdict).1[0] as u8;
                let before = counted(&mut ebpf, step.program, reason)?;
                let Rehearsed {
                    code, told, packet, ..
                } = rehearse(&mut ebpf, step, REHEARSAL).with_context(|| place.clone())?;
                let expected = number(step.verdict);
                let more = counted(&mut ebpf, step.program, reason)? - before;
                if more != 1 {
                    failures.push(format!("{place}: counted {more} times"));
                }
                if (code, told) != expected {
                    failures.push(format!(
                        "{place}: {code} {told:?} instead of {expected:?} ({:?})",
                        step.verdict
                    ));
                }
                if let Some(out) = &step.out
                    && Frame::read(&packet).as_ref() != Some(out)
                {
                    failures.push(format!("{place}: became {packet:02x?} instead of {out:?}"));
                }
                if let Some(exact) = &step.exact
                    && *exact != packet
                {
                    failures.push(format!(
                        "{place}: became\n  {packet:02x?} instead of\n  {exact:02x?}"
                    ));
                }
            }
        }
        Ok(failures)
    })?;
    if !failures.is_empty() {
        bail!("{} steps failed:\n{}", failures.len(), failures.join("\n"));
    }
    Ok(())
}

/// What the counter of a reason in a program says, over all CPUs.
fn counted(ebpf: &mut Ebpf, program: weft_abi::Program, reason: u8) -> Result<u64> {
    let map = ebpf.map_mut("counters").context("no map counters")?;
    let counters = PerCpuArray::<_, Counter>::try_from(map)?;
    let each = counters.get(&weft_abi::counter_index(program, reason), 0)?;
    Ok(each.iter().map(|counter| counter.packets).sum())
}

/// Runs of each packet.
const RUNS: usize = 400;

/// Not a test: with `WEFT_COST=1 … -- --nocapture` it prints what each walk costs, median of many single runs, each
/// with the tables as the earlier packets of its row left them.
#[test]
fn what_each_walk_costs() -> Result<()> {
    if std::env::var_os("WEFT_COST").is_none() {
        return Ok(());
    }
    let ns = ground("cost")?;
    ns.inside(|| {
        let mut ebpf = loaded()?;
        let mut costs = std::collections::BTreeMap::<String, Vec<u128>>::new();
        for row in rows::list::all() {
            fill(&mut ebpf, &row.world)?;
            for step in &row.steps {
                let verdict = format!("{:?}", step.verdict);
                let what = verdict
                    .rsplit([' ', '('])
                    .next()
                    .map(|word| word.trim_end_matches(')').to_owned());
                let family = if row.name.ends_with("IPv6") { 6 } else { 4 };
                let mut took = Vec::with_capacity(RUNS);
                for _ in 0..RUNS {
                    took.push(rehearse(&mut ebpf, step, REHEARSAL)?.took.as_nanos());
                }
                took.sort_unstable();
                let opens = Frame::read(&step.bytes).is_some_and(
                    |frame| matches!(frame.l4, L4::Tcp(_, _, flags) if flags & 2 != 0),
                );
                let name = format!(
                    "{:<10} {family} {}{}",
                    step.program.name(),
                    what.unwrap_or_default(),
                    if opens { ", SYN" } else { "" }
                );
                costs.entry(name).or_default().push(took[RUNS / 2]);
            }
        }
        for (name, mut medians) in costs {
            medians.sort_unstable();
            println!("{name:<44} {:>5} ns", medians[medians.len() / 2]);
        }
        Ok(())
    })
}
