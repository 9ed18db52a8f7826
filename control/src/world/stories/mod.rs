//! Stories of one service or two.

mod counting;
mod giving;
mod ingress;
mod placing;
mod refusing;
mod resources;
mod running;
mod spreading;
mod updating;

use weft_types::{
    NodeId,
    network::{IpamConfig, IpamOptions, NetworkSpec},
    node::Node,
    service::{NetworkAttachmentConfig, PortConfig, ServiceSpec},
};

use crate::{fixture, store::Change, world::World};

fn web(replicas: u64) -> ServiceSpec {
    fixture::service(0, "web", replicas).spec
}

fn image(spec: &mut ServiceSpec, image: &str) {
    if let Some(container) = &mut spec.task_template.container_spec {
        image.clone_into(&mut container.image);
    }
}

fn publish(spec: &mut ServiceSpec, published: u16, target: u16) {
    let endpoint = spec.endpoint_spec.get_or_insert_default();
    endpoint.ports.get_or_insert_default().push(PortConfig {
        target_port: target,
        published_port: published,
        ..PortConfig::default()
    });
}

fn on_network(spec: &mut ServiceSpec, network: impl ToString) {
    spec.task_template.networks = Some(vec![NetworkAttachmentConfig {
        target: network.to_string(),
        ..NetworkAttachmentConfig::default()
    }]);
}

fn overlay(name: &str, subnet: Option<&str>) -> NetworkSpec {
    NetworkSpec {
        name: name.into(),
        attachable: true,
        ipam_options: subnet.map(|subnet| IpamOptions {
            configs: vec![IpamConfig {
                subnet: subnet.parse().ok(),
                ..IpamConfig::default()
            }],
            ..IpamOptions::default()
        }),
        ..NetworkSpec::default()
    }
}

fn node(number: u32) -> NodeId {
    NodeId::numbered(u128::from(number))
}

/// A node tells otherwise of itself.
fn tell(world: &mut World, number: u32, edit: impl FnOnce(&mut Node)) {
    let mut told = world.view().node(node(number)).unwrap().as_ref().clone();
    edit(&mut told);
    world.commit(vec![Change::put(told)]);
    world.settle();
}
