//! Published ports.

use std::collections::BTreeSet;

use super::Refusal;
use crate::service::{EndpointMode, PublishMode, ServiceSpec};

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
    Ok(())
}
