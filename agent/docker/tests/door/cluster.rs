//! A pretended cluster: objects in memory, tasks that run at once.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use tokio::sync::{broadcast, mpsc};
use weft_docker::{
    AttachRequest, DetachRequest, InitRequest, JoinRequest, LocalState, LocalStatus, NodeControl,
    NotManager,
};
use weft_proto::{
    ControlApi, ControlError, ControlReply, ControlRequest, ErrorCode, Event, LogItem, LogSelector,
    ManagerStanding, Object,
};
use weft_types::{
    Id, NetworkId, NodeId, TaskId, Timestamp,
    netstate::NetState,
    network::{Driver, IpamConfig, IpamOptions, Network, NetworkSpec},
    node::Node,
    secret::{Config, Secret},
    service::Service,
    task::Task,
};

use super::store::{State, find, in_sequence, service_names};

/// A moment that all objects are of.
pub(crate) const NOW: Timestamp = Timestamp(1_795_215_826_384_161_800);

pub(crate) struct FakeCluster {
    state: Mutex<State>,
    events: broadcast::Sender<Arc<Event>>,
}

pub(crate) struct FakeNode {
    pub(crate) cluster: Arc<FakeCluster>,
    pub(crate) status: Mutex<LocalStatus>,
    pub(crate) not_manager: Mutex<Option<NotManager>>,
    pub(crate) net_state: Mutex<Arc<NetState>>,
    pub(crate) containers: Mutex<BTreeMap<TaskId, String>>,
    pub(crate) asked: Mutex<Vec<String>>,
    /// What the node itself answers to joins, and to wishes of containers, instead of yes.
    pub(crate) refusal: Mutex<Option<ControlError>>,
}

pub(crate) fn node_id(number: u128) -> NodeId {
    Id::numbered(number)
}

fn node(number: u128, role: &str, manager: &str) -> Node {
    let json = format!(
        r#"{{"ID":"{}","Version":{{"Index":{number}}},"CreatedAt":"{NOW}","UpdatedAt":"{NOW}",
        "Spec":{{"Labels":{{}},"Role":"{role}","Availability":"active"}},
        "Description":{{"Hostname":"node{number}","Platform":{{"Architecture":"x86_64","OS":"linux"}},
          "Resources":{{"NanoCPUs":2000000000,"MemoryBytes":1024}},
          "Engine":{{"EngineVersion":"20.10.24","Plugins":[{{"Type":"Network","Name":"overlay"}}]}},
          "TLSInfo":{{"TrustRoot":"pem"}}}},
        "Status":{{"State":"ready","Addr":"192.0.2.1{number}"}}{manager}}}"#,
        node_id(number)
    );
    serde_json::from_str(&json).unwrap()
}

impl FakeNode {
    /// A manager of three nodes.
    pub(crate) fn manager() -> Arc<Self> {
        let leads = r#","ManagerStatus":{"Leader":true,"Reachability":"reachable","Addr":"192.0.2.11:2377"}"#;
        let cluster = serde_json::from_str(&format!(
            r#"{{"ID":"{}","Version":{{"Index":9}},"CreatedAt":"{NOW}","UpdatedAt":"{NOW}",
            "Spec":{{"Name":"default"}},"TLSInfo":{{"TrustRoot":"pem"}},
            "JoinTokens":{{"Worker":"SWMTKN-1-w","Manager":"SWMTKN-1-m"}},
            "CaKey":"very secret","UnlockKey":"SWMKEY-1-x"}}"#,
            Id::<()>::numbered(77)
        ));
        let state = State {
            index: 10,
            cluster: Some(cluster.unwrap()),
            nodes: vec![
                node(1, "manager", leads),
                node(2, "worker", ""),
                node(3, "worker", ""),
            ],
            ..State::default()
        };
        let status = LocalStatus {
            state: LocalState::Active,
            node_id: Some(node_id(1)),
            node_addr: "192.0.2.11".into(),
            control_available: true,
            remote_managers: vec![(Some(node_id(1)), "192.0.2.11:2377".into())],
            error: String::new(),
        };
        let fake = Self::new(state, status, None);
        fake.cluster.add_network(NetworkSpec {
            name: "ingress".into(),
            ingress: true,
            ..NetworkSpec::default()
        });
        fake
    }

    /// A worker.
    pub(crate) fn worker() -> Arc<Self> {
        let status = LocalStatus {
            state: LocalState::Active,
            node_id: Some(node_id(2)),
            node_addr: "192.0.2.12".into(),
            control_available: false,
            remote_managers: vec![(Some(node_id(1)), "192.0.2.11:2377".into())],
            error: String::new(),
        };
        Self::new(State::default(), status, Some(NotManager::Worker))
    }

    /// A node in no swarm.
    pub(crate) fn inactive() -> Arc<Self> {
        let status = LocalStatus::default();
        Self::new(State::default(), status, Some(NotManager::Inactive))
    }

    fn new(state: State, status: LocalStatus, not_manager: Option<NotManager>) -> Arc<Self> {
        let cluster = FakeCluster {
            state: Mutex::new(state),
            events: broadcast::channel(64).0,
        };
        Arc::new(Self {
            cluster: Arc::new(cluster),
            status: Mutex::new(status),
            not_manager: Mutex::new(not_manager),
            net_state: Mutex::default(),
            containers: Mutex::default(),
            asked: Mutex::default(),
            refusal: Mutex::default(),
        })
    }

    fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }

    fn willing(&self) -> Result<(), ControlError> {
        self.refusal.lock().unwrap().clone().map_or(Ok(()), Err)
    }
}

#[async_trait]
impl NodeControl for FakeNode {
    async fn init(&self, request: InitRequest) -> Result<NodeId, ControlError> {
        self.note(format!("init {}", request.advertise_addr));
        if request.advertise_addr == "nosuch0" {
            return Err(ControlError::invalid(
                "advertise address must be a non-zero IP address or network interface (with optional port number)",
            ));
        }
        *self.not_manager.lock().unwrap() = None;
        Ok(node_id(1))
    }

    async fn join(&self, request: JoinRequest) -> Result<(), ControlError> {
        self.note(format!("join {}", request.remote_addrs.join(",")));
        if request.join_token == "garbage" {
            return Err(ControlError::unknown("invalid join token"));
        }
        self.willing()
    }

    async fn leave(&self, force: bool) -> Result<(), ControlError> {
        self.note(format!("leave {force}"));
        Ok(())
    }

    async fn unlock(&self, key: &str) -> Result<(), ControlError> {
        self.note(format!("unlock {key}"));
        match key {
            "garbage" => Err(ControlError::invalid("invalid key string")),
            "SWMKEY-1-right" => Ok(()),
            _ => Err(ControlError::new(
                ErrorCode::Unauthenticated,
                "swarm could not be unlocked: invalid key provided",
            )),
        }
    }

    async fn status(&self) -> LocalStatus {
        self.status.lock().unwrap().clone()
    }

    async fn control(&self) -> Result<Arc<dyn ControlApi>, NotManager> {
        match *self.not_manager.lock().unwrap() {
            Some(why) => Err(why),
            None => Ok(Arc::clone(&self.cluster) as Arc<dyn ControlApi>),
        }
    }

    fn gate(&self) -> Option<std::path::PathBuf> {
        Some("/state/weft-gate".into())
    }

    async fn attach(&self, request: AttachRequest) -> Result<(), ControlError> {
        self.note(format!(
            "attach {} {:?} {:?}",
            request.container_name, request.aliases, request.addresses
        ));
        self.willing()
    }

    async fn settle(&self, container_id: &str) -> Result<(), ControlError> {
        self.note(format!("settle {container_id}"));
        Ok(())
    }

    async fn detach(&self, request: DetachRequest) -> Result<(), ControlError> {
        let DetachRequest {
            container_id,
            network,
            force,
        } = request;
        self.note(format!("detach {container_id} {network} {force}"));
        self.willing()
    }

    async fn net_state(&self) -> Arc<NetState> {
        Arc::clone(&self.net_state.lock().unwrap())
    }

    async fn local_containers(&self) -> BTreeMap<TaskId, String> {
        self.containers.lock().unwrap().clone()
    }
}

/// Whether a request is to change something.
fn changes(request: &ControlRequest) -> bool {
    use ControlRequest as Ask;
    !matches!(
        request,
        Ask::GetCluster
            | Ask::GetUnlockKey
            | Ask::ListNodes
            | Ask::GetNode(_)
            | Ask::ListServices
            | Ask::GetService(_)
            | Ask::ListTasks { .. }
            | Ask::GetTask(_)
            | Ask::ListNetworks
            | Ask::GetNetwork(_)
            | Ask::ListSecrets
            | Ask::GetSecret(_)
            | Ask::ListConfigs
            | Ask::GetConfig(_)
    )
}

impl FakeCluster {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn tell(&self, old: Option<Object>, new: Option<Object>) {
        let index = self.state().index;
        // Nobody may listen.
        let _ = self.events.send(Arc::new(Event {
            index,
            at: NOW,
            old,
            new,
        }));
    }

    fn add_network(&self, mut spec: NetworkSpec) -> NetworkId {
        let (id, meta) = self.state().next();
        let at = self.state().networks.len();
        spec.scope = "swarm".into();
        let configs = spec
            .ipam_options
            .iter()
            .flat_map(|ipam| ipam.configs.clone());
        let mut configs: Vec<IpamConfig> = configs.collect();
        if configs.is_empty() {
            configs.push(IpamConfig {
                subnet: format!("10.0.{at}.0/24").parse().ok(),
                range: None,
                gateway: format!("10.0.{at}.1").parse().ok(),
            });
        }
        let vni = 4096 + at;
        let list = "com.docker.network.driver.overlay.vxlanid_list";
        self.state().networks.push(Network {
            id,
            meta,
            spec,
            driver_state: Some(Driver {
                name: "overlay".into(),
                options: Some([(list.into(), vni.to_string())].into()),
            }),
            ipam: Some(IpamOptions {
                driver: Driver {
                    name: "default".into(),
                    options: None,
                },
                configs,
            }),
            vni: u32::try_from(vni).ok(),
            allocation_error: "internal".into(),
            pending_delete: false,
        });
        id
    }

    fn answer(&self, request: ControlRequest) -> Result<ControlReply, ControlError> {
        let mut state = self.state();
        match request {
            ControlRequest::GetCluster => {
                let cluster = state.cluster.clone();
                let cluster = cluster.ok_or_else(|| ControlError::unknown("no cluster"))?;
                Ok(ControlReply::Cluster(Box::new(cluster)))
            }
            ControlRequest::UpdateCluster { version, spec, .. } => {
                let cluster = state.cluster.as_mut();
                let cluster = cluster.ok_or_else(|| ControlError::unknown("no cluster"))?;
                in_sequence(version, &cluster.meta)?;
                cluster.spec = *spec;
                Ok(ControlReply::Done)
            }
            ControlRequest::GetUnlockKey => Ok(ControlReply::Key(String::new())),
            ControlRequest::ListNodes => Ok(ControlReply::Nodes(state.nodes.clone())),
            ControlRequest::GetNode(reference) => {
                let names = |node: &Node| (node.id.to_string(), node.description.hostname.clone());
                let node = find("node", &reference, &state.nodes, names)?;
                Ok(ControlReply::Nodes(vec![node.clone()]))
            }
            ControlRequest::UpdateNode {
                node,
                version,
                spec,
            } => {
                let names = |node: &Node| (node.id.to_string(), node.description.hostname.clone());
                let id = find("node", &node, &state.nodes, names)?.id;
                let meta = state.next::<()>().1;
                let node = state.nodes.iter_mut().find(|node| node.id == id);
                let node = node.ok_or_else(|| ControlError::unknown("gone"))?;
                in_sequence(version, &node.meta)?;
                node.meta = meta;
                node.spec = spec;
                Ok(ControlReply::Done)
            }
            ControlRequest::ListServices => {
                let services = state.services.iter().cloned().map(Arc::new);
                Ok(ControlReply::Services(services.collect()))
            }
            ControlRequest::GetService(reference) => {
                let service = find("service", &reference, &state.services, service_names)?;
                Ok(ControlReply::Services(vec![Arc::new(service.clone())]))
            }
            ControlRequest::CreateService { spec, .. } => {
                let id = state.create_service(*spec)?;
                Ok(ControlReply::Created(id.to_string()))
            }
            ControlRequest::UpdateService {
                service,
                version,
                spec,
                ..
            } => {
                let id = find("service", &service, &state.services, service_names)?.id;
                let meta = state.next::<()>().1;
                let service = state.services.iter_mut().find(|service| service.id == id);
                let service = service.ok_or_else(|| ControlError::unknown("gone"))?;
                in_sequence(version, &service.meta)?;
                if service.spec.name != spec.name {
                    let text = "renaming services is not supported";
                    return Err(ControlError::new(ErrorCode::Unimplemented, text));
                }
                service.meta = meta;
                service.previous_spec = Some(std::mem::replace(&mut service.spec, *spec));
                Ok(ControlReply::Done)
            }
            ControlRequest::RemoveService(reference) => {
                let id = find("service", &reference, &state.services, service_names)?.id;
                state.services.retain(|service| service.id != id);
                state.tasks.retain(|task| task.service_id != Some(id));
                Ok(ControlReply::Done)
            }
            ControlRequest::ListTasks {
                services,
                nodes,
                desired,
                ..
            } => {
                let fits = |task: &&Task| {
                    (services.is_empty()
                        || task.service_id.is_some_and(|id| services.contains(&id)))
                        && (nodes.is_empty() || task.node_id.is_some_and(|id| nodes.contains(&id)))
                        && (desired.is_empty() || desired.contains(&task.desired_state))
                };
                let tasks = state.tasks.iter().filter(fits).cloned().map(Arc::new);
                Ok(ControlReply::Tasks(tasks.collect()))
            }
            ControlRequest::GetTask(reference) => {
                let names = |task: &Task| (task.id.to_string(), String::new());
                let task = find("task", &reference, &state.tasks, names)?;
                Ok(ControlReply::Tasks(vec![Arc::new(task.clone())]))
            }
            ControlRequest::ListNetworks => Ok(ControlReply::Networks(state.networks.clone())),
            ControlRequest::CreateNetwork(spec) => {
                drop(state);
                let id = self.add_network(*spec);
                Ok(ControlReply::Created(id.to_string()))
            }
            ControlRequest::RemoveNetwork(reference) => {
                let names = |n: &Network| (n.id.to_string(), n.spec.name.clone());
                let network = find("network", &reference, &state.networks, names)?;
                let (id, name) = (network.id, network.spec.name.clone());
                let uses = |service: &&Service| {
                    let mut attachments = service.spec.attachments().iter();
                    attachments.any(|one| one.target == name || one.target == id.as_str())
                };
                if let Some(service) = state.services.iter().find(uses) {
                    let text = format!("network {id} is in use by service {}", service.id);
                    return Err(ControlError::precondition(text));
                }
                state.networks.retain(|network| network.id != id);
                Ok(ControlReply::Done)
            }
            ControlRequest::ListSecrets => Ok(ControlReply::Secrets(state.secrets.clone())),
            ControlRequest::CreateSecret(spec) => {
                let (id, meta) = state.next();
                state.secrets.push(Secret {
                    id,
                    meta,
                    spec: *spec,
                });
                Ok(ControlReply::Created(id.to_string()))
            }
            ControlRequest::GetSecret(reference) => {
                let names = |s: &Secret| (s.id.to_string(), s.spec.name.clone());
                let secret = find("secret", &reference, &state.secrets, names)?;
                Ok(ControlReply::Secrets(vec![secret.clone()]))
            }
            ControlRequest::RemoveSecret(reference) => {
                let names = |s: &Secret| (s.id.to_string(), s.spec.name.clone());
                let id = find("secret", &reference, &state.secrets, names)?.id;
                state.secrets.retain(|secret| secret.id != id);
                Ok(ControlReply::Done)
            }
            ControlRequest::ListConfigs => Ok(ControlReply::Configs(state.configs.clone())),
            ControlRequest::CreateConfig(spec) => {
                let (id, meta) = state.next();
                state.configs.push(Config {
                    id,
                    meta,
                    spec: *spec,
                });
                Ok(ControlReply::Created(id.to_string()))
            }
            ControlRequest::GetConfig(reference) => {
                let names = |c: &Config| (c.id.to_string(), c.spec.name.clone());
                let config = find("config", &reference, &state.configs, names)?;
                Ok(ControlReply::Configs(vec![config.clone()]))
            }
            other => Err(ControlError::unknown(format!("not pretended: {other:?}"))),
        }
    }
}

#[async_trait]
impl ControlApi for FakeCluster {
    async fn call(&self, request: ControlRequest) -> Result<ControlReply, ControlError> {
        self.state().requests.push(request.clone());
        let refusal = self.state().refusal.clone();
        match refusal {
            Some(refusal) => Err(refusal),
            None => {
                let changes = changes(&request);
                let reply = self.answer(request)?;
                if changes {
                    self.state().applied += 1;
                }
                Ok(reply)
            }
        }
    }

    async fn watch(&self) -> broadcast::Receiver<Arc<Event>> {
        self.events.subscribe()
    }

    async fn logs(&self, _: LogSelector) -> Result<mpsc::Receiver<LogItem>, ControlError> {
        let lines = self.state().lines.clone();
        let (sender, receiver) = mpsc::channel(lines.len().max(1));
        for line in lines {
            // The channel holds them all.
            let _ = sender.try_send(line);
        }
        Ok(receiver)
    }

    async fn standing(&self) -> ManagerStanding {
        ManagerStanding {
            leads: true,
            leader: Some(node_id(1)),
            error: String::new(),
        }
    }
}
