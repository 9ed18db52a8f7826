mod keys;
mod led;

use std::{
    collections::BTreeSet,
    fs::File,
    net::{IpAddr, Ipv4Addr},
    os::fd::OwnedFd,
    path::PathBuf,
};

use weft_abi::FrontKey;
use weft_types::{BackendId, NetworkId, TaskId, service::Protocol, steering::Listen};

use ipnetwork::IpNetwork;

use super::*;
use crate::{
    Attachment, SandboxSpec,
    desired::{Endpoint as DesiredEndpoint, Frontend, Node, Target},
    kernel::fake::Fake,
};

const HERE: &str = "192.0.2.11";

fn here() -> IpAddr {
    HERE.parse().unwrap()
}

fn keeper(fake: Fake) -> Keeper<Fake> {
    Keeper::start(Config::new(PathBuf::from("/nowhere"), here()), fake).unwrap()
}

fn netns() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

fn task(number: u32) -> TaskId {
    TaskId::numbered(u128::from(number))
}

fn spec(backends: &[u32]) -> SandboxSpec {
    let attachments = backends.iter().map(|id| Attachment {
        backend: BackendId(*id),
        network: NetworkId::numbered(1),
        vni: 4096,
        addresses: vec![
            IpNetwork::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, *id as u8)), 24).unwrap(),
        ],
        mtu_bytes: None,
        internal: false,
        encrypted: false,
        ingress: true,
    });
    SandboxSpec {
        task: task(backends.first().copied().unwrap_or(0)),
        attachments: attachments.collect(),
    }
}

fn desired(revision: u64, backends: &[u32]) -> Desired {
    let mut desired = Desired {
        revision,
        node: 1,
        mesh: 4096,
        ..Desired::default()
    };
    desired.nodes.insert(
        1,
        Node {
            name: String::new(),
            addr: here(),
            addresses: BTreeSet::new(),
            zone: String::new(),
            missed: false,
            dead: false,
            wireguard: None,
        },
    );
    desired.subnets.insert("10.0.0.0/24".parse().unwrap(), 4096);
    for id in backends {
        let addresses = vec![IpAddr::V4(Ipv4Addr::new(10, 0, 0, *id as u8))];
        let endpoint = DesiredEndpoint {
            name: String::new(),
            service: None,
            net: 4096,
            node: 1,
            addresses,
            draining: false,
        };
        desired.endpoints.insert(BackendId(*id), endpoint);
    }
    desired.fronts.insert(
        Frontend::Port(Protocol::Tcp, 8000),
        Target {
            ring: 5,
            port: 80,
            host_mode: false,
            affinity: 0,
            allowed: false,
            least: false,
        },
    );
    desired
        .rings
        .insert(5, backends.iter().map(|id| BackendId(*id)).collect());
    desired
}

#[test]
fn the_mtu_leaves_room_for_the_tunnel_over_either_family() {
    for (here, mtu) in [(HERE, 1450), ("2001:db8::11", 1430)] {
        let config = Config::new(PathBuf::from("/nowhere"), here.parse().unwrap());
        let keeper = Keeper::start(config, Fake::host(here)).unwrap();
        assert_eq!(keeper.status().mtu_bytes, mtu, "over {here}");
    }
}

#[test]
fn a_sandbox_gains_and_loses_interfaces() {
    let mut keeper = keeper(Fake::host(HERE));
    let both = |backends: &[u32]| SandboxSpec {
        task: task(1),
        ..spec(backends)
    };
    let links = |keeper: &Keeper<Fake>| {
        let links = keeper.kernel.links.values().map(|link| link.name.clone());
        links
            .filter(|name| name.starts_with("wv"))
            .collect::<Vec<_>>()
    };
    keeper.create_sandbox(&both(&[7]), netns()).unwrap();
    keeper.create_sandbox(&both(&[7, 8]), netns()).unwrap();
    assert_eq!(links(&keeper), ["wv00000007", "wv00000008"]);
    keeper.create_sandbox(&both(&[8]), netns()).unwrap();
    assert_eq!(links(&keeper), ["wv00000008"]);
    keeper.remove_sandbox(task(1)).unwrap();
    assert_eq!(links(&keeper), [""; 0]);
}

#[test]
fn interfaces_keep_their_names_and_new_ones_take_free_ones() {
    let mut wanted = crate::interfaces::plan(&spec(&[8, 9]), 1450, 1400, None);
    let link = |name: &str, mac: [u8; 6]| {
        let mut fake = Fake::host(HERE);
        fake.add_link(9, name, "veth", true);
        let mut link = fake.links.remove(&9).unwrap();
        link.mac = mac.to_vec();
        link
    };
    let inner = [
        link("eth0", [2, 0x42, 0, 0, 0, 1]),
        link("eth2", BackendId(9).mac()),
    ];
    crate::interfaces::settle_names(&mut wanted, &inner);
    let names: Vec<_> = wanted.iter().map(|one| one.inner_name.as_str()).collect();
    assert_eq!(names, ["eth1", "eth2"]);
}

#[test]
fn a_settled_kernel_is_left_alone() {
    let mut keeper = keeper(Fake::host("192.0.2.11/24"));
    keeper.create_sandbox(&spec(&[7]), netns()).unwrap();
    let first = keeper.apply(desired(3, &[7])).unwrap();
    assert_eq!(first.revision, 3);
    assert!(first.changes > 0);
    assert_eq!(first.repairs.total(), 0);
    keeper.kernel.writes = 0;
    let second = keeper.apply(desired(3, &[7])).unwrap();
    assert_eq!(
        (second.changes, second.repairs.total(), keeper.kernel.writes),
        (0, 0, 0)
    );
    keeper.tick();
    assert_eq!(keeper.kernel.writes, 0);
}

#[test]
fn a_change_of_desire_is_no_repair_and_a_drift_is() {
    let mut keeper = keeper(Fake::host("192.0.2.11/24"));
    keeper.apply(desired(1, &[7, 8])).unwrap();
    let changed = keeper.apply(desired(2, &[7])).unwrap();
    assert!(changed.changes > 0);
    assert_eq!(changed.repairs.total(), 0);
    let front = *keeper.kernel.tables.front.keys().next().unwrap();
    keeper.kernel.tables.front.remove(&front);
    keeper.kernel.routes.clear();
    keeper.kernel.hooks.clear();
    keeper.kernel.firewall = None;
    let mended = keeper.apply(desired(2, &[7])).unwrap();
    assert_eq!(
        mended.repairs,
        Repairs {
            links: 1,
            entries: 1,
            programs: 3,
            firewall: 1
        }
    );
    assert!(keeper.kernel.tables.front.contains_key(&front));
    assert_eq!(keeper.status().repairs, mended.repairs);
}

/// What is logged, as text.
#[derive(Clone, Default)]
struct Log(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_drift_is_mended_unasked_within_some_looks_and_logged_once() {
    let mut keeper = keeper(Fake::host("192.0.2.11/24"));
    keeper.apply(desired(1, &[7])).unwrap();
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let front = *keeper.kernel.tables.front.keys().next().unwrap();
    let hook = *keeper.kernel.hooks.iter().next().unwrap();
    tracing::subscriber::with_default(subscriber, || {
        for _ in 0..TICKS_PER_READ_BACK {
            keeper.tick();
        }
        keeper.kernel.tables.front.remove(&front);
        keeper.kernel.hooks.remove(&hook);
        for _ in 0..3 * TICKS_PER_READ_BACK {
            keeper.tick();
        }
    });
    assert!(keeper.kernel.tables.front.contains_key(&front));
    assert!(keeper.kernel.hooks.contains(&hook));
    let repairs = keeper.status().repairs;
    assert_eq!((repairs.entries, repairs.programs), (1, 1));
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains("drifted"))
        .collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(
        lines[0].contains("WARN") && lines[0].contains("entries: 1"),
        "{log}"
    );
}

#[test]
fn one_refusal_does_not_keep_the_rest_from_being_done() {
    for fault in ["put row", "put ring", "put route", "attach", "overlay"] {
        let mut keeper = keeper(Fake::host("192.0.2.11/24"));
        keeper.kernel.hooks.clear();
        keeper.kernel.faults.insert(fault);
        let refused = keeper.apply(desired(1, &[7])).unwrap_err();
        assert!(refused.to_string().contains("fake"), "{fault}: {refused}");
        if fault != "put route" {
            assert!(
                !keeper.kernel.routes.is_empty(),
                "{fault} kept routes from being written"
            );
        }
        keeper.kernel.faults.clear();
        keeper.apply(desired(1, &[7])).unwrap();
        let want = Tables::of(&desired(1, &[7]), &keeper.host(), &keeper.rings);
        assert_eq!(keeper.kernel.tables, want, "{fault}");
    }
}

#[test]
fn sockets_and_firewall_are_no_reason_to_refuse() {
    let mut fake = Fake::host("192.0.2.11/24");
    fake.faults.extend(["sockets", "write firewall"]);
    let mut keeper = keeper(fake);
    assert_eq!(keeper.apply(desired(1, &[7])).unwrap().revision, 1);
    let faults = keeper.status().faults;
    let named = |what: &str| faults.iter().any(|fault| fault.contains(what));
    assert!(named("reach the world") && named("127.0.0.1"), "{faults:?}");
    keeper.kernel.faults.clear();
    keeper.apply(desired(2, &[7])).unwrap();
    assert!(keeper.status().faults.is_empty(), "{faults:?}");
}

#[test]
fn an_address_that_is_nowhere_is_refused_by_name() {
    let config = Config::new(PathBuf::from("/nowhere"), "198.51.100.9".parse().unwrap());
    let error = Keeper::start(config, Fake::host("192.0.2.11/24"))
        .err()
        .unwrap();
    assert!(error.to_string().contains("198.51.100.9"), "{error}");
}

#[test]
fn what_was_found_at_start_stays_until_every_living_task_came_back() {
    let mut first = keeper(Fake::host("192.0.2.11/24"));
    for id in [7, 8] {
        first.create_sandbox(&spec(&[id]), netns()).unwrap();
    }
    first.apply(desired(1, &[7, 8])).unwrap();
    let mut again = keeper(first.kernel);
    // The state may be older than the sandboxes: they keep their rows.
    again.apply(desired(2, &[])).unwrap();
    assert_eq!(again.kernel.tables.endpoints.len(), 2);
    again.retain_sandboxes(&BTreeSet::from([task(7)])).unwrap();
    assert_eq!(
        again.kernel.tables.endpoints.len(),
        2,
        "t7 has not come back yet"
    );
    again.create_sandbox(&spec(&[7]), netns()).unwrap();
    again.retain_sandboxes(&BTreeSet::from([task(7)])).unwrap();
    let left: Vec<u32> = again
        .kernel
        .tables
        .endpoints
        .values()
        .map(|endpoint| endpoint.id)
        .collect();
    assert_eq!(left, [7]);
    assert!(
        !again
            .kernel
            .links
            .values()
            .any(|link| link.name == "wv00000008")
    );
}

#[test]
fn a_sandbox_that_ends_by_itself_takes_its_rows_with_it() {
    let mut keeper = keeper(Fake::host("192.0.2.11/24"));
    keeper.create_sandbox(&spec(&[7]), netns()).unwrap();
    keeper.apply(desired(1, &[7])).unwrap();
    // The namespace went, and the pair with it.
    keeper.kernel.remove_link("wv00000007").unwrap();
    keeper.tick();
    assert!(keeper.kernel.tables.endpoints.is_empty());
    assert!(
        keeper
            .kernel
            .routes
            .iter()
            .all(|route| route.to.prefix() == 24)
    );
    keeper.remove_sandbox(task(7)).unwrap();
}

#[test]
fn tasks_without_networks_share_the_egress_pool() {
    let mut config = Config::new(PathBuf::from("/nowhere"), here());
    config.egress_pool = "172.29.0.0/29".parse().unwrap();
    let mut keeper = Keeper::start(config, Fake::host("192.0.2.11/24")).unwrap();
    let alone = |number| SandboxSpec {
        task: task(number),
        attachments: Vec::new(),
    };
    let mut seen = BTreeSet::new();
    for number in 1..=5 {
        seen.extend(
            keeper
                .create_sandbox(&alone(number), netns())
                .unwrap()
                .addresses,
        );
    }
    assert_eq!(seen.len(), 5);
    assert_eq!(
        keeper.create_sandbox(&alone(1), netns()).unwrap().addresses,
        ["172.29.0.2".parse::<IpAddr>().unwrap()]
    );
    let error = keeper.create_sandbox(&alone(6), netns()).unwrap_err();
    assert!(error.to_string().contains("no free address"), "{error}");
    keeper.remove_sandbox(task(3)).unwrap();
    assert!(keeper.create_sandbox(&alone(6), netns()).is_ok());
}

#[test]
fn programs_of_an_older_layout_are_replaced_after_the_first_apply() {
    let mut before = keeper(Fake::host("192.0.2.11/24"));
    before.create_sandbox(&spec(&[7]), netns()).unwrap();
    before.apply(desired(1, &[7])).unwrap();
    let mut kernel = before.kernel;
    kernel.succeeds = true;
    kernel.writes = 0;
    let attached = kernel.hooks.clone();
    let mut after = keeper(kernel);
    assert_eq!(
        after.kernel.writes, 0,
        "something was attached or written before its time"
    );
    assert_eq!(after.kernel.hooks, attached);
    after.apply(desired(2, &[7])).unwrap();
    assert!(after.kernel.writes >= attached.len() as u64);
    assert_eq!(after.kernel.hooks, attached);
}

#[test]
fn a_port_follows_the_addresses_of_the_interface_that_it_is_said_to_listen_at() {
    let mut fake = Fake::host(HERE);
    fake.add_link(7, "eth1", "", true);
    let mut keeper = keeper(fake);
    let mut wish = desired(1, &[7]);
    let places = ["eth1", "lo"].map(|name| Listen::Interface(name.to_owned()));
    wish.listens
        .insert(Frontend::Port(Protocol::Tcp, 8000), places.into());
    keeper.apply(wish).unwrap();
    let at = |keeper: &Keeper<Fake>| -> BTreeSet<IpAddr> {
        let front = keeper.kernel.tables.front.keys();
        let at = front.filter(|key| key.addr != FrontKey::CARRIED);
        at.map(|key| key.addr.into()).collect()
    };
    let addresses = |all: &[&str]| -> BTreeSet<IpAddr> {
        let all = ["127.0.0.1", "::1"].iter().chain(all);
        all.map(|addr| addr.parse().unwrap()).collect()
    };
    assert_eq!(at(&keeper), addresses(&[]), "it has none");
    for addr in ["203.0.113.11/24", "2001:db8:1::11/64", "fe80::1/64"] {
        keeper.kernel.add_address(7, addr);
    }
    keeper.heed_links();
    let both = addresses(&["203.0.113.11", "2001:db8:1::11"]);
    assert_eq!(at(&keeper), both, "link-local ones are on every link");
    keeper.kernel.addresses.retain(|addr| addr.addr.is_ipv4());
    keeper.heed_links();
    assert_eq!(at(&keeper), addresses(&["203.0.113.11"]));
    if let Some(link) = keeper.kernel.links.get_mut(&7) {
        link.name = "eth2".to_owned();
    }
    keeper.heed_links();
    assert_eq!(at(&keeper), addresses(&[]), "another name");
}
