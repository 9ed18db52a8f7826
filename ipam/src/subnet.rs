//! One network's cut of a pool, and the addresses in it.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::pool::{address, number};

/// A subnet whose addresses are given out one after the other.
///
/// Never given: the first address (the network's; in IPv6 the routers' anycast, RFC 4291 §2.6.1),
/// the last one of IPv4 (broadcast), and the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    net: IpNetwork,
    gateway: IpAddr,
    first: u128,
    last: u128,
}

/// A subnet, range or gateway that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubnetError {
    /// Bits are set behind the prefix.
    #[error("invalid subnet {subnet}: it should be {meant}")]
    HostBits {
        /// As written.
        subnet: IpNetwork,
        /// As it was probably meant.
        meant: IpNetwork,
    },
    /// The range lies elsewhere.
    #[error("invalid ip-range {range}: not contained within subnet {subnet}")]
    Range {
        /// The range.
        range: IpNetwork,
        /// The subnet.
        subnet: IpNetwork,
    },
    /// The gateway lies elsewhere.
    #[error("invalid gateway {gateway}: parent subnet {subnet} does not contain this address")]
    Gateway {
        /// The gateway.
        gateway: IpAddr,
        /// The subnet.
        subnet: IpNetwork,
    },
    /// Too small to hold a gateway and one task.
    #[error("invalid subnet {0}: too small, a gateway and one address must fit")]
    TooSmall(IpNetwork),
}

impl Subnet {
    /// The subnet `net`, of which `range` is given out if there is one; the gateway is the first
    /// address unless it is named.
    ///
    /// # Errors
    /// When they do not fit together.
    pub fn new(
        net: IpNetwork,
        range: Option<IpNetwork>,
        gateway: Option<IpAddr>,
    ) -> Result<Self, SubnetError> {
        let v4 = net.is_ipv4();
        if net.ip() != net.network() {
            let meant = IpNetwork::new(net.network(), net.prefix()).unwrap_or(net);
            return Err(SubnetError::HostBits { subnet: net, meant });
        }
        let (low, high) = (number(net.network()), number(net.broadcast()));
        if high - low < if v4 { 3 } else { 2 } {
            return Err(SubnetError::TooSmall(net));
        }
        let gateway = gateway.unwrap_or_else(|| address(low + 1, v4));
        if !net.contains(gateway) {
            return Err(SubnetError::Gateway {
                gateway,
                subnet: net,
            });
        }
        let mut first = low + 1;
        let mut last = if v4 { high - 1 } else { high };
        if let Some(range) = range {
            let (from, to) = (number(range.network()), number(range.broadcast()));
            if range.is_ipv4() != v4 || from < low || to > high {
                return Err(SubnetError::Range { range, subnet: net });
            }
            first = first.max(from);
            last = last.min(to);
        }
        Ok(Self {
            net,
            gateway,
            first,
            last,
        })
    }

    /// The subnet itself.
    #[must_use]
    pub fn net(&self) -> IpNetwork {
        self.net
    }

    /// Its first hop.
    #[must_use]
    pub fn gateway(&self) -> IpAddr {
        self.gateway
    }

    /// Whether `address` may be given to somebody.
    #[must_use]
    pub fn gives(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.net.is_ipv4()
            && address != self.gateway
            && (self.first..=self.last).contains(&number(address))
    }

    /// How many addresses can be given in all.
    #[must_use]
    pub fn capacity(&self) -> u128 {
        let all = (self.last + 1).saturating_sub(self.first);
        let gateway = number(self.gateway);
        all - u128::from(all > 0 && (self.first..=self.last).contains(&gateway))
    }

    /// The next free address after `last`, wrapping once: freed ones are not used again at once.
    pub fn next(
        &self,
        last: Option<IpAddr>,
        mut is_free: impl FnMut(IpAddr) -> bool,
    ) -> Option<IpAddr> {
        let start = last
            .filter(|last| last.is_ipv4() == self.net.is_ipv4())
            .map(|last| number(last).saturating_add(1))
            .filter(|next| (self.first..=self.last).contains(next))
            .unwrap_or(self.first);
        (start..=self.last)
            .chain(self.first..start)
            .map(|number| address(number, self.net.is_ipv4()))
            .find(|address| *address != self.gateway && is_free(*address))
    }

    /// `address` with this subnet's prefix length.
    #[must_use]
    pub fn with_prefix(&self, address: IpAddr) -> IpNetwork {
        IpNetwork::new(address, self.net.prefix()).unwrap_or(self.net)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn subnet(text: &str) -> Subnet {
        Subnet::new(text.parse().unwrap(), None, None).unwrap()
    }

    #[test]
    fn a_small_subnet_gives_what_it_has() {
        let small = subnet("10.0.9.0/29");
        assert_eq!(small.gateway().to_string(), "10.0.9.1");
        assert_eq!(small.capacity(), 5);
        let mut held = BTreeSet::new();
        let mut last = None;
        while let Some(address) = small.next(last, |address| !held.contains(&address)) {
            held.insert(address);
            last = Some(address);
        }
        let texts: Vec<String> = held.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            ["10.0.9.2", "10.0.9.3", "10.0.9.4", "10.0.9.5", "10.0.9.6"]
        );
    }

    #[test]
    fn freed_addresses_wait_for_their_turn() {
        let net = subnet("10.0.9.0/24");
        let last: IpAddr = "10.0.9.7".parse().unwrap();
        assert_eq!(
            net.next(Some(last), |_| true).unwrap().to_string(),
            "10.0.9.8"
        );
        let last: IpAddr = "10.0.9.254".parse().unwrap();
        assert_eq!(
            net.next(Some(last), |_| true).unwrap().to_string(),
            "10.0.9.2"
        );
    }

    #[test]
    fn ranges_and_gateways_are_kept() {
        let net = "192.168.7.0/24".parse().unwrap();
        let range = "192.168.7.128/30".parse().unwrap();
        let gateway = "192.168.7.129".parse().unwrap();
        let subnet = Subnet::new(net, Some(range), Some(gateway)).unwrap();
        assert_eq!(subnet.capacity(), 3);
        assert_eq!(
            subnet.next(None, |_| true).unwrap().to_string(),
            "192.168.7.128"
        );
    }

    #[test]
    fn nonsense_is_refused_with_its_reason() {
        let bad = |net: &str, range: Option<&str>, gateway: Option<&str>| {
            Subnet::new(
                net.parse().unwrap(),
                range.map(|range| range.parse().unwrap()),
                gateway.map(|gateway| gateway.parse().unwrap()),
            )
            .unwrap_err()
            .to_string()
        };
        assert_eq!(
            bad("10.1.2.3/24", None, None),
            "invalid subnet 10.1.2.3/24: it should be 10.1.2.0/24"
        );
        assert!(bad("10.1.2.0/31", None, None).contains("too small"));
        assert!(bad("10.1.2.0/24", Some("10.1.3.0/25"), None).contains("not contained"));
        assert!(bad("10.1.2.0/24", None, Some("10.1.3.1")).contains("does not contain"));
    }

    #[test]
    fn ipv6_is_no_smaller_problem() {
        let net = subnet("fd00::/64");
        assert_eq!(net.gateway().to_string(), "fd00::1");
        assert_eq!(net.next(None, |_| true).unwrap().to_string(), "fd00::2");
        assert_eq!(
            net.with_prefix("fd00::2".parse().unwrap()).to_string(),
            "fd00::2/64"
        );
    }

    proptest! {
        #[test]
        fn what_is_given_is_free_and_inside(
            prefix in 22u8..=30,
            held in proptest::collection::btree_set(0u32..1024, 0..200),
            last in proptest::option::of(0u32..1024),
        ) {
            let base = u32::from(std::net::Ipv4Addr::new(10, 3, 0, 0));
            let net = IpNetwork::new(IpAddr::from(base.to_be_bytes()), prefix).unwrap();
            let subnet = Subnet::new(net, None, None).unwrap();
            let held: BTreeSet<IpAddr> =
                held.into_iter().map(|host| IpAddr::from((base + host).to_be_bytes())).collect();
            let last = last.map(|host| IpAddr::from((base + host).to_be_bytes()));
            let inside = held.iter().filter(|address| subnet.gives(**address)).count() as u128;
            match subnet.next(last, |address| !held.contains(&address)) {
                Some(address) => {
                    prop_assert!(subnet.gives(address));
                    prop_assert!(!held.contains(&address));
                }
                None => prop_assert_eq!(inside, subnet.capacity()),
            }
        }
    }
}
