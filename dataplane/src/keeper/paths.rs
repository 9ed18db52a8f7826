//! Paths to other nodes: looked at, and the container MTU made from what they carry.

use std::collections::BTreeMap;

use super::{Keeper, led::NOT_ENDED};
use crate::{PathReport, PathState, cipher, kernel::door::Kernel, links, path::Route};

impl<K: Kernel> Keeper<K> {
    /// Container MTU: what the link of the data path promises, or less where a path carries less.
    pub(super) fn mtu(&self) -> u32 {
        if let Some(mtu) = self.config.mtu_bytes {
            return u32::from(mtu);
        }
        let measured = self.paths.keys().filter_map(|node| self.path_mtu(*node));
        let least = measured.min().unwrap_or(u32::MAX);
        // Below 1280 there is no IPv6.
        self.promised_mtu().min(least).max(1280)
    }

    /// Container MTU that the link of the data path promises.
    pub(super) fn promised_mtu(&self) -> u32 {
        let data_path = self.config.data_path_addr;
        let link = self.surroundings.data_link(data_path);
        // A packet of the loopback link's size would not fit any other link of this host.
        let mtu = link
            .filter(|link| !link.loopback)
            .map_or(1500, |link| link.mtu);
        mtu.saturating_sub(links::overhead(data_path)).max(1280)
    }

    /// Longest packet that a network in clear carries to a node, where that was measured.
    pub(super) fn path_mtu(&self, node: u32) -> Option<u32> {
        let measured = u32::from(self.paths.get(&node)?.mtu_bytes?);
        let clear = self.promised_mtu();
        if self.is_mesh_encrypted() {
            // Measured inside: what encryption took is put back.
            let taken = clear - cipher::container_mtu(clear, self.config.data_path_addr);
            return Some(measured + taken);
        }
        Some(measured)
    }

    /// Longest packets that the tunnel carries to each other node, in clear and encrypted.
    pub(super) fn path_mtus(&self) -> BTreeMap<u32, [u32; 2]> {
        let nodes = self.desired.iter().flat_map(|desired| desired.nodes.keys());
        let each = nodes.map(|node| {
            let clear = self.path_mtu(*node).unwrap_or_else(|| self.promised_mtu());
            let encrypted = cipher::container_mtu(clear, self.config.data_path_addr);
            (*node, [clear, encrypted])
        });
        each.collect()
    }

    fn is_mesh_encrypted(&self) -> bool {
        let desired = self.desired.as_ref();
        desired.is_some_and(|desired| desired.ciphered.contains(&desired.mesh))
    }

    /// Has the paths to all nodes that are alive looked at.
    pub(super) fn follow_paths(&mut self) {
        let wanted = self.routes_to_survey();
        if self.surveyor.is_none() && !wanted.is_empty() {
            self.surveyor = self.kernel.start_surveyor().unwrap_or_else(|error| {
                tracing::warn!(%error, "paths are not looked at: the MTU is what the link promises");
                None
            });
        }
        if let Some(surveyor) = &self.surveyor {
            surveyor.follow(wanted);
        }
    }

    fn routes_to_survey(&self) -> BTreeMap<u32, Route> {
        let own = self.config.data_path_addr;
        let Some(desired) = self.desired.as_ref().filter(|desired| desired.mesh != 0) else {
            return BTreeMap::new();
        };
        // A cluster of one host may have a loopback data path.
        let Some(link) = self.surroundings.link_of(own) else {
            return BTreeMap::new();
        };
        let is_encrypted = self.is_mesh_encrypted();
        let clear = self.promised_mtu();
        let promised = if is_encrypted {
            cipher::container_mtu(clear, own)
        } else {
            clear
        };
        let others = desired.nodes.iter().filter(|(index, node)| {
            let same_family = node.addr.is_ipv4() == own.is_ipv4();
            **index != desired.node && !node.dead && same_family
        });
        let routes = others.filter_map(|(index, node)| {
            let (outer_own, outer) = if is_encrypted {
                let way = self.ways.all.get(index)?;
                (way.from.into(), way.to.into())
            } else {
                (own, node.addr)
            };
            let route = Route {
                node: *index,
                name: node.name.clone(),
                own,
                addr: node.addr,
                outer_own,
                outer,
                port: self.config.vxlan_port,
                mesh: desired.mesh,
                promised: u16::try_from(promised).unwrap_or(u16::MAX),
                link: link.name.clone(),
            };
            Some((*index, route))
        });
        routes.collect()
    }

    /// Takes over what was found. True when tables depend on it.
    pub(super) fn heed_paths(&mut self) -> bool {
        let Some(surveyor) = &self.surveyor else {
            return false;
        };
        let paths = surveyor.reports();
        let changed = paths != self.paths;
        self.paths = paths;
        self.opened.retain(|node| self.paths.contains_key(node));
        let open = Vec::from_iter(self.nodes_by(PathState::Open));
        self.opened.extend(open);
        changed
    }

    fn nodes_by(&self, state: PathState) -> impl Iterator<Item = u32> {
        let found = self
            .paths
            .iter()
            .filter(move |(_, path)| path.state == state);
        found.map(|(node, _)| *node)
    }

    /// Nodes that answer, but whose tunnel carries nothing any more: as good as dead for those here. One whose
    /// tunnel was never seen open may have a filter for echoes alone: managers know better.
    pub(super) fn closed(&self) -> impl Iterator<Item = u32> {
        let closed = self.nodes_by(PathState::Closed);
        closed.filter(|node| self.opened.contains(node))
    }

    /// What is known of every path.
    pub(crate) fn paths(&self) -> Vec<PathReport> {
        let reports = self.surveyor.as_ref().map(|surveyor| surveyor.reports());
        reports.unwrap_or_default().into_values().collect()
    }

    /// What is wrong, for people.
    pub(super) fn faults(&self) -> Vec<String> {
        let paths = self.paths.values().flat_map(|path| path.faults.clone());
        let own = [
            (self.without_cipher(), &self.cipher_refused),
            ("tasks may not reach the world", &self.firewall_refused),
            (
                "published ports do not answer at 127.0.0.1 of this host",
                &self.sockets_refused,
            ),
            (NOT_ENDED, &self.not_ended_because),
        ];
        let own = own.into_iter().filter_map(|(what, cause)| {
            let cause = cause.as_ref()?;
            Some(format!("{what}: {cause}"))
        });
        paths.chain(own).collect()
    }
}
