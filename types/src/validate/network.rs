//! Networks.

use super::{Refusal, fields, name};
use crate::{Labels, network::NetworkSpec};

/// Option that gives a network's MTU, in bytes.
const MTU: &str = "com.docker.network.driver.mtu";

/// Option that encrypts a network's traffic between nodes.
const ENCRYPTED: &str = "encrypted";

/// Option that names a network's VNI. Whether it is one, and free, the allocator knows.
const VNI: &str = "com.docker.network.driver.overlay.vxlanid_list";

/// Whether the options say that traffic between nodes is encrypted.
#[must_use]
pub fn is_encrypted(options: &Labels) -> bool {
    options.get(ENCRYPTED).is_some_and(|value| value != "false")
}

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
    fields::rest("", &spec.rest)?;
    options(spec)?;
    let Some(ipam) = &spec.ipam_options else {
        return Ok(());
    };
    if let Some((option, value)) = ipam.driver.options.iter().flatten().next() {
        return Err(Refusal::unimplemented(format!(
            "IPAM option {option}={value} is not supported by weft"
        )));
    }
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

fn options(spec: &NetworkSpec) -> Result<(), Refusal> {
    for (option, value) in spec.driver_configuration.options.iter().flatten() {
        match option.as_str() {
            VNI => {}
            ENCRYPTED if ["", "true", "false"].contains(&value.as_str()) => {}
            ENCRYPTED => {
                return Err(Refusal::invalid(format!(
                    "network option {option}={value}: it is true or false"
                )));
            }
            MTU => {
                let mtu = value.parse::<u16>();
                if !mtu.is_ok_and(|mtu| mtu >= 576) {
                    return Err(Refusal::invalid(format!(
                        "network option {option}={value}: name bytes from 576 to 65535"
                    )));
                }
            }
            _ => {
                return Err(Refusal::unimplemented(format!(
                    "network option {option}={value} is not supported by weft: {ENCRYPTED}, {MTU} and {VNI} are"
                )));
            }
        }
    }
    Ok(())
}
