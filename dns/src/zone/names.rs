//! Names and what they mean, packed.
//!
//! A cluster has many names, and a question for one that nobody asked lately finds nothing in the processor's
//! caches: what a lookup touches is what it costs. Here it is a slot and a record. The record has everything, the
//! name with its addresses behind it; records of neighbours in the alphabet lie together.

use std::{
    collections::{BTreeMap, hash_map::RandomState},
    hash::BuildHasher as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// What one name means on one network: addresses of both families, sorted, none twice.
///
/// An entry without addresses still owns its name: it answers "no data", and nobody outside is
/// asked. That is what a service without a serving task looks like under `tasks.<service>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'z> {
    v4: &'z [u8],
    v6: &'z [u8],
}

impl<'z> Entry<'z> {
    /// IPv4 addresses.
    pub fn v4(self) -> impl Iterator<Item = Ipv4Addr> + 'z {
        let (addresses, _) = self.v4.as_chunks::<4>();
        addresses.iter().map(|octets| Ipv4Addr::from(*octets))
    }

    /// IPv6 addresses.
    pub fn v6(self) -> impl Iterator<Item = Ipv6Addr> + 'z {
        let (addresses, _) = self.v6.as_chunks::<16>();
        addresses.iter().map(|octets| Ipv6Addr::from(*octets))
    }
}

/// Addresses of names, while they are collected. A name may be added to again.
pub(super) type Collected = BTreeMap<Box<[u8]>, Vec<IpAddr>>;

/// Names in each eight slots, at most.
const FILLED: usize = 6;
/// Bits of a slot that tell names apart before their records are looked at.
const PRINT: u64 = 0xff_ffff;

/// Names to entries, as they were when it was made.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    hasher: RandomState,
    /// Of each name, the place of its record plus one, above bits of its hash. As many as a power of two, and
    /// some empty, which are 0: a search goes on from the place that the hash says to the next of these.
    slots: Box<[u64]>,
    /// Of each name: its length in a byte, the name, how many addresses of each family in four bytes, the addresses.
    records: Box<[u8]>,
    len: usize,
}

impl Names {
    /// Packs what was collected. Names that nobody can ask for are left out.
    pub(super) fn pack(collected: Collected) -> Self {
        let mut names = Self::default();
        let slots = (collected.len() * 8 / FILLED + 1).next_power_of_two();
        names.slots = vec![0; slots].into();
        let mut records = Vec::new();
        for (name, mut addresses) in collected {
            let Ok(length @ 1..) = u8::try_from(name.len()) else {
                continue;
            };
            addresses.sort_unstable();
            addresses.dedup();
            let place = records.len();
            records.push(length);
            records.extend_from_slice(&name);
            let v4 = addresses.partition_point(IpAddr::is_ipv4);
            records.extend_from_slice(&count(v4));
            records.extend_from_slice(&count(addresses.len() - v4));
            for address in addresses {
                match address {
                    IpAddr::V4(address) => records.extend_from_slice(&address.octets()),
                    IpAddr::V6(address) => records.extend_from_slice(&address.octets()),
                }
            }
            names.add(&name, place);
        }
        names.records = records.into();
        names
    }

    fn add(&mut self, name: &[u8], place: usize) {
        let hash = self.hasher.hash_one(name);
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while self.slots[at] != 0 {
            at = (at + 1) & mask;
        }
        self.slots[at] = (place as u64 + 1) << PRINT.count_ones() | hash >> 40;
        self.len += 1;
    }

    /// What `name` means.
    pub(super) fn get(&self, name: &[u8]) -> Option<Entry<'_>> {
        let hash = self.hasher.hash_one(name);
        let mask = self.slots.len().checked_sub(1)?;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return None;
            }
            if slot & PRINT == hash >> 40
                && let Some(entry) = self.read((slot >> PRINT.count_ones()) as usize - 1, name)
            {
                return Some(entry);
            }
            at = (at + 1) & mask;
        }
    }

    /// The entry of the record at `place`, if that is of `name`.
    fn read(&self, place: usize, name: &[u8]) -> Option<Entry<'_>> {
        let (length, rest) = self.records.get(place..)?.split_first()?;
        let (own, rest) = rest.split_at_checked(usize::from(*length))?;
        if own != name {
            return None;
        }
        let (v4, rest) = rest.split_first_chunk()?;
        let (v6, rest) = rest.split_first_chunk()?;
        let (v4, rest) = rest.split_at_checked(u32::from_le_bytes(*v4) as usize * 4)?;
        let (v6, _) = rest.split_at_checked(u32::from_le_bytes(*v6) as usize * 16)?;
        Some(Entry { v4, v6 })
    }

    /// How many names there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

/// No network has as many addresses as do not fit.
fn count(addresses: usize) -> [u8; 4] {
    (addresses as u32).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::{collection, prelude::*};

    use super::*;

    fn found(names: &Names, name: &[u8]) -> Option<Vec<IpAddr>> {
        let entry = names.get(name)?;
        let v4 = entry.v4().map(IpAddr::V4);
        Some(v4.chain(entry.v6().map(IpAddr::V6)).collect())
    }

    proptest! {
        #[test]
        fn every_name_means_what_was_collected_and_no_other_means_anything(
            collected in collection::btree_map(
                collection::vec(any::<u8>(), 0..300),
                collection::vec(any::<IpAddr>(), 0..5),
                0..200,
            ),
            others in collection::vec(collection::vec(any::<u8>(), 0..4), 50),
        ) {
            let packed: Collected = collected.clone().into_iter().map(|(name, to)| (name.into(), to)).collect();
            let names = Names::pack(packed);
            let mut left_out = 0;
            for (name, addresses) in &collected {
                let mut expected = addresses.clone();
                expected.sort_unstable();
                expected.dedup();
                // Nobody can ask for these.
                if name.is_empty() || name.len() > 255 {
                    left_out += 1;
                    prop_assert_eq!(found(&names, name), None);
                } else {
                    prop_assert_eq!(found(&names, name), Some(expected));
                }
            }
            prop_assert_eq!(names.len(), collected.len() - left_out);
            for other in others.iter().filter(|other| !collected.contains_key(*other)) {
                prop_assert_eq!(found(&names, other), None);
            }
        }
    }

    #[test]
    fn a_hundred_thousand_names_are_found() {
        let name = |number: u32| format!("name{number}").into_bytes();
        let all = (0..100_000_u32)
            .map(|number| (name(number).into(), vec![Ipv4Addr::from(number).into()]));
        let names = Names::pack(all.collect());
        for number in 0..100_000 {
            assert_eq!(
                found(&names, &name(number)),
                Some(vec![Ipv4Addr::from(number).into()])
            );
        }
        assert_eq!(found(&names, &name(100_000)), None);
    }

    #[test]
    fn no_names_mean_nothing() {
        assert_eq!(Names::default().get(b"web"), None);
        assert_eq!(Names::pack(Collected::new()).get(b"web"), None);
    }
}
