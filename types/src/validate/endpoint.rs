//! Published ports.

use std::collections::BTreeSet;

use super::Refusal;
use crate::{
    service::{EndpointMode, PublishMode, ServiceSpec},
    steering::Steering,
};

pub(super) fn endpoint_spec(spec: &ServiceSpec) -> Result<(), Refusal> {
    let mut taken = BTreeSet::new();
    for port in spec.ports() {
        let ingress = port.publish_mode == PublishMode::Ingress;
        if ingress && spec.endpoint_mode() == EndpointMode::Dnsrr {
            return Err(Refusal::invalid(
                "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
            ));
        }
        if port.target_port == 0 {
            return Err(Refusal::invalid(
                "EndpointSpec: a published port needs a target port",
            ));
        }
        if port.published_port != 0 && !taken.insert((port.protocol, port.published_port)) {
            return Err(Refusal::invalid(
                "EndpointSpec: duplicate published ports provided",
            ));
        }
    }
    steering(spec)
}

/// Labels that steer have something to steer.
fn steering(spec: &ServiceSpec) -> Result<(), Refusal> {
    let steering = Steering::of(&spec.labels).map_err(Refusal::invalid)?;
    if steering.chooses() && spec.endpoint_mode() == EndpointMode::Dnsrr {
        return Err(Refusal::invalid(
            "weft.affinity, weft.prefer and weft.weights need endpoint mode vip: with dnsrr the client chooses",
        ));
    }
    let is_published = |port: u16| {
        let mut ports = spec.ports().iter();
        ports
            .any(|known| known.published_port == port && known.publish_mode == PublishMode::Ingress)
    };
    let mut named = steering.listen.keys().flatten();
    if let Some(port) = named.find(|port| !is_published(**port)) {
        return Err(Refusal::invalid(format!(
            "label weft.listen.{port}: the service publishes no port {port} in ingress mode"
        )));
    }
    Ok(())
}
