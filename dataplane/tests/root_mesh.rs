//! Published ports through the loaded programs, on hosts that are namespaces. Needs root.

mod lan;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use anyhow::Result;
use lan::{CLIENT4, CLIENT6, Lan, host4, host6, ingress};
use weft_types::service::Protocol;

fn both(index: u32, port: u16) -> [(SocketAddr, IpAddr); 2] {
    let client6: Ipv6Addr = CLIENT6.parse().expect("a test's address");
    [
        ((host4(index), port).into(), CLIENT4.into()),
        ((host6(index), port).into(), client6.into()),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_published_port_answers_on_every_host_and_the_task_sees_the_client() -> Result<()> {
    let mut lan = Lan::new(3)?;
    lan.start_all().await?;
    let web = lan.add_service(1, &[(Protocol::Tcp, 8000, 80), (Protocol::Udp, 8000, 80)]);
    lan.add_task(
        1,
        Some(web),
        2,
        &[(ingress(), &["10.0.0.5/24", "fd00:1::5/64"])],
    )
    .await?;
    lan.apply().await?;
    lan.serve("t1", 80)?;
    for host in [2, 1, 3] {
        for (to, client) in both(host, 8000) {
            assert_eq!(lan.ask_tcp("c", to)?, format!("t1 {client}"));
            assert_eq!(lan.ask_udp("c", to)?, format!("t1 {client}"));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hosts_own_processes_reach_published_ports_at_loopback_and_own_addresses() -> Result<()> {
    let mut lan = Lan::new(3)?;
    lan.start_all().await?;
    let web = lan.add_service(1, &[(Protocol::Tcp, 8000, 80), (Protocol::Udp, 8000, 80)]);
    lan.add_task(
        1,
        Some(web),
        2,
        &[(ingress(), &["10.0.0.5/24", "fd00:1::5/64"])],
    )
    .await?;
    lan.apply().await?;
    lan.serve("t1", 80)?;
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
    let web = lan.add_service(1, &[(Protocol::Tcp, 8000, 80), (Protocol::Udp, 8000, 80)]);
    lan.add_task(
        1,
        Some(web),
        1,
        &[(ingress(), &["10.0.0.5/24", "fd00:1::5/64"])],
    )
    .await?;
    lan.apply().await?;
    lan.serve("t1", 80)?;
    for (to, client) in both(1, 8000) {
        assert_eq!(lan.ask_tcp("c", to)?, format!("t1 {client}"));
    }
    let said = lan.ask_tcp("n1", "127.0.0.1:8000".parse::<SocketAddr>()?)?;
    assert_eq!(said, format!("t1 {}", host4(1)));
    Ok(())
}
