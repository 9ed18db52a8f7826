//! What is told from a packet's bytes alone: by the forwarder, which passes them on as they are, and of
//! packets that are no message.

/// Bytes in a message's fixed head.
const HEAD_BYTES: usize = 12;

/// How a question came and its answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// In one datagram, so the answer may be cut.
    Udp,
    /// On a connection: up to 65,535 bytes.
    Tcp,
}

/// What every request begins with, however broken the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    id: [u8; 2],
    flags: u8,
}

impl Head {
    /// The head of a request. `None` when there is nobody to answer: it is cut short, or an answer itself,
    /// and answering those could go round for ever.
    #[must_use]
    pub fn of_request(packet: &[u8]) -> Option<Self> {
        let [high, low, flags, ..] = *packet.first_chunk::<HEAD_BYTES>()?;
        (flags & 0x80 == 0).then_some(Self {
            id: [high, low],
            flags,
        })
    }

    /// The answer that the rest is no message.
    #[must_use]
    pub fn format_error(self) -> Vec<u8> {
        self.error(1)
    }

    /// The answer that there is none.
    #[must_use]
    pub fn failure(self) -> Vec<u8> {
        self.error(2)
    }

    fn error(self, code: u8) -> Vec<u8> {
        // Answer, same opcode, recursion desired as asked and available.
        let mut packet = vec![
            self.id[0],
            self.id[1],
            0x80 | self.flags & 0x79,
            0x80 | code,
        ];
        packet.resize(HEAD_BYTES, 0);
        packet
    }
}

/// Whether `reply` answers the packet `query`: same id, same question, and an answer at all.
///
/// Names are compared without case: some resolvers change it.
#[must_use]
pub fn answers(query: &[u8], reply: &[u8]) -> bool {
    if reply.len() < HEAD_BYTES
        || query.len() < HEAD_BYTES
        || reply[2] & 0x80 == 0
        || reply[..2] != query[..2]
    {
        return false;
    }
    // The question stands first in both, never compressed, so it is the same bytes but for case.
    // A resolver that reports an error may leave it out.
    if reply[4..6] == [0, 0] {
        return reply[3] & 0x0f != 0;
    }
    let Some(end) = question_end(query) else {
        return false;
    };
    reply
        .get(HEAD_BYTES..end)
        .is_some_and(|asked| asked.eq_ignore_ascii_case(&query[HEAD_BYTES..end]))
}

/// What an answer from outside amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyCode {
    /// It settles the question, "no such name" included.
    Settled,
    /// The resolver failed or refused: another may do better.
    Failed,
}

/// What the answer `reply` amounts to. Too short a packet is a failure.
#[must_use]
pub fn code(reply: &[u8]) -> ReplyCode {
    const SERVFAIL: u8 = 2;
    const REFUSED: u8 = 5;
    match reply.get(3).map(|flags| flags & 0x0f) {
        None | Some(SERVFAIL | REFUSED) => ReplyCode::Failed,
        Some(_) => ReplyCode::Settled,
    }
}

/// Whether the answer `reply` was cut and should be asked for over TCP.
#[must_use]
pub fn is_truncated(reply: &[u8]) -> bool {
    reply.get(2).is_some_and(|flags| flags & 0x02 != 0)
}

fn question_end(packet: &[u8]) -> Option<usize> {
    let mut at = HEAD_BYTES;
    loop {
        match packet.get(at)? {
            0 => break,
            length @ 1..=63 => at += 1 + usize::from(*length),
            _ => return None,
        }
    }
    let end = at + 1 + 4;
    (end <= packet.len()).then_some(end)
}
