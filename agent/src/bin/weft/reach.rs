//! Where a node is reached, and where it reaches others, from what the user wrote.

use std::net::SocketAddr;

use weft_docker::address::{self, MANAGER_PORT};
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
    Ok(Settings {
        listen,
        advertise,
        data_path: data_path.unwrap_or(advertise.ip()),
        managers: Vec::new(),
    })
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
    let found = tokio::net::lookup_host(&target).await;
    let found = found.ok().and_then(|mut found| found.next());
    found
        .ok_or_else(|| ControlError::invalid(format!("cannot resolve the remote address {text:?}")))
}
