//! Choice that looks at more than the hash, as a whole: near tasks first with spill-over, and fewest
//! connections. Needs root.

mod lan;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
    net::{IpAddr, TcpStream},
};

use anyhow::{Context as _, Result, ensure};
use lan::{CLIENT4, Lan, PATIENCE, eventually, host4, host6, ingress, run};
use weft_types::{BackendId, NodeId, ServiceId, netstate::EndpointPhase, service::Protocol};

/// A service with this label at 8000 and tasks `t2` and `t3` on the second and third of so many hosts; the
/// first two stand in zone east, all others in zone west.
async fn far_and_near(hosts: u32, label: (&str, &str)) -> Result<Lan> {
    let mut lan = Lan::new(hosts)?;
    for node in lan.state.nodes.values_mut() {
        node.zone = if node.index <= 2 { "east" } else { "west" }.to_owned();
    }
    lan.start_all().await?;
    let web = lan.add_service(1, &[(Protocol::Tcp, 8000, 80), (Protocol::Udp, 8000, 80)]);
    for (number, addresses) in [
        (2, ["10.0.0.5/24", "fd00:1::5/64"]),
        (3, ["10.0.0.6/24", "fd00:1::6/64"]),
    ] {
        lan.add_task(number, Some(web), number, &[(ingress(), &addresses)])
            .await?;
    }
    wish(&mut lan, label).await?;
    lan.serve("t2", 80)?;
    lan.serve("t3", 80)?;
    Ok(lan)
}

async fn wish(lan: &mut Lan, (name, value): (&str, &str)) -> Result<()> {
    let service = lan.state.services.get_mut(&ServiceId::numbered(1));
    service.context("the service")?.labels = BTreeMap::from([(name.to_owned(), value.to_owned())]);
    lan.apply().await
}

async fn phase(lan: &mut Lan, task: u32, phase: EndpointPhase) -> Result<()> {
    let endpoint = lan.state.endpoints.get_mut(&BackendId(task * 10));
    endpoint.context("the task")?.phase = phase;
    lan.apply().await
}

/// Who answers at a host, asked often enough that one who may be chosen is; the same by both families.
fn answer_at(lan: &Lan, host: u32) -> Result<BTreeSet<String>> {
    let at = |ip: IpAddr| -> Result<BTreeSet<String>> {
        let mut who = BTreeSet::new();
        for _ in 0..24 {
            let said = lan.ask_udp("c", (ip, 8000))?;
            who.extend(said.split(' ').next().map(str::to_owned));
        }
        Ok(who)
    };
    let (four, six) = (at(host4(host).into())?, at(host6(host).into())?);
    ensure!(four == six, "{four:?} by IPv4, {six:?} by IPv6");
    Ok(four)
}

fn only(task: &str) -> BTreeSet<String> {
    BTreeSet::from([task.to_owned()])
}

fn all() -> BTreeSet<String> {
    ["t2", "t3"].map(str::to_owned).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_of_the_own_zone_answer_until_none_is_left_there() -> Result<()> {
    let mut lan = far_and_near(4, ("weft.prefer", "zone")).await?;
    let near = [(1, "t2"), (2, "t2"), (3, "t3"), (4, "t3")];
    for (host, task) in near {
        assert_eq!(answer_at(&lan, host)?, only(task), "at n{host}");
    }
    // The zone's only task leaves: all others are asked; it comes back, and is asked alone.
    phase(&mut lan, 2, EndpointPhase::Draining).await?;
    for host in 1..=4 {
        assert_eq!(answer_at(&lan, host)?, only("t3"), "spilt at n{host}");
    }
    phase(&mut lan, 2, EndpointPhase::Serving).await?;
    for (host, task) in near {
        assert_eq!(answer_at(&lan, host)?, only(task), "again at n{host}");
    }
    // Its host falls silent: the hosts find out by themselves, nobody applies anything.
    let (switch, port) = (lan.namespace("s"), lan.switch_port("n2"));
    run(&format!("ip -n {switch} link set {port} down"))?;
    eventually("the other zone to answer at n1", async || {
        Ok(answer_at(&lan, 1).is_ok_and(|who| who == only("t3")))
    })
    .await?;
    run(&format!("ip -n {switch} link set {port} up"))?;
    eventually("the own zone to answer at n1 again", async || {
        Ok(answer_at(&lan, 1).is_ok_and(|who| who == only("t2")))
    })
    .await?;
    // Who stands nowhere is near nobody.
    let node = lan.state.nodes.get_mut(&NodeId::numbered(1));
    node.context("n1")?.zone.clear();
    lan.apply().await?;
    assert_eq!(answer_at(&lan, 1)?, all());
    assert_eq!(answer_at(&lan, 2)?, only("t2"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_of_the_own_host_answer_until_none_is_left_there() -> Result<()> {
    let mut lan = far_and_near(3, ("weft.prefer", "local")).await?;
    assert_eq!(answer_at(&lan, 1)?, all(), "n1 has none");
    assert_eq!(answer_at(&lan, 2)?, only("t2"));
    assert_eq!(answer_at(&lan, 3)?, only("t3"));
    phase(&mut lan, 2, EndpointPhase::Draining).await?;
    assert_eq!(answer_at(&lan, 2)?, only("t3"), "spilt");
    phase(&mut lan, 2, EndpointPhase::Serving).await?;
    assert_eq!(answer_at(&lan, 2)?, only("t2"), "again");
    // First the host, then the zone.
    wish(&mut lan, ("weft.prefer", "local,zone")).await?;
    assert_eq!(answer_at(&lan, 1)?, only("t2"), "the zone's");
    assert_eq!(answer_at(&lan, 2)?, only("t2"));
    phase(&mut lan, 2, EndpointPhase::Draining).await?;
    assert_eq!(answer_at(&lan, 2)?, only("t3"), "spilt twice");
    Ok(())
}

/// Opens a connection through a host, and tells who took it.
fn open(lan: &Lan, host: u32) -> Result<(String, TcpStream)> {
    let mut stream = lan.within("c", move || {
        Ok(TcpStream::connect_timeout(
            &(host4(host), 8000).into(),
            PATIENCE,
        )?)
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = Vec::new();
    let mut byte = [0];
    while byte[0] != b'\n' {
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    let line = String::from_utf8(line)?;
    let (who, client) = line.trim().split_once(' ').context("a greeting")?;
    ensure!(client == CLIENT4.to_string(), "came as {client}");
    Ok((who.to_owned(), stream))
}

/// Of so many new connections through all hosts in turn, how many `t2` takes; they stay open.
fn taken(lan: &Lan, count: u32, held: &mut Vec<TcpStream>) -> Result<u32> {
    let mut taken = 0;
    for number in 0..count {
        let (who, stream) = open(lan, 1 + number % 3)?;
        taken += u32::from(who == "t2");
        held.push(stream);
    }
    Ok(taken)
}

/// A hash alone would give each task half. One connection in thirty-two has no choice: of its few tries
/// at a second task, none finds one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_connections_go_to_the_task_with_fewer_wherever_they_come_in() -> Result<()> {
    let mut lan = far_and_near(3, ("weft.choice", "leastconn")).await?;
    let mut held = Vec::new();
    phase(&mut lan, 2, EndpointPhase::Draining).await?;
    assert_eq!(taken(&lan, 60, &mut held)?, 0, "t2 is not to be chosen");
    phase(&mut lan, 2, EndpointPhase::Serving).await?;
    let light = taken(&lan, 50, &mut held)?;
    ensure!(light >= 40, "t2 has the fewer, and took {light} of 50");
    wish(&mut lan, ("weft.choice", "ring")).await?;
    let half = taken(&lan, 100, &mut held)?;
    ensure!(
        (25..=75).contains(&half),
        "by hash alone t2 took {half} of 100"
    );
    Ok(())
}
