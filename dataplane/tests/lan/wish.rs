//! What the cluster is told to have: networks, services, tasks.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use weft_dataplane::{NetnsRef, Sandbox, SandboxSpec};
use weft_types::{
    BackendId, NetworkId, NodeId, ServiceId, TaskId,
    netstate::{EndpointPhase, NetEndpoint, NetNetwork, NetService},
    service::{EndpointMode, PortConfig, Protocol, PublishMode},
};

use super::{Lan, ingress};

impl Lan {
    /// `hosts` hosts, and service 1, which publishes port 8000 of TCP and UDP on all of them; its one
    /// task, t1, answers at port 80 on host `node`.
    pub(crate) async fn published(hosts: u32, node: u32) -> Result<Self> {
        let mut lan = Self::new(hosts)?;
        lan.start_all().await?;
        lan.publish(node).await?;
        Ok(lan)
    }

    /// Service 1 with its task, as [`Lan::published`] has it, on hosts that run.
    pub(crate) async fn publish(&mut self, node: u32) -> Result<ServiceId> {
        let web = self.add_service(1, &[(Protocol::Tcp, 8000, 80), (Protocol::Udp, 8000, 80)]);
        let addresses: &[&str] = &["10.0.0.5/24", "fd00:1::5/64"];
        self.add_task(1, Some(web), node, &[(ingress(), addresses)])
            .await?;
        self.apply().await?;
        self.serve("t1", 80)?;
        Ok(web)
    }

    /// Two hosts with keys and an encrypted network of both families: task 1 is on host 2, task 2 on host 1, the
    /// last part of a task's addresses, 10.0.1.N and fd00:2::N, its number.
    pub(crate) async fn encrypted_pair() -> Result<Self> {
        let mut lan = Self::new(2)?;
        lan.start_all_with_keys().await?;
        let red = NetworkId::numbered(2);
        lan.add_network(red, 4097, &["10.0.1.0/24", "fd00:2::/64"], false);
        lan.state
            .networks
            .entry(red)
            .and_modify(|red| red.encrypted = true);
        lan.apply().await?;
        lan.add_numbered(1, 2, red).await?;
        lan.add_numbered(2, 1, red).await?;
        lan.apply().await?;
        Ok(lan)
    }

    pub(crate) fn add_network(&mut self, id: NetworkId, vni: u32, subnets: &[&str], ingress: bool) {
        self.state.networks.insert(
            id,
            NetNetwork {
                name: format!("net{vni}"),
                vni,
                subnets: subnets
                    .iter()
                    .map(|subnet| subnet.parse().expect("a test's address"))
                    .collect(),
                gateways: Vec::new(),
                mtu_bytes: None,
                ingress,
                internal: false,
                encrypted: false,
                about: weft_types::netstate::NetworkAbout::default(),
            },
        );
    }

    /// A service whose tasks are on the ingress network; `ports` are (protocol, published, target).
    pub(crate) fn add_service(
        &mut self,
        number: u128,
        ports: &[(Protocol, u16, u16)],
    ) -> ServiceId {
        let id = ServiceId::numbered(number);
        self.state.services.insert(
            id,
            NetService {
                name: format!("svc{number}"),
                mode: EndpointMode::Vip,
                vips: BTreeMap::new(),
                aliases: BTreeMap::new(),
                ports: ports
                    .iter()
                    .map(|(protocol, published, target)| PortConfig {
                        name: String::new(),
                        protocol: *protocol,
                        target_port: *target,
                        published_port: *published,
                        publish_mode: PublishMode::Ingress,
                    })
                    .collect(),
                labels: BTreeMap::new(),
            },
        );
        id
    }

    /// A task of `service` on host `node`, on the given networks, with a sandbox of its own.
    pub(crate) async fn add_task(
        &mut self,
        number: u32,
        service: Option<ServiceId>,
        node: u32,
        networks: &[(NetworkId, &[&str])],
    ) -> Result<Sandbox> {
        let task = TaskId::numbered(u128::from(number));
        for (place, (network, addresses)) in networks.iter().enumerate() {
            self.state.endpoints.insert(
                BackendId(number * 10 + place as u32),
                NetEndpoint {
                    task,
                    network: *network,
                    node: NodeId::numbered(u128::from(node)),
                    addresses: addresses
                        .iter()
                        .map(|addr| addr.parse().expect("a test's address"))
                        .collect(),
                    service,
                    name: format!("t{number}"),
                    names: Vec::new(),
                    phase: EndpointPhase::Serving,
                    host_ports: Vec::new(),
                },
            );
        }
        self.add_namespace(&format!("t{number}"))?;
        self.create_sandbox(number, node).await
    }

    /// A task of no service on host `node`, whose addresses on the network, 10.0.1.N and fd00:2::N, end in its number.
    pub(crate) async fn add_numbered(
        &mut self,
        number: u32,
        node: u32,
        network: NetworkId,
    ) -> Result<Sandbox> {
        let (four, six) = (
            format!("10.0.1.{number}/24"),
            format!("fd00:2::{number}/64"),
        );
        self.add_task(number, None, node, &[(network, &[&four, &six])])
            .await
    }

    pub(crate) async fn create_sandbox(&mut self, number: u32, node: u32) -> Result<Sandbox> {
        let spec = SandboxSpec::of(&self.state, TaskId::numbered(u128::from(number)));
        let netns = NetnsRef::Path(self.netns_path(&format!("t{number}")));
        self.hosts[&node]
            .create_sandbox(spec, netns)
            .await
            .with_context(|| format!("create sandbox of t{number}"))
    }
}
