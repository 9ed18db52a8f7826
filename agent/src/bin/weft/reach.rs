//! Where a node is reached, and where it reaches others, from what the user wrote.

use std::net::{IpAddr, SocketAddr};

use weft_docker::address::{self, Interface, MANAGER_PORT};
use weft_proto::ControlError;

use crate::{interface, place::Settings};

/// Addresses of a node that founds a swarm, or joins one through `remote`.
pub(crate) fn addresses(
    listen: &str,
    advertise: &str,
    data_path: &str,
    remote: Option<SocketAddr>,
) -> Result<Settings, ControlError> {
    let interfaces = interface::all();
    let listen = address::listen(listen, &interfaces)?;
    let advertise = if advertise.is_empty() && !listen.ip().is_unspecified() {
        listen
    } else if let (true, Some(local)) = (advertise.is_empty(), remote.and_then(interface::towards))
    {
        SocketAddr::new(local, listen.port())
    } else {
        address::advertise(advertise, listen.port(), &interfaces)?
    };
    let data_path = address::data_path(data_path, &interfaces)?;
    let data_path = data_path.unwrap_or(advertise.ip());
    carried_here(data_path, &interfaces)?;
    Ok(Settings {
        listen,
        advertise,
        data_path,
        managers: Vec::new(),
    })
}

/// Refuses an address that no interface has: the node would be a member without a network.
fn carried_here(data_path: IpAddr, interfaces: &[Interface]) -> Result<(), ControlError> {
    let mut own = interfaces.iter().flat_map(|known| &known.addresses);
    if own.any(|address| *address == data_path) {
        return Ok(());
    }
    Err(ControlError::invalid(format!(
        "no interface of this host has the address {data_path}, which is to carry the traffic of tasks: name one that has with --data-path-addr (without it, that is the advertised address)"
    )))
}

/// A manager's address as the user wrote it; port 2377 when none is written.
pub(crate) async fn remote(text: &str) -> Result<SocketAddr, ControlError> {
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Ok(addr);
    }
    let has_port = text.rsplit_once(':').is_some_and(|(host, port)| {
        port.parse::<u16>().is_ok() && (!host.contains(':') || host.starts_with('['))
    });
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let target = if has_port {
        text.to_owned()
    } else if bare.contains(':') {
        format!("[{bare}]:{MANAGER_PORT}")
    } else {
        format!("{bare}:{MANAGER_PORT}")
    };
    let refused = |cause: &str| {
        ControlError::invalid(format!(
            "cannot resolve the remote address {text:?}: {cause}"
        ))
    };
    let found = tokio::net::lookup_host(&target).await;
    let mut found = found.map_err(|error| refused(&error.to_string()))?;
    found
        .next()
        .ok_or_else(|| refused("the name has no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_travel_by_an_address_of_this_host() {
        let eth0 = Interface {
            name: "eth0".to_owned(),
            addresses: ["192.0.2.11", "2001:db8::11"]
                .map(|text| text.parse().expect("an address"))
                .into(),
            usable: true,
        };
        let asked = |text: &str| {
            let address = text.parse().expect("an address");
            carried_here(address, std::slice::from_ref(&eth0))
        };
        assert_eq!(asked("192.0.2.11"), Ok(()));
        assert_eq!(asked("2001:db8::11"), Ok(()));
        let refusal = asked("198.51.100.7").expect_err("a foreign address");
        assert!(refusal.message.contains("--data-path-addr"), "{refusal}");
    }
}
