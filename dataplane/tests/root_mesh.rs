//! Published ports through the loaded programs, on hosts that are namespaces. Needs root.

mod lan;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use anyhow::Result;
use lan::{CLIENT4, CLIENT6, Lan, host4, host6};

fn both(index: u32, port: u16) -> [(SocketAddr, IpAddr); 2] {
    let client6: Ipv6Addr = CLIENT6.parse().expect("a test's address");
    [
        ((host4(index), port).into(), CLIENT4.into()),
        ((host6(index), port).into(), client6.into()),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_published_port_answers_on_every_host_and_the_task_sees_the_client() -> Result<()> {
    let lan = Lan::published(3, 2).await?;
    for host in [2, 1, 3] {
        for (to, client) in both(host, 8000) {
            assert_eq!(lan.ask_tcp("c", to)?, format!("t1 {client}"));
            assert_eq!(lan.ask_udp("c", to)?, format!("t1 {client}"));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tunnels_packets_fill_no_hosts_table_of_connections() -> Result<()> {
    let lan = Lan::published(3, 2).await?;
    for _ in 0..20 {
        lan.ask_tcp("c", (host4(1), 8000))?;
    }
    for host in [1, 2] {
        let table = lan::within(&lan.netns_path(&format!("n{host}")), || {
            // The calling thread's namespace, not the process's.
            Ok(std::fs::read_to_string(
                "/proc/thread-self/net/nf_conntrack",
            )?)
        })?;
        let tunnelled = table.lines().filter(|line| line.contains("dport=4789"));
        assert_eq!(tunnelled.count(), 0, "on host {host}: {table}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hosts_own_processes_reach_published_ports_at_loopback_and_own_addresses() -> Result<()> {
    let lan = Lan::published(3, 2).await?;
    for host in [2, 1] {
        let name = format!("n{host}");
        for to in ["127.0.0.1:8000".parse()?, "[::1]:8000".parse()?] {
            let to: SocketAddr = to;
            let seen: IpAddr = if to.is_ipv4() {
                host4(host).into()
            } else {
                host6(host).into()
            };
            assert_eq!(
                lan.ask_tcp(&name, to)?,
                format!("t1 {seen}"),
                "n{host} {to}"
            );
            assert_eq!(
                lan.ask_udp(&name, to)?,
                format!("t1 {seen}"),
                "n{host} {to}"
            );
        }
        for own in [(host4(host), 8000).into(), (host6(host), 8000).into()] {
            let own: SocketAddr = own;
            assert_eq!(lan.ask_tcp(&name, own)?, format!("t1 {}", own.ip()));
        }
        // And at another host's address.
        let other = (host4(3), 8000);
        assert_eq!(lan.ask_tcp(&name, other)?, format!("t1 {}", host4(host)));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_one_host_may_have_a_loopback_data_path() -> Result<()> {
    let mut lan = Lan::new(1)?;
    let node = lan.state.nodes.values_mut().next().expect("one host");
    node.addr = "127.0.0.1".parse()?;
    node.addresses.insert(host4(1).into());
    let mut config = lan.config(1);
    config.data_path_addr = "127.0.0.1".parse()?;
    lan.hosts
        .insert(1, weft_dataplane::Dataplane::start(config).await?);
    lan.publish(1).await?;
    for (to, client) in both(1, 8000) {
        assert_eq!(lan.ask_tcp("c", to)?, format!("t1 {client}"));
    }
    let said = lan.ask_tcp("n1", "127.0.0.1:8000".parse::<SocketAddr>()?)?;
    assert_eq!(said, format!("t1 {}", host4(1)));
    Ok(())
}
