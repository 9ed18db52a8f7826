//! Asking outside, against resolvers of the tests' own.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use hickory_proto::rr::RecordType;
use weft_dns::{
    Forwarder, Servers,
    forward::{ForwardError, Patience, Upstream},
    wire::Transport,
};

use crate::packet::query;

/// How one resolver behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Answers.
    Good,
    /// Answers SERVFAIL.
    Fails,
    /// Answers REFUSED.
    Refuses,
    /// Answers NXDOMAIN.
    Denies,
    /// Says nothing, ever.
    Silent,
    /// Cannot be reached.
    Unreachable,
    /// Cuts its answer over UDP, and gives it whole over TCP.
    Cuts,
}

/// Resolvers at made-up addresses. The last byte of an answer is the resolver's number.
pub(crate) struct Fake {
    moods: HashMap<SocketAddr, Mood>,
    /// Who was asked, in order.
    pub(crate) asked: Mutex<Vec<(SocketAddr, Transport)>>,
}

pub(crate) fn server(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 53))
}

impl Fake {
    /// Resolvers numbered from 1 with these moods.
    pub(crate) fn new(moods: &[Mood]) -> Arc<Self> {
        let moods = (1..)
            .zip(moods)
            .map(|(number, mood)| (server(number), *mood))
            .collect();
        Arc::new(Self {
            moods,
            asked: Mutex::default(),
        })
    }

    fn servers(&self) -> Servers {
        let mut servers: Vec<SocketAddr> = self.moods.keys().copied().collect();
        servers.sort();
        Servers::Listed(servers)
    }

    /// A forwarder to these resolvers that gives up quickly, and never hurries unless told.
    pub(crate) fn forwarder(self: &Arc<Self>, hurry: Duration) -> Forwarder {
        let patience = Patience {
            give_up: Duration::from_millis(300),
            hurry,
        };
        Forwarder::with(
            Arc::clone(self) as Arc<dyn Upstream>,
            self.servers(),
            patience,
        )
    }
}

#[async_trait::async_trait]
impl Upstream for Fake {
    async fn ask(&self, server: SocketAddr, query: &[u8], over: Transport) -> io::Result<Vec<u8>> {
        self.asked
            .lock()
            .expect("nobody panicked")
            .push((server, over));
        let mut reply = query.to_vec();
        reply[2] |= 0x80;
        match self.moods.get(&server).copied().unwrap_or(Mood::Good) {
            Mood::Good => {}
            Mood::Fails => reply[3] |= 2,
            Mood::Refuses => reply[3] |= 5,
            Mood::Denies => reply[3] |= 3,
            Mood::Silent => std::future::pending().await,
            Mood::Unreachable => return Err(io::ErrorKind::ConnectionRefused.into()),
            Mood::Cuts if over == Transport::Udp => reply[2] |= 2,
            Mood::Cuts => {}
        }
        let SocketAddr::V4(server) = server else {
            return Ok(reply);
        };
        reply.push(server.ip().octets()[3]);
        Ok(reply)
    }
}

const NEVER: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn the_next_resolver_is_asked_when_one_fails_and_an_answer_settles() {
    use Mood::*;
    let rows: &[(&[Mood], u8)] = &[
        (&[Good, Good], 1),
        (&[Fails, Good], 2),
        (&[Refuses, Unreachable, Good], 3),
        (&[Silent, Good], 2),
        (&[Denies, Good], 1),
    ];
    let asked = query(0x4242, "example.com.", RecordType::A, None);
    for (moods, by) in rows {
        let reply = Fake::new(moods)
            .forwarder(NEVER)
            .forward(&asked, &[], Transport::Udp)
            .await
            .expect("an answer");
        assert_eq!(reply.last(), Some(by));
        assert_eq!(reply[..2], asked[..2], "the client's own id comes back");
    }
}

#[tokio::test]
async fn a_silent_resolver_holds_nobody_up_when_another_answers() {
    let fake = Fake::new(&[Mood::Silent, Mood::Good]);
    let patience = Patience {
        give_up: NEVER,
        hurry: Duration::from_millis(10),
    };
    let forwarder = Forwarder::with(fake.clone() as Arc<dyn Upstream>, fake.servers(), patience);
    let asked = query(1, "example.com.", RecordType::A, None);
    let reply = forwarder
        .forward(&asked, &[], Transport::Udp)
        .await
        .expect("an answer");
    assert_eq!(reply.last(), Some(&2));
}

#[tokio::test]
async fn nobody_answering_is_an_error_and_so_is_nobody_to_ask() {
    let asked = query(1, "example.com.", RecordType::A, None);
    let fake = Fake::new(&[Mood::Fails, Mood::Silent, Mood::Unreachable]);
    let error = fake
        .forwarder(NEVER)
        .forward(&asked, &[], Transport::Udp)
        .await
        .unwrap_err();
    assert!(
        matches!(error, ForwardError::Unanswered { asked: 3, .. }),
        "{error:?}"
    );
    let error = Fake::new(&[])
        .forwarder(NEVER)
        .forward(&asked, &[], Transport::Udp)
        .await
        .unwrap_err();
    assert!(matches!(error, ForwardError::NoServers), "{error:?}");
}

#[tokio::test]
async fn a_containers_own_resolvers_come_instead_of_the_hosts() {
    let fake = Fake::new(&[Mood::Good]);
    let asked = query(1, "example.com.", RecordType::A, None);
    let reply = fake
        .forwarder(NEVER)
        .forward(&asked, &[server(9)], Transport::Udp)
        .await
        .expect("an answer");
    assert_eq!(reply.last(), Some(&9));
    assert_eq!(
        *fake.asked.lock().expect("nobody panicked"),
        [(server(9), Transport::Udp)]
    );
}

#[tokio::test]
async fn three_resolvers_are_asked_at_most_and_never_ourselves() {
    let fake = Fake::new(&[Mood::Fails; 5]);
    let asked = query(1, "example.com.", RecordType::A, None);
    let ourselves = SocketAddr::from(([127, 0, 0, 11], 53));
    let own = [ourselves, server(4), server(2), server(1), server(5)];
    let error = fake
        .forwarder(NEVER)
        .forward(&asked, &own, Transport::Udp)
        .await
        .unwrap_err();
    assert!(
        matches!(error, ForwardError::Unanswered { asked: 3, .. }),
        "{error:?}"
    );
    let order: Vec<SocketAddr> = fake
        .asked
        .lock()
        .expect("nobody panicked")
        .iter()
        .map(|(server, _)| *server)
        .collect();
    assert_eq!(order, [server(4), server(2), server(1)]);
}

#[tokio::test]
async fn a_cut_answer_is_completed_for_a_client_that_came_by_tcp() {
    let fake = Fake::new(&[Mood::Cuts]);
    let asked = query(1, "example.com.", RecordType::A, None);
    let cut = fake
        .forwarder(NEVER)
        .forward(&asked, &[], Transport::Udp)
        .await
        .expect("an answer");
    assert_ne!(cut[2] & 2, 0, "a UDP client is told to come again by TCP");
    let whole = fake
        .forwarder(NEVER)
        .forward(&asked, &[], Transport::Tcp)
        .await
        .expect("an answer");
    assert_eq!(whole[2] & 2, 0);
    let over: Vec<Transport> = fake
        .asked
        .lock()
        .unwrap()
        .iter()
        .map(|(_, over)| *over)
        .collect();
    assert_eq!(over, [Transport::Udp, Transport::Udp, Transport::Tcp]);
}

#[tokio::test]
async fn the_hosts_resolvers_are_read_from_its_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("resolv.conf");
    std::fs::write(&path, "nameserver 127.0.0.11\nnameserver 192.0.2.5\n").expect("a file");
    let fake = Fake::new(&[]);
    let forwarder = Forwarder::with(
        fake.clone() as Arc<dyn Upstream>,
        Servers::from_file(&path),
        Patience::default(),
    );
    let asked = query(1, "example.com.", RecordType::A, None);
    assert_eq!(
        forwarder
            .forward(&asked, &[], Transport::Udp)
            .await
            .expect("an answer")
            .last(),
        Some(&5)
    );

    let missing = Servers::from_file(&folder.path().join("missing"));
    let forwarder = Forwarder::with(fake, missing, Patience::default());
    let error = forwarder
        .forward(&asked, &[], Transport::Udp)
        .await
        .unwrap_err();
    assert!(matches!(error, ForwardError::NoServers), "{error:?}");
}
