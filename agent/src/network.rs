//! A task's part of the network: from the network state to its sandbox and to what its names mean.
//!
//! PURE, apart from the door [`Wiring`]. The whole of the node's network follows from the state
//! alone ([`weft_dataplane::Desired::of`], [`weft_dns::Zones::from_netstate`]); what is decided here
//! is the part that needs the assignment too.

pub mod fake;
pub mod kernel;
pub mod keys;
mod neighbour;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use async_trait::async_trait;
use weft_dataplane::{Attachment, SandboxSpec};
use weft_dns::{Asker, resolv_conf::searches_single_labels};
use weft_types::{
    TaskId,
    netstate::{NetState, WireGuardPeer},
    task::Task,
};

use crate::task::Failure;

/// The interfaces of `task`, in the order of its attachments. `None` while the network state does
/// not have all of its networks yet.
#[must_use]
pub fn sandbox(state: &NetState, task: &Task) -> Option<SandboxSpec> {
    let attachments = task.networks_attachments.iter().map(|wish| {
        let network = state.networks.get(&wish.network_id)?;
        Some(Attachment {
            backend: wish.backend,
            network: wish.network_id,
            vni: network.vni,
            addresses: wish.addresses.clone(),
            mtu_bytes: network.mtu_bytes,
            internal: network.internal,
            encrypted: network.encrypted,
            ingress: network.ingress,
        })
    });
    Some(SandboxSpec {
        task: task.id,
        attachments: attachments.collect::<Option<_>>()?,
    })
}

/// Who asks when a name is asked for in this sandbox: user overlays first, then ingress.
#[must_use]
pub fn asker(task: &Task, spec: &SandboxSpec) -> Asker {
    let (ingress, overlays): (Vec<_>, Vec<_>) = spec
        .attachments
        .iter()
        .partition(|attachment| attachment.ingress);
    let wishes = task.spec.container_spec.as_ref();
    let wishes = wishes.and_then(|container| container.dns_config.clone());
    let wishes = wishes.unwrap_or_default();
    let servers = wishes.nameservers.unwrap_or_default();
    Asker {
        networks: overlays
            .iter()
            .chain(&ingress)
            .map(|attachment| attachment.network)
            .collect(),
        servers: servers
            .iter()
            .filter_map(|server| server.parse::<IpAddr>().ok())
            .map(|server| SocketAddr::new(server, 53))
            .collect(),
        searches_single_labels: searches_single_labels(&wishes.options.unwrap_or_default()),
    }
}

/// Makes the network what it should be.
#[async_trait]
pub trait Wiring: Send + Sync + 'static {
    /// Makes names and kernel what `state` says; answers the revision that the kernel holds, read
    /// back. Repeating it mends what drifted.
    ///
    /// # Errors
    /// When the kernel refuses.
    async fn apply(&self, state: &NetState) -> Result<u64, Failure>;

    /// Returns when a network can be given to whoever is started now, or when it is clear that it cannot
    /// for a while, which [`Wiring::connect`] then tells.
    async fn ready(&self);

    /// Gives the namespace of process `pid` the network of `task`, its resolver last. Waits for
    /// networks that the state does not have yet. May be repeated.
    ///
    /// # Errors
    /// When the kernel refuses, or the networks do not come.
    async fn connect(&self, task: &Task, pid: i64) -> Result<(), Failure>;

    /// Lets the names of a task answer whose program runs already, before anything else of its
    /// network is looked at: the agent was restarted, and its sockets were closed with it.
    /// [`Wiring::connect`] follows, and does what this could not.
    async fn answer_names(&self, task: &Task, pid: i64);

    /// Takes a task's network away from a program that goes on running.
    async fn disconnect(&self, task: TaskId);

    /// Removes the sandboxes of all other tasks.
    async fn retain(&self, tasks: &BTreeSet<TaskId>);

    /// Flows that a task's attachments still have.
    async fn flows(&self, task: &Task) -> u64;

    /// What the others must be told of this node's keys for encrypted networks, as it is now.
    async fn keys(&self) -> Option<WireGuardPeer>;

    /// Removes everything from the kernel: the node leaves its swarm.
    ///
    /// # Errors
    /// When something stays.
    async fn uninstall(&self) -> Result<(), Failure>;
}
