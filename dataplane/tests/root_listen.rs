//! A published port that answers at a named interface's addresses alone, and follows them. Needs root.

mod lan;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use anyhow::{Context as _, Result, ensure};
use lan::{CLIENT4, CLIENT6, Lan, eventually, host4, host6, ingress, run};
use weft_dataplane::Question;
use weft_types::{ServiceId, service::Protocol};

/// What hosts have at their second interface, which no other host is told of.
fn inner(host: u32) -> [IpAddr; 2] {
    let texts = [
        format!("198.51.100.{host}"),
        format!("2001:db8:51::{host:x}"),
    ];
    texts.map(|text| text.parse().expect("a test's address"))
}

fn outer(host: u32) -> [IpAddr; 2] {
    [host4(host).into(), host6(host).into()]
}

/// Gives a host's second interface an address, and the client the way there.
fn give(lan: &Lan, host: u32, addr: IpAddr) -> Result<()> {
    let (namespace, client) = (lan.namespace(&format!("n{host}")), lan.namespace("c"));
    let via = if addr.is_ipv4() {
        outer(host)[0]
    } else {
        outer(host)[1]
    };
    let (bits, flags) = if addr.is_ipv4() {
        (32, "")
    } else {
        (128, "nodad")
    };
    run(&format!(
        "ip -n {namespace} addr add {addr}/{bits} dev eth1 {flags} && ip -n {client} route replace {addr} via {via}"
    ))
    .map(drop)
}

/// A service at 8000 and at a range from 9000 on, with its one task on the second of two hosts.
async fn at_interface(label: &str) -> Result<Lan> {
    let mut lan = Lan::new(2)?;
    for host in [1, 2] {
        run(&format!(
            "ip -n {0} link add eth1 type veth peer name eth1x && ip -n {0} link set eth1 up && ip -n {0} link set eth1x up",
            lan.namespace(&format!("n{host}"))
        ))?;
        for addr in inner(host) {
            give(&lan, host, addr)?;
        }
    }
    lan.start_all().await?;
    let range = (0..10).map(|at| (Protocol::Tcp, 9000 + at, 1000 + at));
    let ports: Vec<_> = [(Protocol::Tcp, 8000, 80), (Protocol::Udp, 8000, 80)]
        .into_iter()
        .chain(range)
        .collect();
    let web = lan.add_service(1, &ports);
    let addresses: &[&str] = &["10.0.0.5/24", "fd00:1::5/64"];
    lan.add_task(1, Some(web), 2, &[(ingress(), addresses)])
        .await?;
    listen(&mut lan, label).await?;
    lan.serve("t1", 80)?;
    lan.serve("t1", 1005)?;
    Ok(lan)
}

async fn listen(lan: &mut Lan, label: &str) -> Result<()> {
    let service = lan.state.services.get_mut(&ServiceId::numbered(1));
    service.context("the service")?.labels =
        BTreeMap::from([("weft.listen".to_owned(), label.to_owned())]);
    lan.apply().await
}

/// That the client is answered there, at each port and by each protocol, as itself.
fn answers(lan: &Lan, addr: IpAddr) -> Result<()> {
    let client = if addr.is_ipv4() {
        CLIENT4.to_string()
    } else {
        CLIENT6.to_owned()
    };
    let expected = format!("t1 {client}");
    for port in [8000, 9005] {
        let said = lan.ask_tcp("c", (addr, port))?;
        ensure!(said == expected, "{addr}:{port}: {said}");
    }
    let said = lan.ask_udp("c", (addr, 8000))?;
    ensure!(said == expected, "{addr}:8000/udp: {said}");
    Ok(())
}

fn is_silent(lan: &Lan, addr: IpAddr) -> Result<()> {
    for port in [8000, 9005] {
        ensure!(lan.is_shut("c", (addr, port))?, "{addr}:{port} answers");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_answers_at_the_named_interface_of_every_host_and_nowhere_else() -> Result<()> {
    let mut lan = at_interface("eth1").await?;
    for host in [1, 2] {
        for addr in inner(host) {
            answers(&lan, addr)?;
        }
        for addr in outer(host) {
            is_silent(&lan, addr)?;
        }
        // The host's own processes, too: loopback is another interface.
        let own = format!("n{host}");
        lan.ask_tcp(&own, (inner(host)[0], 8000))?;
        for other in [host4(host), Ipv4Addr::LOCALHOST] {
            let to: SocketAddr = (other, 8000).into();
            assert!(lan.is_shut(&own, to)?, "{to} answers on {own}");
        }
    }
    // A task that asks at another host's interface goes there, and comes from its own host.
    let second = lan.namespace("n2");
    run(&format!(
        "ip -n {second} route add {} via {}",
        inner(1)[0],
        host4(1)
    ))?;
    assert_eq!(
        lan.ask_tcp("t1", (inner(1)[0], 8000))?,
        format!("t1 {}", host4(2))
    );
    // What explain says of it.
    let question = |server: IpAddr| Question {
        client: (CLIENT4, 4711).into(),
        server: (server, 8000).into(),
        protocol: Protocol::Tcp,
    };
    let steps = lan.hosts[&1].explain(question(host4(1).into())).await?;
    let why = "port 8000/tcp is published by service svc1, but not at 192.0.2.11: its label weft.listen names where";
    assert_eq!(steps[0].why[0], why);
    let steps = lan.hosts[&1].explain(question(inner(1)[0])).await?;
    assert_eq!(steps[0].decision, "tunnelled to the chosen backend's node");
    // Back to every address.
    lan.state
        .services
        .get_mut(&ServiceId::numbered(1))
        .context("the service")?
        .labels
        .clear();
    lan.apply().await?;
    for host in [1, 2] {
        for addr in inner(host).into_iter().chain(outer(host)) {
            answers(&lan, addr)?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_follows_the_addresses_of_its_interface() -> Result<()> {
    let mut lan = at_interface("eth1").await?;
    answers(&lan, inner(1)[0])?;
    // Nobody applies anything: the host looks for itself, and no other needs to know.
    let first = lan.namespace("n1");
    for (old, new) in inner(1).into_iter().zip(inner(101)) {
        give(&lan, 1, new)?;
        let bits = if old.is_ipv4() { 32 } else { 128 };
        run(&format!("ip -n {first} addr del {old}/{bits} dev eth1"))?;
        eventually(&format!("{new} answers"), async || {
            Ok(answers(&lan, new).is_ok())
        })
        .await?;
        // The old one now lies on the first interface, which is not meant.
        run(&format!("ip -n {first} addr add {old}/{bits} dev eth0"))?;
        eventually(&format!("{old} is silent"), async || {
            Ok(is_silent(&lan, old).is_ok())
        })
        .await?;
        answers(&lan, new)?;
    }
    // A mixture: the interface, and a prefix that only the other host has an address in.
    listen(&mut lan, "eth1,192.0.2.12").await?;
    answers(&lan, host4(2).into())?;
    answers(&lan, inner(2)[0])?;
    is_silent(&lan, host4(1).into())?;
    // An interface that no host has.
    listen(&mut lan, "eth7").await?;
    is_silent(&lan, inner(2)[0])?;
    run(&format!(
        "ip -n {first} link set eth1 down && ip -n {first} link set eth1 name eth7 && ip -n {first} link set eth7 up"
    ))?;
    eventually("the renamed interface answers", async || {
        Ok(answers(&lan, inner(101)[0]).is_ok())
    })
    .await
}
