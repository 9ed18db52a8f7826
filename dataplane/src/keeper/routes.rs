//! Routes and neighbours.

use std::{collections::BTreeSet, net::IpAddr};

use super::{FirstError, Keeper};
use crate::{DataplaneError, kernel::door::Kernel, links};

impl<K: Kernel> Keeper<K> {
    /// How many routes and neighbours were written or removed, and how many routes had been there.
    pub(super) fn write_routes(&mut self) -> Result<(u64, u64), DataplaneError> {
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
}
