//! What labels of a service ask for, through the loaded programs: who may ask, where, and who answers.
//! Needs root.

mod lan;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use lan::{CLIENT4, CLIENT6, Lan, PATIENCE, eventually, host4, host6, ingress, run};
use weft_abi::{Front, FrontKey, maps};
use weft_types::{
    BackendId, ServiceId,
    netstate::EndpointPhase,
    service::{PortConfig, Protocol, PublishMode},
};

/// A service with these labels and a task on each of two hosts, published at 8000 and as a range from 20000
/// on, which leads to the tasks' 1000 and on.
async fn labelled(labels: &[(&str, &str)]) -> Result<Lan> {
    let mut lan = Lan::new(2)?;
    lan.start_all().await?;
    let web = lan.add_service(1, &[(Protocol::Tcp, 8000, 80), (Protocol::Udp, 8000, 80)]);
    for (number, addresses) in [
        (1, ["10.0.0.5/24", "fd00:1::5/64"]),
        (2, ["10.0.0.6/24", "fd00:1::6/64"]),
    ] {
        lan.add_task(number, Some(web), number, &[(ingress(), &addresses)])
            .await?;
    }
    label(&mut lan, web, labels)?;
    lan.apply().await?;
    lan.serve("t1", 80)?;
    lan.serve("t2", 80)?;
    Ok(lan)
}

fn label(lan: &mut Lan, service: ServiceId, labels: &[(&str, &str)]) -> Result<()> {
    let service = lan
        .state
        .services
        .get_mut(&service)
        .context("the service")?;
    let labels = labels
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    service.labels = labels.collect::<BTreeMap<_, _>>();
    Ok(())
}

/// How many of these questions each task answers.
fn shares(lan: &Lan, at: IpAddr, questions: u32) -> Result<BTreeMap<String, u32>> {
    let mut shares = BTreeMap::new();
    for _ in 0..questions {
        *shares.entry(lan.ask_udp("c", (at, 8000))?).or_insert(0) += 1;
    }
    Ok(shares)
}

/// A host's addresses, each with the client's of that family.
fn clients(host: u32) -> [(IpAddr, &'static str); 2] {
    [
        (host4(host).into(), "192.0.2.100"),
        (host6(host).into(), CLIENT6),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_stays_with_its_task() -> Result<()> {
    let lan = labelled(&[("weft.affinity", "60s")]).await?;
    for at in [|host| host4(host).into(), |host| host6(host).into()] as [fn(u32) -> IpAddr; 2] {
        let first = shares(&lan, at(1), 10)?;
        assert_eq!(first.len(), 1, "{first:?}");
        assert_eq!(
            shares(&lan, at(2), 10)?,
            first,
            "through the other host too"
        );
    }
    Ok(())
}

/// Which task answers each of these clients, asked once.
fn of_each(lan: &Lan, clients: &[Ipv4Addr]) -> Result<Vec<String>> {
    let ask = |client: &Ipv4Addr| {
        let client = *client;
        let said = lan.within("c", move || {
            let socket = UdpSocket::bind((client, 0))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.send_to(b"who?", (host4(1), 8000))?;
            let mut bytes = [0; 64];
            let count = lan::hear(|| socket.recv(&mut bytes))?;
            Ok(String::from_utf8_lossy(&bytes[..count]).into_owned())
        })?;
        let (task, seen) = said.split_once(' ').context("an answer")?;
        ensure!(seen == client.to_string(), "{client} was seen as {seen}");
        Ok(task.to_owned())
    };
    clients.iter().map(ask).collect()
}

/// Sixteen clients, so that a hash gives some of them the second of two tasks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_stays_when_tasks_come_and_until_its_time_is_over() -> Result<()> {
    let mut lan = labelled(&[("weft.affinity", "60s")]).await?;
    let client = lan.namespace("c");
    let clients: Vec<Ipv4Addr> = (0..16)
        .map(|at| Ipv4Addr::new(192, 0, 2, 150 + at))
        .collect();
    for address in &clients {
        run(&format!("ip -n {client} addr add {address}/24 dev eth0"))?;
    }
    let phase = |lan: &mut Lan, phase| -> Result<()> {
        let task = lan.state.endpoints.get_mut(&BackendId(20));
        task.context("the second task")?.phase = phase;
        Ok(())
    };
    phase(&mut lan, EndpointPhase::Starting)?;
    lan.apply().await?;
    let first = vec!["t1".to_owned(); clients.len()];
    assert_eq!(of_each(&lan, &clients)?, first);
    phase(&mut lan, EndpointPhase::Serving)?;
    lan.apply().await?;
    assert_eq!(of_each(&lan, &clients)?, first, "a task came");
    // Each asks more rarely than it is remembered, so each is chosen for anew.
    label(&mut lan, ServiceId::numbered(1), &[("weft.affinity", "1s")])?;
    lan.apply().await?;
    eventually("some client to be given the other task", async || {
        tokio::time::sleep(Duration::from_millis(2200)).await;
        Ok(of_each(&lan, &clients)?.contains(&"t2".to_owned()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_tasks_answer_and_weights_are_followed() -> Result<()> {
    let mut lan = labelled(&[("weft.prefer", "local")]).await?;
    for host in [1, 2] {
        for (at, client) in clients(host) {
            let shares = shares(&lan, at, 10)?;
            assert_eq!(shares, BTreeMap::from([(format!("t{host} {client}"), 10)]));
        }
    }
    label(
        &mut lan,
        ServiceId::numbered(1),
        &[("weft.weights", "n1=20,n2=1")],
    )?;
    lan.apply().await?;
    for (at, client) in clients(2) {
        let shares = shares(&lan, at, 60)?;
        let first = shares.get(&format!("t1 {client}")).copied().unwrap_or(0);
        assert!(first >= 45, "{shares:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_those_on_the_list_may_ask_and_only_where_it_listens() -> Result<()> {
    let mut lan = labelled(&[("weft.allow", "203.0.113.0/24,2001:db8:1::/64")]).await?;
    for (at, _) in clients(1) {
        assert!(lan.is_shut("c", (at, 8000))?);
    }
    let drops = lan.hosts[&1].drops().await?;
    assert!(
        drops.iter().any(|drop| drop.reason.contains("allow list")),
        "{drops:?}"
    );
    label(
        &mut lan,
        ServiceId::numbered(1),
        &[("weft.allow", "203.0.113.0/24,192.0.2.100,2001:db8::100/128")],
    )?;
    lan.apply().await?;
    for (at, client) in clients(1) {
        assert!(lan.ask_tcp("c", (at, 8000))?.ends_with(client));
    }
    // Each family for itself.
    label(
        &mut lan,
        ServiceId::numbered(1),
        &[("weft.allow", "2001:db8::/64")],
    )?;
    lan.apply().await?;
    assert!(lan.is_shut("c", (host4(1), 8000))?);
    assert!(lan.ask_tcp("c", (host6(1), 8000))?.ends_with(CLIENT6));
    // Never wider than asked for: on one host's address, then on loopback alone.
    label(
        &mut lan,
        ServiceId::numbered(1),
        &[("weft.listen", "192.0.2.12")],
    )?;
    lan.apply().await?;
    assert!(lan.is_shut("c", (host4(1), 8000))?);
    for _ in 0..6 {
        lan.ask_tcp("c", (host4(2), 8000))?;
    }
    label(
        &mut lan,
        ServiceId::numbered(1),
        &[("weft.listen", "127.0.0.1")],
    )?;
    lan.apply().await?;
    for host in [1, 2] {
        assert!(lan.is_shut("c", (host4(host), 8000))?);
        lan.ask_tcp(&format!("n{host}"), "127.0.0.1:8000".parse::<SocketAddr>()?)?;
        assert!(lan.is_shut(&format!("n{host}"), (host4(host), 8000))?);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_held_to_its_cap() -> Result<()> {
    // 200 kB there and back at 2 Mbit/s are 0.8 s each way, less what may come at once.
    let lan = labelled(&[("weft.cap", "2mbit")]).await?;
    for (at, _) in clients(1) {
        let begun = Instant::now();
        for _ in 0..2 {
            lan.ask_tcp("c", (at, 8000))?;
        }
        let took = begun.elapsed();
        assert!(
            took > Duration::from_millis(500),
            "400 kB by {at} took {took:?}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_ports_are_published_at_once() -> Result<()> {
    let mut lan = labelled(&[]).await?;
    let service = lan
        .state
        .services
        .get_mut(&ServiceId::numbered(1))
        .context("the service")?;
    service.ports.extend((0..10_000_u16).map(|at| PortConfig {
        name: String::new(),
        protocol: Protocol::Tcp,
        target_port: 1000 + at,
        published_port: 20_000 + at,
        publish_mode: PublishMode::Ingress,
    }));
    let begun = Instant::now();
    lan.apply().await?;
    let took = begun.elapsed();
    println!("ten thousand ports were published on two hosts in {took:?}");
    if std::env::var_os("WEFT_FULL").is_some() {
        ensure!(took < Duration::from_secs(1), "it took {took:?}");
    }
    for at in [0, 1, 4321, 9999] {
        for task in ["t1", "t2"] {
            lan.serve(task, 1000 + at)?;
        }
        for host in [1, 2] {
            let said = lan.ask_tcp("c", (host4(host), 20_000 + at))?;
            assert!(said.ends_with(&CLIENT4.to_string()), "{said}");
        }
    }
    assert!(lan.is_shut("c", (host4(1), 30_000))?, "one port further");
    // One entry, in the pieces that a longest-prefix map is made of; not one for each port.
    let mut entries = std::fs::read_dir(lan.pin_dir(1))?.flatten();
    let maps = entries.find(|entry| entry.file_name().to_string_lossy().starts_with("maps-"));
    let maps = maps.context("a directory of maps")?.path();
    let ports = MapData::from_pin(maps.join(maps::FRONT.name))?;
    let ports = HashMap::<_, [u8; size_of::<FrontKey>()], [u8; size_of::<Front>()]>::try_from(
        Map::HashMap(ports),
    )?;
    let single = ports.keys().count();
    assert!(single <= 4, "{single} entries for two single ports");
    Ok(())
}
