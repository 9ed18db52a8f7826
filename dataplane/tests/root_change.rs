//! Change under traffic: drains, removals, new links, host ports. Needs root.

mod lan;

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lan::{
    CLIENT4, CLIENT6, INGRESS_VNI, Lan, PATIENCE, eventually, hear, host4, host6, ingress, run,
};
use weft_types::{
    BackendId, NetworkId, TaskId,
    netstate::EndpointPhase,
    service::{PortConfig, Protocol, PublishMode},
};

/// A service with a task on each of two hosts, and a third host.
async fn two_backends() -> Result<Lan> {
    let mut lan = Lan::new(3)?;
    lan.start_all().await?;
    let web = lan.publish(1).await?;
    let addresses: &[&str] = &["10.0.0.6/24", "fd00:1::6/64"];
    lan.add_task(2, Some(web), 2, &[(ingress(), addresses)])
        .await?;
    lan.apply().await?;
    lan.serve("t2", 80)?;
    Ok(lan)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_backends_get_their_share() -> Result<()> {
    let lan = two_backends().await?;
    let mut seen = BTreeSet::new();
    for _ in 0..40 {
        seen.insert(lan.ask_udp("c", (host4(3), 8000))?);
    }
    assert_eq!(
        seen,
        BTreeSet::from([format!("t1 {CLIENT4}"), format!("t2 {CLIENT4}")])
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_task_keeps_its_connections_and_gets_no_new_ones() -> Result<()> {
    let mut lan = two_backends().await?;
    // Connections to both, through a host that has neither.
    let mut streams = Vec::new();
    let mut names = BTreeSet::new();
    while names.len() < 2 {
        let (mut stream, name) = lan.within("c", || lan::greeted((host4(3), 8000).into()))?;
        names.insert(name);
        lan::echo(&mut stream, b"hello")?;
        streams.push(stream);
    }
    lan.state
        .endpoints
        .get_mut(&BackendId(20))
        .context("t2")?
        .phase = EndpointPhase::Draining;
    lan.apply().await?;
    for stream in &mut streams {
        lan::echo(stream, b"still there")?;
    }
    for _ in 0..20 {
        assert_eq!(lan.ask_tcp("c", (host4(3), 8000))?, format!("t1 {CLIENT4}"));
        assert_eq!(lan.ask_udp("c", (host4(2), 8000))?, format!("t1 {CLIENT4}"));
    }
    let host = lan.hosts[&2].clone();
    assert!(host.flows(BackendId(20)).await? >= 1);
    for stream in &mut streams {
        lan::echo(stream, b"and after new ones")?;
    }
    drop(streams);
    eventually("t2's flows to end", async || {
        Ok(host.flows(BackendId(20)).await? == 0)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_of_a_removed_task_go_to_another() -> Result<()> {
    let mut lan = two_backends().await?;
    let socket = lan.within("c", || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        socket.connect((host4(3), 8000))?;
        Ok(socket)
    })?;
    let ask = || -> Option<String> {
        let mut bytes = [0; 100];
        socket.send(b"?").ok()?;
        let count = socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..count]).into_owned())
    };
    let mut first = None;
    eventually("an answer", async || {
        first = ask();
        Ok(first.is_some())
    })
    .await?;
    let (gone, host) = if first.is_some_and(|said| said.starts_with("t1")) {
        (1, 1)
    } else {
        (2, 2)
    };
    let removed = Instant::now();
    lan.hosts[&host]
        .remove_sandbox(TaskId::numbered(u128::from(gone)))
        .await?;
    lan.state.endpoints.remove(&BackendId(gone * 10));
    lan.apply().await?;
    let other = format!("t{} {CLIENT4}", 3 - gone);
    eventually("the other task to answer the same socket", async || {
        Ok(ask().as_ref() == Some(&other))
    })
    .await?;
    let took = removed.elapsed();
    println!("the other task answered {took:?} after the first was removed");
    if std::env::var_os("WEFT_FULL").is_some() {
        ensure!(took < Duration::from_secs(1), "it took {took:?}");
    }
    Ok(())
}

/// What programs do that open one socket for good: it is answered by who is there, and never has to be opened anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tasks_connected_socket_goes_on_at_another_task_of_the_service() -> Result<()> {
    let mut lan = Lan::new(2)?;
    let red = NetworkId::numbered(2);
    lan.add_network(red, 4097, &["10.0.1.0/24", "fd00:2::/64"], false);
    lan.start_all().await?;
    let service = lan.add_service(1, &[]);
    let vips = vec!["10.0.1.100".parse()?, "fd00:2::100".parse()?];
    let told = lan.state.services.get_mut(&service).context("service")?;
    told.vips.insert(red, vips.clone());
    for (number, host, service) in [(1, 1, None), (2, 1, Some(service)), (3, 2, Some(service))] {
        let (four, six) = (
            format!("10.0.1.{number}/24"),
            format!("fd00:2::{number}/64"),
        );
        lan.add_task(number, service, host, &[(red, &[&four, &six])])
            .await?;
        lan.serve(&format!("t{number}"), 80)?;
    }
    lan.apply().await?;
    let sockets = vips.into_iter().map(|vip: IpAddr| {
        lan.within("t1", move || {
            let any = if vip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            socket.set_read_timeout(Some(Duration::from_millis(200)))?;
            socket.connect((vip, 80))?;
            Ok(socket)
        })
    });
    let sockets = sockets.collect::<Result<Vec<_>>>()?;
    // A refusal, as long as it is one, is an error of the socket's next call.
    let ask = |socket: &UdpSocket| -> Option<String> {
        let mut bytes = [0; 100];
        socket.send(b"?").ok()?;
        let count = socket.recv(&mut bytes).ok()?;
        let said = String::from_utf8_lossy(&bytes[..count]);
        said.split(' ').next().map(str::to_owned)
    };
    // First the one leaves and comes back, then the other: one of them is who answered.
    for gone in [2, 3, 2] {
        let endpoint = lan.state.endpoints.remove(&BackendId(gone * 10));
        lan.apply().await?;
        let other = format!("t{}", 5 - gone);
        for socket in &sockets {
            let what = format!("{other} to answer {:?}", socket.peer_addr());
            eventually(&what, async || Ok(ask(socket).as_ref() == Some(&other))).await?;
        }
        lan.state
            .endpoints
            .insert(BackendId(gone * 10), endpoint.context("a task")?);
        lan.apply().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_reaches_published_ports_of_every_host_itself_included() -> Result<()> {
    let lan = two_backends().await?;
    for task in ["t1", "t2"] {
        for host in 1..=3 {
            for to in [
                SocketAddr::from((host4(host), 8000)),
                (host6(host), 8000).into(),
            ] {
                for _ in 0..4 {
                    let said = lan.ask_tcp(task, to)?;
                    assert!(said.starts_with("t1 ") || said.starts_with("t2 "), "{said}");
                }
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_port_answers_where_its_task_runs_and_nowhere_else() -> Result<()> {
    let mut lan = two_backends().await?;
    lan.state
        .endpoints
        .get_mut(&BackendId(20))
        .context("t2")?
        .host_ports = [Protocol::Tcp, Protocol::Udp]
        .map(|protocol| PortConfig {
            name: String::new(),
            protocol,
            target_port: 80,
            published_port: 9000,
            publish_mode: PublishMode::Host,
        })
        .into();
    lan.apply().await?;
    let faces = |host| {
        [
            (SocketAddr::from((host4(host), 9000)), CLIENT4.to_string()),
            ((host6(host), 9000).into(), CLIENT6.to_owned()),
        ]
    };
    for (there, client) in faces(2) {
        assert_eq!(lan.ask_tcp("c", there)?, format!("t2 {client}"));
        assert_eq!(lan.ask_udp("c", there)?, format!("t2 {client}"));
    }
    for (elsewhere, _) in faces(1) {
        assert!(lan.is_shut("c", elsewhere)?, "{elsewhere}/tcp");
        assert!(refuses_datagrams(&lan, elsewhere)?, "{elsewhere}/udp");
    }
    Ok(())
}

/// Whether the client hears that nobody takes its datagrams there.
fn refuses_datagrams(lan: &Lan, to: SocketAddr) -> Result<bool> {
    lan.within("c", move || {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect(to)?;
        socket.send(b"?")?;
        let heard = hear(|| socket.recv(&mut [0; 100]));
        Ok(heard.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_link_of_a_host_answers_too() -> Result<()> {
    let mut lan = two_backends().await?;
    let inside = lan.add_namespace("b")?;
    let host = lan.namespace("n3");
    // As an engine makes its bridge and a container on it.
    run(&format!(
        "ip -n {host} link add docker0 type bridge && ip -n {host} addr add 172.30.3.1/24 dev docker0 && \
         ip -n {host} link set docker0 up && ip -n {host} link add vethx type veth peer name eth0 netns {inside} && \
         ip -n {host} link set vethx master docker0 up && ip -n {inside} addr add 172.30.3.2/24 dev eth0 && \
         ip -n {inside} link set eth0 up && ip -n {inside} route add default via 172.30.3.1"
    ))?;
    let dataplane = lan.hosts[&3].clone();
    eventually("docker0 to be an uplink", async || {
        Ok(dataplane
            .status()
            .await
            .uplinks
            .iter()
            .any(|name| name == "docker0"))
    })
    .await?;
    for to in [Ipv4Addr::new(172, 30, 3, 1), host4(3)] {
        let said = lan.ask_tcp("b", (to, 8000))?;
        assert!(said.ends_with(" 172.30.3.2"), "{said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_stops_answering_leaves_the_rings_without_any_manager_and_comes_back()
-> Result<()> {
    let lan = two_backends().await?;
    let switch = lan.namespace("s");
    let port = lan.switch_port("n2");
    let ask = || lan.ask_tcp("c", (host4(3), 8000));
    let mut seen = BTreeSet::new();
    eventually("both tasks to answer", async || {
        seen.insert(ask()?);
        Ok(seen.len() == 2)
    })
    .await?;
    run(&format!("ip -n {switch} link set {port} nomaster"))?;
    // Until it is noticed, some fail.
    let mut good = 0;
    eventually("20 answers in a row of the task that is left", async || {
        good = if ask().is_ok_and(|said| said.starts_with("t1 ")) {
            good + 1
        } else {
            0
        };
        Ok(good == 20)
    })
    .await?;
    run(&format!("ip -n {switch} link set {port} master br0"))?;
    eventually(
        "the host to be back",
        async || Ok(ask()?.starts_with("t2 ")),
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_whose_agent_is_gone_is_not_dead() -> Result<()> {
    let mut lan = two_backends().await?;
    drop(lan.hosts.remove(&2));
    // Long enough for a dead host to be noticed twice over.
    let until = std::time::Instant::now() + Duration::from_secs(2);
    let mut seen = BTreeSet::new();
    while std::time::Instant::now() < until || seen.len() < 2 {
        seen.insert(lan.ask_tcp("c", (host4(3), 8000))?);
        anyhow::ensure!(
            until.elapsed() < Duration::from_secs(60),
            "only {seen:?} answer"
        );
    }
    Ok(())
}

/// A floating address is answered at as soon as the host has it: no client waits for the next look.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn published_ports_answer_on_a_larger_ingress_network_in_the_place_of_the_first() -> Result<()>
{
    let mut lan = two_backends().await?;
    lan.ask_tcp("c", (host4(3), 8000))?;
    for (number, host) in [(1, 1), (2, 2)] {
        lan.hosts[&host]
            .remove_sandbox(TaskId::numbered(number))
            .await?;
    }
    lan.state.endpoints.clear();
    lan.state.networks.clear();
    lan.apply().await?;
    assert!(lan.is_shut("c", (host4(3), 8000))?);

    let larger = NetworkId::numbered(2);
    // The first one's number is free again, and taken.
    lan.add_network(larger, INGRESS_VNI, &["10.11.0.0/16", "fd00:2::/64"], true);
    let web = lan.state.services.keys().next().copied();
    let addresses: &[&str] = &["10.11.200.5/16", "fd00:2::c805/64"];
    lan.add_task(3, web, 2, &[(larger, addresses)]).await?;
    lan.apply().await?;
    lan.serve("t3", 80)?;
    for host in 1..=3 {
        let said = lan.ask_tcp("c", (host4(host), 8000))?;
        assert_eq!(said, format!("t3 {CLIENT4}"));
        assert_eq!(
            lan.ask_tcp("c", (host6(host), 8000))?,
            format!("t3 {}", lan::CLIENT6)
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_a_host_gains_is_answered_at_without_a_look() -> Result<()> {
    let mut lan = Lan::new(1)?;
    lan.start_with(1, |config| config.look_every = Duration::from_secs(3600))
        .await?;
    let web = lan.add_service(1, &[(Protocol::Tcp, 8000, 80)]);
    lan.add_task(1, Some(web), 1, &[(ingress(), &["10.0.0.5/24"])])
        .await?;
    lan.apply().await?;
    lan.serve("t1", 80)?;
    let floating = Ipv4Addr::new(192, 0, 2, 200);
    run(&format!(
        "ip -n {} addr add {floating}/32 dev eth0",
        lan.namespace("n1")
    ))?;
    eventually("the new address to be answered at", async || {
        Ok(lan.ask_tcp("c", (floating, 8000)).is_ok())
    })
    .await
}
