use weft_abi::{Backend, Node, backend};

use super::*;

const TCP: u8 = libc::IPPROTO_TCP as u8;

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

fn led(cookie: u64, to: &str, proto: u8) -> Led {
    asked(cookie, to, proto, "127.0.0.1")
}

/// A socket that asked for `what` and was led to `to`.
pub(crate) fn asked(cookie: u64, to: &str, proto: u8, what: &str) -> Led {
    let to: SocketAddr = to.parse().unwrap();
    let key = SockKey {
        cookie,
        addr: to.ip().into(),
        port: Be16::new(to.port()),
        pad: [0; 6],
    };
    let origin = SockOrigin {
        addr: addr(what),
        port: Be16::new(8000),
        proto,
        pad: 0,
    };
    (key, origin)
}

fn all(addresses: &[&str]) -> BTreeSet<Addr> {
    addresses.iter().map(|text| addr(text)).collect()
}

fn cookies(led: &[Led]) -> Vec<u64> {
    led.iter().map(|(key, _)| key.cookie).collect()
}

#[test]
fn who_drains_is_there_and_who_is_on_a_dead_node_is_not() {
    let mut tables = Tables::default();
    let mut node = |index, flags| {
        let row = Node {
            flags,
            ..Node::default()
        };
        tables.nodes.insert(index, row);
    };
    node(1, 0);
    node(2, node::DEAD);
    let mut backend = |id, node, flags, four, six| {
        let row = Backend {
            addr4: four,
            addr6: six,
            node,
            net: 4096,
            flags,
        };
        tables.backends.insert(id, row);
    };
    backend(10, 1, 0, addr("10.0.0.1"), addr("fd00::1"));
    backend(20, 1, backend::DRAINING, addr("10.0.0.2"), Addr::ANY);
    backend(30, 2, 0, addr("10.0.0.3"), addr("fd00::3"));
    let there = ["10.0.0.1", "10.0.0.2", "fd00::1"];
    assert_eq!(living(&tables), all(&there));
}

#[test]
fn sockets_that_were_led_to_somebody_who_is_gone_are_looked_for_by_udp_alone() {
    let (mut lookout, now) = (Lookout::default(), Instant::now());
    let there = all(&["10.0.0.1", "fd00::1"]);
    let sockets = vec![
        led(1, "10.0.0.1:80", UDP),
        led(2, "10.0.0.2:80", UDP),
        led(3, "10.0.0.2:80", TCP),
        led(4, "[fd00::1]:80", UDP),
        led(5, "[fd00::2]:80", UDP),
        // As an older version left it.
        led(6, "10.0.0.2:80", 0),
    ];
    assert_eq!(cookies(&lookout.lost(&there, sockets, now)), [2, 5, 6]);
}

#[test]
fn a_look_is_due_when_somebody_is_gone_and_a_second_time_when_all_is_settled() {
    let (mut lookout, start) = (Lookout::default(), Instant::now());
    let (both, one) = (all(&["10.0.0.1", "10.0.0.2"]), all(&["10.0.0.1"]));
    let led = || vec![led(1, "10.0.0.1:80", UDP), led(2, "10.0.0.2:80", UDP)];
    // At the start, whoever went while nobody looked.
    assert!(lookout.begin(&both, start));
    assert_eq!(cookies(&lookout.lost(&both, led(), start)), [0_u64; 0]);
    lookout.finish(both.clone(), start);
    assert!(!lookout.begin(&both, start + SETTLED));
    let more = all(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert!(!lookout.begin(&more, start));
    // Who came since, too.
    assert!(lookout.begin(&both, start));
    lookout.lost(&both, led(), start);
    lookout.finish(both.clone(), start);

    assert!(lookout.begin(&one, start));
    assert_eq!(cookies(&lookout.lost(&one, led(), start)), [2]);
    lookout.finish(one.clone(), start);
    assert!(!lookout.begin(&one, start) && !lookout.is_open(start));
    // It may have been connected a moment after it was looked for.
    let later = start + SETTLED;
    assert!(lookout.begin(&one, later) && lookout.is_open(later));
    assert_eq!(cookies(&lookout.lost(&one, led(), later)), [2]);
    lookout.finish(one.clone(), later);
    let much_later = later + 10 * SETTLED;
    assert!(!lookout.begin(&one, much_later));
    assert_eq!(cookies(&lookout.lost(&one, led(), much_later)), [0_u64; 0]);
    lookout.finish(one.clone(), much_later);

    // Who comes back and goes again is looked for again.
    lookout.lost(&both, led(), much_later);
    lookout.finish(both, much_later);
    assert_eq!(cookies(&lookout.lost(&one, led(), much_later)), [2]);
}

#[test]
fn a_look_that_failed_is_made_again() {
    let (mut lookout, now) = (Lookout::default(), Instant::now());
    let there = all(&["10.0.0.1"]);
    assert!(lookout.begin(&there, now));
    assert!(lookout.is_open(now) && lookout.begin(&there, now));
    let led = || vec![led(2, "10.0.0.2:80", UDP)];
    lookout.lost(&there, led(), now);
    let again = lookout.lost(&there, led(), now + 2 * SETTLED);
    assert_eq!(cookies(&again), [2]);
}

#[test]
fn where_nothing_is_remembered_everything_is_looked_for() {
    let (mut lookout, now) = (Lookout::default(), Instant::now());
    let there = all(&["10.0.0.1"]);
    let led = || vec![led(2, "10.0.0.2:80", UDP)];
    lookout.lost(&there, led(), now);
    lookout.lost(&there, led(), now + SETTLED);
    lookout.finish(there.clone(), now + SETTLED);
    assert!(!lookout.begin(&there, now + 2 * SETTLED));
    lookout.start_over();
    assert!(lookout.begin(&there, now + 2 * SETTLED));
    assert_eq!(cookies(&lookout.lost(&there, led(), now)), [2]);
}

#[test]
fn a_task_may_have_sockets_that_asked_for_services_of_its_networks() {
    let red = ("10.0.1.0/24".parse().unwrap(), 4097);
    let blue = ("fd00:2::/64".parse().unwrap(), 4098);
    let subnets = BTreeMap::from([red, blue]);
    let sockets = [
        asked(1, "10.0.0.2:80", UDP, "127.0.0.1"),
        asked(2, "10.0.1.2:80", UDP, "10.0.1.100"),
        asked(3, "[fd00:2::2]:80", UDP, "fd00:2::100"),
    ];
    let of = |nets: &[u32]| {
        let nets = nets.iter().copied().collect();
        cookies(&of_task(&sockets, &nets, &subnets))
    };
    assert_eq!(of(&[4097]), [2]);
    assert_eq!(of(&[4097, 4098]), [2, 3]);
    assert_eq!(of(&[4099]), [0_u64; 0]);
}

/// Same address, same port: only who was led there ends, and only while it is there.
#[test]
fn a_socket_that_chose_the_address_itself_is_left_alone() {
    let connected = |cookie, to: &str| Connected {
        cookie,
        from: "192.0.2.11:40000".parse().unwrap(),
        to: to.parse().unwrap(),
        link: 0,
    };
    let lost = [
        led(1, "10.0.0.2:80", UDP),
        led(2, "10.0.0.2:80", UDP),
        led(3, "10.0.0.2:80", UDP),
        led(4, "[fd00::2]:80", UDP),
    ];
    let there = vec![
        connected(1, "10.0.0.2:80"),
        // An IPv6 socket that speaks IPv4.
        connected(2, "[::ffff:10.0.0.2]:80"),
        // It has been connected anew since.
        connected(3, "10.0.0.1:80"),
        connected(4, "[fd00::2]:81"),
        connected(5, "10.0.0.2:80"),
    ];
    let ending = still_there(&lost, there);
    let ending: Vec<u64> = ending.iter().map(|socket| socket.cookie).collect();
    assert_eq!(ending, [1, 2]);
}
