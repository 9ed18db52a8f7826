//! What is found of the paths between hosts, and what follows from it. Needs root.

mod lan;

use anyhow::{Context as _, Result};
use lan::{Lan, eventually, ingress, run};
use weft_dataplane::{PathReport, PathState};

/// What host 1 knows of the way to host 2.
async fn way(lan: &Lan) -> Result<PathReport> {
    let paths = lan.hosts[&1].paths().await?;
    paths
        .into_iter()
        .find(|path| path.node == 2)
        .context("a path to host 2")
}

/// Waits until the way is as it should be.
async fn becomes(lan: &Lan, what: &str, fits: impl Fn(&PathReport) -> bool) -> Result<()> {
    let mut last = None;
    let waited = eventually(what, async || {
        last = way(lan).await.ok();
        Ok(last.as_ref().is_some_and(&fits))
    });
    let result = waited.await;
    result.with_context(|| format!("the way is {last:?}\n{}", lan.report()))
}

fn is_well(path: &PathReport) -> bool {
    path.state == PathState::Open && path.mtu_bytes == Some(1450) && path.faults.is_empty()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sound_underlay_has_no_faults() -> Result<()> {
    let mut lan = Lan::new(3)?;
    lan.start_all().await?;
    becomes(&lan, "the way to be found open", is_well).await?;
    let host = lan.hosts[&1].clone();
    eventually("all paths to be looked at", async || {
        let paths = host.paths().await?;
        Ok(paths.len() == 2 && paths.iter().all(is_well))
    })
    .await?;
    let status = host.status().await;
    assert_eq!(
        (status.mtu_bytes, status.faults.len()),
        (1450, 0),
        "{status:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_narrow_path_is_measured_and_containers_follow_it() -> Result<()> {
    let mut lan = Lan::new(2)?;
    let (switch, port) = (lan.namespace("s"), lan.switch_port("n2"));
    run(&format!("ip -n {switch} link set {port} mtu 1413"))?;
    lan.start_all().await?;
    becomes(&lan, "1413 bytes of underlay to be found", |path| {
        path.mtu_bytes == Some(1363)
    })
    .await?;
    let fault = way(&lan).await?.faults.concat();
    assert!(fault.contains("at most 1363 bytes"), "{fault}");
    assert!(fault.contains("eth0 promises 1450"), "{fault}");
    let host = lan.hosts[&1].clone();
    eventually("the MTU to follow", async || {
        Ok(host.status().await.mtu_bytes == 1363)
    })
    .await?;
    assert_eq!(host.status().await.faults.concat(), fault);
    lan.add_task(1, None, 1, &[(ingress(), &["10.0.0.5/24"])])
        .await?;
    let link = run(&format!("ip -n {} -o link show eth0", lan.namespace("t1")))?;
    assert!(link.contains("mtu 1363 "), "{link}");
    // And back, once the switch is put right.
    run(&format!("ip -n {switch} link set {port} mtu 1500"))?;
    becomes(&lan, "the way to be well again", is_well).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_tunnel_port_is_named() -> Result<()> {
    let mut lan = Lan::new(2)?;
    lan.close_tunnel("n2", true)?;
    lan.start_all().await?;
    becomes(&lan, "the port to be found closed", |path| {
        path.state == PathState::Closed
    })
    .await?;
    let fault = way(&lan).await?.faults.concat();
    assert!(
        fault.contains("UDP port 4789 is closed on the way to n2 (192.0.2.12)"),
        "{fault}"
    );
    lan.close_tunnel("n2", false)?;
    becomes(&lan, "the way to be well again", is_well).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checksums_that_a_card_makes_wrong_are_named() -> Result<()> {
    let mut lan = Lan::new(2)?;
    let host = lan.namespace("n1");
    // As a card does that sums the inner datagram wrongly: software makes the sums after the rule has
    // spoilt the field they start from. Packets that this program writes whole must not be cut on their
    // way, by which the rule tells them from others.
    run(&format!(
        "ip netns exec {host} ethtool -K eth0 tx off >/dev/null && \
         ip netns exec {host} nft add table inet spoilt && ip netns exec {host} nft \
         'add chain inet spoilt output {{ type filter hook output priority 300 ; }}' && \
         ip netns exec {host} nft 'add rule inet spoilt output \
         ip frag-off & 0x4000 == 0 udp dport 4789 @th,448,16 set 0xdead'"
    ))?;
    lan.start_all().await?;
    becomes(&lan, "a fault to be found", |path| !path.faults.is_empty()).await?;
    let fault = way(&lan).await?.faults.concat();
    assert!(fault.contains("checksums that eth0 makes"), "{fault}");
    assert!(fault.contains("ethtool -K eth0 tx off"), "{fault}");
    run(&format!(
        "ip netns exec {host} nft delete table inet spoilt"
    ))?;
    becomes(&lan, "the way to be well again", is_well).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encrypted_cluster_is_looked_at_from_inside() -> Result<()> {
    let mut lan = Lan::new(2)?;
    lan.start_all_with_keys().await?;
    lan.state
        .networks
        .get_mut(&ingress())
        .context("ingress")?
        .encrypted = true;
    lan.apply().await?;
    becomes(&lan, "the encrypted way to be found open", |path| {
        path.state == PathState::Open && path.mtu_bytes == Some(1390)
    })
    .await?;
    let status = lan.hosts[&1].status().await;
    assert_eq!(
        (status.mtu_bytes, status.faults.len()),
        (1450, 0),
        "{status:?}"
    );
    Ok(())
}
