//! Who owns what there is only one of, and what rests.

use std::{net::IpAddr, ops::Bound, time::Duration};

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};
use weft_types::{
    BackendId, NetworkId, ServiceId, TaskId, TaskState, Timestamp, service::Protocol,
    service::PublishMode,
};

use super::{ApplyError, Key, Object};

/// How long a freed address rests before it is somebody else's: longer than any table, cache or
/// half-open connection that may still name its last owner should live.
pub const REST: Duration = Duration::from_secs(60);

/// The option of a network that asks for a VNI.
pub const VNI_OPTION: &str = "com.docker.network.driver.overlay.vxlanid_list";

/// Who holds an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Holder {
    /// A task's attachment.
    Task(TaskId),
    /// A service's VIP.
    Service(ServiceId),
}

impl From<Holder> for Key {
    fn from(holder: Holder) -> Self {
        match holder {
            Holder::Task(id) => Self::Task(id),
            Holder::Service(id) => Self::Service(id),
        }
    }
}

/// Where the series stand. Each only grows, except that backend numbers wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Series {
    pub(super) backend: u32,
    pub(super) vni: u32,
    pub(super) node_index: u32,
}

/// What the state remembers beyond its objects, kept up by every change of an object.
///
/// An address is held by a task that is observed running or earlier and by a service whose
/// endpoint names it; when it is let go it rests for [`REST`]. Nothing can be leaked: whichever
/// way an object goes, its holdings go with it.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    addresses: OrdMap<(NetworkId, IpAddr), Holder>,
    resting: OrdMap<(NetworkId, IpAddr), Timestamp>,
    resting_by_time: OrdSet<(Timestamp, NetworkId, IpAddr)>,
    last_address: OrdMap<(NetworkId, bool), IpAddr>,
    backends: OrdMap<BackendId, TaskId>,
    vnis: OrdMap<u32, NetworkId>,
    ports: OrdMap<(Protocol, u16), ServiceId>,
    series: Series,
}

/// What one object holds.
#[derive(Debug, Default)]
struct Holdings {
    addresses: Vec<(NetworkId, IpAddr)>,
    backends: Vec<BackendId>,
    vni: Option<u32>,
    ports: Vec<(Protocol, u16)>,
}

fn holdings(object: &Object) -> Holdings {
    let mut held = Holdings::default();
    match object {
        Object::Task(task) => {
            for attachment in &task.networks_attachments {
                if attachment.backend != BackendId(0) {
                    held.backends.push(attachment.backend);
                }
                if task.status.state <= TaskState::Running {
                    let addresses = attachment.addresses.iter();
                    held.addresses
                        .extend(addresses.map(|addr| (attachment.network_id, addr.ip())));
                }
            }
        }
        Object::Service(service) => {
            let vips = service.endpoint.virtual_ips.iter();
            held.addresses
                .extend(vips.map(|vip| (vip.network_id, vip.addr.ip())));
            let ports = service.endpoint.ports.iter();
            held.ports.extend(
                ports
                    .filter(|port| {
                        port.publish_mode == PublishMode::Ingress && port.published_port != 0
                    })
                    .map(|port| (port.protocol, port.published_port)),
            );
        }
        Object::Network(network) => held.vni = network.vni,
        _ => {}
    }
    held
}

fn holder(object: &Object) -> Option<Holder> {
    match object {
        Object::Task(task) => Some(Holder::Task(task.id)),
        Object::Service(service) => Some(Holder::Service(service.id)),
        _ => None,
    }
}

impl Ledger {
    /// Who holds `address` on `network`.
    #[must_use]
    pub fn holder(&self, network: NetworkId, address: IpAddr) -> Option<Holder> {
        self.addresses.get(&(network, address)).copied()
    }

    /// Addresses of `network` that are held, lowest first, v4 before v6.
    pub fn held(&self, network: NetworkId) -> impl Iterator<Item = (IpAddr, Holder)> + '_ {
        self.addresses
            .range(span(network))
            .map(|((_, address), holder)| (*address, *holder))
    }

    /// Addresses of `network` that rest, with the time since which they do.
    pub fn resting(&self, network: NetworkId) -> impl Iterator<Item = (IpAddr, Timestamp)> + '_ {
        self.resting
            .range(span(network))
            .map(|((_, address), since)| (*address, *since))
    }

    /// When the address that has rested longest may be used again.
    #[must_use]
    pub fn rested_at(&self) -> Option<Timestamp> {
        self.resting_by_time
            .get_min()
            .map(|(since, ..)| since.after(REST))
    }

    /// Since when `address` rests on `network`.
    #[must_use]
    pub fn resting_since(&self, network: NetworkId, address: IpAddr) -> Option<Timestamp> {
        self.resting.get(&(network, address)).copied()
    }

    /// The address of this family that was given last on `network`.
    #[must_use]
    pub fn last_address(&self, network: NetworkId, v6: bool) -> Option<IpAddr> {
        self.last_address.get(&(network, v6)).copied()
    }

    /// The next backend number.
    #[must_use]
    pub fn next_backend(&self) -> BackendId {
        let mut number = self.series.backend;
        loop {
            number = number.checked_add(1).unwrap_or(1);
            if !self.backends.contains_key(&BackendId(number)) {
                return BackendId(number);
            }
        }
    }

    /// The task that a backend number names.
    #[must_use]
    pub fn backend(&self, backend: BackendId) -> Option<TaskId> {
        self.backends.get(&backend).copied()
    }

    /// The next VNI of the series from `first` to `last`; wraps once, `None` when all are held.
    #[must_use]
    pub fn next_vni(&self, first: u32, last: u32) -> Option<u32> {
        let start = self.series.vni.saturating_add(1).clamp(first, last);
        (start..=last)
            .chain(first..start)
            .find(|vni| !self.vnis.contains_key(vni))
    }

    /// The network that has this VNI.
    #[must_use]
    pub fn vni(&self, vni: u32) -> Option<NetworkId> {
        self.vnis.get(&vni).copied()
    }

    /// The service that publishes this port by the routing mesh.
    #[must_use]
    pub fn port(&self, protocol: Protocol, port: u16) -> Option<ServiceId> {
        self.ports.get(&(protocol, port)).copied()
    }

    /// The next node number.
    #[must_use]
    pub fn next_node_index(&self) -> u32 {
        self.series.node_index.saturating_add(1)
    }

    /// Takes back what `object` holds; addresses rest from `now`.
    pub(super) fn release(&mut self, object: &Object, now: Timestamp) {
        let held = holdings(object);
        if let Some(holder) = holder(object) {
            for place in held.addresses {
                if self.addresses.get(&place) == Some(&holder) {
                    self.addresses.remove(&place);
                    self.rest(place, now);
                }
            }
        }
        for backend in held.backends {
            self.backends.remove(&backend);
        }
        if let (Some(vni), Object::Network(network)) = (held.vni, object)
            && self.vnis.get(&vni) == Some(&network.id)
        {
            self.vnis.remove(&vni);
        }
        if let Object::Service(service) = object {
            for port in held.ports {
                if self.ports.get(&port) == Some(&service.id) {
                    self.ports.remove(&port);
                }
            }
        }
    }

    /// Records what `object` holds.
    ///
    /// # Errors
    /// When somebody else holds it; the ledger is then half changed and must be thrown away.
    pub(super) fn take(&mut self, object: &Object) -> Result<(), ApplyError> {
        let held = holdings(object);
        let taken = |what: String, by: Key| ApplyError::Taken {
            what,
            by,
            wanted_by: object.key(),
        };
        if let Some(holder) = holder(object) {
            for place @ (network, address) in held.addresses {
                if let Some(other) = self.addresses.insert(place, holder)
                    && other != holder
                {
                    let what = format!("address {address} of network {network}");
                    return Err(taken(what, other.into()));
                }
                if let Some(since) = self.resting.remove(&place) {
                    self.resting_by_time.remove(&(since, network, address));
                } else {
                    self.last_address
                        .insert((network, address.is_ipv6()), address);
                }
            }
        }
        match object {
            Object::Task(task) => {
                for backend in held.backends {
                    if let Some(other) = self.backends.insert(backend, task.id)
                        && other != task.id
                    {
                        let what = format!("backend number {}", backend.0);
                        return Err(taken(what, Key::Task(other)));
                    }
                    let ahead = backend.0.wrapping_sub(self.series.backend);
                    if ahead < u32::MAX / 2 {
                        self.series.backend = backend.0;
                    }
                }
            }
            Object::Network(network) => {
                if let Some(vni) = held.vni {
                    if let Some(other) = self.vnis.insert(vni, network.id)
                        && other != network.id
                    {
                        return Err(taken(format!("VNI {vni}"), Key::Network(other)));
                    }
                    // A VNI asked for by option must not carry the series away.
                    let options = network.spec.driver_configuration.options.as_ref();
                    if options.is_none_or(|options| !options.contains_key(VNI_OPTION)) {
                        self.series.vni = vni;
                    }
                }
            }
            Object::Service(service) => {
                for port in held.ports {
                    if let Some(other) = self.ports.insert(port, service.id)
                        && other != service.id
                    {
                        let what = format!("published port {}/{}", port.1, port.0.as_str());
                        return Err(taken(what, Key::Service(other)));
                    }
                }
            }
            Object::Node(node) => {
                self.series.node_index = self.series.node_index.max(node.index);
            }
            _ => {}
        }
        Ok(())
    }

    /// Lets those go that have rested long enough.
    pub(super) fn wake(&mut self, now: Timestamp) {
        while let Some((since, network, address)) = self.resting_by_time.get_min().copied()
            && since.after(REST) <= now
        {
            self.resting_by_time.remove(&(since, network, address));
            self.resting.remove(&(network, address));
        }
    }

    fn rest(&mut self, place: (NetworkId, IpAddr), now: Timestamp) {
        if let Some(since) = self.resting.insert(place, now) {
            self.resting_by_time.remove(&(since, place.0, place.1));
        }
        self.resting_by_time.insert((now, place.0, place.1));
    }

    /// Forgets what rested on a network that is gone.
    pub(super) fn drop_network(&mut self, network: NetworkId) {
        let resting: Vec<_> = self.resting(network).collect();
        for (address, since) in resting {
            self.resting.remove(&(network, address));
            self.resting_by_time.remove(&(since, network, address));
        }
        self.last_address.remove(&(network, false));
        self.last_address.remove(&(network, true));
    }

    pub(super) fn memory(&self) -> Memory {
        Memory {
            series: self.series,
            resting: (self.resting.iter())
                .map(|((network, address), since)| (*network, address.to_string(), *since))
                .collect(),
            last_address: (self.last_address.iter())
                .map(|((network, _), address)| (*network, address.to_string()))
                .collect(),
        }
    }

    pub(super) fn remember(&mut self, memory: &Memory) {
        self.series = memory.series;
        for (network, address, since) in &memory.resting {
            if let Ok(address) = address.parse() {
                self.rest((*network, address), *since);
            }
        }
        for (network, address) in &memory.last_address {
            if let Ok(address) = address.parse::<IpAddr>() {
                self.last_address
                    .insert((*network, address.is_ipv6()), address);
            }
        }
    }
}

/// What a snapshot keeps of the ledger; the rest follows from the objects.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Memory {
    series: Series,
    resting: Vec<(NetworkId, String, Timestamp)>,
    last_address: Vec<(NetworkId, String)>,
}

/// One end of the addresses of a network.
type End = Bound<(NetworkId, IpAddr)>;

fn span(network: NetworkId) -> (End, End) {
    let lowest = IpAddr::from([0u8; 4]);
    let highest = IpAddr::from([0xffu8; 16]);
    (
        Bound::Included((network, lowest)),
        Bound::Included((network, highest)),
    )
}
