//! Networks.

use super::{Refusal, name};
use crate::network::NetworkSpec;

/// Whether a network spec can be right.
///
/// # Errors
/// Docker's refusal when it cannot.
pub fn network_spec(spec: &NetworkSpec) -> Result<(), Refusal> {
    name(&spec.name)?;
    if spec.ingress && spec.attachable {
        return Err(Refusal::invalid(
            "cannot create an attachable routing-mesh network",
        ));
    }
    let driver = spec.driver_configuration.name.as_str();
    if !["", "overlay"].contains(&driver) {
        if spec.ingress {
            return Err(Refusal::unimplemented(format!(
                "ingress network with driver {driver} is not supported"
            )));
        }
        return Err(Refusal::invalid(format!(
            "unsupported driver {driver:?}: swarm networks are of driver overlay here"
        )));
    }
    let Some(ipam) = &spec.ipam_options else {
        return Ok(());
    };
    if !["", "default"].contains(&ipam.driver.name.as_str()) {
        return Err(Refusal::invalid("invalid IPAM specified"));
    }
    for (at, config) in ipam.configs.iter().enumerate() {
        let Some(subnet) = config.subnet else {
            return Err(Refusal::invalid("ipam configuration: invalid subnet "));
        };
        if let Some(range) = config.range
            && (!subnet.contains(range.ip()) || range.prefix() < subnet.prefix())
        {
            return Err(Refusal::invalid(format!(
                "ipam configuration: subnet {subnet} does not contain range {range}"
            )));
        }
        if let Some(gateway) = config.gateway
            && !subnet.contains(gateway)
        {
            return Err(Refusal::invalid(format!(
                "ipam configuration: subnet {subnet} does not contain gateway {gateway}"
            )));
        }
        let others = &ipam.configs[at + 1..];
        for other in others.iter().filter_map(|other| other.subnet) {
            if subnet.contains(other.network()) || other.contains(subnet.network()) {
                return Err(Refusal::invalid(format!(
                    "ipam configuration: subnets {subnet} and {other} overlap"
                )));
            }
        }
        if subnet.is_ipv6() && !spec.ipv6_enabled {
            return Err(Refusal::invalid(format!(
                "ipam configuration: subnet {subnet} needs IPv6 to be enabled on the network (--ipv6)"
            )));
        }
    }
    Ok(())
}
