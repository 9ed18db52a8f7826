//! Every reason has a row, and every refused change is one.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use weft_abi::{Done, Drop};
use weft_ebpf::verdict::Verdict;
use weft_ebpf::work::Work;

use crate::host_rows::{run, run_refusing};
use crate::rows::list;

/// Reasons that no packet of a row can have, and which test has them.
const ELSEWHERE: &[(Drop, &str)] = &[
    (
        Drop::RewriteRefused,
        "reasons::a_packet_that_could_not_be_changed_goes_nowhere",
    ),
    (
        Drop::TunnelRefused,
        "root_programs::refusals::a_tunnel_key_that_the_kernel_refuses",
    ),
    (
        Drop::FlowTableFull,
        "reasons::a_full_table_refuses_the_new_and_nobody_else",
    ),
    (
        Drop::PortTaken,
        "own::nobody_on_the_host_binds_a_published_port",
    ),
];

/// The same of what is no drop: it is for sockets, or about them (`own::…`).
const OF_SOCKETS: &[Done] = &[Done::SocketLed, Done::SocketRestored, Done::HostsOwn];

/// What the rows see, per family: the number of a [`Done`] or [`Drop`].
fn seen(v6: bool) -> BTreeSet<u8> {
    let family = if v6 { "IPv6" } else { "IPv4" };
    list::all()
        .into_iter()
        .filter(|row| row.name.ends_with(family))
        .flat_map(|row| row.steps)
        .map(|step| number(step.verdict))
        .collect()
}

fn number(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Drop(reason) => reason as u8,
        Verdict::Next(done)
        | Verdict::Peer(_, done)
        | Verdict::Neighbour(_, done)
        | Verdict::Out(_, done)
        | Verdict::In(_, done)
        | Verdict::Tunnel(_, done)
        | Verdict::Encap(_, done) => done as u8,
    }
}

#[test]
fn every_reason_has_a_row_in_both_families() {
    let mut missing = Vec::new();
    for v6 in [false, true] {
        let seen = seen(v6);
        for reason in Drop::ALL {
            let only_six = matches!(reason, Drop::UnsupportedExtension);
            let elsewhere = ELSEWHERE.iter().any(|(other, _)| other == reason);
            let has = seen.contains(&(*reason as u8));
            assert!(!(has && elsewhere), "{reason:?} has a row: strike it out");
            if !has && !elsewhere && (v6 || !only_six) {
                missing.push(format!("{reason:?} ({})", if v6 { 6 } else { 4 }));
            }
        }
        for done in Done::ALL {
            if !seen.contains(&(*done as u8)) && !OF_SOCKETS.contains(done) {
                missing.push(format!("{done:?} ({})", if v6 { 6 } else { 4 }));
            }
        }
    }
    assert!(missing.is_empty(), "no row shows {}", missing.join(", "));
}

#[test]
fn a_full_table_refuses_the_new_and_nobody_else() -> Result<()> {
    let mut work = Work::NONE;
    for row in list::full() {
        for step in &row.steps {
            let (verdict, _) = run(step, &row.world, &mut work);
            if verdict != step.verdict {
                bail!("{}: {}: {verdict:?}", row.name, step.name);
            }
        }
    }
    Ok(())
}

#[test]
fn a_packet_that_could_not_be_changed_goes_nowhere() -> Result<()> {
    let mut work = Work::NONE;
    let mut programs = BTreeSet::new();
    for row in list::all() {
        for step in &row.steps {
            for nth in 1.. {
                // Each refusal meets the tables as the packets before left them.
                let (verdict, p) = run_refusing(step, &row.world.clone(), &mut work, nth);
                if p.changes < nth {
                    break;
                }
                match verdict {
                    Verdict::Drop(Drop::RewriteRefused) => {
                        programs.insert(step.program.name());
                    }
                    // What could not be told of a drop is that drop.
                    Verdict::Drop(_) => {}
                    other => bail!(
                        "{}: {}: change {nth} was refused, and yet {other:?}",
                        row.name,
                        step.name
                    ),
                }
            }
            let (verdict, _) = run(step, &row.world, &mut work);
            if verdict != step.verdict {
                bail!("{}: {}: {verdict:?} afterwards", row.name, step.name);
            }
        }
    }
    let expected = ["host_out", "overlay_in", "task_in", "uplink_in"];
    assert!(programs.iter().eq(expected.iter()), "{programs:?}");
    Ok(())
}
