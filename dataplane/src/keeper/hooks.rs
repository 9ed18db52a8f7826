//! Which programs stand at which links.

use std::collections::BTreeSet;

use super::{FirstError, Keeper};
use crate::{
    DataplaneError,
    kernel::{bpf::Hook, door::Kernel},
};

impl<K: Kernel> Keeper<K> {
    pub(super) fn wanted_hooks(&self) -> BTreeSet<Hook> {
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
    pub(super) fn attach_hooks(&mut self) -> Result<u64, DataplaneError> {
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
    pub(super) fn try_sockets(&mut self) -> u64 {
        if self.waits {
            return 0;
        }
        let attached = self.kernel.attach_sockets();
        let refused = attached.as_ref().err().map(ToString::to_string);
        if let Some(refused) = refused.as_ref().filter(|_| refused != self.sockets_refused) {
            tracing::warn!(%refused, "sockets are not helped, packets are translated instead");
        }
        self.sockets_refused = refused;
        attached.unwrap_or(0)
    }

    /// Puts this version's programs behind the hooks, now that the tables are filled, and forgets the
    /// older ones' tables.
    pub(super) fn succeed(&mut self) -> Result<(), DataplaneError> {
        self.waits = false;
        self.hooks.clear();
        self.attach_hooks()?;
        self.try_sockets();
        tracing::info!("the programs of an older layout are replaced");
        self.kernel.forget_older()
    }
}
