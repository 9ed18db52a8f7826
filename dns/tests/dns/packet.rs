//! Packets in and out, and the text of `resolv.conf`.

use hickory_proto::{
    op::{Edns, Message, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use weft_dns::{
    Fact,
    resolv_conf::{ResolvConf, searches_single_labels},
    resolve::Wanted,
    wire::{Code, Malformed, Transport, answers, parse},
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

pub(crate) fn read(packet: &[u8]) -> Message {
    Message::from_vec(packet).expect("a DNS message")
}

fn two_hundred() -> Vec<Fact> {
    (0..200u8)
        .map(|last| Fact::Address(ip(&format!("10.0.4.{last}"))))
        .collect()
}

#[test]
fn the_answer_spells_the_name_as_it_was_asked() {
    let request = parse(&query(7, "WeB.Net.", RecordType::A, None)).expect("a question");
    assert_eq!(request.question().name, b"web.net");
    let reply = read(&request.answer(&[Fact::Address(ip("10.0.4.2"))], Transport::Udp));
    assert_eq!(reply.metadata.id, 7);
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
    assert!(
        reply.metadata.authoritative
            && reply.metadata.recursion_available
            && reply.metadata.recursion_desired
    );
    assert_eq!(reply.answers.len(), 1);
    assert_eq!(reply.answers[0].name.to_ascii(), "WeB.Net.");
    assert_eq!(reply.answers[0].ttl, 5);
    assert_eq!(reply.queries[0].name().to_ascii(), "WeB.Net.");
    assert!(reply.edns.is_none());
}

#[test]
fn an_answer_that_is_too_long_is_cut_and_says_so() {
    let rows = [
        (None, Transport::Udp, 512, true),
        (Some(100), Transport::Udp, 512, true),
        (Some(1232), Transport::Udp, 1232, true),
        (Some(4096), Transport::Udp, 4096, false),
        (Some(65_000), Transport::Udp, 4096, false),
        (None, Transport::Tcp, 65_535, false),
    ];
    for (payload, transport, limit, cut) in rows {
        let request = parse(&query(7, "tasks.web.", RecordType::A, payload)).expect("a question");
        let packet = request.answer(&two_hundred(), transport);
        let reply = read(&packet);
        assert!(
            packet.len() <= limit,
            "{payload:?} {transport:?}: {} bytes",
            packet.len()
        );
        assert_eq!(reply.metadata.truncation, cut, "{payload:?} {transport:?}");
        if cut {
            assert!(
                packet.len() > limit - 28,
                "{payload:?} {transport:?}: room for another record was left"
            );
        } else {
            assert_eq!(reply.answers.len(), 200);
        }
        assert_eq!(
            reply.edns.map(|edns| edns.flags().dnssec_ok),
            payload.map(|_| true),
            "EDNS is answered by EDNS"
        );
    }
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
        let request = parse(&query(7, name, RecordType::PTR, None)).expect("a question");
        assert_eq!(request.question().wanted, wanted, "{name}");
    }
    let request =
        parse(&query(7, "3.4.0.10.in-addr.arpa.", RecordType::PTR, None)).expect("a question");
    let reply = read(&request.answer(
        &[Fact::Pointer("web.1.abc.net_1".to_owned())],
        Transport::Udp,
    ));
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
    assert_ne!(parse(&packet).expect("a question").question().name, b"a.b");
}

#[test]
fn what_is_no_question_is_refused_or_dropped() {
    let good = query(0x1234, "web.", RecordType::A, None);
    assert!(matches!(parse(&good[..11]), Err(Malformed::Mute)));
    let mut reply = good.clone();
    reply[2] |= 0x80;
    assert!(matches!(parse(&reply), Err(Malformed::Mute)));

    let told = |packet: &[u8]| match parse(packet) {
        Err(Malformed::Told(reply)) => read(&reply),
        other => panic!("expected to be told an error, got {other:?}"),
    };
    let cut = told(&good[..good.len() - 3]);
    assert_eq!(
        (cut.metadata.id, cut.metadata.response_code),
        (0x1234, ResponseCode::FormErr)
    );
    let mut none = good.clone();
    none[5] = 0;
    assert_eq!(
        told(&none[..12]).metadata.response_code,
        ResponseCode::FormErr
    );

    let mut status = good.clone();
    status[2] |= 2 << 3;
    let status = told(&status);
    assert_eq!(
        (status.metadata.op_code, status.metadata.response_code),
        (OpCode::Status, ResponseCode::NotImp)
    );

    let mut message = read(&query(7, "web.", RecordType::A, Some(1232)));
    message.edns.as_mut().expect("EDNS").set_version(1);
    let version = told(&message.to_vec().expect("a packet"));
    assert_eq!(
        u16::from(version.metadata.response_code),
        u16::from(ResponseCode::BADVERS)
    );
}

#[test]
fn refusals_carry_the_question_and_their_code() {
    let request = parse(&query(7, "web.", RecordType::AAAA, Some(1232))).expect("a question");
    let rows = [
        (Code::NoData, ResponseCode::NoError, true),
        (Code::NxDomain, ResponseCode::NXDomain, true),
        (Code::ServFail, ResponseCode::ServFail, false),
        (Code::Refused, ResponseCode::Refused, false),
    ];
    for (code, expected, ours) in rows {
        let reply = read(&request.refuse(code));
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
