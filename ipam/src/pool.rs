//! Big ranges cut into subnets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

/// No subnet of the wished size is left in the pools.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no /{size} is free in the address pool {pools}")]
pub struct PoolExhausted {
    /// Prefix length wished.
    pub size: u8,
    /// The pools, for people.
    pub pools: String,
}

/// The first network among `taken` that shares an address with `subnet`.
pub fn overlapping(
    subnet: IpNetwork,
    taken: impl IntoIterator<Item = IpNetwork>,
) -> Option<IpNetwork> {
    taken.into_iter().find(|other| overlap(subnet, *other))
}

fn overlap(a: IpNetwork, b: IpNetwork) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a.contains(b.network()) || b.contains(a.network()))
}

/// The lowest subnet of prefix length `size` in `pools`, in their order, that shares no address
/// with those `taken`.
///
/// Jumps over what is in its way, so a pool with many large neighbours costs no more than their
/// number.
///
/// # Errors
/// When there is none.
pub fn cut(pools: &[IpNetwork], size: u8, taken: &[IpNetwork]) -> Result<IpNetwork, PoolExhausted> {
    pools
        .iter()
        .find_map(|pool| cut_one(*pool, size, taken))
        .ok_or_else(|| PoolExhausted {
            size,
            pools: pools
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", "),
        })
}

fn cut_one(pool: IpNetwork, size: u8, taken: &[IpNetwork]) -> Option<IpNetwork> {
    let bits: u8 = if pool.is_ipv4() { 32 } else { 128 };
    if size < pool.prefix() || size > bits {
        return None;
    }
    let step = 1u128.checked_shl(u32::from(bits - size))?;
    let first = number(pool.network());
    let last = number(pool.broadcast());
    let mut at = first;
    while at <= last && last - at >= step - 1 {
        let subnet = IpNetwork::new(address(at, pool.is_ipv4()), size).ok()?;
        match overlapping(subnet, taken.iter().copied()) {
            None => return Some(subnet),
            Some(other) => {
                // The next multiple of the step after the one in the way.
                let past = number(other.broadcast()).max(at) - first;
                at = first.checked_add((past / step + 1).checked_mul(step)?)?;
            }
        }
    }
    None
}

/// An address as a number, in its family's own width.
pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// The address that a number is in a family.
pub(crate) fn address(number: u128, v4: bool) -> IpAddr {
    if v4 {
        // Callers stay within the family's width.
        IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)))
    } else {
        IpAddr::V6(Ipv6Addr::from(number))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn an_overlap_is_one_from_either_side() {
        let (wide, narrow, beside) = (
            net("10.88.0.0/16"),
            net("10.88.7.0/24"),
            net("10.89.0.0/16"),
        );
        assert_eq!(overlapping(narrow, [beside, wide]), Some(wide));
        assert_eq!(overlapping(wide, [beside, narrow]), Some(narrow));
        assert_eq!(overlapping(wide, [beside, net("fd00::/8")]), None);
        // What lies inside a larger neighbour is jumped over as a whole.
        assert_eq!(
            cut(&[wide], 24, &[net("10.88.0.0/22")]).unwrap(),
            net("10.88.4.0/24")
        );
        assert_eq!(
            cut(&[net("10.88.2.0/23"), beside], 24, &[net("10.88.0.0/22")]).unwrap(),
            net("10.89.0.0/24")
        );
    }

    #[test]
    fn subnets_come_in_order_around_what_is_taken() {
        let pool = [net("10.0.0.0/8")];
        assert_eq!(cut(&pool, 24, &[]).unwrap(), net("10.0.0.0/24"));
        let taken = [net("10.0.0.0/24"), net("10.0.2.0/23"), net("10.0.1.128/25")];
        assert_eq!(cut(&pool, 24, &taken).unwrap(), net("10.0.4.0/24"));
        assert_eq!(
            cut(&[net("fd00:1:2::/48")], 64, &[net("fd00:1:2::/64")]).unwrap(),
            net("fd00:1:2:1::/64")
        );
    }

    #[test]
    fn an_empty_pool_says_so() {
        let error = cut(&[net("10.9.0.0/23")], 24, &[net("10.9.0.0/16")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no /24 is free in the address pool 10.9.0.0/23"
        );
        assert!(cut(&[net("10.9.0.0/24")], 16, &[]).is_err());
    }

    #[test]
    fn the_end_of_the_numbers_is_no_trap() {
        assert!(cut(&[net("255.255.255.0/24")], 25, &[net("255.255.255.0/24")]).is_err());
        let top = net("ffff:ffff:ffff:ffff::/64");
        assert!(cut(&[top], 64, &[top]).is_err());
    }

    proptest! {
        #[test]
        fn cuts_never_overlap(sizes in proptest::collection::vec(20u8..=29, 1..60)) {
            let pool = [net("10.20.0.0/16")];
            let mut taken = Vec::new();
            for size in sizes {
                if let Ok(subnet) = cut(&pool, size, &taken) {
                    prop_assert_eq!(overlapping(subnet, taken.iter().copied()), None);
                    prop_assert!(overlap(pool[0], subnet));
                    taken.push(subnet);
                }
            }
        }
    }
}
