//! Says who answers, on which address it was reached, and which client it saw; over HTTP and over UDP, on port 80.
//!
//! `GET /` answers one line of JSON. `GET /slow/N` answers after N milliseconds, for stories about draining. A datagram is answered with the same line.

use std::net::{Ipv6Addr, UdpSocket};
use std::time::Duration;

use weft_images::{facts, http, stop};

fn main() -> std::io::Result<()> {
    stop::on_signal();
    let socket =
        UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 80)).or_else(|_| UdpSocket::bind("0.0.0.0:80"))?;
    std::thread::spawn(move || echo(&socket));
    http::serve(80, |request| {
        if let Some(Ok(millis)) = request.path.strip_prefix("/slow/").map(str::parse) {
            std::thread::sleep(Duration::from_millis(millis));
        }
        // The service's log shows who came, as a web server's would.
        println!(
            "{} {} from {}",
            request.method,
            request.path,
            facts::plain(request.client)
        );
        http::Response::ok(
            "application/json",
            facts::as_json(request.local, request.client),
        )
    })
}

/// A datagram socket knows only its wildcard, so the address it was reached on is given with the port alone.
fn echo(socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    loop {
        let Ok((_, client)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let Ok(local) = socket.local_addr() else {
            continue;
        };
        println!("UDP from {}", facts::plain(client));
        let _ = socket.send_to(facts::as_json(local, client).as_bytes(), client);
    }
}
