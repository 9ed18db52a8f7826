//! Programs, links and maps: loaded or re-adopted, pinned, attached.
//!
//! Under the pin directory: `maps-<layout>/` holds the maps, `programs-<object>/` the programs, `links/`
//! one link per program and target. A new version loads its programs over the same maps and puts them behind the same links;
//! a new layout gets new maps, and the old ones go when every link has moved over.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
};

use aya::programs::{TestRun as _, TestRunOptions};
use weft_abi::{
    Addr, AllowKey, Backend, Cap, Config, Counter, DRY_RUN, Endpoint, Flow, FlowKey, Front,
    FrontKey, NetAddr, Netns, Node, NodeAddr, Pick, Prefixed, RangeKey, ServiceCount, SockKey,
    SockOrigin, SubnetKey, Task, maps,
};

use super::{
    error::DataplaneError,
    layout,
    map::Map,
    syscall,
    verified::{self, Verified},
};
use crate::explain::{Rehearsal, Rehearsed};

/// Where a program of ours is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hook {
    /// tcx ingress of a link to the world.
    UplinkIn(u32),
    /// tcx ingress of the overlay device.
    OverlayIn(u32),
    /// tcx egress of the overlay device.
    HostOut(u32),
    /// tcx ingress of the host side of a task's interface.
    TaskIn(u32),
}

impl Hook {
    const INGRESS: u32 = 46;
    const EGRESS: u32 = 47;

    fn program(self) -> &'static str {
        match self {
            Self::UplinkIn(_) => "uplink_in",
            Self::OverlayIn(_) => "overlay_in",
            Self::HostOut(_) => "host_out",
            Self::TaskIn(_) => "task_in",
        }
    }

    /// The interface it is at.
    pub(crate) fn ifindex(self) -> u32 {
        match self {
            Self::UplinkIn(index)
            | Self::OverlayIn(index)
            | Self::HostOut(index)
            | Self::TaskIn(index) => index,
        }
    }

    fn attach_type(self) -> u32 {
        if matches!(self, Self::HostOut(_)) {
            Self::EGRESS
        } else {
            Self::INGRESS
        }
    }

    fn pin_name(self) -> String {
        format!("{}-{}", self.program(), self.ifindex())
    }
}

/// Packet programs.
const PACKET_PROGRAMS: [&str; 4] = ["uplink_in", "overlay_in", "host_out", "task_in"];

/// Socket programs with the number of their attach type.
const SOCKET_PROGRAMS: [(&str, u32); 10] = [
    ("bind4", 8),
    ("bind6", 9),
    ("connect4", 10),
    ("connect6", 11),
    ("sendmsg4", 14),
    ("sendmsg6", 15),
    ("recvmsg4", 19),
    ("recvmsg6", 20),
    ("getpeername4", 29),
    ("getpeername6", 30),
];

/// The maps that the user half reads or writes.
pub(crate) struct Maps {
    pub(crate) config: Map<u32, Config>,
    pub(crate) front: Map<FrontKey, Front>,
    pub(crate) front_ranges: Map<Prefixed<RangeKey>, Front>,
    pub(crate) allowed: Map<Prefixed<AllowKey>, u32>,
    pub(crate) caps: Map<u32, Cap>,
    pub(crate) rings: Map<u32, u32>,
    pub(crate) rings_before: Map<u32, u32>,
    pub(crate) backends: Map<u32, Backend>,
    pub(crate) nodes: Map<u32, Node>,
    pub(crate) node_by_addr: Map<Addr, NodeAddr>,
    pub(crate) owner: Map<Addr, u32>,
    pub(crate) local_addrs: Map<Addr, u32>,
    pub(crate) tasks: Map<NetAddr, Task>,
    pub(crate) subnets: Map<SubnetKey, u32>,
    pub(crate) ciphered: Map<u32, u32>,
    pub(crate) endpoints: Map<u32, Endpoint>,
    pub(crate) local_tasks: Map<u32, Endpoint>,
    pub(crate) netns: Map<u64, Netns>,
    pub(crate) services: Map<u32, ServiceCount>,
    pub(crate) flow: Map<FlowKey, Flow>,
    pub(crate) flow_new: Map<FlowKey, Flow>,
    pub(crate) pick: Map<FlowKey, Pick>,
    pub(crate) sk_rev: Map<SockKey, SockOrigin>,
    pub(crate) counters: Map<u32, Counter>,
}

impl Maps {
    fn open(dir: &Path) -> Result<Self, DataplaneError> {
        macro_rules! open {
            ($spec:ident) => {
                Map::open(&dir.join(maps::$spec.name), maps::$spec.name)?
            };
        }
        Ok(Self {
            config: open!(CONFIG),
            front: open!(FRONT),
            front_ranges: open!(FRONT_RANGES),
            allowed: open!(ALLOWED),
            caps: open!(CAPS),
            rings: open!(RINGS),
            rings_before: open!(RINGS_BEFORE),
            backends: open!(BACKENDS),
            nodes: open!(NODES),
            node_by_addr: open!(NODE_BY_ADDR),
            owner: open!(OWNER),
            local_addrs: open!(LOCAL_ADDRS),
            tasks: open!(TASKS),
            subnets: open!(SUBNETS),
            ciphered: open!(CIPHERED),
            endpoints: open!(ENDPOINTS),
            local_tasks: open!(LOCAL_TASKS),
            netns: open!(NETNS),
            services: open!(SERVICES),
            flow: open!(FLOW),
            flow_new: open!(FLOW_NEW),
            pick: open!(PICK),
            sk_rev: open!(SK_REV),
            counters: open!(COUNTERS),
        })
    }
}

/// Loaded programs and open maps.
pub(crate) struct Programs {
    programs: Verified,
    pin_dir: PathBuf,
    maps_dir: PathBuf,
    /// Whether programs of an older layout are attached, over maps of theirs.
    succeeds: bool,
    pub(crate) maps: Maps,
}

pub(super) fn fail(
    operation: &'static str,
    object: impl Into<String>,
) -> impl FnOnce(&dyn std::error::Error) -> DataplaneError {
    let object = object.into();
    move |error| {
        let mut cause = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            cause = format!("{cause}: {error}");
            source = error.source();
        }
        DataplaneError::Bpf {
            operation,
            object,
            cause,
        }
    }
}

pub(super) fn file(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> DataplaneError {
    let path = path.to_owned();
    move |source| DataplaneError::File {
        operation,
        path,
        source,
    }
}

/// Takes over from an older layout what means the same in this one. Whether there was any.
fn inherit(pin_dir: &Path, maps_dir: &Path) -> Result<bool, DataplaneError> {
    let entries = fs::read_dir(pin_dir).map_err(file("list", pin_dir))?;
    let names: Vec<String> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let Some((old, number)) = layout::predecessor(names.iter().map(String::as_str)) else {
        return Ok(false);
    };
    fs::create_dir_all(maps_dir).map_err(file("make pin directory", maps_dir))?;
    let shared = layout::shared(&pin_dir.join(old), number, maps_dir);
    for (name, [from, to]) in &shared {
        let pinned = syscall::open_pin(from).and_then(|map| syscall::pin(map.as_fd(), to));
        pinned.map_err(file("take over map", from))?;
        tracing::debug!(map = name, from = old, "taken over");
    }
    tracing::info!(
        from = old,
        maps = shared.len(),
        "maps of an older layout are taken over"
    );
    Ok(true)
}

fn check_bpffs(pin_dir: &Path) -> Result<(), DataplaneError> {
    fs::create_dir_all(pin_dir).map_err(file("make pin directory", pin_dir))?;
    let kind = nix::sys::statfs::statfs(pin_dir)
        .map_err(|errno| file("look at", pin_dir)(errno.into()))?;
    if kind.filesystem_type() == nix::sys::statfs::BPF_FS_MAGIC {
        return Ok(());
    }
    let dir = pin_dir.display();
    Err(DataplaneError::Refused(format!(
        "pin directory {dir} is not on a bpf file system: `mount -t bpf bpf {dir}`, or choose one below /sys/fs/bpf"
    )))
}

impl Programs {
    /// Loads the programs over pinned maps, making those that are missing.
    pub(crate) fn load(pin_dir: &Path) -> Result<Self, DataplaneError> {
        check_bpffs(pin_dir)?;
        let maps_dir = pin_dir.join(layout::dir_name());
        let succeeds = !maps_dir.exists() && inherit(pin_dir, &maps_dir)?;
        for dir in [&maps_dir, &pin_dir.join("links")] {
            fs::create_dir_all(dir).map_err(file("make pin directory", dir))?;
        }
        let sockets = SOCKET_PROGRAMS.map(|(name, _)| name);
        let names = [&PACKET_PROGRAMS[..], &sockets].concat();
        let programs = Verified::open_or_load(pin_dir, &maps_dir, &names)?;
        let maps = Maps::open(&maps_dir)?;
        Ok(Self {
            programs,
            pin_dir: pin_dir.to_owned(),
            maps_dir,
            succeeds,
            maps,
        })
    }

    /// Whether the hooks carry programs of an older layout, which need its maps.
    pub(crate) fn succeeds(&self) -> bool {
        self.succeeds
    }

    /// Path of a pinned map, for readers of their own.
    pub(crate) fn map_path(&self, name: &str) -> PathBuf {
        self.maps_dir.join(name)
    }

    fn link_path(&self, name: &str) -> PathBuf {
        self.pin_dir.join("links").join(name)
    }

    /// Puts the program behind its pinned link, or makes the link. True when it was not attached.
    fn attach_pinned(
        &self,
        program: &'static str,
        pin: &str,
        target: u32,
        attach_type: u32,
        expected: Option<u32>,
    ) -> Result<bool, DataplaneError> {
        let path = self.link_path(pin);
        let fd = self.programs.program(program)?;
        if let Ok(link) = syscall::open_pin(&path) {
            let shape = syscall::link_shape(link.as_fd())
                .map_err(|error| fail("look at link", pin)(&error))?;
            let alive =
                shape.target != 0 && expected.is_none_or(|expected| expected == shape.target);
            if alive && syscall::update_link(link.as_fd(), fd).is_ok() {
                return Ok(false);
            }
            fs::remove_file(&path).map_err(file("unpin", &path))?;
        }
        let first = expected.is_some();
        let link = syscall::create_link(fd, target, attach_type, first)
            .map_err(|error| fail("attach program", pin)(&error))?;
        syscall::pin(link.as_fd(), &path).map_err(file("pin link", &path))?;
        Ok(true)
    }

    /// Attaches the program of `hook`, first in its chain. True when it was not attached.
    pub(crate) fn attach(&self, hook: Hook) -> Result<bool, DataplaneError> {
        let index = hook.ifindex();
        self.attach_pinned(
            hook.program(),
            &hook.pin_name(),
            index,
            hook.attach_type(),
            Some(index),
        )
    }

    /// Whether the hook's link is there and attached.
    pub(crate) fn is_attached(&self, hook: Hook) -> bool {
        let link = syscall::open_pin(&self.link_path(&hook.pin_name()));
        link.and_then(|link| syscall::link_shape(link.as_fd()))
            .is_ok_and(|shape| shape.target == hook.ifindex())
    }

    /// Detaches the program of `hook`, if it is attached.
    pub(crate) fn detach(&self, hook: Hook) -> Result<(), DataplaneError> {
        remove_pin(&self.link_path(&hook.pin_name()))
    }

    /// Removes links to interfaces that are in none of `hooks`.
    pub(crate) fn retain(&self, hooks: &BTreeSet<Hook>) -> Result<(), DataplaneError> {
        let keep: BTreeSet<String> = hooks.iter().map(|hook| hook.pin_name()).collect();
        let dir = self.pin_dir.join("links");
        for entry in fs::read_dir(&dir).map_err(file("list", &dir))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.contains('-') && !keep.contains(&name) {
                remove_pin(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Attaches the socket programs at a cgroup. How many were not attached.
    pub(crate) fn attach_sockets(&self, cgroup: &Path) -> Result<u64, DataplaneError> {
        let dir = fs::File::open(cgroup).map_err(file("open cgroup", cgroup))?;
        let mut made = 0;
        for (program, attach_type) in SOCKET_PROGRAMS {
            let target = dir.as_raw_fd() as u32;
            made += u64::from(self.attach_pinned(program, program, target, attach_type, None)?);
        }
        Ok(made)
    }

    /// Removes maps of other layouts. Call when all links carry this version's programs.
    pub(crate) fn forget_other_layouts(&self) -> Result<(), DataplaneError> {
        for entry in fs::read_dir(&self.pin_dir)
            .map_err(file("list", &self.pin_dir))?
            .flatten()
        {
            let path = entry.path();
            if path != self.maps_dir && entry.file_name().to_string_lossy().starts_with("maps-") {
                remove_dir(&path)?;
            }
        }
        Ok(())
    }

    /// Runs a program dry. The calling thread must be in the namespace of the interface named.
    pub(crate) fn rehearse(&self, rehearsal: &Rehearsal) -> Result<Rehearsed, DataplaneError> {
        // Words of `__sk_buff` that a test run takes and gives.
        const INGRESS: usize = 9;
        const LINK: usize = 10;
        const NOTES: usize = 12;
        let name = rehearsal.program;
        let program = self.programs.classifier(name)?;
        let mut words = [0_u32; 48];
        words[INGRESS] = if rehearsal.received {
            rehearsal.link
        } else {
            0
        };
        words[LINK] = rehearsal.link;
        words[NOTES] = DRY_RUN;
        if let Some((vni, from)) = rehearsal.tunnel {
            words[NOTES + 1] = vni;
            words[NOTES + 2] = Addr::from(from).v4_word();
        }
        let input: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut output = vec![0; input.len()];
        let mut frame = vec![0; 4096];
        let mut options = TestRunOptions::new();
        options.data_in = Some(&rehearsal.frame);
        options.data_out = Some(&mut frame);
        options.ctx_in = Some(&input);
        options.ctx_out = Some(&mut output);
        let run = program
            .test_run(options)
            .map_err(|error| fail("rehearse with", name)(&error))?;
        let word = |number: usize| {
            let bytes = output
                .get(number * 4..)
                .and_then(|bytes| bytes.first_chunk());
            bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
        };
        frame.truncate(run.data_size_out as usize);
        Ok(Rehearsed {
            reason: word(NOTES + 1),
            place: word(NOTES + 2),
            frame,
        })
    }

    /// Names and ids of the programs, for people.
    pub(crate) fn ids(&self) -> BTreeMap<String, u32> {
        self.programs.ids()
    }
}

pub(super) fn remove_pin(path: &Path) -> Result<(), DataplaneError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file("unpin", path)(error)),
        _ => Ok(()),
    }
}

pub(super) fn remove_dir(path: &Path) -> Result<(), DataplaneError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(file("remove pins in", path)(error))
        }
        _ => Ok(()),
    }
}

/// Removes every pin below `pin_dir`: links first, so that no program outlives its maps' names.
pub(crate) fn remove_pins(pin_dir: &Path) -> Result<(), DataplaneError> {
    remove_dir(&pin_dir.join("links"))?;
    let Ok(entries) = fs::read_dir(pin_dir) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("maps-") || name.starts_with(verified::PREFIX) {
            remove_dir(&entry.path())?;
        }
    }
    Ok(())
}

/// Where cgroup2 is mounted: the socket programs must stand at its root to cover every process.
pub(crate) fn find_cgroup() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (at, kind) = (words.nth(1)?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(at))
    })
}
