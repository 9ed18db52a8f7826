//! UDP sockets that were led to a task when they connected, and the end of that task: they are ended too, so that
//! their processes connect anew. Needs root.

mod lan;

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr, UdpSocket},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lan::{Lan, PATIENCE, asking, eventually, hear, host4, host6, ingress, run};
use weft_types::{BackendId, NetworkId, TaskId, netstate::EndpointPhase, service::Protocol};

const VIPS: [&str; 2] = ["10.0.1.100", "fd00:2::100"];

/// Two hosts with two services: one with VIPs and the tasks t2 and t3, one that publishes port 8000 and has t4 and t5;
/// the first of each is at `homes[0]`. And t1, a task of host 1 that shares a network with the former two.
async fn world(labels: &[(&str, &str)], homes: [u32; 2]) -> Result<Lan> {
    let mut lan = Lan::new(2)?;
    let red = NetworkId::numbered(2);
    lan.add_network(red, 4097, &["10.0.1.0/24", "fd00:2::/64"], false);
    lan.start_all().await?;
    let asked = lan.add_service(1, &[]);
    let published = lan.add_service(2, &[(Protocol::Udp, 8000, 80)]);
    let vips = VIPS.iter().map(|vip| vip.parse());
    let vips: Vec<IpAddr> = vips.collect::<Result<_, _>>()?;
    let told = lan.state.services.get_mut(&asked).context("service")?;
    told.vips.insert(red, vips);
    for service in lan.state.services.values_mut() {
        let labels = labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        service.labels = labels.collect();
    }
    for (number, home) in [(2, homes[0]), (3, homes[1])] {
        let (a, b) = (
            format!("10.0.1.{number}/24"),
            format!("fd00:2::{number}/64"),
        );
        lan.add_task(number, Some(asked), home, &[(red, &[&a, &b])])
            .await?;
        let number = number + 2;
        let (a, b) = (
            format!("10.0.0.{number}/24"),
            format!("fd00:1::{number}/64"),
        );
        lan.add_task(number, Some(published), home, &[(ingress(), &[&a, &b])])
            .await?;
    }
    lan.add_numbered(1, 1, red).await?;
    lan.apply().await?;
    for task in ["t2", "t3", "t4", "t5"] {
        lan.serve(task, 80)?;
    }
    Ok(lan)
}

/// The tasks that may answer there.
fn tasks(at: &SocketAddr) -> [&'static str; 2] {
    if at.port() == 8000 {
        ["t4", "t5"]
    } else {
        ["t2", "t3"]
    }
}

/// Where a process of host 1 finds the service.
fn addresses_of_hosts() -> Vec<SocketAddr> {
    let mut all = addresses_of_tasks();
    let ips: [IpAddr; 4] = [
        [127, 0, 0, 1].into(),
        std::net::Ipv6Addr::LOCALHOST.into(),
        host4(1).into(),
        host6(1).into(),
    ];
    all.extend(ips.map(|ip| SocketAddr::new(ip, 8000)));
    let mapped = std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    all.push((mapped, 8000).into());
    all
}

/// Where a task does.
fn addresses_of_tasks() -> Vec<SocketAddr> {
    VIPS.map(|vip| SocketAddr::new(vip.parse().expect("a VIP"), 80))
        .into()
}

/// Which task answers on a connected socket; nobody, for the moment.
fn answer(socket: &UdpSocket) -> Option<String> {
    let mut bytes = [0; 100];
    socket.send(b"?").ok()?;
    let count = socket.recv(&mut bytes).ok()?;
    let said = String::from_utf8_lossy(&bytes[..count]);
    said.split(' ').next().map(str::to_owned)
}

/// A process' connected socket, and the task that answers on it.
async fn connected(lan: &Lan, who: &str, to: SocketAddr) -> Result<(UdpSocket, String)> {
    let socket = lan.within(who, move || asking(to))?;
    let mut said = None;
    eventually(&format!("an answer from {to}"), async || {
        said = answer(&socket);
        Ok(said.is_some())
    })
    .await?;
    Ok((socket, said.context("an answer")?))
}

/// A socket on which this task answers.
async fn connected_to(lan: &Lan, who: &str, to: SocketAddr, task: &str) -> Result<UdpSocket> {
    loop {
        let (socket, said) = connected(lan, who, to).await?;
        if said == task {
            return Ok(socket);
        }
    }
}

/// A process that only listens, on a socket of its own.
struct Listener {
    socket: UdpSocket,
    ended: JoinHandle<(io::Result<usize>, Instant)>,
}

impl Listener {
    fn on(socket: UdpSocket) -> Result<Self> {
        socket.set_read_timeout(Some(PATIENCE))?;
        let own = socket.try_clone()?;
        let listen = move || {
            let heard = hear(|| own.recv(&mut [0; 100]));
            (heard, Instant::now())
        };
        Ok(Self {
            socket,
            ended: std::thread::spawn(listen),
        })
    }

    /// That the process was told, how long after `since`; the socket, which can be connected anew.
    fn told(self, since: Instant) -> Result<(UdpSocket, Duration)> {
        let ended = self.ended.join();
        let (heard, at) = ended.map_err(|_| anyhow::anyhow!("panicked"))?;
        let heard = heard.map_err(|error| error.kind());
        ensure!(
            heard == Err(ErrorKind::ConnectionAborted),
            "heard {heard:?}"
        );
        let took = at.saturating_duration_since(since);
        println!("told {took:?} after the task was gone");
        if std::env::var_os("WEFT_FULL").is_some() {
            ensure!(took < Duration::from_secs(1), "it took {took:?}");
        }
        self.socket
            .set_read_timeout(Some(Duration::from_millis(300)))?;
        Ok((self.socket, took))
    }
}

async fn remove(lan: &mut Lan, number: u32, home: u32) -> Result<()> {
    if let Some(host) = lan.hosts.get(&home) {
        host.remove_sandbox(TaskId::numbered(number.into())).await?;
    }
    lan.state.endpoints.remove(&BackendId(number * 10));
    lan.apply().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hosts_sockets_that_were_led_to_a_task_end_with_it_and_no_others() -> Result<()> {
    let mut lan = world(&[], [1, 2]).await?;
    let (mut ending, mut staying) = (Vec::new(), Vec::new());
    for to in addresses_of_hosts() {
        let [stays, goes] = tasks(&to);
        ending.push((to, connected_to(&lan, "n1", to, goes).await?));
        staying.push((to, connected_to(&lan, "n1", to, stays).await?));
    }
    // These ask the same task at the same port, but nobody led them.
    let mut own = Vec::new();
    for to in ["10.0.1.3:80", "[fd00:2::3]:80"] {
        own.push(connected(&lan, "n1", to.parse()?).await?.0);
    }
    // A task that drains is there for whoever it has.
    for backend in [30, 50] {
        let endpoint = lan.state.endpoints.get_mut(&BackendId(backend));
        endpoint.context("a task")?.phase = EndpointPhase::Draining;
    }
    lan.apply().await?;
    for (to, socket) in &ending {
        ensure!(answer(socket).as_deref() == Some(tasks(to)[1]), "{to}");
    }

    let listening = ending.into_iter().map(|(to, socket)| {
        let listener = Listener::on(socket)?;
        Ok((to, listener))
    });
    let listening = listening.collect::<Result<Vec<_>>>()?;
    let gone = Instant::now();
    for number in [3, 5] {
        remove(&mut lan, number, 2).await?;
    }
    for (to, listener) in listening {
        let (socket, _) = listener.told(gone).with_context(|| to.to_string())?;
        socket.connect(to)?;
        let answered = answer(&socket);
        ensure!(answered.as_deref() == Some(tasks(&to)[0]), "{to}: anew");
    }
    for (to, socket) in &staying {
        ensure!(answer(socket).as_deref() == Some(tasks(to)[0]), "{to}");
    }
    for socket in &own {
        let still = socket.peer_addr();
        ensure!(still.is_ok(), "{socket:?} is not connected any more");
        let error = socket.take_error()?;
        ensure!(error.is_none(), "{socket:?} was told {error:?}");
    }
    assert_eq!(lan.hosts[&1].status().await.faults, [""; 0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tasks_sockets_at_a_service_whose_clients_stay_with_one_task_end_with_that() -> Result<()>
{
    let mut lan = world(&[("weft.affinity", "60s")], [1, 2]).await?;
    let mut listening = Vec::new();
    let mut to_whom = None;
    for to in addresses_of_tasks() {
        let (socket, said) = connected(&lan, "t1", to).await?;
        ensure!(*to_whom.get_or_insert(said.clone()) == said);
        listening.push((to, Listener::on(socket)?));
    }
    let (number, home, other) = match to_whom.as_deref() {
        Some("t2") => (2, 1, "t3"),
        _ => (3, 2, "t2"),
    };
    let gone = Instant::now();
    remove(&mut lan, number, home).await?;
    for (to, listener) in listening {
        let (socket, _) = listener.told(gone).with_context(|| to.to_string())?;
        lan.within("t1", move || {
            socket.connect(to)?;
            ensure!(answer(&socket).as_deref() == Some(other), "{to}: anew");
            Ok(())
        })?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_end_when_the_host_of_their_task_does_not_answer() -> Result<()> {
    let lan = world(&[], [1, 2]).await?;
    let mut listening = Vec::new();
    for to in addresses_of_hosts() {
        let socket = connected_to(&lan, "n1", to, tasks(&to)[1]).await?;
        listening.push((to, Listener::on(socket)?));
    }
    let (switch, port) = (lan.namespace("s"), lan.switch_port("n2"));
    run(&format!("ip -n {switch} link set {port} nomaster"))?;
    let gone = Instant::now();
    for (to, listener) in listening {
        let (socket, _) = listener.told(gone).with_context(|| to.to_string())?;
        socket.connect(to)?;
        let answered = answer(&socket);
        ensure!(answered.as_deref() == Some(tasks(&to)[0]), "{to}: anew");
    }
    Ok(())
}

/// The agent of host 1 is not there when the tasks go, and knows its own task again only some time after its start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_end_though_nobody_saw_their_task_go() -> Result<()> {
    let mut lan = world(&[("weft.affinity", "60s")], [2, 2]).await?;
    let listen = async |who: &'static str, to: Vec<SocketAddr>| -> Result<Vec<Listener>> {
        let mut listening = Vec::new();
        for to in to {
            listening.push(Listener::on(connected(&lan, who, to).await?.0)?);
        }
        Ok(listening)
    };
    let hosts = listen("n1", addresses_of_hosts()).await?;
    let tasks = listen("t1", addresses_of_tasks()).await?;
    drop(lan.hosts.remove(&1));
    for number in 2..=5 {
        remove(&mut lan, number, 2).await?;
    }
    lan.start(1).await?;
    let started = Instant::now();
    lan.apply().await?;
    for listener in hosts {
        listener.told(started)?;
    }
    let claimed = Instant::now();
    lan.create_sandbox(1, 1).await?;
    for listener in tasks {
        listener.told(claimed)?;
    }
    Ok(())
}
