//! Answers, as `hickory-server` takes them.
//!
//! Its encoder writes the packet and cuts what is too long for a datagram, with TC set. Since it would then
//! leave out the `OPT` record, which stands last, our own records are cut here, with room for it.

use std::{net::IpAddr, ops::Range};

use hickory_proto::{
    ProtoError,
    op::{Edns, Message, Metadata, ResponseCode},
    rr::{
        Name, RData, Record,
        rdata::{A, AAAA, PTR},
    },
    serialize::binary::BinDecoder,
};
use hickory_server::zone_handler::{MessageRequest, Queries};

use crate::{
    question::Asked,
    resolve::{Fact, TTL_SECS},
    wire::Transport,
};

/// Bytes in a message's fixed head.
const HEAD_BYTES: usize = 12;
/// Bytes of an answer's `OPT` record without options.
const OPT_BYTES: usize = 11;
/// Bytes of a record beside its name and content: type 2, class 2, TTL 4, length 2.
const RECORD_BYTES: usize = 10;
/// Bytes of a name that points to an earlier one.
const POINTER_BYTES: usize = 2;
/// Records whose names `hickory-proto` writes as pointers to the first one's, which it writes
/// whole although the question has it; it writes those of further records whole as well.
const POINTING: Range<usize> = 1..120;
/// Largest answer over UDP to a client that did not say what it takes (RFC 1035 §4.2.1).
const PLAIN_UDP_BYTES: u16 = 512;
/// Largest answer over UDP at all, however much the client says it takes.
pub const UDP_BYTES: u16 = 4096;

/// What to say without records.
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

/// An answer: everything but the question that it repeats.
#[derive(Debug)]
pub struct Reply {
    /// Id, codes and flags.
    pub metadata: Metadata,
    /// Records that answer.
    pub answers: Vec<Record>,
    /// Records that say who knows more.
    pub authorities: Vec<Record>,
    /// Records that may be useful, without `OPT`.
    pub additionals: Vec<Record>,
    /// The `OPT` record, where the client sent one. Its payload size is the limit of this answer
    /// over UDP: the client's own, within ours.
    pub edns: Option<Edns>,
}

impl Reply {
    /// Answers with `facts`, cut to what `transport` carries.
    ///
    /// The records bear the question's own spelling of the name. A fact that the format cannot
    /// hold is left out.
    #[must_use]
    pub fn facts(
        request: &MessageRequest,
        asked: &Asked<'_>,
        facts: &[Fact],
        transport: Transport,
    ) -> Self {
        let mut reply = Self::empty(request, ResponseCode::NoError, true);
        let opt_bytes = reply.edns.as_ref().map_or(0, |_| OPT_BYTES);
        let limit = match transport {
            Transport::Tcp => u16::MAX,
            Transport::Udp => udp_limit(request),
        };
        let head_bytes = HEAD_BYTES + request.queries.as_bytes().len() + opt_bytes;
        let mut room = usize::from(limit).saturating_sub(head_bytes);
        for data in facts.iter().filter_map(data) {
            let name_bytes = if POINTING.contains(&reply.answers.len()) {
                POINTER_BYTES
            } else {
                wire_bytes(asked.name())
            };
            let bytes = name_bytes + RECORD_BYTES + data_bytes(&data);
            if bytes > room {
                reply.metadata.truncation = true;
                break;
            }
            room -= bytes;
            let record = Record::from_rdata(asked.name().clone(), TTL_SECS, data);
            reply.answers.push(record);
        }
        reply
    }

    /// Answers without records.
    #[must_use]
    pub fn refusal(request: &MessageRequest, code: Code) -> Self {
        let (code, ours) = match code {
            Code::NoData => (ResponseCode::NoError, true),
            Code::NxDomain => (ResponseCode::NXDomain, true),
            Code::ServFail => (ResponseCode::ServFail, false),
            Code::Refused => (ResponseCode::Refused, false),
        };
        Self::empty(request, code, ours)
    }

    /// Tells that `request` is no question that we answer.
    #[must_use]
    pub fn misunderstood(request: &MessageRequest, code: ResponseCode) -> Self {
        Self::empty(request, code, false)
    }

    /// Passes on what a resolver outside answered: its records, code and flags.
    ///
    /// # Errors
    /// When the packet is not a DNS message.
    pub fn outside(request: &MessageRequest, packet: &[u8]) -> Result<Self, ProtoError> {
        let message = Message::from_vec(packet)?;
        let mut metadata = message.metadata;
        metadata.id = request.metadata.id;
        metadata.op_code = request.metadata.op_code;
        // A client that did not speak EDNS must not see it.
        let edns = message.edns.filter(|_| request.edns.is_some());
        let edns = edns.map(|mut edns| {
            edns.set_max_payload(udp_limit(request));
            edns
        });
        Ok(Self {
            metadata,
            answers: message.answers,
            authorities: message.authorities,
            additionals: message.additionals,
            edns,
        })
    }

    /// Longest packet that carries this answer over UDP.
    #[must_use]
    pub fn udp_limit(&self) -> u16 {
        // Without EDNS the client said nothing of its buffer (RFC 1035 §4.2.1).
        self.edns
            .as_ref()
            .map_or(PLAIN_UDP_BYTES, Edns::max_payload)
    }

    fn empty(request: &MessageRequest, code: ResponseCode, ours: bool) -> Self {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = code;
        metadata.authoritative = ours;
        // We do recurse, by forwarding; a client that sees neither flag takes us for lame.
        metadata.recursion_available = true;
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(udp_limit(request))
                .set_dnssec_ok(asked.flags().dnssec_ok);
            edns
        });
        Self {
            metadata,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
            edns,
        }
    }
}

/// The question of nobody: what is repeated of a request with several, which may not fit.
///
/// # Errors
/// Never in fact; the crate has no other way to make one.
pub(crate) fn no_question() -> Result<Queries, ProtoError> {
    Ok(Queries::read(&mut BinDecoder::new(&[]), 0)?)
}

fn udp_limit(request: &MessageRequest) -> u16 {
    request.max_payload().clamp(PLAIN_UDP_BYTES, UDP_BYTES)
}

/// `None` for a name that the format cannot hold.
fn data(fact: &Fact) -> Option<RData> {
    match fact {
        Fact::Address(IpAddr::V4(address)) => Some(RData::A(A(*address))),
        Fact::Address(IpAddr::V6(address)) => Some(RData::AAAA(AAAA(*address))),
        Fact::Pointer(name) => {
            let name = Name::from_labels(name.split('.').map(str::as_bytes));
            name.ok().map(|name| RData::PTR(PTR(name)))
        }
    }
}

fn data_bytes(data: &RData) -> usize {
    match data {
        RData::A(_) => 4,
        RData::AAAA(_) => 16,
        RData::PTR(name) => wire_bytes(name),
        _ => usize::from(u16::MAX),
    }
}

/// A length before each label, and the root.
fn wire_bytes(name: &Name) -> usize {
    name.iter().map(|label| 1 + label.len()).sum::<usize>() + 1
}
