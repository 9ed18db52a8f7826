use weft_types::{
    TaskId,
    netstate::{NetNetwork, NetNode, NetService},
    service::{EndpointMode, PortConfig, PublishMode},
};

use super::*;

const INGRESS: u128 = 1;
const USER: u128 = 2;

fn node(index: u32) -> NodeId {
    NodeId::numbered(u128::from(index))
}

fn network(vni: u32, ingress: bool, subnet: &str) -> NetNetwork {
    NetNetwork {
        name: format!("net{vni}"),
        vni,
        subnets: vec![subnet.parse().unwrap()],
        gateways: Vec::new(),
        mtu_bytes: None,
        ingress,
        internal: false,
        encrypted: false,
        about: weft_types::netstate::NetworkAbout::default(),
    }
}

fn port(published: u16, target: u16, mode: PublishMode) -> PortConfig {
    PortConfig {
        name: String::new(),
        protocol: Protocol::Tcp,
        target_port: target,
        published_port: published,
        publish_mode: mode,
    }
}

/// Two nodes; service 1 on ingress (port 8000) and on a user network (VIP), a task on each node.
fn state() -> NetState {
    let mut state = NetState {
        revision: 5,
        ring_seed: 9,
        ..NetState::default()
    };
    for index in [1, 2] {
        let addr: IpAddr = format!("192.0.2.{index}").parse().unwrap();
        let known = NetNode {
            index,
            hostname: String::new(),
            addr,
            addresses: BTreeSet::new(),
            alive: true,
            wireguard: None,
            zone: format!("zone{index}"),
        };
        state.nodes.insert(node(index), known);
    }
    state.networks.insert(
        NetworkId::numbered(INGRESS),
        network(4096, true, "10.0.0.0/24"),
    );
    state.networks.insert(
        NetworkId::numbered(USER),
        network(4097, false, "10.0.1.0/24"),
    );
    let vip: IpAddr = "10.0.1.2".parse().unwrap();
    let service = NetService {
        name: "web".to_owned(),
        mode: EndpointMode::Vip,
        vips: BTreeMap::from([(NetworkId::numbered(USER), vec![vip])]),
        aliases: BTreeMap::new(),
        ports: vec![port(8000, 80, PublishMode::Ingress)],
        labels: BTreeMap::new(),
    };
    state.services.insert(ServiceId::numbered(1), service);
    for (backend, on, network) in [
        (11, 1, INGRESS),
        (12, 1, USER),
        (21, 2, INGRESS),
        (22, 2, USER),
    ] {
        let subnet = if network == INGRESS { 0 } else { 1 };
        let endpoint = NetEndpoint {
            task: TaskId::numbered(u128::from(on)),
            network: NetworkId::numbered(network),
            node: node(on),
            addresses: vec![format!("10.0.{subnet}.{backend}/24").parse().unwrap()],
            service: Some(ServiceId::numbered(1)),
            name: String::new(),
            names: Vec::new(),
            phase: EndpointPhase::Serving,
            host_ports: Vec::new(),
        };
        state.endpoints.insert(BackendId(backend), endpoint);
    }
    state
}

fn of(state: &NetState, index: u32) -> Desired {
    Desired::of(state, node(index), &BTreeSet::new()).unwrap()
}

fn ring(desired: &Desired, front: Frontend) -> Vec<u32> {
    let target = desired.fronts[&front];
    desired.rings[&target.ring]
        .iter()
        .map(|backend| backend.0)
        .collect()
}

const WEB: Frontend = Frontend::Port(Protocol::Tcp, 8000);

fn vip() -> Frontend {
    Frontend::Vip(4097, "10.0.1.2".parse().unwrap())
}

#[test]
fn each_network_of_a_service_has_its_own_ring_the_same_on_every_node() {
    let state = state();
    assert_eq!(ring(&of(&state, 1), WEB), [11, 21]);
    assert_eq!(ring(&of(&state, 1), vip()), [12, 22]);
    assert_eq!(of(&state, 1).rings, of(&state, 2).rings);
    assert_eq!(of(&state, 1).fronts, of(&state, 2).fronts);
    assert_eq!(of(&state, 1).mesh, 4096);
}

#[test]
fn only_serving_tasks_of_living_nodes_may_be_chosen() {
    let mut state = state();
    state.endpoints.get_mut(&BackendId(11)).unwrap().phase = EndpointPhase::Starting;
    assert_eq!(ring(&of(&state, 2), WEB), [21]);
    state.endpoints.get_mut(&BackendId(11)).unwrap().phase = EndpointPhase::Draining;
    assert_eq!(ring(&of(&state, 2), WEB), [21]);
    assert!(
        of(&state, 2).endpoints[&BackendId(11)].draining,
        "its flows live on"
    );
    state.nodes.get_mut(&node(2)).unwrap().alive = false;
    assert_eq!(ring(&of(&state, 1), WEB), [0_u32; 0]);
    assert!(of(&state, 1).nodes[&2].dead);
}

#[test]
fn a_node_believes_its_own_probes_and_its_own_life() {
    let mut state = state();
    let dead = BTreeSet::from([node(2)]);
    let desired = Desired::of(&state, node(1), &dead).unwrap();
    assert_eq!(ring(&desired, WEB), [11]);
    state.nodes.get_mut(&node(1)).unwrap().alive = false;
    assert_eq!(
        ring(&of(&state, 1), WEB),
        [11, 21],
        "a node that a manager gave up still serves"
    );
}

#[test]
fn a_host_port_leads_to_the_task_of_this_node_and_never_takes_the_meshs() {
    let mut state = state();
    for backend in [11, 12] {
        let endpoint = state.endpoints.get_mut(&BackendId(backend)).unwrap();
        endpoint.host_ports = vec![
            port(9000, 90, PublishMode::Host),
            port(8000, 1, PublishMode::Host),
        ];
    }
    let front = Frontend::Port(Protocol::Tcp, 9000);
    let here = of(&state, 1);
    assert_eq!(ring(&here, front), [11]);
    assert_eq!(
        (here.fronts[&front].port, here.fronts[&front].host_mode),
        (90, true)
    );
    assert_eq!(here.fronts[&WEB].port, 80);
    assert!(!of(&state, 2).fronts.contains_key(&front));
}

#[test]
fn a_state_without_this_node_is_refused() {
    let error = Desired::of(&state(), node(7), &BTreeSet::new()).unwrap_err();
    assert!(
        error.to_string().contains("does not list this node"),
        "{error}"
    );
}

#[test]
fn rings_that_want_the_same_number_get_two() {
    let mut rings = BTreeMap::from([(7, BTreeSet::from([BackendId(1)]))]);
    assert_eq!(
        free_number(&rings, 7, |held| held.contains(&BackendId(1))),
        7
    );
    assert_eq!(free_number(&rings, 7, |_| false), 8);
    rings.insert(u32::MAX, BTreeSet::new());
    assert_eq!(free_number(&rings, u32::MAX, |_| false), 1, "0 is nobody");
}

fn silent(nodes: &[u32]) -> Verdicts {
    Verdicts {
        dead: nodes.iter().copied().collect(),
        living: BTreeSet::new(),
    }
}

#[test]
fn a_node_whose_agent_is_down_is_alive_while_its_host_answers() {
    let mut state = state();
    state.nodes.get_mut(&node(2)).unwrap().alive = false;
    let lost = of(&state, 1);
    assert!(lost.nodes[&2].missed && lost.nodes[&2].dead);
    let answers = Verdicts {
        dead: BTreeSet::new(),
        living: BTreeSet::from([2]),
    };
    let judged = lost.judged(&answers);
    assert!(judged.nodes[&2].missed && !judged.nodes[&2].dead);
    assert_eq!(
        ring(&judged, WEB),
        [11],
        "its tasks are being replaced: nothing new goes there"
    );
    assert!(lost.judged(&silent(&[2])).nodes[&2].dead);
}

#[test]
fn nodes_found_dead_later_leave_the_rings_too() {
    let desired = of(&state(), 1).judged(&silent(&[1, 2]));
    assert_eq!(
        ring(&desired, WEB),
        [11],
        "a node never takes itself for dead"
    );
    assert!(desired.nodes[&2].dead && !desired.nodes[&1].dead);
}

fn steered(labels: &[(&str, &str)]) -> NetState {
    let mut state = state();
    for (index, known) in state.nodes.values_mut().enumerate() {
        known.hostname = format!("n{}", index + 1);
    }
    let service = state.services.get_mut(&ServiceId::numbered(1)).unwrap();
    let labels = labels
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    service.labels = labels.collect();
    state
}

#[test]
fn local_tasks_are_preferred_where_there_are_any() {
    let mut state = steered(&[("weft.prefer", "local")]);
    assert_eq!(ring(&of(&state, 1), WEB), [11]);
    assert_eq!(ring(&of(&state, 2), vip()), [22]);
    state.endpoints.get_mut(&BackendId(11)).unwrap().phase = EndpointPhase::Draining;
    assert_eq!(ring(&of(&state, 1), WEB), [21], "spill-over");
}

#[test]
fn tasks_of_the_own_zone_are_preferred_until_none_is_left() {
    let mut state = steered(&[("weft.prefer", "zone")]);
    assert_eq!(ring(&of(&state, 1), WEB), [11]);
    assert_eq!(ring(&of(&state, 2), vip()), [22]);
    // Node 3 stands where node 2 does, and has no task.
    let mut third = state.nodes[&node(2)].clone();
    third.index = 3;
    state.nodes.insert(node(3), third);
    let near = of(&state, 3);
    assert_eq!(ring(&near, WEB), [21], "its zone's");
    let spilt = near.judged(&silent(&[2]));
    assert_eq!(ring(&spilt, WEB), [11], "its own probes find its zone dead");
    state.endpoints.get_mut(&BackendId(21)).unwrap().phase = EndpointPhase::Draining;
    assert_eq!(ring(&of(&state, 3), WEB), [11], "spill-over");
    // Who does not say where it stands is near nobody.
    for known in state.nodes.values_mut() {
        known.zone.clear();
    }
    state.endpoints.get_mut(&BackendId(21)).unwrap().phase = EndpointPhase::Serving;
    assert_eq!(ring(&of(&state, 1), WEB), [11, 21]);
}

#[test]
fn the_own_node_goes_before_the_own_zone() {
    let mut state = steered(&[("weft.prefer", "local,zone")]);
    for known in state.nodes.values_mut() {
        known.zone = "same".to_owned();
    }
    assert_eq!(ring(&of(&state, 1), WEB), [11]);
    state.endpoints.get_mut(&BackendId(11)).unwrap().phase = EndpointPhase::Draining;
    assert_eq!(ring(&of(&state, 1), WEB), [21]);
}

#[test]
fn fewest_connections_are_a_matter_of_each_frontend() {
    let desired = of(&steered(&[("weft.choice", "leastconn")]), 1);
    assert!(desired.fronts[&WEB].least && desired.fronts[&vip()].least);
    let desired = of(&state(), 1);
    assert!(!desired.fronts[&WEB].least && !desired.fronts[&vip()].least);
}

#[test]
fn labels_reach_frontends_and_rings() {
    let state = steered(&[
        ("weft.weights", "n2=3"),
        ("weft.affinity", "5m"),
        ("weft.allow", "198.51.100.0/24"),
        ("weft.cap", "8mbit"),
        ("weft.listen.8000", "127.0.0.1,eth1"),
    ]);
    let desired = of(&state, 1);
    let target = desired.fronts[&WEB];
    assert_eq!((target.affinity, target.allowed), (300, true));
    assert_eq!(
        desired.weights[&target.ring],
        [(BackendId(11), 1), (BackendId(21), 3)].into()
    );
    assert_eq!(desired.allowed[&target.ring].len(), 1);
    assert_eq!(desired.caps[&target.ring], 1_000_000);
    let places = [
        Listen::Net("127.0.0.1/32".parse().unwrap()),
        Listen::Interface("eth1".to_owned()),
    ];
    assert_eq!(desired.listens[&WEB], places);
    let inside = desired.fronts[&vip()];
    assert_eq!(
        (inside.affinity, inside.allowed),
        (300, false),
        "clients are outside"
    );
}

#[test]
fn long_runs_of_ports_are_one_frontend() {
    let mut state = state();
    let service = state.services.get_mut(&ServiceId::numbered(1)).unwrap();
    service.ports = (0..10_000)
        .map(|at| port(20_000 + at, 1000 + at, PublishMode::Ingress))
        .chain([
            port(8000, 80, PublishMode::Ingress),
            port(8001, 80, PublishMode::Ingress),
        ])
        .collect();
    let desired = of(&state, 1);
    let ports: Vec<&Frontend> = desired
        .fronts
        .keys()
        .filter(|front| !matches!(front, Frontend::Vip(..)))
        .collect();
    let range = Frontend::Ports(Protocol::Tcp, 20_000, 29_999);
    assert_eq!(ports, [&WEB, &Frontend::Port(Protocol::Tcp, 8001), &range]);
    assert_eq!(desired.fronts[&range].port, 1000);
}
