//! Sockets of the namespace in which this was opened: told, and ended.

use std::{io, net::SocketAddr};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, IPPROTO_UDP, SockDiagDestroy, SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::talk::Talk;
use crate::{kernel::error::DataplaneError, led::Connected};

type Result<T> = std::result::Result<T, DataplaneError>;

/// An open sock_diag socket.
pub(crate) struct Diag {
    talk: Talk,
}

fn fail(operation: &'static str, object: String) -> impl FnOnce(io::Error) -> DataplaneError {
    move |source| DataplaneError::Link {
        operation,
        object,
        source,
    }
}

impl Diag {
    /// Opens a socket in the calling thread's namespace.
    pub(crate) fn open() -> Result<Self> {
        let talk = Talk::open(NETLINK_SOCK_DIAG);
        let talk = talk.map_err(fail("open", "sock_diag socket".to_owned()))?;
        Ok(Self { talk })
    }

    /// UDP sockets of a family that are connected.
    pub(crate) fn connected(&mut self, v6: bool) -> Result<Vec<Connected>> {
        let id = if v6 {
            SocketId::new_v6()
        } else {
            SocketId::new_v4()
        };
        let question = SockDiagMessage::InetRequest(about(id));
        let answers = self.talk.exchange(question, NLM_F_DUMP);
        let answers = answers.map_err(fail("list", "UDP sockets".to_owned()))?;
        let sockets = answers.into_iter().filter_map(|answer| match answer {
            SockDiagMessage::InetResponse(told) => Some(told.header.socket_id),
            _ => None,
        });
        let connected = sockets.map(|id| Connected {
            cookie: cookie_of(id.cookie),
            from: SocketAddr::new(id.source_address, id.source_port),
            to: SocketAddr::new(id.destination_address, id.destination_port),
            link: id.interface_id,
        });
        Ok(connected.collect())
    }

    /// Ends a socket: whoever waits for it is told that the connection was aborted. False when there is no such socket
    /// any more, or the kernel finds another of the same addresses in its place.
    pub(crate) fn end(&mut self, socket: &Connected) -> Result<bool> {
        let question = SockDiagMessage::InetRequest(about(SocketId {
            source_port: socket.from.port(),
            destination_port: socket.to.port(),
            source_address: socket.from.ip(),
            destination_address: socket.to.ip(),
            interface_id: socket.link,
            cookie: words_of(socket.cookie),
        }));
        let ended = self
            .talk
            .exchange::<_, SockDiagMessage>(SockDiagDestroy::new(question), NLM_F_ACK);
        match ended {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(fail("end", format!("a UDP socket at {}", socket.to))(error)),
        }
    }
}

fn about(id: SocketId) -> InetRequest {
    InetRequest {
        family: if id.destination_address.is_ipv6() {
            AF_INET6
        } else {
            AF_INET
        },
        protocol: IPPROTO_UDP,
        extensions: ExtensionFlags::empty(),
        // What TCP calls established, UDP is when it is connected.
        states: StateFlags::ESTABLISHED,
        socket_id: id,
    }
}

/// A cookie travels as two words, the lower one first.
fn cookie_of(words: [u8; 8]) -> u64 {
    let [a, b, c, d, e, f, g, h] = words;
    let (low, high) = (
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
    );
    u64::from(high) << 32 | u64::from(low)
}

fn words_of(cookie: u64) -> [u8; 8] {
    let [a, b, c, d] = (cookie as u32).to_ne_bytes();
    let [e, f, g, h] = ((cookie >> 32) as u32).to_ne_bytes();
    [a, b, c, d, e, f, g, h]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_comes_back_as_it_went() {
        let cookie = 0x0123_4567_89ab_cdef;
        assert_eq!(cookie_of(words_of(cookie)), cookie);
        assert_eq!(words_of(cookie)[..4], 0x89ab_cdef_u32.to_ne_bytes());
    }
}
