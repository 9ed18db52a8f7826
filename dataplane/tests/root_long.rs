//! Long streams through encrypted networks: every byte arrives, and the kernel is given long packets,
//! not one for each piece of the wire. Needs root.

mod lan;

use std::{
    io::{Read, Write},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
};

use anyhow::{Context as _, Result, ensure};
use lan::{Lan, PATIENCE, run};

const LENGTH: usize = 30 << 20;
const PORT: u16 = 7;

/// What byte stands where: no two pieces of the wire are alike.
fn byte(place: usize) -> u8 {
    (place.wrapping_mul(31) ^ (place >> 11)) as u8
}

fn send(stream: &mut TcpStream) -> Result<()> {
    let mut place = 0;
    while place < LENGTH {
        // Of many lengths, so that packets are too.
        let length = (1 + place % 200_003).min(LENGTH - place);
        let bytes: Vec<u8> = (place..place + length).map(byte).collect();
        stream.write_all(&bytes)?;
        place += length;
    }
    Ok(())
}

fn check(stream: &mut TcpStream) -> Result<()> {
    let mut bytes = vec![0; 1 << 17];
    let mut place = 0;
    while place < LENGTH {
        let count = lan::hear(|| stream.read(&mut bytes))
            .with_context(|| format!("after {place} bytes"))?;
        ensure!(count > 0, "the end after {place} bytes");
        let expected = (place..place + count).map(byte);
        ensure!(
            bytes[..count].iter().copied().eq(expected),
            "other bytes between {place} and {}",
            place + count
        );
        place += count;
    }
    Ok(())
}

/// Takes a stream when asked with `u`, and gives one when asked with `d`.
fn serve(lan: &Lan, name: &str) -> Result<()> {
    lan.within(name, || {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT))?;
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut kind = [0];
                let answered = stream.read_exact(&mut kind).map_err(Into::into);
                let answered = answered.and_then(|()| match kind[0] {
                    b'u' => check(&mut stream).and_then(|()| Ok(stream.write_all(b"k")?)),
                    _ => send(&mut stream),
                });
                if let Err(error) = answered {
                    eprintln!("the server: {error:#}");
                }
            }
        });
        Ok(())
    })
}

/// Packets and bytes that this process gave the kernel of a host so far.
fn given(lan: &Lan, host: &str) -> Result<(u64, u64)> {
    let host = lan.namespace(host);
    let told = run(&format!("ip -n {host} -j -s link show weft-wg"))?;
    let told: serde_json::Value = serde_json::from_str(&told)?;
    let number = |name: &str| told[0]["stats64"]["rx"][name].as_u64();
    Ok((
        number("packets").context("packets received")?,
        number("bytes").context("bytes received")?,
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_arrive_whole_and_as_long_packets() -> Result<()> {
    let lan = Lan::encrypted_pair().await?;
    serve(&lan, "t1")?;
    for address in ["10.0.1.1", "fd00:2::1"] {
        for (kind, receiver) in [(b'u', "n2"), (b'd', "n1")] {
            let to = SocketAddr::new(address.parse()?, PORT);
            let before = given(&lan, receiver)?;
            lan.within("t2", move || {
                let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                stream.write_all(&[kind])?;
                if kind == b'd' {
                    return check(&mut stream);
                }
                send(&mut stream)?;
                stream.read_exact(&mut [0]).context("hear that all arrived")
            })
            .with_context(|| format!("{} to {to}\n{}", char::from(kind), lan.report()))?;
            let after = given(&lan, receiver)?;
            let (packets, bytes) = (after.0 - before.0, after.1 - before.1);
            ensure!(bytes > LENGTH as u64, "{bytes} bytes carried {LENGTH}");
            // What the wire takes has less than 1,500 bytes.
            ensure!(
                bytes / packets > 4_000,
                "{packets} packets of {} bytes on average: the kernel was not given long ones",
                bytes / packets
            );
        }
    }
    Ok(())
}
