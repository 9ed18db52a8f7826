//! Tables, written row by row.

use std::time::Instant;

use weft_abi::config;

use super::{FirstError, Keeper};
use crate::{
    DataplaneError, Desired,
    kernel::door::Kernel,
    tables::{Host, Row, Tables},
};

impl<K: Kernel> Keeper<K> {
    pub(super) fn host(&self) -> Host {
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
            named: self.surroundings.named(),
            interfaces: self.interfaces(),
            namespaces,
            mtus: self.path_mtus(),
            ways: self.ways.all.clone(),
        }
    }

    /// How many rows were written, and how many of them mend what others changed.
    pub(super) fn write_tables(&mut self, read_back: bool) -> Result<(u64, u64), DataplaneError> {
        let Some(desired) = &self.desired else {
            return self.write_sandboxes().map(|()| (0, 0));
        };
        let desired = &desired.judged(&self.verdicts);
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
    pub(super) fn write_sandboxes(&mut self) -> Result<(), DataplaneError> {
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
}
