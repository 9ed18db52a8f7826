//! What lies beside the tables: encryption between nodes, the firewall's part.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;

use super::Keeper;
use crate::{
    DataplaneError, KeyState, cipher,
    desired::Frontend,
    kernel::{door::Kernel, firewall::Firewall},
};

impl<K: Kernel> Keeper<K> {
    /// Makes the encrypted underlay what it should be, and finds who is spoken to by which keys. Without
    /// it encrypted networks carry nothing between nodes, which is no reason to refuse everything else.
    pub(super) fn try_cipher(&mut self) {
        let Some(desired) = &self.desired else { return };
        let data_path = self.config.data_path_addr;
        let link = self.surroundings.link_of(data_path);
        let mtu = link.map_or(1500, |link| link.mtu);
        let plans = cipher::plans(desired, data_path, mtu, self.config.vxlan_port);
        let refused = match self.kernel.ensure_cipher(&plans) {
            Err(error) => Some(error.to_string()),
            Ok(_) if plans.is_empty() && !desired.ciphered.is_empty() => {
                Some("this node has no WireGuard key".to_owned())
            }
            Ok(_) => None,
        };
        if let Some(refused) = &refused {
            tracing::warn!(%refused, "{}", self.without_cipher());
        }
        self.cipher_refused = refused;
        let known = plans.iter().flat_map(|plan| plan.peers.keys());
        let known: BTreeSet<[u8; 32]> = known.copied().collect();
        self.tried.retain(|key| known.contains(key));
        self.find_ways();
        // Who has just been told another node's new key is the one who can begin.
        self.knock_at_coming();
    }

    /// What it means that a device of WireGuard cannot be had.
    pub(super) fn without_cipher(&self) -> &'static str {
        if self.kernel.cipher_devices().is_empty() {
            "encrypted networks carry nothing here"
        } else {
            "encrypted networks go on by older keys here"
        }
    }

    /// Finds by which keys each node is spoken to now. True when that has changed.
    fn find_ways(&mut self) -> bool {
        let Some(desired) = &self.desired else {
            return false;
        };
        let live = match self.kernel.cipher_sessions() {
            Ok(live) => live,
            Err(error) => {
                tracing::warn!(%error, "sessions of WireGuard are not seen: keys stay as they are");
                return false;
            }
        };
        self.tried.extend(live.iter().copied());
        let up = self.kernel.cipher_devices();
        let ways = cipher::ways(desired, &up, &live, &self.tried, &self.verdicts.dead);
        if ways.settled != self.ways.settled
            && let Some(generation) = ways.settled
        {
            tracing::info!(generation, "every node is spoken to by its newest key");
        }
        let changed = ways.all != self.ways.all;
        self.ways = ways;
        changed
    }

    fn knock_at_coming(&mut self) {
        for way in self.ways.coming.values() {
            if let Err(error) = self.kernel.knock(*way) {
                tracing::debug!(%error, "a node is still spoken to by its older key");
            }
        }
    }

    /// Has sessions made by newer keys than those in use. True when there are such by now.
    pub(super) fn knock(&mut self) -> bool {
        if self.ways.coming.is_empty() {
            return false;
        }
        self.knock_at_coming();
        self.find_ways()
    }

    /// How far this node is with its keys.
    pub(crate) fn key_state(&self) -> KeyState {
        let Some(desired) = &self.desired else {
            return KeyState::default();
        };
        let newest = desired.keys.iter().map(|own| own.generation).max();
        if desired.ciphered.is_empty() {
            return KeyState {
                usable: newest,
                settled: newest,
            };
        }
        let up = self.kernel.cipher_devices();
        let usable = cipher::newest_up(desired, &up);
        KeyState {
            usable,
            settled: self.ways.settled.filter(|_| usable == newest),
        }
    }

    /// Writes the firewall's part. Without it tasks may not reach the world, but services work.
    pub(super) fn try_firewall(&mut self, look: bool) -> u64 {
        let written = self.write_firewall(look);
        let refused = written.as_ref().err().map(ToString::to_string);
        if let Some(refused) = refused
            .as_ref()
            .filter(|_| refused != self.firewall_refused)
        {
            tracing::warn!(%refused, "tasks may not reach the world");
        }
        self.firewall_refused = refused;
        written.unwrap_or(0)
    }

    /// Published ports, from the first to the last of each.
    fn published_ports(&self) -> Vec<(u16, u16)> {
        let fronts = self
            .desired
            .iter()
            .flat_map(|desired| desired.fronts.keys());
        let ports: BTreeSet<(u16, u16)> = fronts
            .filter_map(|front| match front {
                Frontend::Port(_, port) => Some((*port, *port)),
                Frontend::Ports(_, first, last) => Some((*first, *last)),
                Frontend::Vip(..) => None,
            })
            .collect();
        ports.into_iter().collect()
    }

    pub(super) fn write_firewall(&mut self, look: bool) -> Result<u64, DataplaneError> {
        let mut sources: Vec<IpNetwork> = vec![self.config.egress_pool.into()];
        sources.extend(
            self.desired
                .iter()
                .flat_map(|desired| desired.subnets.keys().copied()),
        );
        let wanted = Firewall {
            sources,
            vxlan_port: self.config.vxlan_port,
            wireguard_ports: self.desired.as_ref().map(cipher::ports).unwrap_or_default(),
            published: self.published_ports(),
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
}
