//! Many questions that wait at once, from several sockets: their answers go out together, and come as ever.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use hickory_proto::{op::ResponseCode, rr::RecordType};
use weft_dns::{Forwarder, Resolver, Servers};

use crate::{
    packet::{query, read},
    sockets::{attach, two_hundred_tasks},
    world::{n1, on},
};

/// A question, its answer's code and how many records that has.
type Row = (Vec<u8>, ResponseCode, usize);

/// Questions whose answers have several lengths, the longest of them 3 kB.
fn row(id: u16) -> Row {
    let ours = |name, kind, payload| query(id, name, kind, payload);
    match id % 4 {
        0 => (ours("t_a.", RecordType::A, None), ResponseCode::NoError, 1),
        1 => (ours("t_a.", RecordType::MX, None), ResponseCode::NoError, 0),
        2 => (
            ours("tasks.t_a.", RecordType::A, Some(4096)),
            ResponseCode::NoError,
            202,
        ),
        _ => {
            let mut cut = ours("t_a.", RecordType::A, None);
            cut.truncate(cut.len() - 3);
            (cut, ResponseCode::FormErr, 0)
        }
    }
}

#[tokio::test]
async fn every_client_gets_each_of_its_answers_once() {
    let resolver = Resolver::new(Forwarder::new(Servers::Listed(Vec::new())));
    resolver.publish(two_hundred_tasks());
    let sandbox = attach(&resolver, on(&[n1()])).await;
    let clients: Vec<UdpSocket> = (0..3)
        .map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket"))
        .collect();
    // Nothing gives way to the resolver here, so that it finds all of them waiting.
    for id in 0..40 {
        for client in &clients {
            client.send_to(&row(id).0, sandbox.address).expect("sent");
        }
    }
    let answers = tokio::task::spawn_blocking(move || clients.iter().map(hear).collect::<Vec<_>>());
    let expected: BTreeMap<u16, (ResponseCode, usize)> = (0..40)
        .map(|id| {
            let (_, code, records) = row(id);
            (id, (code, records))
        })
        .collect();
    for answers in answers.await.expect("heard") {
        assert_eq!(answers, expected);
    }
    assert_eq!(resolver.counts().unsent, 0);
}

/// Forty answers, by id.
fn hear(client: &UdpSocket) -> BTreeMap<u16, (ResponseCode, usize)> {
    client
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a deadline");
    let mut packet = [0; 8192];
    let mut heard = BTreeMap::new();
    for _ in 0..40 {
        let len = client.recv(&mut packet).expect("an answer in time");
        let answer = read(&packet[..len]);
        let told = (answer.metadata.response_code, answer.answers.len());
        let twice = heard.insert(answer.metadata.id, told);
        assert_eq!(twice, None, "answer {} came twice", answer.metadata.id);
    }
    heard
}
