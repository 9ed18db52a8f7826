//! What a pretended cluster holds.

use serde_json::json;
use weft_proto::{ControlError, ControlRequest, LogItem};
use weft_types::{
    Id, Meta, NetworkId, ServiceId, Version,
    cluster::Cluster,
    network::Network,
    node::Node,
    secret::{Config, Secret},
    service::{Endpoint, Service, VirtualIp},
    task::Task,
};

use super::cluster::{NOW, node_id};

#[derive(Default)]
pub(crate) struct State {
    pub(crate) index: u64,
    pub(crate) cluster: Option<Cluster>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) services: Vec<Service>,
    pub(crate) tasks: Vec<Task>,
    pub(crate) networks: Vec<Network>,
    pub(crate) secrets: Vec<Secret>,
    pub(crate) configs: Vec<Config>,
    pub(crate) lines: Vec<LogItem>,
    pub(crate) requests: Vec<ControlRequest>,
    /// Changes made so far.
    pub(crate) applied: u64,
    /// Answered to every request instead of the truth.
    pub(crate) refusal: Option<ControlError>,
}

pub(crate) fn service_names(service: &Service) -> (String, String) {
    (service.id.to_string(), service.spec.name.clone())
}

pub(crate) fn in_sequence(version: u64, meta: &Meta) -> Result<(), ControlError> {
    if version == meta.version.index {
        return Ok(());
    }
    Err(ControlError::aborted("update out of sequence"))
}

pub(crate) fn find<'a, T>(
    kind: &str,
    reference: &str,
    objects: &'a [T],
    names: impl Fn(&T) -> (String, String),
) -> Result<&'a T, ControlError> {
    let by = |test: &dyn Fn(&(String, String)) -> bool| -> Vec<&'a T> {
        objects
            .iter()
            .filter(|object| test(&names(object)))
            .collect()
    };
    for found in [
        by(&|(id, _)| id == reference),
        by(&|(_, name)| !name.is_empty() && name == reference),
        by(&|(id, _)| id.starts_with(reference)),
    ] {
        match found[..] {
            [] => {}
            [one] => return Ok(one),
            _ => {
                return Err(ControlError::invalid(format!(
                    "{kind} {reference} is ambiguous ({} matches found)",
                    found.len()
                )));
            }
        }
    }
    Err(ControlError::not_found(format!(
        "{kind} {reference} not found"
    )))
}

impl State {
    /// An id and the meta of a new commit.
    pub(crate) fn next<T>(&mut self) -> (Id<T>, Meta) {
        self.index += 1;
        let meta = Meta {
            version: Version { index: self.index },
            created_at: NOW,
            updated_at: NOW,
        };
        (Id::numbered(u128::from(self.index) << 64), meta)
    }

    pub(crate) fn create_service(
        &mut self,
        spec: weft_types::service::ServiceSpec,
    ) -> Result<ServiceId, ControlError> {
        if self
            .services
            .iter()
            .any(|service| service.spec.name == spec.name)
        {
            return Err(ControlError::exists(format!(
                "name conflicts with an existing object: service {} already exists",
                spec.name
            )));
        }
        let (id, meta) = self.next();
        let mut endpoint = Endpoint {
            spec: spec.endpoint_spec.clone().unwrap_or_default(),
            ports: spec.ports().to_vec(),
            virtual_ips: vec![],
        };
        let ingress = self.networks.first().map(|network| network.id);
        if let (Some(network_id), false) = (ingress, spec.ports().is_empty()) {
            endpoint.virtual_ips.push(VirtualIp {
                network_id,
                addr: "10.0.0.5/24".parse().unwrap(),
            });
        }
        let service = Service {
            id,
            meta,
            spec,
            previous_spec: None,
            endpoint,
            update_status: None,
            job_status: None,
            spec_version: Version { index: 5 },
            previous_spec_version: None,
            update_since: Version::default(),
            allocation_error: "internal".into(),
            registry_auth: "internal".into(),
            previous_registry_auth: "internal".into(),
            pending_delete: false,
        };
        for slot in 1..=service.replicas().unwrap_or(0) {
            let task = self.running_task(&service, slot, ingress);
            self.tasks.push(task);
        }
        self.services.push(service);
        Ok(id)
    }

    fn running_task(&mut self, service: &Service, slot: u64, network: Option<NetworkId>) -> Task {
        let (id, meta) = self.next::<()>();
        let attachments: Vec<_> = network
            .filter(|_| !service.endpoint.ports.is_empty())
            .map(|network| {
                json!({"NetworkID": network, "Addresses": [format!("10.0.0.{}/24", 10 + slot)],
                    "Aliases": ["internal"], "Backend": 7})
            })
            .into_iter()
            .collect();
        let task = json!({
            "ID": id, "Version": meta.version, "CreatedAt": NOW, "UpdatedAt": NOW,
            "Name": format!("{}.{slot}.{id}", service.spec.name),
            "Spec": service.spec.task_template, "ServiceID": service.id, "Slot": slot,
            "NodeID": node_id(1 + u128::from(slot - 1) % 3),
            "Status": {"Timestamp": NOW, "State": "running", "Message": "started",
                "ContainerStatus": {"ContainerID": "ab".repeat(32), "PID": 42, "ExitCode": 0}},
            "DesiredState": "running", "NetworksAttachments": attachments,
            "ServiceName": service.spec.name, "ServiceLabels": service.spec.labels,
            "RegistryAuth": "internal", "Withdrawn": true
        });
        serde_json::from_value(task).unwrap()
    }
}
