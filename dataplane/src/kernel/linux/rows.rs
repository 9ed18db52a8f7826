//! What the programs' tables hold, row by row: read, written, removed.

use std::collections::BTreeMap;

use super::{Linux, Result};
use crate::{
    kernel::{door::Written, map::Map},
    mesh::Slots,
    tables::{Gone, Plan, Row, Tables},
};

/// One of the two maps of rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RingTable {
    /// In force.
    Now,
    /// In force before the last change.
    Before,
}

impl Linux {
    /// Everything that the programs' tables hold; rings whose inner map is that of `held` are not read again.
    pub(super) fn read_rows(&mut self, held: Option<&Tables>) -> Result<Tables> {
        let maps = &self.programs.maps;
        let mut tables = Tables {
            nodes: maps.nodes.entries()?.into_iter().collect(),
            node_by_addr: maps.node_by_addr.entries()?.into_iter().collect(),
            owner: maps.owner.entries()?.into_iter().collect(),
            local_addrs: maps.local_addrs.entries()?.into_iter().collect(),
            subnets: maps.subnets.entries()?.into_iter().collect(),
            ciphered: maps.ciphered.entries()?.into_iter().collect(),
            backends: maps.backends.entries()?.into_iter().collect(),
            local_tasks: maps.local_tasks.entries()?.into_iter().collect(),
            endpoints: maps.endpoints.entries()?.into_iter().collect(),
            tasks: maps.tasks.entries()?.into_iter().collect(),
            services: maps
                .services
                .keys()?
                .into_iter()
                .map(|ring| (ring, ()))
                .collect(),
            front: maps.front.entries()?.into_iter().collect(),
            front_ranges: maps.front_ranges.entries()?.into_iter().collect(),
            allowed: maps.allowed.entries()?.into_iter().collect(),
            caps: maps.caps.entries()?.into_iter().collect(),
            netns: maps.netns.entries()?.into_iter().collect(),
            config: maps.config.entries()?.into_iter().collect(),
            ..Tables::default()
        };
        tables.rings = self.read_rings(RingTable::Now, held.map(|held| &held.rings))?;
        tables.rings_before =
            self.read_rings(RingTable::Before, held.map(|held| &held.rings_before))?;
        Ok(tables)
    }

    /// Writes and removes what a plan says, each row's outcome by itself.
    pub(super) fn write_rows(&mut self, plan: &Plan) -> Written {
        let put = in_runs(
            &plan.put,
            Row::ring_table,
            |table, rows| self.put_rings(table, rows),
            |row| self.put_row(row),
        );
        let remove = in_runs(
            &plan.remove,
            Gone::ring_table,
            |table, gone| self.remove_rings(table, gone),
            |gone| self.remove_row(gone),
        );
        if let Err(error) = self.note_ring_ids(&plan.put) {
            tracing::debug!(%error, "rings will be read back whole");
        }
        Written { put, remove }
    }

    /// The slots of a ring in force; none when there is no such ring.
    pub(super) fn slots_of(&self, ring: u32) -> Result<Slots> {
        let map = &self.programs.maps.rings;
        let slots = map
            .ring_id(ring)?
            .map(|id| map.ring_slots(id))
            .transpose()?;
        Ok(slots.unwrap_or_default().into())
    }

    fn read_rings(
        &mut self,
        table: RingTable,
        held: Option<&BTreeMap<u32, Slots>>,
    ) -> Result<BTreeMap<u32, Slots>> {
        let map = match table {
            RingTable::Now => &self.programs.maps.rings,
            RingTable::Before => &self.programs.maps.rings_before,
        };
        let mut rings = BTreeMap::new();
        for ring in map.keys()? {
            let Some(id) = map.ring_id(ring)? else {
                continue;
            };
            let known = held.and_then(|held| held.get(&ring));
            let slots = match known {
                // Inner maps are never edited: the same map has the same slots.
                Some(slots) if self.ring_ids.get(&(table, ring)) == Some(&id) => slots.clone(),
                _ => map.ring_slots(id)?.into(),
            };
            self.ring_ids.insert((table, ring), id);
            rings.insert(ring, slots);
        }
        Ok(rings)
    }

    /// Remembers which inner maps were just written, so that they need not be read back.
    fn note_ring_ids(&mut self, rows: &[Row]) -> Result<()> {
        let maps = &self.programs.maps;
        for row in rows {
            let (table, ring, id) = match row {
                Row::Rings(ring, _) => (RingTable::Now, *ring, maps.rings.ring_id(*ring)?),
                Row::RingsBefore(ring, _) => {
                    (RingTable::Before, *ring, maps.rings_before.ring_id(*ring)?)
                }
                _ => continue,
            };
            self.ring_ids.extend(id.map(|id| ((table, ring), id)));
        }
        Ok(())
    }

    /// A map of rings by the number that rows give: see [`Row::ring_table`].
    fn rings(&self, table: u8) -> &Map<u32, u32> {
        let maps = &self.programs.maps;
        if table == 0 {
            &maps.rings_before
        } else {
            &maps.rings
        }
    }

    fn put_rings(&self, table: u8, rows: &[Row]) -> Result<()> {
        let rings = rows.iter().filter_map(|row| match row {
            Row::Rings(ring, slots) | Row::RingsBefore(ring, slots) => Some((*ring, &slots[..])),
            _ => None,
        });
        self.rings(table).put_rings(&Vec::from_iter(rings))
    }

    fn remove_rings(&self, table: u8, gone: &[Gone]) -> Result<()> {
        let rings = gone.iter().filter_map(|gone| match gone {
            Gone::Rings(ring) | Gone::RingsBefore(ring) => Some(*ring),
            _ => None,
        });
        self.rings(table).remove_rings(&Vec::from_iter(rings))
    }

    /// Writes one row.
    pub(super) fn put_row(&self, row: &Row) -> Result<()> {
        let maps = &self.programs.maps;
        match row {
            Row::Nodes(key, value) => maps.nodes.put(key, value),
            Row::NodeByAddr(key, value) => maps.node_by_addr.put(key, value),
            Row::Owner(key, value) => maps.owner.put(key, value),
            Row::LocalAddrs(key, value) => maps.local_addrs.put(key, value),
            Row::Subnets(key, value) => maps.subnets.put(key, value),
            Row::Ciphered(key, value) => maps.ciphered.put(key, value),
            Row::Backends(key, value) => maps.backends.put(key, value),
            Row::LocalTasks(key, value) => maps.local_tasks.put(key, value),
            Row::Endpoints(key, value) => maps.endpoints.put(key, value),
            Row::Tasks(key, value) => maps.tasks.put(key, value),
            Row::Services(key, ()) => maps.services.put_zero_per_cpu(key),
            Row::Front(key, value) => maps.front.put(key, value),
            Row::FrontRanges(key, value) => maps.front_ranges.put(key, value),
            Row::Allowed(key, value) => maps.allowed.put(key, value),
            Row::Caps(key, value) => maps.caps.put(key, value),
            Row::Netns(key, value) => maps.netns.put(key, value),
            Row::Config(key, value) => maps.config.put(key, value),
            Row::Rings(ring, slots) => maps.rings.put_ring(*ring, slots),
            Row::RingsBefore(ring, slots) => maps.rings_before.put_ring(*ring, slots),
        }
    }

    fn remove_row(&self, gone: &Gone) -> Result<()> {
        let maps = &self.programs.maps;
        match gone {
            Gone::Nodes(key) => maps.nodes.remove(key),
            Gone::NodeByAddr(key) => maps.node_by_addr.remove(key),
            Gone::Owner(key) => maps.owner.remove(key),
            Gone::LocalAddrs(key) => maps.local_addrs.remove(key),
            Gone::Subnets(key) => maps.subnets.remove(key),
            Gone::Ciphered(key) => maps.ciphered.remove(key),
            Gone::Backends(key) => maps.backends.remove(key),
            Gone::LocalTasks(key) => maps.local_tasks.remove(key),
            Gone::Endpoints(key) => maps.endpoints.remove(key),
            Gone::Tasks(key) => maps.tasks.remove(key),
            Gone::Services(key) => maps.services.remove(key),
            Gone::Front(key) => maps.front.remove(key),
            Gone::FrontRanges(key) => maps.front_ranges.remove(key),
            Gone::Allowed(key) => maps.allowed.remove(key),
            Gone::Caps(key) => maps.caps.remove(key),
            Gone::Netns(key) => maps.netns.remove(key),
            // An array's entry cannot be removed, and there is one at all times.
            Gone::Config(_) => Ok(()),
            Gone::Rings(ring) => maps.rings.remove(ring),
            Gone::RingsBefore(ring) => maps.rings_before.remove(ring),
        }
    }
}

/// Rings written together: to swap one waits until no program reads the old one, and so many wait once.
const RINGS_AT_ONCE: usize = 256;

/// Does `work` for each item in order, and `together` for neighbours of the same `kind`. Where that fails each is
/// done by itself, which tells whose fault it was. Results are in the items' order.
fn in_runs<T>(
    items: &[T],
    kind: impl Fn(&T) -> Option<u8>,
    together: impl Fn(u8, &[T]) -> Result<()>,
    work: impl Fn(&T) -> Result<()>,
) -> Vec<Result<()>> {
    let mut results = Vec::with_capacity(items.len());
    for run in items.chunk_by(|a, b| kind(a) == kind(b)) {
        let kind = run.first().and_then(&kind);
        for part in run.chunks(RINGS_AT_ONCE) {
            match kind {
                Some(kind) if part.len() > 1 && together(kind, part).is_ok() => {
                    results.extend(part.iter().map(|_| Ok(())));
                }
                _ => results.extend(part.iter().map(&work)),
            }
        }
    }
    results
}
