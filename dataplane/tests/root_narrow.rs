//! An underlay that takes less in one direction than in the other. Needs root.

mod lan;

use std::{net::SocketAddr, time::Instant};

use anyhow::{Context as _, Result, ensure};
use lan::{Lan, PATIENCE, asking, eventually, host4, host6, run};
use weft_types::NetworkId;

/// Sends datagrams of sizes about both paths' until each is answered: the first too long one is refused while the
/// path's size is learnt.
fn datagrams(to: SocketAddr) -> Result<()> {
    let socket = asking(to)?;
    let mut answer = [0; 2048];
    for size in (1300..=1500).step_by(10).chain([3000]) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = socket
            .send(&vec![7; size])
            .and_then(|_| socket.recv(&mut answer))
        {
            ensure!(
                Instant::now() < deadline,
                "a datagram of {size} bytes to {to}: {error}"
            );
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_passes_where_one_direction_takes_less() -> Result<()> {
    let mut lan = Lan::new(2)?;
    // The link to host 2 takes 1413 bytes, the one from it 1500.
    let (switch, port) = (lan.namespace("s"), lan.switch_port("n2"));
    run(&format!("ip -n {switch} link set {port} mtu 1413"))?;
    lan.start_all().await?;
    let host = lan.hosts[&1].clone();
    eventually("host 1 to know how little host 2 takes", async || {
        Ok(host.status().await.mtu_bytes == 1363)
    })
    .await?;
    lan.publish(2).await?;
    let red = NetworkId::numbered(2);
    lan.add_network(red, 4097, &["10.0.1.0/24", "fd00:2::/64"], false);
    lan.add_numbered(2, 1, red).await?;
    lan.add_numbered(3, 2, red).await?;
    lan.apply().await?;
    for task in ["t2", "t3"] {
        lan.serve(task, 80)?;
    }
    let asked: [(&str, SocketAddr); 6] = [
        ("c", (host4(1), 8000).into()),
        ("c", (host6(1), 8000).into()),
        ("t2", "10.0.1.3:80".parse()?),
        ("t2", "[fd00:2::3]:80".parse()?),
        ("t3", "10.0.1.2:80".parse()?),
        ("t3", "[fd00:2::2]:80".parse()?),
    ];
    for (from, to) in asked {
        lan.ask_tcp(from, to)?;
        lan.within(from, move || datagrams(to))
            .with_context(|| format!("{from} to {to}\n{}", lan.report()))?;
    }
    Ok(())
}
