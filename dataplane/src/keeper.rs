//! The one who keeps the kernel as it should be: knows desire and sandboxes, reads back, repairs.
//!
//! Lives on a thread of its own, because that thread may stand in another namespace and because
//! every call here may block.

mod explain;
mod nodes;
mod paths;
mod sandboxes;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use ipnetwork::IpNetwork;
use sandboxes::Local;
use weft_abi::{Endpoint, config, netns};
use weft_types::TaskId;

use crate::{
    Applied, Config, DataplaneError, Desired, PathReport, Repairs, Status, cipher,
    collector::Collector,
    kernel::{
        bpf::Hook, door::Kernel, firewall::Firewall, netlink::Route, prober::Prober,
        surveyor::Surveyor,
    },
    links::{self, Surroundings},
    mesh::Rings,
    tables::{Host, Row, Tables},
};

pub(crate) struct Keeper<K> {
    config: Config,
    pub(crate) kernel: K,
    overlay: u32,
    surroundings: Surroundings,
    desired: Option<Desired>,
    rings: Rings,
    /// What the tables held when last looked at; `None` before the first look.
    held: Option<Tables>,
    sandboxes: BTreeMap<TaskId, Local>,
    /// Interfaces and namespaces found at start that no task has claimed yet.
    adopted: Vec<Endpoint>,
    adopted_namespaces: BTreeMap<u64, BTreeSet<u32>>,
    hooks: BTreeSet<Hook>,
    firewall: Option<Firewall>,
    routes: BTreeSet<Route>,
    pub(crate) collector: Option<Collector>,
    prober: Option<Prober>,
    surveyor: Option<Surveyor>,
    /// What the surveyor found, as last heeded.
    paths: BTreeMap<u32, PathReport>,
    /// Nodes that this node's own probes found dead.
    dead: BTreeSet<u32>,
    repairs: Repairs,
    /// Why encrypted networks carry nothing.
    cipher_refused: Option<String>,
    /// Programs of an older layout are attached until our tables are filled.
    waits: bool,
    ticks: u64,
}

/// The first error of many steps, none of which keeps the others from being tried.
#[derive(Default)]
struct FirstError(Option<DataplaneError>);

impl FirstError {
    fn note<T>(&mut self, result: Result<T, DataplaneError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                tracing::warn!(%error, "data plane");
                self.0.get_or_insert(error);
                None
            }
        }
    }

    fn finish(self) -> Result<(), DataplaneError> {
        self.0.map_or(Ok(()), Err)
    }
}

/// How many looks at links there are for one look at everything.
const TICKS_PER_READ_BACK: u64 = 5;

impl<K: Kernel> Keeper<K> {
    /// Takes over what is there and makes what is missing.
    pub(crate) fn start(config: Config, mut kernel: K) -> Result<Self, DataplaneError> {
        let surroundings = Surroundings::new(kernel.links()?, kernel.addresses()?);
        if surroundings.data_link(config.data_path_addr).is_none() {
            return Err(DataplaneError::Refused(format!(
                "data path address {} is on no link of this host",
                config.data_path_addr
            )));
        }
        kernel.enable_forwarding(&surroundings.links)?;
        let mut keeper = Self {
            config,
            kernel,
            overlay: 0,
            surroundings,
            desired: None,
            rings: Rings::default(),
            held: None,
            sandboxes: BTreeMap::new(),
            adopted: Vec::new(),
            adopted_namespaces: BTreeMap::new(),
            hooks: BTreeSet::new(),
            firewall: None,
            routes: BTreeSet::new(),
            collector: None,
            prober: None,
            surveyor: None,
            paths: BTreeMap::new(),
            dead: BTreeSet::new(),
            repairs: Repairs::default(),
            cipher_refused: None,
            waits: false,
            ticks: 0,
        };
        keeper.waits = keeper.kernel.succeeds_older();
        keeper.ensure_overlay()?;
        keeper.look_around()?;
        keeper.adopt()?;
        keeper.attach_hooks()?;
        keeper.try_sockets();
        // A table that is there knows more networks than this process does before its first desire.
        if !keeper.kernel.has_firewall().unwrap_or(false) {
            keeper.try_firewall(false);
        }
        if !keeper.waits {
            keeper.kernel.forget_older()?;
        }
        let uplinks = keeper.status().uplinks;
        tracing::info!(
            ?uplinks,
            mtu = keeper.mtu(),
            adopted = keeper.adopted.len(),
            "data plane is up"
        );
        Ok(keeper)
    }

    /// True when the overlay device had to be made.
    fn ensure_overlay(&mut self) -> Result<bool, DataplaneError> {
        let (index, made) = self
            .kernel
            .ensure_overlay(self.mtu(), self.config.vxlan_port)?;
        self.overlay = index;
        Ok(made)
    }

    /// Reads links and addresses again. True when something changed.
    fn look_around(&mut self) -> Result<bool, DataplaneError> {
        let now = Surroundings::new(self.kernel.links()?, self.kernel.addresses()?);
        let changed = now != self.surroundings;
        self.surroundings = now;
        Ok(changed)
    }

    /// Takes over the interfaces and namespaces that the tables know and that still exist.
    fn adopt(&mut self) -> Result<(), DataplaneError> {
        let found = self.kernel.read_tables(None)?;
        for (index, endpoint) in found.endpoints {
            if self
                .surroundings
                .links
                .get(&index)
                .is_some_and(|link| links::is_ours(&link.name))
            {
                self.adopted.push(endpoint);
            }
        }
        for (cookie, row) in found.netns {
            if row.flags & netns::HOST == 0 && !self.adopted.is_empty() {
                let nets = row.nets.iter().take(row.count as usize).copied().collect();
                self.adopted_namespaces.insert(cookie, nets);
            }
        }
        Ok(())
    }

    /// Interfaces of tasks that exist now.
    fn interfaces(&self) -> Vec<Endpoint> {
        let known = self.sandboxes.values().flat_map(Local::endpoints);
        let all = known.chain(self.adopted.iter().copied());
        all.filter(|endpoint| self.surroundings.links.contains_key(&endpoint.ifindex))
            .collect()
    }

    fn wanted_hooks(&self) -> BTreeSet<Hook> {
        let mut hooks =
            BTreeSet::from([Hook::OverlayIn(self.overlay), Hook::HostOut(self.overlay)]);
        hooks.extend(
            self.surroundings
                .uplinks(&self.config.uplinks)
                .into_keys()
                .map(Hook::UplinkIn),
        );
        hooks.extend(
            self.interfaces()
                .iter()
                .map(|endpoint| Hook::TaskIn(endpoint.ifindex)),
        );
        hooks
    }

    /// Attaches what is missing, detaches what is not wanted. How many were missing that had been there.
    fn attach_hooks(&mut self) -> Result<u64, DataplaneError> {
        let wanted = self.wanted_hooks();
        let mut repaired = 0;
        let mut errors = FirstError::default();
        for hook in &wanted {
            let known = self.hooks.contains(hook);
            if (known || self.waits) && self.kernel.is_attached(*hook) {
                continue;
            }
            if errors.note(self.kernel.attach(*hook)).is_some() {
                repaired += u64::from(known);
            }
        }
        errors.note(self.kernel.retain_hooks(&wanted));
        self.hooks = wanted;
        errors.finish().map(|()| repaired)
    }

    /// Attaches the socket programs. Without them packets are translated instead, which is no reason
    /// to refuse everything else.
    fn try_sockets(&mut self) -> u64 {
        if self.waits {
            return 0;
        }
        self.kernel.attach_sockets().unwrap_or_else(|error| {
            tracing::warn!(%error, "sockets are not helped, packets are translated instead");
            0
        })
    }

    /// Puts this version's programs behind the hooks, now that the tables are filled, and forgets the
    /// older ones' tables.
    fn succeed(&mut self) -> Result<(), DataplaneError> {
        self.waits = false;
        self.hooks.clear();
        self.attach_hooks()?;
        self.try_sockets();
        tracing::info!("the programs of an older layout are replaced");
        self.kernel.forget_older()
    }

    /// Writes the firewall's part. Without it tasks may not reach the world, but services work.
    fn try_firewall(&mut self, look: bool) -> u64 {
        self.write_firewall(look).unwrap_or_else(|error| {
            tracing::warn!(%error, "tasks may not reach the world");
            0
        })
    }

    /// Makes the encrypted underlay what it should be. Without it encrypted networks carry nothing
    /// between nodes, which is no reason to refuse everything else.
    fn try_cipher(&mut self) {
        let Some(desired) = &self.desired else { return };
        let data_path = self.config.data_path_addr;
        let link = self.surroundings.link_of(data_path);
        let mtu = link.map_or(1500, |link| link.mtu);
        let plan = cipher::plan(desired, self.config.wireguard.as_ref(), data_path, mtu);
        let refused = match self.kernel.ensure_cipher(plan.as_ref()) {
            Err(error) => Some(error.to_string()),
            Ok(_) if plan.is_none() && !desired.ciphered.is_empty() => {
                Some("this node has no WireGuard key".to_owned())
            }
            Ok(_) => None,
        };
        if let Some(refused) = &refused {
            tracing::warn!(%refused, "encrypted networks carry nothing");
        }
        self.cipher_refused = refused;
    }

    /// The port of WireGuard while something is encrypted.
    fn wireguard_port(&self) -> Option<u16> {
        let ciphered = self
            .desired
            .as_ref()
            .is_some_and(|desired| !desired.ciphered.is_empty());
        self.config
            .wireguard
            .as_ref()
            .filter(|_| ciphered)
            .map(|own| own.port)
    }

    fn write_firewall(&mut self, look: bool) -> Result<u64, DataplaneError> {
        let mut sources: Vec<IpNetwork> = vec![self.config.egress_pool.into()];
        sources.extend(
            self.desired
                .iter()
                .flat_map(|desired| desired.subnets.keys().copied()),
        );
        let wanted = Firewall {
            sources,
            vxlan_port: self.config.vxlan_port,
            wireguard_port: self.wireguard_port(),
        };
        let same = self.firewall.as_ref() == Some(&wanted);
        let mut repaired = 0;
        if !same || (look && !self.kernel.has_firewall()?) {
            repaired = u64::from(same);
            self.kernel.write_firewall(&wanted)?;
        }
        if !same || look {
            let added = self.kernel.open_forward()?;
            repaired += u64::from(added && same);
        }
        self.firewall = Some(wanted);
        Ok(repaired)
    }

    fn host(&self) -> Host {
        let mut namespaces = self.adopted_namespaces.clone();
        for local in self.sandboxes.values() {
            let nets = local
                .endpoints()
                .map(|endpoint| endpoint.net)
                .filter(|net| *net != 0);
            namespaces.insert(local.cookie, nets.collect());
        }
        Host {
            underlay: self.config.data_path_addr,
            vxlan_port: self.config.vxlan_port,
            overlay: self.overlay,
            uplink: self
                .surroundings
                .data_link(self.config.data_path_addr)
                .map_or(0, |link| link.index),
            flags: if self.kernel.takes_csum_ipv6() {
                config::CSUM_IPV6
            } else {
                0
            },
            cookie: self.kernel.cookie(),
            addresses: self.surroundings.addresses.keys().copied().collect(),
            interfaces: self.interfaces(),
            namespaces,
            mtus: self.path_mtus(),
        }
    }

    /// Makes the kernel hold `desired`.
    pub(crate) fn apply(&mut self, desired: Desired) -> Result<Applied, DataplaneError> {
        self.follow_nodes(&desired);
        self.desired = Some(desired);
        self.follow_paths();
        self.reconcile(true)
    }

    /// Looks whether links or addresses changed, and follows; from time to time reads everything back.
    pub(crate) fn tick(&mut self) {
        self.ticks += 1;
        self.follow_paths();
        let read_back = self.ticks.is_multiple_of(TICKS_PER_READ_BACK) && self.desired.is_some();
        let result = match self.look_around() {
            Ok(changed) if changed || read_back => self.reconcile(read_back).map(drop),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            tracing::warn!(%error, "cannot keep the data plane as it should be; tried again soon");
        }
    }

    /// Writes the difference between what should be and what is. With `read_back`, what is comes from
    /// the kernel; else from memory.
    fn reconcile(&mut self, read_back: bool) -> Result<Applied, DataplaneError> {
        let mut errors = FirstError::default();
        let mut repairs = Repairs::default();
        let mut changes = 0;
        if errors.note(self.ensure_overlay()) == Some(true) {
            repairs.links += 1;
        }
        errors.note(self.look_around());
        self.try_cipher();
        if let Some(repaired) = errors.note(self.attach_hooks()) {
            repairs.programs += repaired;
        }
        if read_back {
            repairs.programs += self.try_sockets();
        }
        if let Some((written, repaired)) = errors.note(self.write_tables(read_back)) {
            changes += written;
            repairs.entries += repaired;
            if self.waits && self.desired.is_some() {
                errors.note(self.succeed());
            }
        }
        if let Some((written, repaired)) = errors.note(self.write_routes()) {
            changes += written;
            repairs.links += repaired;
        }
        if self.desired.is_some() {
            repairs.firewall += self.try_firewall(read_back);
        }
        if repairs.total() > 0 {
            tracing::warn!(?repairs, "the kernel had drifted: mended");
        }
        self.repairs.add(repairs);
        errors.finish()?;
        let revision = self.desired.as_ref().map_or(0, |desired| desired.revision);
        Ok(Applied {
            revision,
            changes,
            repairs,
        })
    }

    /// How many rows were written, and how many of them mend what others changed.
    fn write_tables(&mut self, read_back: bool) -> Result<(u64, u64), DataplaneError> {
        let Some(desired) = &self.desired else {
            return self.write_sandboxes().map(|()| (0, 0));
        };
        let desired = &desired.without(&self.dead);
        let before = self.held.take();
        let mut repaired = 0;
        let mut have = match &before {
            Some(held) if !read_back => held.clone(),
            held => {
                let found = self.kernel.read_tables(held.as_ref())?;
                repaired = held
                    .as_ref()
                    .map_or(0, |held| held.plan(&found).len() as u64);
                found
            }
        };
        let now = Instant::now();
        self.rings.update(&desired.rings, &desired.weights, now);
        if before.is_none() {
            for (ring, slots) in &have.rings {
                self.rings.adopt(*ring, slots, now);
            }
        }
        let plan = Tables::of(desired, &self.host(), &self.rings).plan(&have);
        let changes = (plan.len() as u64).saturating_sub(repaired);
        let written = self.kernel.write(&plan);
        let mut errors = FirstError::default();
        for (row, result) in plan.put.into_iter().zip(written.put) {
            if errors.note(result).is_some() {
                have.put(row);
            }
        }
        for (gone, result) in plan.remove.iter().zip(written.remove) {
            if errors.note(result).is_some() {
                have.remove(gone);
            }
        }
        self.held = Some(have);
        match &self.collector {
            Some(collector) if changes > 0 => collector.wake(),
            Some(_) => {}
            None => self.collector = errors.note(self.kernel.start_collector()).flatten(),
        }
        errors.finish()?;
        Ok((changes, repaired))
    }

    /// Before the first desire: only the rows of sandboxes, so that they work with what is there.
    fn write_sandboxes(&mut self) -> Result<(), DataplaneError> {
        let rows = Tables::of(&Desired::default(), &self.host(), &self.rings);
        for (index, endpoint) in rows.endpoints {
            self.kernel.put(&Row::Endpoints(index, endpoint))?;
        }
        for (id, endpoint) in rows.local_tasks {
            self.kernel.put(&Row::LocalTasks(id, endpoint))?;
        }
        for (cookie, row) in rows.netns {
            self.kernel.put(&Row::Netns(cookie, row))?;
        }
        Ok(())
    }

    /// How many routes and neighbours were written or removed, and how many routes had been there.
    fn write_routes(&mut self) -> Result<(u64, u64), DataplaneError> {
        let works = |addr: IpAddr| self.kernel.has_ipv6() || addr.is_ipv4();
        let mut interfaces = self.interfaces();
        // The kernel takes no route through a link that is down.
        interfaces.retain(|endpoint| {
            self.surroundings
                .links
                .get(&endpoint.ifindex)
                .is_some_and(|link| link.up)
        });
        let data_path = self.config.data_path_addr;
        let desired = self.desired.as_ref();
        let mut routes = links::routes(
            desired,
            &interfaces,
            &self.surroundings,
            data_path,
            self.overlay,
        );
        routes.retain(|route| works(route.to.ip()));
        let mut neighbours = links::neighbours(&interfaces);
        neighbours.retain(|neighbour| works(neighbour.addr));

        let ours = self.surroundings.ours();
        let mut errors = FirstError::default();
        let (mut written, mut repaired) = (0, 0);
        let have: BTreeSet<_> = self
            .kernel
            .routes()?
            .into_iter()
            .filter(|route| ours.contains(&route.link))
            .collect();
        // Removal first: a changed source is another route to the same place, and the kernel would
        // remove the new one for the old. Before the first desire, a route that is there has a reason
        // that is not known yet.
        for route in have.difference(&routes).filter(|_| self.desired.is_some()) {
            errors.note(self.kernel.remove_route(route));
            written += 1;
        }
        for route in routes.difference(&have) {
            errors.note(self.kernel.put_route(route));
            if self.routes.contains(route) {
                repaired += 1;
            } else {
                written += 1;
            }
        }
        self.routes = routes;
        let have: BTreeSet<_> = self
            .kernel
            .neighbours()?
            .into_iter()
            .filter(|neighbour| ours.contains(&neighbour.link))
            .collect();
        for neighbour in neighbours.difference(&have) {
            errors.note(self.kernel.put_neighbour(neighbour));
            written += 1;
        }
        for neighbour in have.difference(&neighbours) {
            let replaced = neighbours
                .iter()
                .any(|new| (new.link, new.addr) == (neighbour.link, neighbour.addr));
            if !replaced {
                errors.note(self.kernel.remove_neighbour(neighbour));
                written += 1;
            }
        }
        errors.finish().map(|()| (written, repaired))
    }

    pub(crate) fn status(&self) -> Status {
        Status {
            revision: self.desired.as_ref().map_or(0, |desired| desired.revision),
            uplinks: self
                .surroundings
                .uplinks(&self.config.uplinks)
                .into_values()
                .collect(),
            sandboxes: self.sandboxes.len(),
            flows: self.kernel.flows().map_or(0, |entries| entries.len() / 2),
            repairs: self.repairs,
            mtu_bytes: u16::try_from(self.mtu()).unwrap_or(u16::MAX),
            faults: self.faults(),
        }
    }

    /// Removes everything.
    pub(crate) fn uninstall(mut self) -> Result<(), DataplaneError> {
        let mut errors = FirstError::default();
        errors.note(self.kernel.uninstall());
        let links = errors.note(self.kernel.links()).unwrap_or_default();
        for link in links.iter().filter(|link| links::is_ours(&link.name)) {
            errors.note(self.kernel.remove_link(&link.name));
        }
        errors.finish()
    }
}
