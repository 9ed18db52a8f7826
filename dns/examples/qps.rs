//! How many queries a second a sandbox's resolver answers, and what a sandbox costs.
//!
//! `qps serve SANDBOXES [NAMES]` serves that many sandboxes on loopback, which know `web`, and as many
//! others as are wished, `name0` and so on. It prints the first one's address, then what they cost in
//! memory and time, and ends when its standard input does.
//! `qps ask ADDRESS CLIENTS WINDOW QUERIES [tcp]` asks, each client QUERIES times with WINDOW under
//! way, and prints queries per second.

use std::{
    env, fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use hickory_proto::{
    op::{Message, Query},
    rr::{Name, RecordType},
};
use weft_dns::{Asker, Forwarder, Mode, Resolver, Servers, ServiceNames, ZoneBuilder, Zones};
use weft_types::NetworkId;

fn main() -> Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", sandboxes] => serve(sandboxes.parse()?, 0),
        ["serve", sandboxes, names] => serve(sandboxes.parse()?, names.parse()?),
        ["ask", address, clients, window, queries] => ask(
            address.parse()?,
            clients.parse()?,
            window.parse()?,
            queries.parse()?,
            udp,
        ),
        ["ask", address, clients, window, queries, "tcp"] => ask(
            address.parse()?,
            clients.parse()?,
            window.parse()?,
            queries.parse()?,
            tcp,
        ),
        _ => bail!("qps serve SANDBOXES [NAMES] | qps ask ADDRESS CLIENTS WINDOW QUERIES [tcp]"),
    }
}

fn serve(sandboxes: usize, names: u32) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let _inside = runtime.enter();
    let resolver = Resolver::new(Forwarder::new(Servers::Listed(Vec::new())));
    resolver.publish(zones(names)?);
    let asker = Asker {
        networks: vec![NetworkId::numbered(1)],
        ..Asker::default()
    };
    let before = resident_bytes()?;
    let mut served = Vec::new();
    let mut first = None;
    for _ in 0..sandboxes {
        let (udp, tcp) = sockets()?;
        first.get_or_insert(tcp.local_addr()?);
        served.push(resolver.attach_std(udp, tcp, asker.clone())?);
    }
    println!("{}", first.context("no sandbox was asked for")?);
    runtime.block_on(tokio::time::sleep(Duration::from_secs(1)));
    let cost = resident_bytes()?.saturating_sub(before) / sandboxes;
    eprintln!("{cost} bytes a sandbox");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    eprintln!(
        "{} ms of processor, {:?}",
        processor_ms()?,
        resolver.counts()
    );
    Ok(())
}

fn sockets() -> Result<(UdpSocket, TcpListener)> {
    for _ in 0..50 {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr()?) {
            return Ok((udp, tcp));
        }
    }
    bail!("no port is free for both UDP and TCP")
}

fn zones(names: u32) -> Result<Zones> {
    let mut zone = ZoneBuilder::new("net", &["10.0.0.0/8".parse()?]);
    let names = (0..names).map(|number| format!("name{number}"));
    for (number, name) in std::iter::once("web".to_owned()).chain(names).enumerate() {
        let vips = [Ipv4Addr::from_bits(0x0a00_0402 + number as u32).into()];
        zone.service(&ServiceNames {
            names: &[&name],
            mode: Mode::Vip(&vips),
            tasks: &[],
        });
    }
    Ok(Zones {
        networks: [(NetworkId::numbered(1), zone.build().into())].into(),
    })
}

fn resident_bytes() -> Result<usize> {
    let text = fs::read_to_string("/proc/self/statm")?;
    let pages: usize = text
        .split(' ')
        .nth(1)
        .context("no resident pages")?
        .parse()?;
    Ok(pages * 4096)
}

fn processor_ms() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = text.rsplit_once(") ").context("no process name")?;
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u64>);
    Ok(ticks.sum::<Result<u64, _>>()? * 10)
}

type Client = fn(SocketAddr, &[u8], usize, usize) -> Result<()>;

fn ask(
    address: SocketAddr,
    clients: usize,
    window: usize,
    queries: usize,
    client: Client,
) -> Result<()> {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii("web.")?, RecordType::A));
    let packet = message.to_vec()?;
    let began = Instant::now();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|_| scope.spawn(|| client(address, &packet, window, queries)))
            .collect();
        for thread in threads {
            let Ok(done) = thread.join() else {
                bail!("a client panicked")
            };
            done?;
        }
        Ok(())
    })?;
    println!(
        "{:.0}",
        (clients * queries) as f64 / began.elapsed().as_secs_f64()
    );
    Ok(())
}

fn udp(address: SocketAddr, packet: &[u8], window: usize, queries: usize) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut sent = 0;
    let mut reply = [0; 512];
    for received in 0..queries {
        while sent < queries.min(received + window) {
            socket.send(packet)?;
            sent += 1;
        }
        let bytes = socket.recv(&mut reply).context("an answer was lost")?;
        ensure!(bytes > packet.len() && reply[3] & 0xf == 0, "no answer");
    }
    Ok(())
}

fn tcp(address: SocketAddr, packet: &[u8], window: usize, queries: usize) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut framed = u16::try_from(packet.len())?.to_be_bytes().to_vec();
    framed.extend_from_slice(packet);
    let mut sent = 0;
    for received in 0..queries {
        while sent < queries.min(received + window) {
            stream.write_all(&framed)?;
            sent += 1;
        }
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut reply = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut reply)?;
        ensure!(
            reply.len() > packet.len() && reply[3] & 0xf == 0,
            "no answer"
        );
    }
    Ok(())
}
