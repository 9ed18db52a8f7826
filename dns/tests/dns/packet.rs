//! Packets in and out, and the text of `resolv.conf`.

use std::net::SocketAddr;

use hickory_proto::{
    op::{Edns, Message, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType},
    serialize::binary::BinEncoder,
};
use hickory_server::{net::xfer::Protocol, server::Request, zone_handler::MessageResponseBuilder};
use weft_dns::{
    Fact,
    question::Asked,
    reply::{Code, Reply},
    resolv_conf::{ResolvConf, searches_single_labels},
    resolve::Wanted,
    wire::{Transport, answers},
};

use crate::world::{ip, ips};

/// A query packet, with EDNS where a payload size is given.
pub(crate) fn query(id: u16, name: &str, kind: RecordType, payload: Option<u16>) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = id;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload).set_dnssec_ok(true);
        message.set_edns(edns);
    }
    message.to_vec().expect("a packet")
}

/// The packet of a resolver that answers `query` with this address.
pub(crate) fn answered(query: &[u8], address: std::net::Ipv4Addr) -> Vec<u8> {
    let mut message = read(query);
    message.metadata.message_type = hickory_proto::op::MessageType::Response;
    let name = message.queries[0].name().clone();
    message.add_answer(Record::from_rdata(name, 5, RData::A(address.into())));
    message.to_vec().expect("a packet")
}

pub(crate) fn read(packet: &[u8]) -> Message {
    Message::from_vec(packet).expect("a DNS message")
}

/// A request as the server hands it over.
pub(crate) fn request(packet: &[u8]) -> Request {
    let client = SocketAddr::from(([127, 0, 0, 1], 5353));
    Request::from_bytes(packet.to_vec(), client, Protocol::Udp).expect("a DNS message")
}

/// The packet of an answer, however long.
pub(crate) fn packet(request: &Request, reply: &Reply) -> Vec<u8> {
    let mut packet = Vec::new();
    MessageResponseBuilder::new(&request.queries, reply.edns.as_ref())
        .build(
            reply.metadata,
            &reply.answers,
            &reply.authorities,
            [],
            &reply.additionals,
        )
        .destructive_emit(&mut BinEncoder::new(&mut packet))
        .expect("a packet");
    packet
}

#[test]
fn reverse_names_are_read_for_both_families() {
    let rows = [
        ("3.4.0.10.in-addr.arpa.", Wanted::Pointer(ip("10.0.4.3"))),
        ("3.4.0.10.IN-ADDR.ARPA.", Wanted::Pointer(ip("10.0.4.3"))),
        ("4.0.10.in-addr.arpa.", Wanted::Other),
        ("x.4.0.10.in-addr.arpa.", Wanted::Other),
        ("web.", Wanted::Other),
        (
            "3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.5.0.0.0.0.0.d.f.ip6.arpa.",
            Wanted::Pointer(ip("fd00:5::3")),
        ),
    ];
    for (name, wanted) in rows {
        let request = request(&query(7, name, RecordType::PTR, None));
        let asked = Asked::of(&request).expect("a question");
        assert_eq!(asked.question().wanted, wanted, "{name}");
    }
    let request = request(&query(7, "3.4.0.10.in-addr.arpa.", RecordType::PTR, None));
    let asked = Asked::of(&request).expect("a question");
    let facts = [Fact::Pointer("web.1.abc.net_1".to_owned())];
    let reply = Reply::facts(&request, &asked, &facts, Transport::Udp);
    let reply = read(&packet(&request, &reply));
    let RData::PTR(pointer) = &reply.answers[0].data else {
        panic!("no PTR in {reply:?}")
    };
    assert_eq!(pointer.0.to_ascii(), "web.1.abc.net_1.");
}

#[test]
fn a_dot_inside_a_label_is_not_two_labels() {
    let mut packet = query(7, "a-b.", RecordType::A, None);
    let at = packet
        .iter()
        .position(|byte| *byte == b'-')
        .expect("the dash");
    packet[at] = b'.';
    let request = request(&packet);
    let asked = Asked::of(&request).expect("a question");
    assert_ne!(asked.question().name, b"a.b");
}

#[test]
fn refusals_carry_the_question_and_their_code() {
    let request = request(&query(7, "web.", RecordType::AAAA, Some(1232)));
    let rows = [
        (Code::NoData, ResponseCode::NoError, true),
        (Code::NxDomain, ResponseCode::NXDomain, true),
        (Code::ServFail, ResponseCode::ServFail, false),
        (Code::Refused, ResponseCode::Refused, false),
    ];
    for (code, expected, ours) in rows {
        let reply = read(&packet(&request, &Reply::refusal(&request, code)));
        assert_eq!(reply.metadata.response_code, expected);
        assert_eq!(reply.metadata.authoritative, ours, "{code:?}");
        assert_eq!(
            (reply.queries.len(), reply.answers.len(), reply.metadata.id),
            (1, 0, 7)
        );
        assert!(reply.edns.is_some());
    }
}

#[test]
fn an_answer_from_outside_is_passed_on_with_its_records_codes_and_flags() {
    let mut outside = Message::response(9, OpCode::Query);
    outside.metadata.authentic_data = true;
    outside.metadata.response_code = ResponseCode::NXDomain;
    let record = |name: &str| {
        let data = RData::A(std::net::Ipv4Addr::LOCALHOST.into());
        Record::from_rdata(Name::from_ascii(name).expect("a name"), 600, data)
    };
    outside.add_answer(record("a.example."));
    outside.add_authority(record("b.example."));
    outside.add_additional(record("c.example."));
    let mut edns = Edns::new();
    edns.set_max_payload(65_000).set_dnssec_ok(true);
    outside.set_edns(edns);
    let outside = outside.to_vec().expect("a packet");

    for (payload, said) in [
        (None, None),
        (Some(1232), Some(1232)),
        (Some(9000), Some(4096)),
    ] {
        let request = request(&query(7, "web.example.", RecordType::A, payload));
        let reply = Reply::outside(&request, &outside).expect("a DNS message");
        let reply = read(&packet(&request, &reply));
        assert_eq!(
            (reply.metadata.id, reply.metadata.response_code),
            (7, ResponseCode::NXDomain)
        );
        assert!(reply.metadata.authentic_data);
        assert_eq!(reply.queries[0].name().to_ascii(), "web.example.");
        let names = [&reply.answers, &reply.authorities, &reply.additionals]
            .map(|records| records[0].name.to_ascii());
        assert_eq!(names, ["a.example.", "b.example.", "c.example."]);
        assert_eq!(reply.edns.map(|edns| edns.max_payload()), said);
    }
    let request = request(&query(7, "web.example.", RecordType::A, None));
    assert!(Reply::outside(&request, &outside[..20]).is_err());
}

#[test]
fn an_answer_from_outside_must_be_to_our_question() {
    let asked = query(7, "Web.example.", RecordType::A, None);
    let mut good = query(7, "wEB.example.", RecordType::A, None);
    good[2] |= 0x80;
    assert!(answers(&asked, &good));
    assert!(!answers(&asked, &asked), "a question is no answer");
    let mut stranger = good.clone();
    stranger[0] ^= 1;
    assert!(!answers(&asked, &stranger), "another id");
    let mut other = query(7, "wib.example.", RecordType::A, None);
    other[2] |= 0x80;
    assert!(!answers(&asked, &other), "another name");
    let mut bare = good[..12].to_vec();
    bare[5] = 0;
    assert!(!answers(&asked, &bare), "nothing about our question");
    bare[3] |= 2;
    assert!(
        answers(&asked, &bare),
        "a failure may leave the question out"
    );
}

#[test]
fn resolv_conf_is_read_as_libc_does() {
    let conf = ResolvConf::parse(
        "# written by hand\nsearch old.example\nnameserver 192.0.2.1 # first\nnameserver 127.0.0.11\nnameserver nonsense\n\
         nameserver 127.0.0.53\nnameserver fd00::53\nnameserver 192.0.2.4\nsearch a.example b.example\noptions ndots:2 timeout:1\n;done",
    );
    assert_eq!(conf.servers, ips(&["192.0.2.1", "127.0.0.53", "fd00::53"]));
    assert_eq!(conf.search, ["a.example", "b.example"]);
    assert_eq!(conf.options, ["ndots:2", "timeout:1"]);
    assert!(searches_single_labels(&conf.options));
    assert!(!searches_single_labels(&["ndots:0".to_owned()]));
}

#[test]
fn a_sandbox_asks_us_alone_and_takes_service_names_as_complete() {
    let host = ResolvConf {
        search: vec!["lan.example".to_owned()],
        ..ResolvConf::default()
    };
    assert_eq!(
        host.for_sandbox(&[], &[]),
        "nameserver 127.0.0.11\nsearch lan.example\noptions ndots:0\n"
    );
    let (search, options) = (["own.example".to_owned()], ["ndots:1".to_owned()]);
    assert_eq!(
        host.for_sandbox(&search, &options),
        "nameserver 127.0.0.11\nsearch own.example\noptions ndots:1\n"
    );
    assert_eq!(
        host.for_sandbox(&[".".to_owned()], &[]),
        "nameserver 127.0.0.11\noptions ndots:0\n"
    );
}
