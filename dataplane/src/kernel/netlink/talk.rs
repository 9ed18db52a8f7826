//! A netlink socket of any protocol: one request, one answer.

use std::{fmt::Debug, io};

use netlink_packet_core::{
    NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

pub(super) struct Talk {
    socket: Socket,
    sequence: u32,
}

impl Talk {
    /// Opens a socket in the calling thread's namespace.
    pub(super) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Asks, and takes all that is answered.
    pub(super) fn exchange<Q, A>(&mut self, question: Q, flags: u16) -> io::Result<Vec<A>>
    where
        Q: NetlinkSerializable,
        A: NetlinkDeserializable + Debug,
    {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(question));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answers = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            if self.take(&datagram, &mut answers)? {
                return Ok(answers);
            }
        }
    }

    /// Takes one datagram apart; true when the answer is complete.
    fn take<A: NetlinkDeserializable>(
        &self,
        datagram: &[u8],
        answers: &mut Vec<A>,
    ) -> io::Result<bool> {
        let mut rest = datagram;
        while rest.len() >= 16 {
            let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            if length < 16 || length > rest.len() {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "netlink message cut short",
                ));
            }
            match NetlinkMessage::<A>::deserialize(&rest[..length]) {
                Ok(message) if message.header.sequence_number != self.sequence => {}
                Ok(message) => match message.payload {
                    // A list that could not be told, or not to its end.
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(io::Error::from_raw_os_error(-done.code));
                    }
                    NetlinkPayload::Done(_) => return Ok(true),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(true),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    _ => {}
                },
                // One object that this library cannot read must not hide all the others.
                Err(error) => tracing::debug!(%error, "netlink message not understood"),
            }
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        }
        Ok(false)
    }
}
