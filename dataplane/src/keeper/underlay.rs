//! What lies beside the tables: encryption between nodes, the firewall's part.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;

use super::Keeper;
use crate::{
    DataplaneError, cipher,
    desired::Frontend,
    kernel::{door::Kernel, firewall::Firewall},
};

impl<K: Kernel> Keeper<K> {
    /// Makes the encrypted underlay what it should be. Without it encrypted networks carry nothing
    /// between nodes, which is no reason to refuse everything else.
    pub(super) fn try_cipher(&mut self) {
        let Some(desired) = &self.desired else { return };
        let data_path = self.config.data_path_addr;
        let link = self.surroundings.link_of(data_path);
        let mtu = link.map_or(1500, |link| link.mtu);
        let plan = cipher::plan(
            desired,
            self.config.wireguard.as_ref(),
            data_path,
            mtu,
            self.config.vxlan_port,
        );
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
    pub(super) fn wireguard_port(&self) -> Option<u16> {
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

    /// Writes the firewall's part. Without it tasks may not reach the world, but services work.
    pub(super) fn try_firewall(&mut self, look: bool) -> u64 {
        self.write_firewall(look).unwrap_or_else(|error| {
            tracing::warn!(%error, "tasks may not reach the world");
            0
        })
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
            wireguard_port: self.wireguard_port(),
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
