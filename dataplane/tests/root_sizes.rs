//! Every size from 1 to 9000 bytes, over TCP and UDP, both families, from outside and inside,
//! encrypted or not. Needs root.

mod lan;

use std::{
    io::{Read as _, Write as _},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use lan::{Lan, PATIENCE, asking, host4, host6, ingress};
use weft_types::{NetworkId, service::Protocol};

const LONGEST: usize = 9000;
const PORT: u16 = 7;

/// Gives back what it is sent, at port 7.
fn echo(lan: &Lan, name: &str) -> Result<()> {
    lan.within(name, || {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT));
        let listener = TcpListener::bind(any)?;
        let socket = UdpSocket::bind(any)?;
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                std::thread::spawn(move || {
                    let mut bytes = vec![0; 65536];
                    while let Ok(count @ 1..) = stream.read(&mut bytes) {
                        if stream.write_all(&bytes[..count]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        std::thread::spawn(move || {
            let mut bytes = vec![0; 65536];
            while let Ok((count, from)) = socket.recv_from(&mut bytes) {
                // Whoever asked may be gone.
                let _ = socket.send_to(&bytes[..count], from);
            }
        });
        Ok(())
    })
}

fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 7 + size) as u8).collect()
}

fn sweep_tcp(to: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    for size in 1..=LONGEST {
        let sent = pattern(size);
        stream.write_all(&sent)?;
        let mut back = vec![0; size];
        stream
            .read_exact(&mut back)
            .with_context(|| format!("{size} bytes"))?;
        ensure!(back == sent, "{size} bytes came back otherwise");
    }
    Ok(())
}

fn sweep_udp(to: SocketAddr) -> Result<()> {
    let socket = asking(to)?;
    let mut back = vec![0; 65536];
    for size in 1..=LONGEST {
        let sent = pattern(size);
        let deadline = Instant::now() + PATIENCE;
        loop {
            // The first too long one may be refused while the path's size is learnt.
            let asked = socket.send(&sent).and_then(|_| socket.recv(&mut back));
            match asked {
                Ok(count) if back[..count] == sent => break,
                Ok(_) => {}
                Err(error) if Instant::now() > deadline => {
                    return Err(error).context(format!("a datagram of {size} bytes"));
                }
                Err(_) => {}
            }
        }
    }
    Ok(())
}

/// Pieces that the hosts' own stacks cut packets into, or were to put together. Where senders are told what fits,
/// there are none: of what is sent here, only the outer packets of tunnels pass these stacks.
fn pieces(lan: &Lan) -> Result<u64> {
    let mut sum = 0;
    for host in lan.hosts.keys() {
        sum += lan.within(&format!("n{host}"), || {
            let four = std::fs::read_to_string("/proc/thread-self/net/snmp")?;
            let mut ip = four.lines().filter(|line| line.starts_with("Ip:"));
            let (names, values) = (ip.next().context("names")?, ip.next().context("values")?);
            let columns = names.split(' ').zip(values.split(' '));
            let six = std::fs::read_to_string("/proc/thread-self/net/snmp6")?;
            let rows = six.lines().filter_map(|line| {
                let (name, value) = line.split_once(char::is_whitespace)?;
                Some((name.strip_prefix("Ip6")?, value.trim()))
            });
            let of_pieces = |name: &str| matches!(name, "FragCreates" | "ReasmReqds");
            columns
                .chain(rows)
                .filter(|(name, _)| of_pieces(name))
                .map(|(_, value)| value.parse::<u64>().context("a count"))
                .sum::<Result<u64>>()
        })?;
    }
    Ok(sum)
}

fn sweep(lan: &Lan, from: &str, to: SocketAddr) -> Result<()> {
    let before = pieces(lan)?;
    lan.within(from, move || {
        sweep_tcp(to).context("tcp")?;
        sweep_udp(to).context("udp")
    })
    .with_context(|| format!("{from} to {to}\n{}", lan.report()))?;
    let cut = pieces(lan)? - before;
    ensure!(
        cut == 0,
        "{from} to {to}: {cut} pieces, so somebody was not told what fits\n{}",
        lan.report()
    );
    Ok(())
}

/// Host 1 asked from outside, whose task is on the other host; its answers return by the same way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_sizes_come_through_encrypted_from_outside() -> Result<()> {
    let mut lan = Lan::new(2)?;
    lan.start_all_with_keys().await?;
    let mesh = lan.state.networks.get_mut(&ingress());
    mesh.context("ingress")?.encrypted = true;
    let ports = [(Protocol::Tcp, 8000, PORT), (Protocol::Udp, 8000, PORT)];
    let web = lan.add_service(1, &ports);
    let addresses: &[&str] = &["10.0.0.5/24", "fd00:1::5/64"];
    lan.add_task(1, Some(web), 2, &[(ingress(), addresses)])
        .await?;
    lan.apply().await?;
    echo(&lan, "t1")?;
    sweep(&lan, "c", (host4(1), 8000).into())?;
    sweep(&lan, "c", (host6(1), 8000).into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_sizes_come_through_from_outside_and_inside() -> Result<()> {
    let mut lan = Lan::new(2)?;
    lan.start_all().await?;
    let red = NetworkId::numbered(2);
    lan.add_network(red, 4097, &["10.0.1.0/24", "fd00:2::/64"], false);
    let ports = [(Protocol::Tcp, 8000, PORT), (Protocol::Udp, 8000, PORT)];
    let web = lan.add_service(1, &ports);
    let addresses: &[&str] = &["10.0.0.5/24", "fd00:1::5/64"];
    let red1: &[&str] = &["10.0.1.1/24", "fd00:2::1/64"];
    let red2: &[&str] = &["10.0.1.2/24", "fd00:2::2/64"];
    lan.add_task(1, Some(web), 2, &[(ingress(), addresses), (red, red1)])
        .await?;
    lan.add_task(2, None, 1, &[(red, red2)]).await?;
    lan.add_numbered(3, 2, red).await?;
    lan.apply().await?;
    echo(&lan, "t1")?;
    // Remote and local backend, then another task, elsewhere and beside it.
    for host in [1, 2] {
        sweep(&lan, "c", (host4(host), 8000).into())?;
        sweep(&lan, "c", (host6(host), 8000).into())?;
    }
    for task in ["t2", "t3"] {
        sweep(&lan, task, SocketAddr::new("10.0.1.1".parse()?, PORT))?;
        sweep(&lan, task, SocketAddr::new("fd00:2::1".parse()?, PORT))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_sizes_come_through_encrypted() -> Result<()> {
    let lan = Lan::encrypted_pair().await?;
    echo(&lan, "t1")?;
    sweep(&lan, "t2", SocketAddr::new("10.0.1.1".parse()?, PORT))?;
    sweep(&lan, "t2", SocketAddr::new("fd00:2::1".parse()?, PORT))
}
