//! Networks of tasks through the loaded programs: reach, isolation, VIPs, the world. Needs root.

mod lan;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Result;
use lan::{CLIENT4, Lan, host4, host6, ingress, run};
use weft_types::{NetworkId, ServiceId};

fn red() -> NetworkId {
    NetworkId::numbered(2)
}

fn blue() -> NetworkId {
    NetworkId::numbered(3)
}

fn at(addr: &str, port: u16) -> SocketAddr {
    SocketAddr::new(addr.parse().expect("a test's address"), port)
}

/// Two networks; t1 and t2 on red on two hosts, t3 on both on the second host, t4 on blue.
async fn two_networks() -> Result<Lan> {
    let mut lan = Lan::new(2)?;
    lan.add_network(red(), 4097, &["10.0.1.0/24", "fd00:2::/64"], false);
    lan.add_network(blue(), 4098, &["10.0.2.0/24", "fd00:3::/64"], false);
    lan.start_all().await?;
    let red_service = lan.add_service(1, &[]);
    let vips = [(red(), vec!["10.0.1.2".parse()?, "fd00:2::2".parse()?])];
    lan.state
        .services
        .get_mut(&red_service)
        .expect("it was just added")
        .vips
        .extend(vips);
    lan.add_task(1, None, 1, &[(red(), &["10.0.1.11/24", "fd00:2::11/64"])])
        .await?;
    lan.add_task(
        2,
        Some(red_service),
        2,
        &[(red(), &["10.0.1.12/24", "fd00:2::12/64"])],
    )
    .await?;
    lan.add_task(
        3,
        Some(ServiceId::numbered(9)),
        2,
        &[
            (red(), &["10.0.1.13/24", "fd00:2::13/64"]),
            (blue(), &["10.0.2.13/24", "fd00:3::13/64"]),
        ],
    )
    .await?;
    lan.add_task(4, None, 1, &[(blue(), &["10.0.2.14/24", "fd00:3::14/64"])])
        .await?;
    lan.apply().await?;
    for name in ["t1", "t2", "t3", "t4"] {
        lan.serve(name, 80)?;
    }
    Ok(lan)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_of_one_network_reach_each_other_and_no_others() -> Result<()> {
    let lan = two_networks().await?;
    for (from, to, says) in [
        ("t1", at("10.0.1.12", 80), "t2 10.0.1.11"),
        ("t1", at("fd00:2::12", 80), "t2 fd00:2::11"),
        ("t2", at("10.0.1.13", 80), "t3 10.0.1.12"),
        ("t2", at("fd00:2::13", 80), "t3 fd00:2::12"),
        ("t3", at("10.0.2.14", 80), "t4 10.0.2.13"),
        ("t3", at("fd00:3::14", 80), "t4 fd00:3::13"),
        ("t4", at("10.0.2.13", 80), "t3 10.0.2.14"),
    ] {
        assert_eq!(lan.ask_tcp(from, to)?, says);
        assert_eq!(lan.ask_udp(from, to)?, says);
    }
    for (from, to) in [
        ("t1", "10.0.2.14"),
        ("t1", "fd00:3::14"),
        ("t4", "10.0.1.11"),
        ("t2", "10.0.2.14"),
    ] {
        assert!(lan.is_shut(from, at(to, 80))?, "{from} reaches {to}");
    }
    let drops = lan.hosts[&1].drops().await?;
    assert!(
        drops.iter().any(|drop| drop.program == "task_in"),
        "no drop was counted: {drops:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vip_leads_to_a_task_by_socket_and_by_packet() -> Result<()> {
    let lan = two_networks().await?;
    for vip in ["10.0.1.2", "fd00:2::2"] {
        let seen: IpAddr = if vip.contains(':') {
            "fd00:2::11".parse()?
        } else {
            "10.0.1.11".parse()?
        };
        assert_eq!(lan.ask_tcp("t1", at(vip, 80))?, format!("t2 {seen}"));
        assert_eq!(lan.ask_udp("t1", at(vip, 80))?, format!("t2 {seen}"));
        // A task that calls the service it belongs to, and is its only task.
        assert!(lan.ask_tcp("t2", at(vip, 80))?.starts_with("t2 "));
        assert!(
            lan.is_shut("t4", at(vip, 80))?,
            "a stranger reaches the VIP"
        );
        // The hosts' own processes, beside the task and away from it.
        for host in [1, 2] {
            let own = if vip.contains(':') {
                host6(host).to_string()
            } else {
                host4(host).to_string()
            };
            let name = format!("n{host}");
            assert_eq!(lan.ask_tcp(&name, at(vip, 80))?, format!("t2 {own}"));
            assert_eq!(lan.ask_udp(&name, at(vip, 80))?, format!("t2 {own}"));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hosts_own_processes_reach_tasks_by_address() -> Result<()> {
    let lan = two_networks().await?;
    for host in [1, 2] {
        let name = format!("n{host}");
        for to in ["10.0.1.11", "10.0.1.12", "10.0.2.13", "10.0.2.14"] {
            let said = lan.ask_tcp(&name, at(to, 80))?;
            assert!(
                said.ends_with(&format!(" {}", host4(host))),
                "{name} {to}: {said}"
            );
        }
        for to in ["fd00:2::11", "fd00:2::12", "fd00:3::13", "fd00:3::14"] {
            let said = lan.ask_tcp(&name, at(to, 80))?;
            assert!(
                said.ends_with(&format!(" {}", host6(host))),
                "{name} {to}: {said}"
            );
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_reach_the_world_masqueraded_with_and_without_networks() -> Result<()> {
    let mut lan = two_networks().await?;
    // What Docker does to hosts.
    let host = lan.namespace("n1");
    run(&format!(
        "ip netns exec {host} nft add table ip filter && ip netns exec {host} nft \
         'add chain ip filter FORWARD {{ type filter hook forward priority 0 ; policy drop ; }}'"
    ))?;
    lan.apply().await?;
    lan.serve("c", 7000)?;
    assert_eq!(
        lan.ask_tcp("t1", (CLIENT4, 7000))?,
        format!("c {}", host4(1))
    );
    assert_eq!(
        lan.ask_udp("t1", (CLIENT4, 7000))?,
        format!("c {}", host4(1))
    );
    assert_eq!(
        lan.ask_tcp("t1", at("2001:db8::100", 7000))?,
        format!("c {}", host6(1))
    );
    let sandbox = lan.add_task(7, None, 1, &[]).await?;
    assert_eq!(
        sandbox.addresses,
        [IpAddr::from(Ipv4Addr::new(172, 29, 0, 2))]
    );
    assert_eq!(
        lan.ask_tcp("t7", (CLIENT4, 7000))?,
        format!("c {}", host4(1))
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_resolvers_sockets_are_inside_the_sandbox() -> Result<()> {
    let mut lan = Lan::new(1)?;
    lan.start_all().await?;
    let sandbox = lan
        .add_task(1, None, 1, &[(ingress(), &["10.0.0.5/24"])])
        .await?;
    let sockets = sandbox.open_resolver().await?;
    assert_eq!(sockets.udp.local_addr()?, at("127.0.0.11", 53));
    let inside = lan.within("t1", || {
        Ok(std::net::TcpStream::connect("127.0.0.11:53")?.peer_addr()?)
    })?;
    assert_eq!(inside, sockets.tcp.local_addr()?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_while_nobody_holds_the_resolver_hears_nothing_and_asks_again() -> Result<()> {
    let mut lan = Lan::new(1)?;
    lan.start_all().await?;
    let sandbox = lan
        .add_task(1, None, 1, &[(ingress(), &["10.0.0.5/24"])])
        .await?;
    drop(sandbox.open_resolver().await?);
    // The engine's resolver, and the NAT that leads our address to it.
    let nat = "table ip nat { chain output { type nat hook output priority -100; \
        ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:5311; \
        ip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:5311; } ; }";
    let (engine_udp, engine_tcp) = lan.within("t1", move || {
        let made = std::process::Command::new("nft").arg(nat).status()?;
        anyhow::ensure!(made.success(), "nft: {made}");
        let at = ("127.0.0.11", 5311);
        Ok((
            std::net::UdpSocket::bind(at)?,
            std::net::TcpListener::bind(at)?,
        ))
    })?;
    let asker = lan.within("t1", || {
        let asker = std::net::UdpSocket::bind("127.0.0.1:0")?;
        asker.connect("127.0.0.11:53")?;
        asker.send(b"first")?;
        // A refusal comes before `send` returns, so the next one would give it.
        asker.send(b"second")?;
        Ok(asker)
    })?;
    let sockets = sandbox.open_resolver().await?;
    asker.send(b"third")?;
    sockets.udp.set_nonblocking(false)?;
    sockets
        .udp
        .set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
    let mut heard = [0; 16];
    let (len, from) = lan::hear(|| sockets.udp.recv_from(&mut heard))?;
    assert_eq!((&heard[..len], from), (&b"third"[..], asker.local_addr()?));
    engine_udp.set_nonblocking(true)?;
    let led_away = engine_udp.recv(&mut heard);
    assert!(
        led_away.is_err(),
        "the engine's resolver was asked: {heard:?}"
    );
    let inside = lan.within("t1", || Ok(std::net::TcpStream::connect("127.0.0.11:53")?))?;
    sockets.tcp.set_nonblocking(false)?;
    assert_eq!(sockets.tcp.accept()?.1, inside.local_addr()?);
    // Ours asks it where it listens.
    let udp = sandbox.engine_udp().await?;
    let udp = udp.expect("the engine's resolver is there");
    assert_eq!(udp.peer_addr()?.port(), 5311);
    let tcp = sandbox.engine_tcp().await?;
    assert_eq!(
        engine_tcp.accept()?.1,
        tcp.expect("it listens").local_addr()?
    );
    drop((engine_udp, engine_tcp));
    assert!(sandbox.engine_udp().await?.is_none());
    assert!(sandbox.engine_tcp().await?.is_none());
    // Without us everything is the engine's again.
    drop(sockets);
    sandbox.leave_resolver().await?;
    let refused = lan.within("t1", || {
        let patience = std::time::Duration::from_secs(10);
        let asked = std::net::TcpStream::connect_timeout(&at("127.0.0.11", 53), patience);
        Ok(asked.map_err(|error| error.kind()))
    })?;
    assert_eq!(refused.err(), Some(std::io::ErrorKind::ConnectionRefused));
    Ok(())
}
