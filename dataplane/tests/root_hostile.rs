//! Packets that should not be there, and sizes that hurt. Needs root.

mod lan;

use std::{
    net::{SocketAddr, UdpSocket},
    time::Instant,
};

use anyhow::{Context as _, Result};
use lan::{CLIENT4, Lan, asking, eventually, host4, host6, ingress};

/// A service published on three hosts with its task on n2, and a task beside it on n1.
async fn published() -> Result<Lan> {
    let mut lan = Lan::published(3, 2).await?;
    lan.add_task(2, None, 1, &[(ingress(), &["10.0.0.6/24", "fd00:1::6/64"])])
        .await?;
    lan.apply().await?;
    Ok(lan)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnelled_packet_from_no_node_is_dropped_counted_and_shown() -> Result<()> {
    let lan = published().await?;
    lan.within("c", || {
        let socket = UdpSocket::bind((CLIENT4, 0))?;
        // VXLAN header with the ingress network's number, then an Ethernet frame to the task.
        let mut packet = vec![8, 0, 0, 0, 0, 0x10, 0, 0];
        packet.extend([0x02, 0, 0, 0, 0, 10, 4, 0, 0, 0, 0, 9, 8, 0]);
        packet.extend([
            0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 6, 10, 0, 0, 5,
        ]);
        packet.extend([0, 99, 0, 80, 0, 8, 0, 0]);
        socket.send_to(&packet, (host4(2), 4789))?;
        Ok(())
    })?;
    let host = lan.hosts[&2].clone();
    eventually("the drop to be counted with a sample", async || {
        let drops = host.drops().await?;
        let drop = drops.iter().find(|drop| drop.reason.contains("no node"));
        let sample = drop.and_then(|drop| drop.sample.as_ref());
        Ok(sample.is_some_and(|sample| sample.source.0 == CLIENT4))
    })
    .await?;
    assert_eq!(lan.ask_tcp("c", (host4(1), 8000))?, format!("t1 {CLIENT4}"));
    Ok(())
}

/// Sends datagrams of all these sizes to an echo server and waits for each to come back.
fn sweep(to: SocketAddr, sizes: &[usize]) -> Result<()> {
    let socket = asking(to)?;
    let mut bytes = vec![0; 10_000];
    for size in sizes {
        let deadline = Instant::now() + lan::PATIENCE;
        loop {
            socket
                .send(&vec![7; *size])
                .with_context(|| format!("send {size} bytes"))?;
            match socket.recv(&mut bytes) {
                Ok(count) if count == *size => break,
                _ if Instant::now() > deadline => {
                    anyhow::bail!("{size} bytes to {to} did not come back")
                }
                _ => {}
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_of_every_size_come_back() -> Result<()> {
    let lan = published().await?;
    lan.within("t1", || {
        let socket = UdpSocket::bind("[::]:81")?;
        std::thread::spawn(move || {
            let mut bytes = vec![0; 10_000];
            while let Ok((count, from)) = socket.recv_from(&mut bytes) {
                if socket.send_to(&bytes[..count], from).is_err() {
                    return;
                }
            }
        });
        Ok(())
    })?;
    let mut lan = lan;
    lan.add_service(3, &[]);
    let port = lan
        .state
        .services
        .values()
        .next()
        .context("a service")?
        .ports[1]
        .clone();
    let web = lan
        .state
        .services
        .values_mut()
        .next()
        .context("a service")?;
    web.ports.push(weft_types::service::PortConfig {
        published_port: 8001,
        target_port: 81,
        ..port
    });
    lan.apply().await?;
    let sizes = [
        1, 2, 100, 1300, 1372, 1373, 1392, 1402, 1403, 1422, 1423, 1450, 1472, 1473, 2000, 4000,
        8900,
    ];
    for (from, to) in [
        ("t2", "10.0.0.5:81".parse()?),
        ("t2", "[fd00:1::5]:81".parse()?),
        ("c", SocketAddr::from((host4(2), 8001))),
        ("c", (host6(2), 8001).into()),
        ("c", (host4(1), 8001).into()),
        ("c", (host6(1), 8001).into()),
    ] {
        lan.within(from, move || sweep(to, &sizes))
            .with_context(|| format!("{from} to {to}\n{}", lan.report()))?;
    }
    Ok(())
}
