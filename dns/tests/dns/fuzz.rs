//! Spoilt messages and files: read without a panic, and answered within bounds.

use std::{hint::black_box, path::Path};

use hickory_proto::rr::RecordType;
use weft_dns::{
    Answer, Zones,
    question::Asked,
    reply::{Code, Reply, UDP_BYTES},
    resolv_conf::ResolvConf,
    resolve,
    wire::{self, Head, Transport},
};

use crate::{
    mutate::fuzz,
    packet::{packet, query},
    world::{n1, on, recorded},
};

fn corpus(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(name)
}

fn questions() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (name, kind) in [
        ("t_a.", RecordType::A),
        ("tasks.t_a.t_n1.", RecordType::AAAA),
        ("1.4.0.10.in-addr.arpa.", RecordType::PTR),
        (
            "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.",
            RecordType::PTR,
        ),
        ("example.com.", RecordType::ANY),
        (".", RecordType::TXT),
    ] {
        seeds.push(query(7, name, kind, None));
        seeds.push(query(8, name, kind, Some(1232)));
    }
    seeds
}

#[test]
fn spoilt_questions() {
    let zones = Zones::from_netstate(&recorded());
    let asker = on(&[n1()]);
    fuzz(&corpus("questions.hex"), questions(), |input| {
        let told = Head::of_request(input).map(Head::format_error);
        assert!(
            told.is_none_or(|told| told.len() == 12
                && told[..2] == input[..2]
                && told[2] & 0x80 != 0)
        );
        let client = ([127, 0, 0, 1], 5353).into();
        let protocol = hickory_server::net::xfer::Protocol::Udp;
        let Ok(request) =
            hickory_server::server::Request::from_bytes(input.to_vec(), client, protocol)
        else {
            return ("no message", 0);
        };
        let asked = match Asked::of(&request) {
            Ok(asked) => asked,
            Err(code) => return ("no question", u16::from(code)),
        };
        let answer = resolve(&asked.question(), &asker, &zones, 1);
        let (kind, reply) = match answer {
            Answer::Records(facts) => (
                "records",
                Reply::facts(&request, &asked, &facts, Transport::Udp),
            ),
            Answer::NoData => ("no data", Reply::refusal(&request, Code::NoData)),
            Answer::NxDomain => ("no such name", Reply::refusal(&request, Code::NxDomain)),
            Answer::Forward => ("forward", Reply::refusal(&request, Code::ServFail)),
        };
        let bytes = packet(&request, &reply);
        assert!(
            bytes.len() <= usize::from(UDP_BYTES),
            "{} bytes",
            bytes.len()
        );
        assert_eq!(bytes[..2], input[..2], "the id");
        (
            kind,
            u16::from(asked.question().wanted != weft_dns::resolve::Wanted::Other),
        )
    });
}

#[test]
fn spoilt_answers_from_outside() {
    let question = query(7, "example.com.", RecordType::A, Some(1232));
    let client = ([127, 0, 0, 1], 5353).into();
    let protocol = hickory_server::net::xfer::Protocol::Udp;
    let request = hickory_server::server::Request::from_bytes(question.clone(), client, protocol)
        .expect("a question");
    let mut answer = question.clone();
    answer[2] |= 0x80;
    answer[7] = 1;
    // Before OPT: a pointer to the name, A, IN, 60 s, four bytes.
    let at = answer.len() - 11;
    answer.splice(
        at..at,
        [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1],
    );
    let mut none = answer.clone();
    none[3] |= 3;
    fuzz(
        &corpus("answers.hex"),
        [question.clone(), answer, none],
        |input| {
            let is_answer = wire::answers(&question, input);
            assert!(!is_answer || input[..2] == question[..2]);
            black_box(wire::answers(input, &question));
            let code = wire::code(input) == wire::ReplyCode::Settled;
            let cut = wire::is_truncated(input);
            let read = Reply::outside(&request, input);
            let records = read.as_ref().map_or(99, |reply| reply.answers.len().min(3));
            if let Ok(reply) = &read {
                assert_eq!(
                    packet(&request, reply)[..2],
                    question[..2],
                    "the client's id"
                );
            }
            (is_answer, code, cut, records)
        },
    );
}

#[test]
fn spoilt_resolv_conf() {
    let seeds = [
        "nameserver 192.0.2.1\nnameserver 2001:db8::1%eth0\nsearch a.example b.example\noptions ndots:2 timeout:1\n",
        "# comment\n; another\nnameserver\nnameserver not-an-address\r\noptions\tndots:99999999999999\nsearch .\n",
    ];
    fuzz(
        &corpus("resolv_conf.hex"),
        seeds.map(|text| text.as_bytes().to_vec()),
        |input| {
            let text = String::from_utf8_lossy(input);
            let conf = ResolvConf::parse(&text);
            let shown = conf.for_sandbox(&[], &[]);
            let again = ResolvConf::parse(&shown).for_sandbox(&[], &[]);
            assert_eq!(
                shown, again,
                "what is written for a sandbox reads as itself"
            );
            shown.lines().count()
        },
    );
}
