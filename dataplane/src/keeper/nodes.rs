//! Other nodes: probed, and taken out of the rings when they do not answer.

use std::{collections::BTreeMap, net::IpAddr};

use super::Keeper;
use crate::{
    Desired,
    kernel::{door::Kernel, prober::Prober},
};

impl<K: Kernel> Keeper<K> {
    /// Probes all other nodes, those too that managers have lost: their agents may be down while they
    /// forward as ever.
    pub(super) fn follow_nodes(&mut self, desired: &Desired) {
        let own = self.config.data_path_addr;
        let others = desired
            .nodes
            .iter()
            .filter(|(index, _)| **index != desired.node);
        let wanted: BTreeMap<u32, IpAddr> =
            others.map(|(index, node)| (*index, node.addr)).collect();
        if self.prober.is_none() && !wanted.is_empty() {
            let started = self.kernel.start_prober(own);
            self.prober = started.unwrap_or_else(|error| {
                tracing::warn!(%error, "other nodes are not probed: managers alone say who is dead");
                None
            });
        }
        if let Some(prober) = &self.prober {
            prober.follow(wanted);
        }
    }

    /// Follows the answers to probes. Cheap: called many times a second.
    pub(crate) fn heed_probes(&mut self) {
        if self.heed_paths()
            && let Err(error) = self.reconcile(false)
        {
            tracing::warn!(%error, "cannot follow what the paths carry; tried again soon");
        }
        let Some(mut verdicts) = self.prober.as_ref().map(Prober::verdicts) else {
            return;
        };
        verdicts.dead.extend(self.closed());
        if verdicts == self.verdicts {
            return;
        }
        let (dead, before) = (&verdicts.dead, &self.verdicts.dead);
        if dead != before {
            tracing::warn!(
                ?dead,
                ?before,
                "nodes that do not answer, or not through the tunnel"
            );
        }
        self.verdicts = verdicts;
        if let Err(error) = self.reconcile(false) {
            tracing::warn!(%error, "cannot follow who answers; tried again soon");
        }
    }
}
