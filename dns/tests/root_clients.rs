//! Other people's clients against the resolver at 127.0.0.11:53, in a network and mount namespace
//! of the test's own. Needs root; the namespaces have no name and end with their thread.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use hickory_proto::{
    op::{Message, Query},
    rr::{Name, RecordType},
};
use nix::sched::{CloneFlags, unshare};
use weft_dns::{
    Asker, ContainerNames, Forwarder, Mode, Resolver, Servers, ServiceNames, ZoneBuilder, Zones,
    resolv_conf::ResolvConf,
};
use weft_types::NetworkId;

/// Runs `story` in a thread with fresh namespaces, loopback up and our `resolv.conf` in place.
fn in_a_sandbox(story: impl FnOnce() + Send + 'static) {
    let thread = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
            .expect("new namespaces: are you root?");
        run("mount", &["--make-rprivate", "/"]);
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("resolv.conf");
        fs::write(&file, ResolvConf::default().for_sandbox(&[], &[])).expect("a resolv.conf");
        run(
            "mount",
            &["--bind", &file.to_string_lossy(), "/etc/resolv.conf"],
        );
        run("ip", &["link", "set", "lo", "up"]);
        // The C library asks for addresses of a family only where it has one beside loopback.
        run("ip", &["address", "add", "10.0.4.99/32", "dev", "lo"]);
        run("ip", &["address", "add", "fd00:4::99/128", "dev", "lo"]);
        story();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// What a command prints, whatever its exit status.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn is_installed(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).exists())
    })
}

fn zones() -> Zones {
    let subnets = ["10.0.4.0/24", "fd00:4::/64"].map(|text| text.parse().expect("a subnet"));
    let address = |text: &str| text.parse().expect("an address");
    let mut zone = ZoneBuilder::new("net_1", &subnets);
    let tasks: Vec<_> = (3..203)
        .map(|last| address(&format!("10.0.4.{last}")))
        .collect();
    let vips = [address("10.0.4.2"), address("fd00:4::2")];
    zone.service(&ServiceNames {
        names: &["web"],
        mode: Mode::Vip(&vips),
        tasks: &tasks,
    });
    zone.service(&ServiceNames {
        names: &["old"],
        mode: Mode::Vip(&vips[..1]),
        tasks: &[],
    });
    zone.container(&ContainerNames {
        name: "web.1.abc",
        others: &["h-1"],
        addresses: &tasks[..1],
    });
    let zone = zone.build();
    Zones {
        networks: [(NetworkId::numbered(1), zone.into())].into(),
    }
}

/// Where a container's resolver listens.
fn sockets() -> (UdpSocket, TcpListener) {
    let udp = UdpSocket::bind("127.0.0.11:53").expect("the UDP socket");
    let tcp = TcpListener::bind("127.0.0.11:53").expect("the TCP socket");
    (udp, tcp)
}

fn asker() -> Asker {
    Asker {
        networks: vec![NetworkId::numbered(1)],
        ..Asker::default()
    }
}

#[test]
fn the_clients_that_containers_have_understand_us() {
    in_a_sandbox(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let (udp, tcp) = sockets();
        let resolver = Resolver::new(Forwarder::new(Servers::from_file(Path::new(
            "/etc/resolv.conf",
        ))));
        resolver.publish(zones());
        let _served = {
            let _inside = runtime.enter();
            resolver.attach_std(udp, tcp, asker()).expect("attached")
        };

        // The C library asks A and AAAA at once, from one socket.
        let both = run("getent", &["ahosts", "web"]);
        assert!(
            both.contains("10.0.4.2 ") && both.contains("fd00:4::2 "),
            "{both}"
        );
        let one = run("getent", &["ahosts", "old"]);
        assert!(one.contains("10.0.4.2 "), "{one}");
        let all = run("getent", &["ahostsv4", "tasks.web"]);
        assert_eq!(
            all.lines().filter(|line| line.contains("STREAM")).count(),
            200,
            "by TCP, after a cut answer: {all}"
        );
        let back = run("getent", &["hosts", "10.0.4.3"]);
        assert!(back.contains("web.1.abc.net_1"), "{back}");
        assert_eq!(run("getent", &["ahosts", "tasks.nobody"]), "");

        if is_installed("busybox") {
            let said = run("busybox", &["nslookup", "WEB"]);
            assert!(
                said.contains("10.0.4.2") && said.contains("fd00:4::2"),
                "{said}"
            );
            let said = run("busybox", &["nslookup", "tasks.nobody"]);
            assert!(said.contains("NXDOMAIN"), "{said}");
        }
        if is_installed("dig") {
            let cut = run("dig", &["+notcp", "+ignore", "+noedns", "tasks.web"]);
            assert!(cut.contains(" tc ") || cut.contains("qr aa tc"), "{cut}");
            let whole = run("dig", &["+short", "tasks.web"]);
            assert_eq!(whole.lines().count(), 200, "{whole}");
            let said = run("dig", &["+bufsize=1232", "old", "AAAA"]);
            assert!(
                said.contains("status: NOERROR")
                    && said.contains("ANSWER: 0")
                    && said.contains("udp: 1232"),
                "{said}"
            );
            let said = run("dig", &["-x", "10.0.4.2"]);
            assert!(said.contains("status: NXDOMAIN"), "{said}");
            let said = run("dig", &["example.com"]);
            assert!(
                said.contains("status: SERVFAIL"),
                "no resolver outside is configured: {said}"
            );
        }
        let counts = resolver.counts();
        assert_eq!((counts.malformed, counts.unsent), (0, 0), "{counts:?}");
    });
}

#[test]
fn answers_longer_than_the_loopback_device_takes_in_one_piece_are_sent_by_themselves() {
    in_a_sandbox(|| {
        run("ip", &["link", "set", "lo", "mtu", "1280"]);
        // Of one thread, which asks before it serves: all questions wait at once.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let (udp, tcp) = sockets();
        let resolver = Resolver::new(Forwarder::new(Servers::Listed(Vec::new())));
        resolver.publish(zones());
        let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        client.connect("127.0.0.11:53").expect("connected");
        let mut question = Message::query();
        let name = Name::from_ascii("tasks.web.").expect("a name");
        question.add_query(Query::query(name, RecordType::A));
        question.edns.get_or_insert_default().set_max_payload(4096);
        let question = question.to_vec().expect("a packet");
        for _ in 0..10 {
            client.send(&question).expect("sent");
        }
        runtime.block_on(async {
            let _served = resolver.attach_std(udp, tcp, asker()).expect("attached");
            client.set_nonblocking(true).expect("not blocking");
            let client = tokio::net::UdpSocket::from_std(client).expect("registered");
            let mut answer = [0; 4096];
            for _ in 0..10 {
                let heard = client.recv(&mut answer);
                let len = tokio::time::timeout(Duration::from_secs(20), heard).await;
                let len = len.expect("an answer in time").expect("received");
                let answer = Message::from_vec(&answer[..len]).expect("a message");
                assert_eq!(
                    (answer.metadata.truncation, answer.answers.len()),
                    (false, 200)
                );
            }
        });
        assert_eq!(resolver.counts().unsent, 0);
    });
}
