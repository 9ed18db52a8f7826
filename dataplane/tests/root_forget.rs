//! Flows that are over leave the kernel's tables, and those that are not stay. Needs root.

mod lan;

use std::net::SocketAddr;

use anyhow::Result;
use lan::{Lan, eventually, greeted, host4, host6};

#[tokio::test]
async fn closed_connections_are_forgotten_and_open_ones_are_not() -> Result<()> {
    let lan = Lan::published(2, 2).await?;
    let host = &lan.hosts[&2];
    let addresses =
        |host| -> [SocketAddr; 2] { [(host4(host), 8000).into(), (host6(host), 8000).into()] };
    // Both ways in, each with one that stays.
    let mut held = Vec::new();
    for to in [1, 2].into_iter().flat_map(addresses) {
        held.push(lan.within("c", move || greeted(to))?.0);
        for _ in 0..5 {
            lan.ask_tcp("c", to)?;
        }
    }
    eventually("closed connections to be forgotten", async || {
        Ok(host.flow_rows().await?.len() <= held.len())
    })
    .await?;
    let mut left: Vec<SocketAddr> = Vec::new();
    for row in host.flow_rows().await? {
        left.push(row.client);
    }
    for stream in &held {
        let me = stream.local_addr()?;
        assert!(left.contains(&me), "{me} is open and not among {left:?}");
    }
    for to in [1, 2].into_iter().flat_map(addresses) {
        lan.ask_tcp("c", to)?;
    }
    Ok(())
}
