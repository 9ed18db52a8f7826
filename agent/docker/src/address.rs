//! Addresses as users write them to `swarm init` and `join`: IP addresses or interfaces' names,
//! perhaps with a port. Pure: the caller lists the interfaces. Messages are Docker's.

use std::net::{IpAddr, SocketAddr};

use weft_proto::ControlError;

/// A network interface of this host and its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its addresses, link-local ones included.
    pub addresses: Vec<IpAddr>,
    /// Whether it can be the host's own address to others: up, no loopback, nobody's bridge.
    pub usable: bool,
}

/// Port of managers when none is written.
pub const MANAGER_PORT: u16 = 2377;

/// Where to listen; `0.0.0.0:2377` when `text` is empty.
///
/// # Errors
/// When `text` names neither an address nor an interface.
pub fn listen(text: &str, interfaces: &[Interface]) -> Result<SocketAddr, ControlError> {
    if text.is_empty() {
        return Ok(SocketAddr::from(([0, 0, 0, 0], MANAGER_PORT)));
    }
    let (host, port) = split(text, MANAGER_PORT);
    match of_interface(host, interfaces)? {
        Some(address) => Ok(SocketAddr::new(address, port)),
        None => match host.parse() {
            Ok(address) => Ok(SocketAddr::new(address, port)),
            Err(_) => Err(ControlError::invalid(
                "listen address must be an IP address or network interface (with optional port number)",
            )),
        },
    }
}

/// Where others reach this node. Empty `text` chooses the only usable address of the host.
///
/// # Errors
/// When `text` names neither, or when there is no or more than one address to choose.
pub fn advertise(
    text: &str,
    port: u16,
    interfaces: &[Interface],
) -> Result<SocketAddr, ControlError> {
    if text.is_empty() {
        return choose(interfaces).map(|address| SocketAddr::new(address, port));
    }
    let (host, port) = split(text, port);
    if let Some(address) = of_interface(host, interfaces)? {
        return Ok(SocketAddr::new(address, port));
    }
    match host.parse::<IpAddr>() {
        Ok(address) if !address.is_unspecified() => Ok(SocketAddr::new(address, port)),
        _ => Err(ControlError::invalid(
            "advertise address must be a non-zero IP address or network interface (with optional port number)",
        )),
    }
}

/// Which address carries task traffic; `None` when `text` is empty.
///
/// # Errors
/// When `text` names neither an address nor an interface.
pub fn data_path(text: &str, interfaces: &[Interface]) -> Result<Option<IpAddr>, ControlError> {
    if text.is_empty() {
        return Ok(None);
    }
    if let Some(address) = of_interface(text, interfaces)? {
        return Ok(Some(address));
    }
    match text.parse::<IpAddr>() {
        Ok(address) if !address.is_unspecified() => Ok(Some(address)),
        _ => Err(ControlError::invalid(
            "data path address must be a non-zero IP address or network interface (without a port number)",
        )),
    }
}

/// Host and port of `text`; brackets around IPv6 addresses are taken off.
fn split(text: &str, default: u16) -> (&str, u16) {
    let bare = |host: &'_ str| -> bool { !host.contains(':') };
    if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']').unwrap_or((rest, ""));
        let port = port.strip_prefix(':').and_then(|port| port.parse().ok());
        return (host, port.unwrap_or(default));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if bare(host) => match port.parse() {
            Ok(port) => (host, port),
            Err(_) => (text, default),
        },
        _ => (text, default),
    }
}

fn of_interface(name: &str, interfaces: &[Interface]) -> Result<Option<IpAddr>, ControlError> {
    let Some(interface) = interfaces.iter().find(|interface| interface.name == name) else {
        return Ok(None);
    };
    let (v4, v6) = families(interface);
    for (family, addresses) in [("IPv4", &v4), ("IPv6", &v6)] {
        if let [first, second, ..] = addresses[..] {
            return Err(ControlError::invalid(format!(
                "interface {name} has more than one {family} address ({first} and {second})"
            )));
        }
    }
    match v4.first().or(v6.first()) {
        Some(address) => Ok(Some(*address)),
        None => Err(ControlError::invalid(format!(
            "interface {name} has no usable IPv4 or IPv6 address"
        ))),
    }
}

/// Global addresses of an interface, by family.
fn families(interface: &Interface) -> (Vec<IpAddr>, Vec<IpAddr>) {
    let global = |address: &&IpAddr| match address {
        IpAddr::V4(v4) => !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    };
    let addresses = interface.addresses.iter().filter(global).copied();
    addresses.partition(IpAddr::is_ipv4)
}

fn choose(interfaces: &[Interface]) -> Result<IpAddr, ControlError> {
    let mut chosen: Option<(IpAddr, &str)> = None;
    for interface in interfaces.iter().filter(|interface| interface.usable) {
        let (v4, v6) = families(interface);
        for addresses in [&v4, &v6] {
            if let [first, second, ..] = addresses[..] {
                return Err(ControlError::invalid(format!(
                    "could not choose an IP address to advertise since this system has multiple addresses on interface {} ({first} and {second})",
                    interface.name
                )));
            }
        }
        let Some(address) = v4.first().or(v6.first()) else {
            continue;
        };
        if let Some((other, name)) = chosen {
            return Err(ControlError::invalid(format!(
                "could not choose an IP address to advertise since this system has multiple addresses on different interfaces ({other} on {name} and {address} on {})",
                interface.name
            )));
        }
        chosen = Some((*address, &interface.name));
    }
    match chosen {
        Some((address, _)) => Ok(address),
        None => Err(ControlError::invalid(
            "could not find the system's IP address",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Vec<Interface> {
        let interface = |name: &str, usable, addresses: &[&str]| Interface {
            name: name.into(),
            usable,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        };
        vec![
            interface("lo", false, &["127.0.0.1", "::1"]),
            interface("eth0", true, &["192.0.2.11", "2001:db8::11", "fe80::1"]),
            interface("docker0", false, &["172.17.0.1"]),
        ]
    }

    #[test]
    fn addresses_and_interfaces_are_understood() {
        let at = |text: &str| advertise(text, 2377, &host()).map(|address| address.to_string());
        assert_eq!(at(""), Ok("192.0.2.11:2377".into()));
        assert_eq!(at("eth0"), Ok("192.0.2.11:2377".into()));
        assert_eq!(at("eth0:99"), Ok("192.0.2.11:99".into()));
        assert_eq!(at("10.1.1.1"), Ok("10.1.1.1:2377".into()));
        assert_eq!(at("2001:db8::5"), Ok("[2001:db8::5]:2377".into()));
        assert_eq!(at("[2001:db8::5]:7"), Ok("[2001:db8::5]:7".into()));
        let bad = "advertise address must be a non-zero IP address or network interface (with optional port number)";
        for text in ["nosuch0", "0.0.0.0", "a:b", "[", "10.1.1.1:x", ":::"] {
            assert_eq!(at(text).unwrap_err().message, bad, "{text}");
        }
        assert_eq!(listen("", &host()).unwrap().to_string(), "0.0.0.0:2377");
        assert_eq!(data_path("", &host()), Ok(None));
    }

    #[test]
    fn a_choice_that_is_none_is_refused() {
        let mut two = host();
        two[2].usable = true;
        let refusal = advertise("", 2377, &two).unwrap_err().message;
        assert!(
            refusal.starts_with("could not choose an IP address to advertise"),
            "{refusal}"
        );
        assert_eq!(
            advertise("", 2377, &[]).unwrap_err().message,
            "could not find the system's IP address"
        );
    }
}
