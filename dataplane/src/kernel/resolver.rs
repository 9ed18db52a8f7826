//! The resolver's sockets in a sandbox, and what stands around them.
//!
//! Everything here works in the calling thread's namespace.
//!
//! A table `weft` of the sandbox's own does two things. While nobody holds the sockets, because the agent
//! is being restarted, a client hears nothing instead of a refusal, and asks again: libc gives up at a
//! refusal within a tenth of a second. And where the container is on networks of the engine's too, whose
//! NAT leads `127.0.0.11:53` to the engine's resolver, packets for that address go around the NAT and
//! reach ours; the engine's is asked by us, at the ports where it really listens.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use super::{error::DataplaneError, firewall};
use crate::sandbox::ResolverSockets;

/// Where both resolvers are asked.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const PORT: u16 = 53;
/// The engine's resolver listens on this host's loopback: it is there at once or not at all.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

const GONE: &str = "table ip weft {}\ndelete table ip weft\n";

/// Packets that leave by an interface are none of its business, which is told first. What is not
/// tracked is not translated.
const RULES: &str = "\
table ip weft {}
delete table ip weft
table ip weft {
	chain output {
		type filter hook output priority raw; policy accept;
		oifname != \"lo\" accept
		ip daddr 127.0.0.11 udp dport 53 notrack
		ip daddr 127.0.0.11 tcp dport 53 notrack
		ip saddr 127.0.0.11 udp sport 53 notrack
		ip saddr 127.0.0.11 icmp type destination-unreachable drop
		ip saddr 127.0.0.11 tcp sport 53 tcp flags & rst == rst drop
		ip saddr 127.0.0.11 tcp sport 53 notrack
	}
}
";

/// Writes the sandbox's table: before [`open`], after which clients ask.
pub(crate) fn guard() -> Result<(), DataplaneError> {
    firewall::nft(&["-f", "-"], RULES).map(drop)
}

/// Takes the table away: the sockets are closed for good, and the container goes on.
pub(crate) fn unguard() -> Result<(), DataplaneError> {
    firewall::nft(&["-f", "-"], GONE).map(drop)
}

/// Opens the resolver's sockets.
pub(crate) fn open() -> Result<ResolverSockets, DataplaneError> {
    let at = SocketAddrV4::new(ADDRESS, PORT);
    let open = || {
        let udp = UdpSocket::bind(at)?;
        udp.set_nonblocking(true)?;
        let tcp = TcpListener::bind(at)?;
        tcp.set_nonblocking(true)?;
        Ok(ResolverSockets { udp, tcp })
    };
    open().map_err(refused("listen at", at))
}

/// A socket connected to the engine's resolver; `None` when there is none.
pub(crate) fn engine_udp() -> Result<Option<UdpSocket>, DataplaneError> {
    let Some(at) = engine_at("udp")? else {
        return Ok(None);
    };
    let connect = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_nonblocking(true)?;
        socket.connect(at)?;
        Ok(socket)
    };
    connect().map(Some).map_err(refused("ask at", at))
}

/// A connection to the engine's resolver; `None` when there is none.
pub(crate) fn engine_tcp() -> Result<Option<TcpStream>, DataplaneError> {
    let Some(at) = engine_at("tcp")? else {
        return Ok(None);
    };
    let connect = || {
        let stream = TcpStream::connect_timeout(&SocketAddr::V4(at), CONNECT_LIMIT)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    };
    connect().map(Some).map_err(refused("ask at", at))
}

fn refused(operation: &'static str, at: SocketAddrV4) -> impl FnOnce(io::Error) -> DataplaneError {
    move |source| DataplaneError::Link {
        operation,
        object: at.to_string(),
        source,
    }
}

fn engine_at(protocol: &str) -> Result<Option<SocketAddrV4>, DataplaneError> {
    let path = format!("/proc/thread-self/net/{protocol}");
    let table = fs::read_to_string(&path).map_err(|source| DataplaneError::Netns {
        object: path,
        source,
    })?;
    Ok(engine_port(&table).map(|port| SocketAddrV4::new(ADDRESS, port)))
}

/// Where somebody other than us waits at the resolver's address, by the kernel's table of sockets.
fn engine_port(table: &str) -> Option<u16> {
    // The address is written as the number that its bytes are in memory.
    let own = format!("{:08X}:", u32::from_ne_bytes(ADDRESS.octets()));
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, peer, state) = (fields.next()?, fields.next()?, fields.next()?);
        let port = u16::from_str_radix(local.strip_prefix(&own)?, 16).ok()?;
        // A UDP socket that is open for all, or a TCP socket that listens.
        let waits = peer == "00000000:0000" && matches!(state, "07" | "0A");
        (waits && port != PORT).then_some(port)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn the_engine_s_resolver_is_found_beside_ours() {
        let head = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
        let row = |local: &str, peer: &str, state: &str| {
            format!(
                "  0: {local} {peer} {state} 00000000:00000000 00:00000000 00000000     0        0 1 2 3 0\n"
            )
        };
        let nobody = "00000000:0000";
        let ours = row("0B00007F:0035", nobody, "0A");
        let other = row("0100007F:9D34", nobody, "07");
        let answers = row("0B00007F:8BAF", "0100007F:E6C8", "01");
        let table = format!("{head}{ours}{other}{answers}");
        assert_eq!(engine_port(&table), None);
        for state in ["07", "0A"] {
            let engine = row("0B00007F:8BAF", nobody, state);
            assert_eq!(engine_port(&format!("{table}{engine}")), Some(0x8BAF));
        }
    }
}
