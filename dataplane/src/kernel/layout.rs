//! Which maps of an older layout go on being used by a newer one.
//!
//! A map is taken over when neither its keys nor its values nor their meaning changed since: above
//! all those that remember connections. The others are made anew, and filled before any packet sees
//! them: programs are swapped only after the first apply.

use std::{collections::BTreeMap, path::Path};

use weft_abi::{
    Addr, Backend, Config, Counter, Endpoint, Flow, FlowKey, Front, FrontKey, LAYOUT, NetAddr,
    Netns, Node, NodeAddr, Pick, ServiceCount, SubnetKey, Task, maps,
};

/// Maps whose keys, values or meaning changed with a layout. New maps need no line.
const CHANGED: &[(u32, &[&str])] = &[(2, &["front", "nodes", "services"])];

/// Name of the pins' directory: changes with anything that makes old maps unreadable.
pub(super) fn dir_name() -> String {
    let sizes = [
        size_of::<Config>(),
        size_of::<FrontKey>(),
        size_of::<Front>(),
        size_of::<Backend>(),
        size_of::<Node>(),
        size_of::<NodeAddr>(),
        size_of::<NetAddr>(),
        size_of::<Task>(),
        size_of::<SubnetKey>(),
        size_of::<Endpoint>(),
        size_of::<Netns>(),
        size_of::<ServiceCount>(),
        size_of::<FlowKey>(),
        size_of::<Flow>(),
        size_of::<Pick>(),
        size_of::<Counter>(),
        size_of::<Addr>(),
    ];
    let text = format!("{LAYOUT} {sizes:?} {:?}", maps::ALL);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("maps-{LAYOUT}-{:08x}", hash as u32)
}

/// The layout of a directory of pins.
fn layout_of(name: &str) -> Option<u32> {
    name.strip_prefix("maps-")?.split('-').next()?.parse().ok()
}

/// Of these directories, the newest layout that is not newer than ours: its maps are in use.
pub(super) fn predecessor<'a>(names: impl Iterator<Item = &'a str>) -> Option<(&'a str, u32)> {
    let known = names.filter_map(|name| Some((name, layout_of(name)?)));
    known
        .filter(|(name, layout)| *layout <= LAYOUT && *name != dir_name())
        .max_by_key(|(_, layout)| *layout)
}

/// Whether a map means today what it meant in `layout`.
fn is_same_since(map: &str, layout: u32) -> bool {
    let later = CHANGED.iter().filter(|(changed, _)| *changed > layout);
    !later.into_iter().any(|(_, maps)| maps.contains(&map))
}

/// Pins, below both directories, of the maps to take over from a predecessor.
pub(super) fn shared(
    old: &Path,
    layout: u32,
    new: &Path,
) -> BTreeMap<&'static str, [std::path::PathBuf; 2]> {
    let same = maps::ALL
        .iter()
        .filter(|map| is_same_since(map.name, layout));
    same.map(|map| (map.name, [old.join(map.name), new.join(map.name)]))
        .filter(|(_, [old, _])| old.exists())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_live_through_every_change_of_layout_so_far() {
        for layout in 1..=LAYOUT {
            for map in ["flow", "flow_new", "pick", "sk_rev", "endpoints", "netns"] {
                assert!(is_same_since(map, layout), "{map} of {layout}");
            }
        }
        assert!(!is_same_since("front", 1));
        assert!(is_same_since("front", LAYOUT));
    }

    /// What an earlier layout's maps were: whoever changes one must say so above, and raise the layout.
    #[test]
    fn what_changed_its_size_is_listed() {
        let first: &[(&str, usize, usize)] = &[
            ("config", size_of::<Config>(), 48),
            ("front", size_of::<FrontKey>() + size_of::<Front>(), 40),
            ("backends", size_of::<Backend>(), 44),
            ("nodes", size_of::<Node>(), 40),
            (
                "node_by_addr",
                size_of::<Addr>() + size_of::<NodeAddr>(),
                24,
            ),
            ("tasks", size_of::<NetAddr>() + size_of::<Task>(), 32),
            ("subnets", size_of::<SubnetKey>(), 20),
            ("endpoints", size_of::<Endpoint>(), 56),
            ("netns", size_of::<Netns>(), 72),
            ("services", size_of::<ServiceCount>(), 24),
            ("flow", size_of::<FlowKey>() + size_of::<Flow>(), 172),
            ("pick", size_of::<FlowKey>() + size_of::<Pick>(), 56),
        ];
        for (map, now, then) in first {
            assert_eq!(
                is_same_since(map, 1),
                now == then,
                "{map}: {then} bytes in layout 1, {now} now"
            );
        }
    }

    #[test]
    fn the_newest_older_layout_is_the_predecessor() {
        let own = dir_name();
        let names = [
            "links",
            "maps-0-aa",
            own.as_str(),
            "maps-1-bb",
            "maps-99-cc",
        ];
        assert_eq!(predecessor(names.into_iter()), Some(("maps-1-bb", 1)));
        assert_eq!(predecessor([own.as_str()].into_iter()), None);
    }
}
