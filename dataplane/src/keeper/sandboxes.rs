//! Sandboxes of this node: made, mended, removed.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use ipnetwork::IpNetwork;
use weft_abi::{Endpoint, Mac};
use weft_types::TaskId;

use super::{FirstError, Keeper};
use crate::{
    DataplaneError, Sandbox, SandboxSpec, cipher,
    interfaces::{self, Interface},
    kernel::{bpf::Hook, door::Kernel, netlink::Link},
};

/// A sandbox of this node.
pub(super) struct Local {
    pub(super) cookie: u64,
    pub(super) netns: Arc<OwnedFd>,
    interfaces: Vec<(Interface, Endpoint)>,
}

impl Local {
    pub(super) fn endpoints(&self) -> impl Iterator<Item = Endpoint> {
        self.interfaces.iter().map(|(_, endpoint)| *endpoint)
    }
}

impl<K: Kernel> Keeper<K> {
    /// Makes or mends a task's interfaces.
    pub(crate) fn create_sandbox(
        &mut self,
        spec: &SandboxSpec,
        netns: OwnedFd,
    ) -> Result<Sandbox, DataplaneError> {
        let (cookie, inner) = self.kernel.look_inside(netns.as_fd())?;
        let egress = if spec.attachments.is_empty() {
            Some(self.egress_address(spec.task, &inner)?)
        } else {
            None
        };
        let is_cut_off = spec.is_encrypted() && self.kernel.cipher_devices().is_empty();
        if let (Some(cause), true) = (&self.cipher_refused, is_cut_off) {
            return Err(DataplaneError::Refused(format!(
                "no encrypted network can be had: {cause}"
            )));
        }
        let clear = self.mtu();
        let ciphered = cipher::container_mtu(clear, self.config.data_path_addr);
        let mut wanted = interfaces::plan(spec, clear, ciphered, egress);
        if !self.kernel.has_ipv6() {
            wanted
                .iter_mut()
                .for_each(|interface| interface.addresses.retain(IpNetwork::is_ipv4));
        }
        let inner = self.drop_unwanted(spec.task, &wanted, inner)?;
        interfaces::settle_names(&mut wanted, &inner);
        let mut made = Vec::new();
        for interface in &wanted {
            let link = self.kernel.make_pair(&inner, netns.as_fd(), interface)?;
            made.push((interface.clone(), interface.endpoint(link.index)));
        }
        let indices: BTreeSet<u32> = made.iter().map(|(_, endpoint)| endpoint.ifindex).collect();
        self.adopted
            .retain(|endpoint| !indices.contains(&endpoint.ifindex));
        if self.adopted_namespaces.remove(&cookie).is_some() {
            // Sockets in there may have lost their tasks before anybody could look.
            self.lookout.start_over();
        }
        let netns = Arc::new(netns);
        self.sandboxes.insert(
            spec.task,
            Local {
                cookie,
                netns: netns.clone(),
                interfaces: made,
            },
        );
        // Programs and rows first, links up last: no packet meets a half-made interface.
        self.reconcile(false)?;
        for index in indices {
            self.kernel.take_up(index)?;
        }
        self.kernel.configure_inside(netns.as_fd(), &wanted)?;
        self.look_around()?;
        self.write_routes()?;
        let addresses = wanted
            .iter()
            .flat_map(|interface| interface.addresses.iter().map(IpNetwork::ip))
            .collect();
        Ok(Sandbox {
            task: spec.task,
            addresses,
            cookie,
            netns,
        })
    }

    /// Removes the interfaces that a sandbox has and is to have no more; what stays inside.
    fn drop_unwanted(
        &mut self,
        task: TaskId,
        wanted: &[Interface],
        mut inner: Vec<Link>,
    ) -> Result<Vec<Link>, DataplaneError> {
        let Some(local) = self.sandboxes.get_mut(&task) else {
            return Ok(inner);
        };
        let is_wanted = |one: &Interface| wanted.iter().any(|other| other.mac == one.mac);
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut local.interfaces)
            .into_iter()
            .partition(|(interface, _)| is_wanted(interface));
        local.interfaces = kept;
        for (interface, endpoint) in gone {
            self.kernel.remove_link(&interface.name)?;
            self.kernel.detach(Hook::TaskIn(endpoint.ifindex))?;
            inner.retain(|link| link.mac != interface.mac);
        }
        Ok(inner)
    }

    /// The address a task without networks has already, or a free one.
    fn egress_address(&self, task: TaskId, inner: &[Link]) -> Result<Ipv4Addr, DataplaneError> {
        if let Some(own) = self
            .sandboxes
            .get(&task)
            .and_then(|local| local.endpoints().find_map(egress_of))
        {
            return Ok(own.0);
        }
        let mine = |(_, mac): &(Ipv4Addr, Mac)| inner.iter().any(|link| link.mac == *mac);
        if let Some((addr, _)) = self
            .adopted
            .iter()
            .copied()
            .filter_map(egress_of)
            .find(mine)
        {
            return Ok(addr);
        }
        let known = self
            .sandboxes
            .values()
            .flat_map(Local::endpoints)
            .chain(self.adopted.iter().copied());
        let taken: BTreeSet<Ipv4Addr> = known.filter_map(egress_of).map(|(addr, _)| addr).collect();
        let pool = self.config.egress_pool;
        interfaces::free_egress(pool, |addr| taken.contains(&addr)).ok_or_else(|| {
            DataplaneError::Refused(format!("egress pool {pool} has no free address"))
        })
    }

    /// Removes a task's interfaces.
    pub(crate) fn remove_sandbox(&mut self, task: TaskId) -> Result<(), DataplaneError> {
        let Some(local) = self.sandboxes.remove(&task) else {
            return Ok(());
        };
        let mut errors = FirstError::default();
        for (interface, endpoint) in &local.interfaces {
            errors.note(self.kernel.remove_link(&interface.name));
            errors.note(self.kernel.detach(Hook::TaskIn(endpoint.ifindex)));
        }
        errors.note(self.reconcile(false));
        errors.finish()
    }

    /// Removes sandboxes of other tasks than these. What was found at start and nobody claimed goes
    /// when all of `tasks` have claimed theirs.
    pub(crate) fn retain_sandboxes(
        &mut self,
        tasks: &BTreeSet<TaskId>,
    ) -> Result<(), DataplaneError> {
        let mut errors = FirstError::default();
        let gone: Vec<TaskId> = self
            .sandboxes
            .keys()
            .filter(|task| !tasks.contains(task))
            .copied()
            .collect();
        for task in gone {
            errors.note(self.remove_sandbox(task));
        }
        let all_claimed = tasks.iter().all(|task| self.sandboxes.contains_key(task));
        let unclaimed = !self.adopted.is_empty() || !self.adopted_namespaces.is_empty();
        if all_claimed && unclaimed {
            self.adopted_namespaces.clear();
            for endpoint in std::mem::take(&mut self.adopted) {
                if let Some(link) = self.surroundings.links.get(&endpoint.ifindex).cloned() {
                    errors.note(self.kernel.remove_link(&link.name));
                }
                errors.note(self.kernel.detach(Hook::TaskIn(endpoint.ifindex)));
            }
            errors.note(self.reconcile(false));
        }
        errors.finish()
    }
}

/// Address and hardware address of an interface that only leads to the world.
fn egress_of(endpoint: Endpoint) -> Option<(Ipv4Addr, Mac)> {
    match (endpoint.id, IpAddr::from(endpoint.addr4)) {
        (0, IpAddr::V4(addr)) => Some((addr, endpoint.mac)),
        _ => None,
    }
}
