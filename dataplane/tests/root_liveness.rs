//! Hosts judge each other: who does not answer is asked for nothing, without a manager's word. Needs root.

mod lan;

use anyhow::{Context as _, Result, ensure};
use lan::{CLIENT4, Lan, eventually, host4, host6, ingress, run};
use weft_dataplane::PathState;

/// Two hosts with the ingress network encrypted or not, whose service's only task is on the second.
async fn two(encrypted: bool) -> Result<Lan> {
    let mut lan = Lan::new(2)?;
    lan.start_all_with_keys().await?;
    let mesh = lan.state.networks.get_mut(&ingress());
    mesh.context("ingress")?.encrypted = encrypted;
    lan.publish(2).await?;
    let asked = lan.ask_tcp("c", (host4(1), 8000))?;
    ensure!(asked == format!("t1 {CLIENT4}"), "{asked}");
    let host = lan.hosts[&1].clone();
    eventually("the way to be found open", async || {
        let paths = host.paths().await?;
        Ok(paths.iter().any(|path| path.state == PathState::Open))
    })
    .await?;
    Ok(lan)
}

/// What host 1 says to a client of each family.
fn both(lan: &Lan) -> [Result<String>; 2] {
    [
        lan.ask_tcp("c", (host4(1), 8000)),
        lan.ask_tcp("c", (host6(1), 8000)),
    ]
}

/// Asks host 1 until it says at once that there is nobody: it has no task in its ring.
async fn nobody(lan: &Lan, when: &str) -> Result<()> {
    eventually(&format!("nobody to be asked {when}"), async || {
        Ok(both(lan).iter().all(|answer| {
            let refused = |error: &anyhow::Error| format!("{error:#}").contains("refused");
            answer.as_ref().is_err_and(refused)
        }))
    })
    .await
}

async fn somebody(lan: &Lan, when: &str) -> Result<()> {
    eventually(&format!("the task to be asked {when}"), async || {
        Ok(both(lan).iter().all(Result::is_ok))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_stops_answering_is_asked_for_nothing_until_it_answers() -> Result<()> {
    for encrypted in [false, true] {
        let lan = two(encrypted).await?;
        let (switch, port) = (lan.namespace("s"), lan.switch_port("n2"));
        run(&format!("ip -n {switch} link set {port} down"))?;
        nobody(&lan, "of a host that is cut off").await?;
        run(&format!("ip -n {switch} link set {port} up"))?;
        somebody(&lan, "once its host is back").await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_whose_tunnel_is_closed_is_asked_for_nothing_until_it_is_open() -> Result<()> {
    let lan = two(false).await?;
    lan.close_tunnel("n2", true)?;
    nobody(&lan, "through a closed tunnel").await?;
    let asked = lan.hosts[&1].clone();
    eventually("the closed port to be named", async || {
        let faults = asked.status().await.faults.concat();
        Ok(faults.contains("UDP port 4789 is closed"))
    })
    .await?;
    lan.close_tunnel("n2", false)?;
    somebody(&lan, "once its tunnel is open").await
}
