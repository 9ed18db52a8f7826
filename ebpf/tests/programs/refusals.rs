//! What the kernel refuses only when it is out of luck, made to happen: by a word of the object changed
//! before it is loaded. The logic is the built one, instruction for instruction.

use super::*;
use weft_abi::{Drop, Flow, FlowKey, maps};

/// Puts `new` in the place of `old`, which is there `times` times.
fn replace(object: &mut [u8], old: &[u8], new: &[u8], times: usize) -> Result<()> {
    let at: Vec<usize> = object
        .windows(old.len())
        .enumerate()
        .filter_map(|(at, here)| (here == old).then_some(at))
        .collect();
    if at.len() != times {
        bail!("{} places instead of {times}: {at:?}", at.len());
    }
    for at in at {
        object[at..at + new.len()].copy_from_slice(new);
    }
    Ok(())
}

/// Makes the table of new flows one that refuses when it is full; the true one forgets its oldest.
fn that_refuses_new_flows() -> Result<Vec<u8>> {
    const HASH: u32 = 1;
    const LRU_HASH: u32 = 9;
    let definition = |kind: u32| -> Vec<u8> {
        let (key, value) = (size_of::<FlowKey>() as u32, size_of::<Flow>() as u32);
        [kind, key, value, maps::FLOW_NEW.entries]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect()
    };
    let mut object = object()?;
    replace(&mut object, &definition(LRU_HASH), &definition(HASH), 1)?;
    Ok(object)
}

/// Makes every program give the tunnel key's length one byte short, which the kernel refuses.
fn that_is_refused_its_tunnel_keys() -> Result<Vec<u8>> {
    /// `r3 = length`, then `call bpf_skb_set_tunnel_key`.
    const fn call(length: u8) -> [u8; 16] {
        [0xb7, 3, 0, 0, length, 0, 0, 0, 0x85, 0, 0, 0, 21, 0, 0, 0]
    }
    let mut object = object()?;
    // Once in each packet program.
    replace(&mut object, &call(44), &call(43), 4)?;
    Ok(object)
}

#[test]
fn a_full_table_of_new_flows() -> Result<()> {
    let ns = ground("full")?;
    ns.inside(|| {
        let object = that_refuses_new_flows()?;
        for row in rows::list::full() {
            let room = row.world.room.context("a row without a room")?;
            let mut ebpf = ready(load_from(&object, u32::try_from(room)?)?)?;
            fill(&mut ebpf, &row.world)?;
            for step in &row.steps {
                let place = format!("{}: {}", row.name, step.name);
                let expected = number(step.verdict);
                let before = counted(&mut ebpf, step.program, expected.1[0] as u8)?;
                let got = rehearse(&mut ebpf, step, REHEARSAL).with_context(|| place.clone())?;
                let after = counted(&mut ebpf, step.program, expected.1[0] as u8)?;
                if (got.code, got.told) != expected || after != before + 1 {
                    bail!(
                        "{place}: {} {:?} instead of {expected:?}, counted {}",
                        got.code,
                        got.told,
                        after - before
                    );
                }
            }
        }
        Ok(())
    })
}

#[test]
fn a_flood_is_forgotten_and_nobody_else() -> Result<()> {
    let ns = ground("flood")?;
    ns.inside(|| {
        // Room for a quarter of the flood: the true table, which forgets its oldest.
        let mut ebpf = ready(load_from(&object()?, 64)?)?;
        for row in rows::list::all()
            .into_iter()
            .filter(|row| row.name.starts_with("a flood"))
        {
            fill(&mut ebpf, &row.world)?;
            for step in &row.steps {
                let got = rehearse(&mut ebpf, step, REHEARSAL)?;
                let expected = number(step.verdict);
                if (got.code, got.told) != expected {
                    bail!("{}: {}: {} {:?}", row.name, step.name, got.code, got.told);
                }
            }
            let map = ebpf.map_mut("flow").context("no map flow")?;
            let permanent = HashMap::<_, FlowKey, Flow>::try_from(map)?.keys().count();
            if permanent != 2 {
                bail!("{}: {permanent} permanent entries", row.name);
            }
        }
        Ok(())
    })
}

#[test]
fn a_tunnel_key_that_the_kernel_refuses() -> Result<()> {
    let ns = ground("key")?;
    ns.inside(|| {
        let mut ebpf = ready(load_from(&that_is_refused_its_tunnel_keys()?, 1024)?)?;
        let mut refused = std::collections::BTreeMap::<&str, u64>::new();
        for row in rows::list::all() {
            fill(&mut ebpf, &row.world)?;
            for step in &row.steps {
                let place = format!("{}: {}", row.name, step.name);
                let is_tunnel = matches!(step.verdict, Verdict::Tunnel(..) | Verdict::Encap(..));
                // Whatever needs no tunnel goes on as ever.
                let expected = if is_tunnel {
                    number(Verdict::Drop(Drop::TunnelRefused))
                } else {
                    number(step.verdict)
                };
                let got = rehearse(&mut ebpf, step, REHEARSAL).with_context(|| place.clone())?;
                if (got.code, got.told) != expected {
                    bail!("{place}: {} {:?}, not {expected:?}", got.code, got.told);
                }
                *refused.entry(step.program.name()).or_default() += u64::from(is_tunnel);
            }
        }
        for program in [
            weft_abi::Program::UplinkIn,
            weft_abi::Program::OverlayIn,
            weft_abi::Program::HostOut,
            weft_abi::Program::TaskIn,
        ] {
            let expected = refused.get(program.name()).copied().unwrap_or(0);
            let counted = counted(&mut ebpf, program, Drop::TunnelRefused as u8)?;
            if expected == 0 || counted != expected {
                bail!("{}: {counted} of {expected} counted", program.name());
            }
        }
        Ok(())
    })
}
