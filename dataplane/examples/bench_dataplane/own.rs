//! Ours: hosts with a service, an open and an encrypted network, and crowds of services beside.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use weft_types::{
    BackendId, NetworkId, NodeId, ServiceId, TaskId,
    netstate::{EndpointPhase, NetEndpoint},
    service::Protocol,
};

use crate::{
    Way, gauge,
    lan::{Lan, host4, ingress},
    way,
};

const RED: u128 = 2;
const SECRET: u128 = 3;

/// Two hosts, a service on the second, and a network with a task on each.
async fn hosts(encrypted: bool) -> Result<Lan> {
    let mut lan = Lan::new(2)?;
    if encrypted {
        lan.start_all_with_keys().await?;
    } else {
        lan.start_all().await?;
    }
    let (red, secret) = (NetworkId::numbered(RED), NetworkId::numbered(SECRET));
    lan.add_network(red, 4097, &["10.0.1.0/24"], false);
    let mut first = vec![(ingress(), &["10.0.0.5/24"][..]), (red, &["10.0.1.1/24"])];
    let mut second = vec![(red, &["10.0.1.2/24"][..])];
    if encrypted {
        lan.add_network(secret, 4098, &["10.0.2.0/24"], false);
        let network = lan.state.networks.get_mut(&secret);
        network.context("it was just added")?.encrypted = true;
        first.push((secret, &["10.0.2.1/24"]));
        second.push((secret, &["10.0.2.2/24"]));
    }
    let web = lan.add_service(1, &[(Protocol::Tcp, 8000, 80)]);
    let service = lan.state.services.get_mut(&web);
    let vips = [(red, vec!["10.0.1.100".parse()?])];
    service.context("it was just added")?.vips.extend(vips);
    lan.add_task(1, Some(web), 2, &first).await?;
    lan.add_task(2, None, 1, &second).await?;
    lan.apply().await?;
    gauge::serve(&lan.netns_path("t1"), 80)?;
    Ok(lan)
}

/// One service alone: every way there is.
pub(crate) async fn small() -> Result<(Lan, Vec<Way>)> {
    let lan = hosts(true).await?;
    let port = |host| format!("{}:8000", host4(host));
    let ways = vec![
        way(&lan, "weft: published port, local task", "c", &port(2))?,
        way(&lan, "weft: published port, remote task", "c", &port(1))?,
        way(&lan, "weft: task to task", "t2", "10.0.1.1:80")?,
        way(&lan, "weft: task to service address", "t2", "10.0.1.100:80")?,
        way(&lan, "weft: task to task, encrypted", "t2", "10.0.2.1:80")?,
    ];
    Ok((lan, ways))
}

/// What stands in the tables besides the service that is asked.
#[derive(Clone, Copy)]
pub(crate) struct Crowd {
    pub(crate) name: &'static str,
    services: u32,
    backends: u32,
}

pub(crate) const CROWDS: [Crowd; 3] = [
    Crowd {
        name: "100 services",
        services: 100,
        backends: 1,
    },
    Crowd {
        name: "10,000 services",
        services: 10_000,
        backends: 1,
    },
    Crowd {
        name: "10,000 backends",
        services: 2,
        backends: 10_000,
    },
];

/// Hosts of their own with a crowd beside the service, and how long it took to apply it to both.
pub(crate) async fn crowded(crowd: Crowd) -> Result<(Lan, Vec<Way>, Duration)> {
    let mut lan = hosts(false).await?;
    let mut id = 0;
    for number in 2..=crowd.services {
        let service = lan.add_service(
            u128::from(number),
            &[(Protocol::Tcp, 9_999 + number as u16, 80)],
        );
        for _ in 0..crowd.backends {
            id += 1;
            lan.state
                .endpoints
                .insert(BackendId(1_000_000 + id), endpoint(service, id));
        }
    }
    let begun = Instant::now();
    lan.apply().await?;
    let took = begun.elapsed();
    let named = |name: &str| format!("{name}, {}", crowd.name);
    let port = format!("{}:8000", host4(1));
    let ways = vec![
        way(
            &lan,
            &named("weft: published port, remote task"),
            "c",
            &port,
        )?,
        way(
            &lan,
            &named("weft: task to service address"),
            "t2",
            "10.0.1.100:80",
        )?,
    ];
    Ok((lan, ways, took))
}

/// A task that nobody calls.
fn endpoint(service: ServiceId, id: u32) -> NetEndpoint {
    let addr = format!(
        "10.{}.{}.{}/8",
        100 + id / 62_500,
        id / 250 % 250,
        id % 250 + 2
    );
    NetEndpoint {
        task: TaskId::numbered(1_000_000 + u128::from(id)),
        network: ingress(),
        node: NodeId::numbered(2),
        addresses: addr.parse().into_iter().collect(),
        service: Some(service),
        name: format!("t{id}"),
        names: Vec::new(),
        phase: EndpointPhase::Serving,
        host_ports: Vec::new(),
    }
}
