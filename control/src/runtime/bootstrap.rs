//! The first objects of a new cluster.

use std::net::{IpAddr, Ipv6Addr};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use ipnetwork::{IpNetwork, Ipv6Network};
use weft_proto::{ControlError, token::JoinToken};
use weft_types::{
    ClusterId, Meta, NodeId, Timestamp, Version,
    cluster::{Cluster, JoinTokens, KeyRotation},
    network::{Driver, Network, NetworkSpec},
    node::{Node, NodeSpec, NodeState, NodeStatus, Role},
};

use super::{InitOptions, ManagerConfig, clock};
use crate::{
    allocator,
    ca::{Authority, CaError},
    store::{Change, IdSource},
};

/// Prefix length of the subnets cut when the user names none.
const SUBNET_SIZE: u8 = 24;
/// UDP port of VXLAN when the user names none.
const DATA_PATH_PORT: u16 = 4789;
/// Name of the network of published ports.
const INGRESS: &str = "ingress";

/// Whether subnets can be cut from the pools that were asked for without cutting this node off from its neighbours.
///
/// # Errors
/// When a pool is no larger than the network that this node is likely in, and holds its address; or when nobody can have
/// its addresses.
pub(super) fn check_pools(config: &ManagerConfig, init: &InitOptions) -> Result<(), ControlError> {
    let own = [Some(config.advertise.ip()), init.data_path_addr];
    for pool in &init.default_addr_pool {
        let address = pool.ip();
        let why = if address.is_loopback() || address.is_multicast() {
            "no host can have its addresses".to_owned()
        } else if let Some(own) = own.into_iter().flatten().find(|own| pool.contains(*own))
            && pool.prefix() >= allocator::NEIGHBOURS_V4
        {
            format!("it holds {own}, by which other nodes reach this one")
        } else {
            continue;
        };
        let text = format!("invalid default address pool {pool}: {why}; name another one");
        return Err(ControlError::invalid(text));
    }
    Ok(())
}

/// The cluster, its first node, and the network of published ports.
pub(super) fn objects(
    config: &ManagerConfig,
    init: &InitOptions,
    authority: &Authority,
    (cluster, node): (ClusterId, NodeId),
    ids: &mut IdSource,
) -> Result<Vec<Change>, CaError> {
    let token =
        |ids: &mut IdSource| JoinToken::new(authority.certificate(), ids.bytes()).to_string();
    let mut spec = init.spec.clone();
    if spec.name.is_empty() {
        "default".clone_into(&mut spec.name);
    }
    let cluster = Cluster {
        id: cluster,
        meta: Meta::default(),
        spec,
        tls_info: authority.tls_info()?,
        root_rotation_in_progress: false,
        rotation: None,
        rotated: 0,
        spec_version: Version::default(),
        keys: KeyRotation {
            since: clock::now(),
            ..KeyRotation::default()
        },
        default_addr_pool: init.default_addr_pool.clone(),
        subnet_size: or_default(init.subnet_size, SUBNET_SIZE),
        data_path_port: or_default(init.data_path_port, DATA_PATH_PORT),
        join_tokens: JoinTokens {
            worker: token(ids),
            manager: token(ids),
        },
        ca_key: authority.key().to_owned(),
        unlock_key: if init.spec.encryption_config.auto_lock_managers {
            unlock_key(ids)
        } else {
            String::new()
        },
        ring_seed: ids.number(),
        ula_prefix: Some(ula_prefix(ids)),
        blacklist: Vec::new(),
        allocator: Default::default(),
    };
    let advertised = config.advertise.ip();
    let node = Node {
        id: node,
        meta: Meta::default(),
        spec: NodeSpec {
            role: Role::Manager,
            availability: init.availability,
            ..NodeSpec::default()
        },
        description: init.description.clone(),
        status: NodeStatus {
            // It opens its session next, like every node.
            state: NodeState::Unknown,
            addr: advertised.to_string(),
            ..NodeStatus::default()
        },
        manager_status: None,
        role: Role::Manager,
        index: 1,
        data_path_addr: Some(init.data_path_addr.unwrap_or(advertised)),
        addresses: [advertised].into_iter().collect(),
        wireguard: None,
        down_since: Timestamp::default(),
        applied_revision: 0,
        certificate: Version::default(),
    };
    let ingress = Network {
        id: ids.id(),
        meta: Meta::default(),
        spec: NetworkSpec {
            name: INGRESS.to_owned(),
            driver_configuration: Driver {
                name: "overlay".to_owned(),
                options: None,
            },
            ipv6_enabled: true,
            ingress: true,
            scope: "swarm".to_owned(),
            ..NetworkSpec::default()
        },
        driver_state: None,
        ipam: None,
        vni: None,
        allocation_error: String::new(),
        pending_delete: false,
    };
    Ok(vec![
        Change::put(cluster),
        Change::put(node),
        Change::put(ingress),
    ])
}

/// A new unlock key.
fn unlock_key(ids: &mut IdSource) -> String {
    format!("SWMKEY-1-{}", STANDARD_NO_PAD.encode(ids.bytes::<32>()))
}

fn or_default<T: PartialEq + Default>(value: T, default: T) -> T {
    if value == T::default() {
        default
    } else {
        value
    }
}

/// A random /48 of fd00::/8 (RFC 4193).
fn ula_prefix(ids: &mut IdSource) -> IpNetwork {
    let [a, b, c, d, e]: [u8; 5] = ids.bytes();
    let addr = Ipv6Addr::from([0xfd, a, b, c, d, e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    Ipv6Network::new(addr, 48).map_or_else(|_| IpNetwork::from(IpAddr::from(addr)), IpNetwork::from)
}
