//! Packets to questions, answers to packets. The format itself is `hickory-proto`'s.

use std::{iter, net::IpAddr};

use hickory_proto::{
    ProtoError,
    op::{Edns, Message, Metadata, OpCode, Query, ResponseCode, emit_message_parts},
    rr::{DNSClass, Name, Record, RecordType},
    serialize::binary::{BinEncodable, BinEncoder},
};

use crate::resolve::{Fact, Question, TTL_SECS, Wanted};

/// Bytes in a message's fixed head.
const HEAD_BYTES: usize = 12;
/// Bytes of an answer's `OPT` record without options.
const OPT_BYTES: usize = 11;
/// Largest answer over UDP to a client that did not say what it takes (RFC 1035 §4.2.1).
const PLAIN_UDP_BYTES: u16 = 512;
/// Largest answer over UDP at all, however much the client says it takes, and what we say we take.
pub const UDP_BYTES: u16 = 4096;
/// Longest name in flattened form.
const NAME_BYTES: usize = 255;

/// How the answer travels, which limits its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// 512 bytes, or what the client's EDNS says up to [`UDP_BYTES`]; what is too long is cut, with TC set.
    Udp,
    /// 65,535 bytes.
    Tcp,
}

/// A question in the form of a packet that was understood.
#[derive(Debug)]
pub struct Request {
    message: Message,
    name: [u8; NAME_BYTES],
    name_len: usize,
    wanted: Wanted,
}

/// Why a packet is not a [`Request`].
#[derive(Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It cannot be answered: too short for an id, or itself an answer. Answering answers could
    /// make two resolvers talk to each other for ever.
    Mute,
    /// It can be told so, with this packet.
    Told(Vec<u8>),
}

/// What to say to a [`Request`] without records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The name is ours and has nothing of that type.
    NoData,
    /// There is no such name, and we own the place where it would be.
    NxDomain,
    /// No resolver outside gave an answer.
    ServFail,
    /// Too much is being forwarded already.
    Refused,
}

/// Reads a packet.
///
/// # Errors
/// Says whether, and with which packet, to answer one that is not a question.
pub fn parse(packet: &[u8]) -> Result<Request, Malformed> {
    if packet.len() < HEAD_BYTES || packet[2] & 0x80 != 0 {
        return Err(Malformed::Mute);
    }
    let Ok(message) = Message::from_vec(packet) else {
        return Err(Malformed::Told(short(packet, ResponseCode::FormErr)));
    };
    if message.metadata.op_code != OpCode::Query {
        return Err(Malformed::Told(short(packet, ResponseCode::NotImp)));
    }
    let [query] = &message.queries[..] else {
        return Err(Malformed::Told(short(packet, ResponseCode::FormErr)));
    };
    if message.version() > 0 {
        let reply = Reply::to(&message, ResponseCode::BADVERS, false);
        let told = reply.encode(&message.queries, &[]);
        return Err(Malformed::Told(
            told.unwrap_or_else(|_| short(packet, ResponseCode::FormErr)),
        ));
    }

    let mut name = [0; NAME_BYTES];
    let name_len = flatten(&query.name, &mut name);
    let wanted = match (query.query_class, query.query_type) {
        (DNSClass::IN | DNSClass::ANY, RecordType::A) => Wanted::V4,
        (DNSClass::IN | DNSClass::ANY, RecordType::AAAA) => Wanted::V6,
        (DNSClass::IN | DNSClass::ANY, RecordType::ANY) => Wanted::Any,
        (DNSClass::IN | DNSClass::ANY, RecordType::PTR) => {
            reversed(&query.name).map_or(Wanted::Other, Wanted::Pointer)
        }
        _ => Wanted::Other,
    };
    Ok(Request {
        message,
        name,
        name_len,
        wanted,
    })
}

impl Request {
    /// The question, in the form that [`crate::resolve::resolve`] takes.
    #[must_use]
    pub fn question(&self) -> Question<'_> {
        Question {
            name: &self.name[..self.name_len],
            wanted: self.wanted,
        }
    }

    /// The name as it was asked, for messages to people.
    #[must_use]
    pub fn name(&self) -> String {
        self.message
            .queries
            .first()
            .map(|query| query.name.to_string())
            .unwrap_or_default()
    }

    /// The packet that answers with `facts`, cut to what `transport` carries.
    ///
    /// The records bear the question's own spelling of the name.
    #[must_use]
    pub fn answer(&self, facts: &[Fact], transport: Transport) -> Vec<u8> {
        let mut reply = Reply::to(&self.message, ResponseCode::NoError, true);
        let opt_bytes = if reply.edns.is_some() { OPT_BYTES } else { 0 };
        // The name on the wire: a length before each label, and the root.
        let question_bytes = self.name_len + 2 + 4;
        let mut room = usize::from(self.limit(transport))
            .saturating_sub(HEAD_BYTES + question_bytes + opt_bytes);
        let mut records = Vec::with_capacity(facts.len().min(room / AnswerRecord::BYTES_MIN));
        for record in facts.iter().filter_map(AnswerRecord::of) {
            let bytes = record.bytes_max();
            if bytes > room {
                reply.metadata.truncation = true;
                break;
            }
            room -= bytes;
            records.push(record);
        }
        self.encode(&reply, &records)
    }

    /// The packet that answers without records.
    #[must_use]
    pub fn refuse(&self, code: Code) -> Vec<u8> {
        let (code, ours) = match code {
            Code::NoData => (ResponseCode::NoError, true),
            Code::NxDomain => (ResponseCode::NXDomain, true),
            Code::ServFail => (ResponseCode::ServFail, false),
            Code::Refused => (ResponseCode::Refused, false),
        };
        self.encode(&Reply::to(&self.message, code, ours), &[])
    }

    fn limit(&self, transport: Transport) -> u16 {
        match (transport, &self.message.edns) {
            (Transport::Tcp, _) => u16::MAX,
            (Transport::Udp, None) => PLAIN_UDP_BYTES,
            (Transport::Udp, Some(edns)) => edns.max_payload().clamp(PLAIN_UDP_BYTES, UDP_BYTES),
        }
    }

    fn encode(&self, reply: &Reply, records: &[AnswerRecord]) -> Vec<u8> {
        reply
            .encode(&self.message.queries, records)
            .unwrap_or_else(|error| {
                tracing::warn!(name = %self.name(), %error, "cannot encode an answer");
                Vec::new()
            })
    }
}

/// The head of an answer.
struct Reply {
    metadata: Metadata,
    edns: Option<Edns>,
}

impl Reply {
    fn to(message: &Message, code: ResponseCode, ours: bool) -> Self {
        let mut metadata = Metadata::response_from_request(&message.metadata);
        metadata.response_code = code;
        metadata.authoritative = ours;
        // We do recurse, by forwarding; a client that sees neither flag takes us for lame.
        metadata.recursion_available = true;
        let edns = message.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_BYTES)
                .set_dnssec_ok(asked.flags().dnssec_ok);
            edns
        });
        Self { metadata, edns }
    }

    fn encode(&self, queries: &[Query], records: &[AnswerRecord]) -> Result<Vec<u8>, ProtoError> {
        let mut packet = Vec::with_capacity(usize::from(PLAIN_UDP_BYTES));
        let mut encoder = BinEncoder::new(&mut packet);
        emit_message_parts(
            &self.metadata,
            &mut queries.iter(),
            &mut records.iter(),
            &mut iter::empty::<&Record>(),
            &mut iter::empty::<&Record>(),
            self.edns.as_ref(),
            None,
            &mut encoder,
        )?;
        Ok(packet)
    }
}

/// A record whose name is the question's, written as a pointer to it.
///
/// The crate's own `Record` compresses no more than 120 names in a message and compares each with
/// all before; ours have one name, so they always fit and cost nothing.
enum AnswerRecord {
    Address(IpAddr),
    Pointer(Name),
}

impl AnswerRecord {
    /// Pointer to the name 2, type 2, class 2, TTL 4, length 2.
    const FIXED_BYTES: usize = 12;
    const BYTES_MIN: usize = Self::FIXED_BYTES + 4;
    /// A compression pointer to the question's name, which stands right after the head.
    const QUESTION_NAME: u16 = 0xc000 | HEAD_BYTES as u16;

    /// `None` for a name that the format cannot hold.
    fn of(fact: &Fact) -> Option<Self> {
        match fact {
            Fact::Address(address) => Some(Self::Address(*address)),
            Fact::Pointer(name) => {
                let name = Name::from_labels(name.split('.').map(str::as_bytes));
                name.ok().map(Self::Pointer)
            }
        }
    }

    fn bytes_max(&self) -> usize {
        Self::FIXED_BYTES
            + match self {
                Self::Address(IpAddr::V4(_)) => 4,
                Self::Address(IpAddr::V6(_)) => 16,
                Self::Pointer(name) => name.len() + 1,
            }
    }
}

impl BinEncodable for AnswerRecord {
    fn emit(&self, encoder: &mut BinEncoder<'_>) -> Result<(), ProtoError> {
        let kind = match self {
            Self::Address(IpAddr::V4(_)) => RecordType::A,
            Self::Address(IpAddr::V6(_)) => RecordType::AAAA,
            Self::Pointer(_) => RecordType::PTR,
        };
        encoder.emit_u16(Self::QUESTION_NAME)?;
        kind.emit(encoder)?;
        DNSClass::IN.emit(encoder)?;
        encoder.emit_u32(TTL_SECS)?;
        let length = encoder.place::<u16>()?;
        match self {
            Self::Address(IpAddr::V4(address)) => encoder.emit_vec(&address.octets())?,
            Self::Address(IpAddr::V6(address)) => encoder.emit_vec(&address.octets())?,
            Self::Pointer(name) => name.emit(encoder)?,
        }
        let bytes = encoder.len_since_place(&length) as u16;
        length.replace(encoder, bytes)
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

/// A bare head with the packet's own id, opcode and RD.
fn short(packet: &[u8], code: ResponseCode) -> Vec<u8> {
    let mut head = vec![0; HEAD_BYTES];
    head[..2].copy_from_slice(&packet[..2]);
    head[2] = 0x80 | (packet[2] & 0x79);
    head[3] = 0x80 | code.low();
    head
}

/// Writes `name` in lower case, labels joined by dots, and says how long it is.
///
/// A dot inside a label is written as a byte that no name of ours has, so that `a\.b` is not `a.b`.
fn flatten(name: &Name, flat: &mut [u8; NAME_BYTES]) -> usize {
    let mut len = 0;
    for label in name.iter() {
        if len > 0 {
            flat[len] = b'.';
            len += 1;
        }
        for byte in label {
            flat[len] = if *byte == b'.' {
                0
            } else {
                byte.to_ascii_lowercase()
            };
            len += 1;
        }
    }
    len
}

fn reversed(name: &Name) -> Option<IpAddr> {
    let network = name.parse_arpa_name().ok()?;
    (network.prefix_len() == network.max_prefix_len()).then(|| network.addr())
}
