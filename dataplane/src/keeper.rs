//! The one who keeps the kernel as it should be: knows desire and sandboxes, reads back, repairs.
//!
//! Lives on a thread of its own, because that thread may stand in another namespace and because
//! every call here may block.

mod explain;
mod hooks;
mod led;
mod nodes;
mod paths;
mod routes;
mod rows;
mod sandboxes;
#[cfg(test)]
mod tests;
mod underlay;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use sandboxes::Local;
use weft_abi::{Endpoint, netns};
use weft_types::TaskId;

use crate::{
    Applied, Config, DataplaneError, Desired, PathReport, Repairs, Status,
    cipher::Ways,
    collector::Collector,
    kernel::{
        bpf::Hook, door::Kernel, firewall::Firewall, netlink::Route, prober::Prober,
        surveyor::Surveyor,
    },
    led::Lookout,
    links::{self, Surroundings},
    mesh::Rings,
    probe::Verdicts,
    tables::Tables,
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
    /// Nodes to which the tunnel was once seen open.
    opened: BTreeSet<u32>,
    /// What this node's own probes say of the others.
    verdicts: Verdicts,
    repairs: Repairs,
    /// Why encrypted networks carry nothing.
    cipher_refused: Option<String>,
    /// How packets of encrypted networks go to each node.
    ways: Ways,
    /// Public keys with which there has been a session.
    tried: BTreeSet<[u8; 32]>,
    /// Why tasks may not reach the world.
    firewall_refused: Option<String>,
    /// Why sockets are not helped.
    sockets_refused: Option<String>,
    /// Which led sockets have been looked for whose tasks are gone.
    lookout: Lookout,
    /// Why they are not ended.
    not_ended_because: Option<String>,
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
            opened: BTreeSet::new(),
            verdicts: Verdicts::default(),
            repairs: Repairs::default(),
            cipher_refused: None,
            ways: Ways::default(),
            tried: BTreeSet::new(),
            firewall_refused: None,
            sockets_refused: None,
            lookout: Lookout::default(),
            not_ended_because: None,
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
            Ok(changed) if changed || read_back || self.knock() => {
                self.reconcile(read_back).map(drop)
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            tracing::warn!(%error, "cannot keep the data plane as it should be; tried again soon");
        }
        if self.lookout.is_open(Instant::now()) {
            self.end_led();
        }
    }

    /// Links or addresses may have changed: follows, when they did.
    pub(crate) fn heed_links(&mut self) {
        let result = match self.look_around() {
            Ok(true) => self.reconcile(false).map(drop),
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            tracing::warn!(%error, "cannot follow this host's links; tried again soon");
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
        self.end_led();
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
