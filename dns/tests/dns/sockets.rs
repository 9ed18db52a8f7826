//! Real sockets on loopback: the resolver as a container meets it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RecordType,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    time::timeout,
};
use weft_dns::{
    Asker, Attachment, Forwarder, Resolver, Servers, Zones, forward::Neighbour, wire::Transport,
};
use weft_types::{BackendId, netstate::NetState};

use crate::{
    forward::{Fake, Mood},
    packet::{query, read},
    world::{endpoint, n1, n2, on, recorded},
};

/// Long enough for anything but a hang.
const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Sandbox {
    pub(crate) address: SocketAddr,
    attachment: Attachment,
}

/// Opens a sandbox's sockets on a free loopback port, the same for UDP and TCP.
pub(crate) async fn attach(resolver: &Resolver, asker: Asker) -> Sandbox {
    attach_beside(resolver, asker, None).await
}

async fn attach_beside(
    resolver: &Resolver,
    asker: Asker,
    neighbour: Option<Arc<dyn Neighbour>>,
) -> Sandbox {
    for _ in 0..50 {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a TCP socket");
        let address = tcp.local_addr().expect("its address");
        if let Ok(udp) = UdpSocket::bind(address).await {
            return Sandbox {
                address,
                attachment: resolver.attach_beside(udp, tcp, asker, neighbour),
            };
        }
    }
    panic!("no port is free for both UDP and TCP");
}

/// A resolver beside ours that answers every question with this address, while it is there.
struct Beside(std::sync::Mutex<Option<Ipv4Addr>>);

#[async_trait::async_trait]
impl Neighbour for Beside {
    async fn ask(&self, query: &[u8], over: Transport) -> std::io::Result<Option<Vec<u8>>> {
        let address = *self.0.lock().expect("nobody panicked");
        if address == Some(Ipv4Addr::UNSPECIFIED) {
            return Err(std::io::ErrorKind::ConnectionRefused.into());
        }
        assert_eq!(over, Transport::Udp);
        Ok(address.map(|address| crate::packet::answered(query, address)))
    }
}

#[tokio::test]
async fn who_is_beside_us_in_a_sandbox_is_asked_what_we_do_not_know() {
    let resolver = lonely();
    resolver.publish(two_hundred_tasks());
    let there = Ipv4Addr::new(192, 0, 2, 7);
    let beside = Arc::new(Beside(std::sync::Mutex::new(Some(there))));
    let neighbour: Arc<dyn Neighbour> = beside.clone();
    let sandbox = attach_beside(&resolver, on(&[n1()]), Some(neighbour)).await;
    let ask = async |name: &str| {
        let reply = ask_udp(sandbox.address, &query(7, name, RecordType::A, None)).await;
        let addresses: Vec<String> = reply.answers.iter().map(|a| a.data.to_string()).collect();
        (reply.metadata.response_code, addresses)
    };
    let (code, own) = ask("t_a.100.x.").await;
    assert_eq!(
        (code, own.contains(&there.to_string())),
        (ResponseCode::NoError, false)
    );
    assert_eq!(
        ask("near.").await,
        (ResponseCode::NoError, vec![there.to_string()])
    );
    // It is there and does not answer: those outside cannot know its names.
    *beside.0.lock().expect("nobody panicked") = Some(Ipv4Addr::UNSPECIFIED);
    assert_eq!(ask("near.").await, (ResponseCode::ServFail, vec![]));
    assert_eq!(resolver.counts().forward_failed, 1);
    // It is not there: those outside are asked, of whom there are none here.
    *beside.0.lock().expect("nobody panicked") = None;
    assert_eq!(ask("near.").await, (ResponseCode::ServFail, vec![]));
}

fn lonely() -> Resolver {
    Resolver::new(Forwarder::new(Servers::Listed(Vec::new())))
}

pub(crate) fn two_hundred_tasks() -> Zones {
    let mut state: NetState = recorded();
    for number in 100..300u32 {
        let address = format!("10.0.4.{}/16", number - 100 + 20);
        let name = format!("t_a.{number}.x");
        state.endpoints.insert(
            BackendId(number),
            endpoint(number, n1(), Some(1), &name, &[], &[&address]),
        );
    }
    Zones::from_netstate(&state)
}

async fn ask_udp(server: SocketAddr, packet: &[u8]) -> Message {
    read(&ask_udp_bytes(server, packet).await)
}

async fn ask_udp_bytes(server: SocketAddr, packet: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a socket");
    socket.connect(server).await.expect("connected");
    socket.send(packet).await.expect("sent");
    let mut reply = [0; 8192];
    let len = timeout(DEADLINE, socket.recv(&mut reply))
        .await
        .expect("a UDP answer in time")
        .expect("received");
    reply[..len].to_vec()
}

async fn ask_stream(stream: &mut TcpStream, packet: &[u8]) -> Message {
    stream
        .write_u16(u16::try_from(packet.len()).expect("short"))
        .await
        .expect("sent");
    stream.write_all(packet).await.expect("sent");
    let len = timeout(DEADLINE, stream.read_u16())
        .await
        .expect("a TCP answer in time")
        .expect("received");
    let mut reply = vec![0; len.into()];
    timeout(DEADLINE, stream.read_exact(&mut reply))
        .await
        .expect("all of it in time")
        .expect("received");
    read(&reply)
}

#[tokio::test]
async fn two_hundred_records_are_cut_on_udp_and_whole_on_tcp() {
    let resolver = lonely();
    resolver.publish(two_hundred_tasks());
    let sandbox = attach(&resolver, on(&[n1()])).await;
    let packet = query(7, "tasks.t_a.", RecordType::A, None);

    let cut = ask_udp(sandbox.address, &packet).await;
    assert!(cut.metadata.truncation);
    assert!(!cut.answers.is_empty() && cut.answers.len() < 202);

    let mut stream = TcpStream::connect(sandbox.address)
        .await
        .expect("connected");
    for _ in 0..3 {
        let whole = ask_stream(&mut stream, &packet).await;
        assert!(!whole.metadata.truncation);
        assert_eq!(whole.answers.len(), 202);
    }

    let roomy = ask_udp(
        sandbox.address,
        &query(8, "tasks.t_a.", RecordType::A, Some(4096)),
    )
    .await;
    assert_eq!(
        (roomy.metadata.truncation, roomy.answers.len()),
        (false, 202)
    );
}

#[tokio::test]
async fn garbage_is_counted_and_the_resolver_goes_on() {
    let resolver = lonely();
    resolver.publish(Zones::from_netstate(&recorded()));
    let sandbox = attach(&resolver, on(&[n1()])).await;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a socket");
    let mut seed = 1u64;
    for len in (0..600).chain([5000, 60_000]) {
        let garbage: Vec<u8> = (0..len)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 33) as u8
            })
            .collect();
        socket
            .send_to(&garbage, sandbox.address)
            .await
            .expect("sent");
        if len % 16 == 0 {
            let reply = ask_udp(sandbox.address, &query(7, "t_a.", RecordType::A, None)).await;
            assert_eq!(reply.answers.len(), 1);
        }
    }
    let mut stream = TcpStream::connect(sandbox.address)
        .await
        .expect("connected");
    stream.write_all(&[0, 3, 1, 2, 3]).await.expect("sent");
    let reply = ask_stream(&mut stream, &query(7, "t_a.", RecordType::A, None)).await;
    assert_eq!(reply.answers.len(), 1, "what is too short is passed over");
    stream.write_all(&[0, 9, 1]).await.expect("sent");
    stream.shutdown().await.expect("shut down");
    let closed = timeout(DEADLINE, stream.read_u8())
        .await
        .expect("a connection that ends within a message is closed in time");
    assert!(closed.is_err());

    let reply = ask_udp(sandbox.address, &query(7, "t_a.", RecordType::A, None)).await;
    assert_eq!(reply.answers.len(), 1);
    assert_eq!(resolver.counts().answered, 41);
}

#[tokio::test]
async fn what_is_no_question_is_answered_with_an_error_or_dropped() {
    let resolver = lonely();
    let sandbox = attach(&resolver, on(&[])).await;
    let good = query(0x1234, "web.", RecordType::A, None);
    let told = async |packet: &[u8]| {
        let reply = ask_udp(sandbox.address, packet).await;
        (reply.metadata.id, reply.metadata.response_code)
    };

    let cut = &good[..good.len() - 3];
    assert_eq!(told(cut).await, (0x1234, ResponseCode::FormErr));
    assert_eq!(resolver.counts().malformed, 1);
    let mut none = good[..12].to_vec();
    none[5] = 0;
    assert_eq!(told(&none).await, (0x1234, ResponseCode::FormErr));
    let mut many = Message::from_vec(&good).expect("a message");
    for _ in 0..60 {
        many.add_query(many.queries[0].clone());
    }
    let many = many.to_vec().expect("a packet");
    assert_eq!(told(&many).await, (0x1234, ResponseCode::FormErr));
    let mut status = good.clone();
    status[2] |= 2 << 3;
    assert_eq!(told(&status).await, (0x1234, ResponseCode::NotImp));
    let mut message = read(&query(7, "web.", RecordType::A, Some(1232)));
    message.edns.as_mut().expect("EDNS").set_version(1);
    let (_, code) = told(&message.to_vec().expect("a packet")).await;
    assert_eq!(u16::from(code), u16::from(ResponseCode::BADVERS));
    assert_eq!(resolver.counts().malformed, 5);
    assert_eq!(resolver.counts().dropped, 0);

    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a socket");
    socket.connect(sandbox.address).await.expect("connected");
    socket.send(&good[..11]).await.expect("sent");
    let mut answer = query(0x4321, "web.", RecordType::A, None);
    answer[2] |= 0x80;
    socket.send(&answer).await.expect("sent");
    socket.send(&good).await.expect("sent");
    let mut reply = [0; 512];
    timeout(DEADLINE, socket.recv(&mut reply))
        .await
        .expect("a UDP answer in time")
        .expect("received");
    assert_eq!(reply[..2], good[..2], "only the question is answered");
    assert_eq!(resolver.counts().dropped, 2);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_counted() {
    const LIMIT: usize = 256;
    let resolver = lonely();
    resolver.publish(Zones::from_netstate(&recorded()));
    let sandbox = attach(&resolver, on(&[n1()])).await;
    let packet = query(7, "t_a.", RecordType::A, None);
    let mut held = Vec::new();
    for _ in 0..LIMIT {
        let mut stream = TcpStream::connect(sandbox.address)
            .await
            .expect("connected");
        // Answered, so it is known to be served.
        assert_eq!(ask_stream(&mut stream, &packet).await.answers.len(), 1);
        held.push(stream);
    }
    let mut more = TcpStream::connect(sandbox.address)
        .await
        .expect("connected");
    let end = timeout(DEADLINE, more.read_u8())
        .await
        .expect("one too many is closed in time");
    assert!(end.is_err());
    assert_eq!(resolver.counts().connections_refused, 1);
    let reply = ask_udp(sandbox.address, &packet).await;
    assert_eq!(reply.answers.len(), 1, "datagrams are served meanwhile");
    let other = attach(&resolver, on(&[n1()])).await;
    let mut stream = TcpStream::connect(other.address).await.expect("connected");
    assert_eq!(
        ask_stream(&mut stream, &packet).await.answers.len(),
        1,
        "another sandbox has its own limit"
    );

    // Room is made as soon as one goes.
    drop(held.pop());
    let again = async {
        loop {
            let mut stream = TcpStream::connect(sandbox.address)
                .await
                .expect("connected");
            let len = u16::try_from(packet.len()).expect("short");
            let asked = stream.write_u16(len).await.is_ok()
                && stream.write_all(&packet).await.is_ok()
                && stream.read_u16().await.is_ok();
            if asked {
                return;
            }
        }
    };
    timeout(DEADLINE, again)
        .await
        .expect("a place is free in time");
}

#[tokio::test]
async fn the_answer_spells_the_name_as_it_was_asked() {
    let resolver = lonely();
    resolver.publish(Zones::from_netstate(&recorded()));
    let sandbox = attach(&resolver, on(&[n1()])).await;
    let reply = ask_udp(sandbox.address, &query(7, "T_a.t_N1.", RecordType::A, None)).await;
    assert_eq!(reply.metadata.id, 7);
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
    assert!(
        reply.metadata.authoritative
            && reply.metadata.recursion_available
            && reply.metadata.recursion_desired
    );
    assert_eq!(reply.answers.len(), 1);
    assert_eq!(reply.answers[0].name.to_ascii(), "T_a.t_N1.");
    assert_eq!(reply.answers[0].ttl, 5);
    assert_eq!(reply.queries[0].name().to_ascii(), "T_a.t_N1.");
    assert!(reply.edns.is_none());
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_cut_and_says_so() {
    let resolver = lonely();
    resolver.publish(two_hundred_tasks());
    let sandbox = attach(&resolver, on(&[n1()])).await;
    let rows = [
        (None, 512, true),
        (Some(100), 512, true),
        (Some(1232), 1232, true),
        (Some(4096), 4096, false),
        (Some(65_000), 4096, false),
    ];
    for (payload, limit, cut) in rows {
        let packet = query(7, "tasks.t_a.", RecordType::A, payload);
        let packet = ask_udp_bytes(sandbox.address, &packet).await;
        let bytes = packet.len();
        let reply = read(&packet);
        assert!(bytes <= limit, "{payload:?}: {bytes} bytes");
        assert_eq!(reply.metadata.truncation, cut, "{payload:?}");
        if cut {
            let room = limit - bytes;
            assert!(room < 16, "{payload:?}: room for another record was left");
        } else {
            assert_eq!(reply.answers.len(), 202);
        }
        let said = reply
            .edns
            .map(|edns| (edns.flags().dnssec_ok, usize::from(edns.max_payload())));
        let expected = payload.map(|_| (true, limit));
        assert_eq!(said, expected, "EDNS is answered by EDNS");
    }
}

#[tokio::test]
async fn a_failing_resolver_is_passed_over_on_both_transports() {
    let fake = Fake::new(&[Mood::Fails, Mood::Silent, Mood::Good]);
    let resolver = Resolver::new(fake.forwarder(Duration::from_millis(10)));
    let sandbox = attach(&resolver, on(&[n1()])).await;
    let packet = query(0x77, "example.com.", RecordType::A, None);
    let reply = ask_udp(sandbox.address, &packet).await;
    assert_eq!(
        (reply.metadata.id, reply.metadata.response_code),
        (0x77, ResponseCode::NoError)
    );
    let mut stream = TcpStream::connect(sandbox.address)
        .await
        .expect("connected");
    let reply = ask_stream(&mut stream, &packet).await;
    assert_eq!(
        (reply.metadata.id, reply.metadata.response_code),
        (0x77, ResponseCode::NoError)
    );
    assert_eq!(resolver.counts().forwarded, 2);
}

#[tokio::test]
async fn without_a_resolver_outside_the_answer_is_a_failure_at_once() {
    let sandbox = attach(&lonely(), on(&[])).await;
    let reply = ask_udp(
        sandbox.address,
        &query(1, "example.com.", RecordType::A, None),
    )
    .await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn more_than_can_wait_is_refused_while_our_own_names_go_on() {
    let fake = Fake::new(&[Mood::Silent]);
    let patience = weft_dns::forward::Patience {
        give_up: Duration::from_secs(3600),
        hurry: Duration::from_secs(3600),
    };
    let servers = Servers::Listed(vec![crate::forward::server(1)]);
    let resolver = Resolver::new(Forwarder::with(fake, servers, patience));
    resolver.publish(Zones::from_netstate(&recorded()));
    let sandbox = attach(&resolver, on(&[n1()])).await;

    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a socket");
    let packet = query(1, "example.com.", RecordType::A, None);
    let mut sent = 0;
    let full = async {
        while resolver.counts().forwarded < 1024 {
            // A datagram may be lost where the receiver is slower than we are.
            socket
                .send_to(&packet, sandbox.address)
                .await
                .expect("sent");
            sent += 1;
            if sent % 32 == 0 {
                tokio::task::yield_now().await;
            }
        }
    };
    timeout(DEADLINE, full)
        .await
        .expect("1,024 queries waiting in time");

    let reply = ask_udp(sandbox.address, &packet).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
    let reply = ask_udp(sandbox.address, &query(2, "t_a.", RecordType::A, None)).await;
    assert_eq!(reply.answers.len(), 1);
}

#[tokio::test]
async fn real_resolvers_are_asked_over_real_sockets() {
    // Our own resolver as the one outside: it knows `t_a`, the first one does not.
    let outside = lonely();
    outside.publish(two_hundred_tasks());
    let far = attach(&outside, on(&[n1()])).await;
    let closed = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a socket");
    let closed_address = closed.local_addr().expect("its address");
    drop(closed);

    let resolver = Resolver::new(Forwarder::new(Servers::Listed(vec![
        closed_address,
        far.address,
    ])));
    let near = attach(&resolver, on(&[])).await;
    let reply = ask_udp(near.address, &query(0x99, "T_a.", RecordType::A, None)).await;
    assert_eq!((reply.metadata.id, reply.answers.len()), (0x99, 1));
    assert_eq!(reply.answers[0].name.to_ascii(), "T_a.");

    let packet = query(0x98, "tasks.t_a.t_n1.", RecordType::A, None);
    assert!(ask_udp(near.address, &packet).await.metadata.truncation);
    let mut stream = TcpStream::connect(near.address).await.expect("connected");
    assert_eq!(ask_stream(&mut stream, &packet).await.answers.len(), 202);
}

#[tokio::test]
async fn a_new_revision_and_a_new_network_are_seen_at_once() {
    let resolver = lonely();
    let sandbox = attach(&resolver, on(&[n1()])).await;
    let packet = query(7, "t_c.", RecordType::A, None);
    resolver.publish(Zones::from_netstate(&recorded()));
    assert_eq!(
        ask_udp(sandbox.address, &packet)
            .await
            .metadata
            .response_code,
        ResponseCode::ServFail
    );
    sandbox.attachment.set_asker(on(&[n1(), n2()]));
    assert_eq!(ask_udp(sandbox.address, &packet).await.answers.len(), 1);
    resolver.publish(Zones::default());
    assert_eq!(
        ask_udp(sandbox.address, &packet)
            .await
            .metadata
            .response_code,
        ResponseCode::ServFail
    );
}

#[tokio::test]
async fn a_dropped_attachment_closes_its_sockets_and_open_connections() {
    let resolver = lonely();
    resolver.publish(Zones::from_netstate(&recorded()));
    let sandbox = attach(&resolver, on(&[n1()])).await;
    let mut stream = TcpStream::connect(sandbox.address)
        .await
        .expect("connected");
    assert_eq!(
        ask_stream(&mut stream, &query(7, "t_a.", RecordType::A, None))
            .await
            .answers
            .len(),
        1
    );

    let address = sandbox.address;
    drop(sandbox);
    let end = timeout(DEADLINE, stream.read_u8())
        .await
        .expect("the connection ends in time");
    assert!(end.is_err());
    let freed = async {
        loop {
            if UdpSocket::bind(address).await.is_ok() && TcpListener::bind(address).await.is_ok() {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, freed)
        .await
        .expect("both ports are free in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sandboxes_are_served_side_by_side() {
    let resolver = lonely();
    resolver.publish(Zones::from_netstate(&recorded()));
    let mut sandboxes = Vec::new();
    for number in 0..200 {
        let asker = if number % 2 == 0 {
            on(&[n1()])
        } else {
            on(&[n2()])
        };
        sandboxes.push(attach(&resolver, asker).await);
    }
    let sandboxes = Arc::new(sandboxes);
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..sandboxes.len() {
        let sandboxes = Arc::clone(&sandboxes);
        clients.spawn(async move {
            let name = if number % 2 == 0 { "t_a." } else { "t_c." };
            ask_udp(
                sandboxes[number].address,
                &query(7, name, RecordType::A, None),
            )
            .await
            .answers
            .len()
        });
    }
    assert_eq!(clients.join_all().await, vec![1; 200]);
}
