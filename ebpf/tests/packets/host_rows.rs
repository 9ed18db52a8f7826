//! The rows, run through the library on the host.

use crate::bytes::Bytes;
use crate::rows;
use crate::rows::frames::Frame;
use crate::rows::{Step, list};
use anyhow::{Result, bail};
use weft_abi::{Done, Program};
use weft_ebpf::tables::Tables;
use weft_ebpf::verdict::Verdict;
use weft_ebpf::work::Work;

pub(crate) fn run<T: Tables>(step: &Step, world: &T, work: &mut Work) -> (Verdict, Bytes) {
    run_refusing(step, world, work, 0)
}

/// As [`run`], with the `nth` change refused.
pub(crate) fn run_refusing<T: Tables>(
    step: &Step,
    world: &T,
    work: &mut Work,
    nth: u32,
) -> (Verdict, Bytes) {
    let mut p = Bytes::new(step.bytes.clone(), step.link);
    p.refused = nth;
    judge(step, p, world, work)
}

/// As [`run`], at this time.
pub(crate) fn run_at<T: Tables>(
    step: &Step,
    world: &T,
    work: &mut Work,
    now: u64,
) -> (Verdict, Bytes) {
    let mut p = Bytes::new(step.bytes.clone(), step.link);
    p.now = now;
    judge(step, p, world, work)
}

fn judge<T: Tables>(step: &Step, mut p: Bytes, world: &T, work: &mut Work) -> (Verdict, Bytes) {
    p.for_host = step.for_host;
    p.received = step.received;
    p.tunnel = step.tunnel;
    p.segment = step.segment;
    let verdict = match step.program {
        Program::UplinkIn => weft_ebpf::uplink::judge(&mut p, world, work),
        Program::OverlayIn => weft_ebpf::overlay::judge(&mut p, world, work),
        Program::HostOut => weft_ebpf::host::judge(&mut p, world, work),
        Program::TaskIn | Program::Sock => weft_ebpf::task::judge(&mut p, world, work),
    };
    (verdict, p)
}

#[test]
fn every_row() -> Result<()> {
    let mut failures = Vec::new();
    let mut work = Work::NONE;
    for row in list::all() {
        for step in &row.steps {
            let (verdict, p) = run(step, &row.world, &mut work);
            let place = format!("{}: {}", row.name, step.name);
            if verdict != step.verdict {
                failures.push(format!(
                    "{place}: {verdict:?} instead of {:?}",
                    step.verdict
                ));
            }
            // The host's stack would not look at it.
            let for_stack = matches!(verdict, Verdict::Next(Done::ToHost | Done::ToWorld));
            if for_stack && !p.claimed {
                failures.push(format!("{place}: is not made the host's own"));
            }
            if let Some(out) = &step.out {
                match Frame::read(&p.bytes) {
                    Some(frame) if frame == *out => {}
                    Some(frame) => {
                        failures.push(format!("{place}: became {frame:?} instead of {out:?}"))
                    }
                    None => failures.push(format!(
                        "{place}: became a packet with a wrong checksum: {:02x?}",
                        p.bytes
                    )),
                }
            }
            if let Some(exact) = &step.exact
                && *exact != p.bytes
            {
                failures.push(format!(
                    "{place}: became\n  {:02x?} instead of\n  {exact:02x?}",
                    p.bytes
                ));
            }
        }
    }
    if !failures.is_empty() {
        bail!("{} steps failed:\n{}", failures.len(), failures.join("\n"));
    }
    Ok(())
}

#[test]
fn only_the_task_itself_makes_a_flow_permanent() -> Result<()> {
    let mut work = Work::NONE;
    for row in list::all()
        .into_iter()
        .filter(|r| r.name.starts_with("local backend"))
    {
        let mut seen = Vec::new();
        for step in &row.steps {
            let _ = run(step, &row.world, &mut work);
            seen.push((step.name.clone(), row.world.flow.borrow().len()));
        }
        for (name, established) in seen {
            let permanent = matches!(
                name.as_str(),
                "the task's own segment" | "FIN" | "second answer" | "third answer"
            );
            if (established == 2) != permanent {
                bail!(
                    "{}: {established} established entries after {name}",
                    row.name
                );
            }
        }
    }
    Ok(())
}

#[test]
fn a_flood_makes_nothing_permanent() {
    let mut work = Work::NONE;
    let is_flood = |row: &rows::Row| row.name.starts_with("a flood");
    for row in list::all().into_iter().filter(is_flood) {
        for step in &row.steps {
            let _ = run(step, &row.world, &mut work);
        }
        let permanent = row.world.flow.borrow().len();
        assert_eq!(permanent, 2, "{}: of the one that is meant", row.name);
    }
}

#[test]
fn a_collision_changes_the_client_port_alone() -> Result<()> {
    let mut work = Work::NONE;
    for row in list::all()
        .into_iter()
        .filter(|r| r.name.starts_with("collision"))
    {
        let mut ports = Vec::new();
        for step in &row.steps {
            let (_, p) = run(step, &row.world, &mut work);
            let Some(frame) = Frame::read(&p.bytes) else {
                bail!("{}: wrong checksum", row.name)
            };
            let rows::frames::L4::Tcp(sport, dport, _) = frame.l4 else {
                bail!("not TCP")
            };
            if dport != 80
                || frame.src
                    != (rows::town::Family {
                        v6: frame.src.is_ipv6(),
                    })
                    .client()
            {
                bail!("{}: {frame:?}", row.name);
            }
            ports.push(sport);
        }
        if ports[0] != 4000 || ports[1] == 4000 || ports[1] < 1024 || ports[2] != 4000 {
            bail!("{}: the task saw ports {ports:?}", row.name);
        }
        let counts = row.world.counts.borrow();
        if counts.values().map(|c| c.remapped).sum::<u64>() != 1 {
            bail!("{}: counted {counts:?}", row.name);
        }
    }
    Ok(())
}

#[test]
fn half_of_the_backends_gone_refuses_nobody() -> Result<()> {
    let mut work = Work::NONE;
    let f = rows::town::Family { v6: false };
    let mut world = rows::town::town();
    world
        .rings
        .insert(1, (0..251).map(|slot| 1 + slot % 2).collect());
    if let Some(backend) = world.backends.get_mut(&2) {
        backend.flags = weft_abi::backend::DOWN;
    }
    let (mut here, mut other) = (0, 0);
    for port in 1..5000 {
        let frame = rows::town::frame(
            f.client(),
            f.node(1),
            rows::frames::L4::Tcp(port, 8000, weft_ebpf::parse::tcp_flag::SYN),
        );
        let mut p = Bytes::new(frame.bytes(), rows::town::UPLINK);
        match weft_ebpf::uplink::judge(&mut p, &world, &mut work) {
            Verdict::Peer(..) => here += 1,
            _ => other += 1,
        }
    }
    if other != 0 {
        bail!(
            "{other} of {} connections found no backend though one lives",
            here + other
        );
    }
    Ok(())
}
