//! The maps as plain data: filled by a row, read by the host's tables, or written into loaded maps.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use std::collections::HashMap;

use weft_abi::{
    Addr, AllowKey, Backend, Cap, Config, Endpoint, Flow, FlowKey, FragKey, FragPorts, Front,
    FrontKey, Load, NetAddr, Node, NodeAddr, Pick, Prefixed, RangeKey, ServiceCount, Spent, Sticky,
    StickyKey, Task, ring_slot,
};
use weft_ebpf::tables::{Age, Inserted, Tables};

/// What happens after so many looks.
pub(crate) type Meanwhile = (u32, fn(&World));

/// Everything the agent writes, and everything the programs write.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) config: Option<Config>,
    pub(crate) fronts: BTreeMap<FrontKey, Front>,
    /// Length, first key.
    pub(crate) ranges: Vec<(u32, RangeKey, Front)>,
    /// Length over the address, source.
    pub(crate) allowed: Vec<(u32, AllowKey)>,
    pub(crate) caps: BTreeMap<u32, Cap>,
    pub(crate) rings: BTreeMap<u32, Vec<u32>>,
    pub(crate) rings_before: BTreeMap<u32, Vec<u32>>,
    pub(crate) backends: BTreeMap<u32, Backend>,
    pub(crate) nodes: BTreeMap<u32, Node>,
    pub(crate) node_by_addr: BTreeMap<Addr, NodeAddr>,
    pub(crate) locals: Vec<Addr>,
    pub(crate) owners: BTreeMap<Addr, u32>,
    pub(crate) tasks: BTreeMap<NetAddr, Task>,
    /// Prefix length over sixteen bytes, prefix, VNI; longest first.
    pub(crate) subnets: Vec<(u32, Addr, u32)>,
    pub(crate) ciphered: Vec<u32>,
    pub(crate) endpoints: BTreeMap<u32, Endpoint>,
    /// Entries that the table of new flows takes; then it refuses, where the kernel's forgets its oldest.
    pub(crate) room: Option<usize>,
    pub(crate) flow_new: RefCell<HashMap<FlowKey, Flow>>,
    pub(crate) flow: RefCell<HashMap<FlowKey, Flow>>,
    pub(crate) pick: RefCell<HashMap<FlowKey, Pick>>,
    pub(crate) frag: RefCell<HashMap<FragKey, FragPorts>>,
    pub(crate) sticky: RefCell<HashMap<StickyKey, Sticky>>,
    pub(crate) loads: RefCell<HashMap<u32, Load>>,
    pub(crate) spent: RefCell<HashMap<u32, Spent>>,
    pub(crate) told: RefCell<u64>,
    pub(crate) counts: RefCell<BTreeMap<u32, ServiceCount>>,
    /// After so many looks for flows another processor does this.
    pub(crate) meanwhile: Cell<Option<Meanwhile>>,
}

fn slot(rings: &BTreeMap<u32, Vec<u32>>, service: u32, hash: u32) -> Option<u32> {
    let ring = rings.get(&service)?;
    ring.get(ring_slot(hash, ring.len() as u32) as usize)
        .copied()
}

impl World {
    fn table(&self, age: Age) -> &RefCell<HashMap<FlowKey, Flow>> {
        match age {
            Age::New => &self.flow_new,
            Age::Established => &self.flow,
        }
    }

    fn looked(&self) {
        match self.meanwhile.take() {
            Some((1, happens)) => happens(self),
            Some((looks, happens)) => self.meanwhile.set(Some((looks - 1, happens))),
            None => {}
        }
    }
}

impl Tables for World {
    fn config(&self) -> Option<&Config> {
        self.config.as_ref()
    }
    fn front(&self, key: &FrontKey) -> Option<Front> {
        self.fronts.get(key).copied()
    }
    fn front_range(&self, key: &Prefixed<RangeKey>) -> Option<Front> {
        let key = &key.data;
        let port = u32::from(key.port.get());
        let found = self.ranges.iter().find(|(len, range, _)| {
            range.addr == key.addr
                && range.proto == key.proto
                && (u32::from(range.port.get()) ^ port) >> (RangeKey::WHOLE - len) == 0
        });
        found.map(|(_, _, front)| *front)
    }
    fn is_allowed(&self, key: &Prefixed<AllowKey>) -> bool {
        let key = &key.data;
        let whole = u128::from_be_bytes(key.addr.octets());
        self.allowed.iter().any(|(len, from)| {
            let from128 = u128::from_be_bytes(from.addr.octets());
            from.service == key.service
                && (whole ^ from128).checked_shr(128 - len).unwrap_or(0) == 0
        })
    }
    fn cap(&self, service: u32) -> Option<Cap> {
        self.caps.get(&service).copied()
    }
    fn spent<R>(&self, service: u32, f: impl FnOnce(&mut Spent) -> R) -> Option<R> {
        Some(f(self.spent.borrow_mut().entry(service).or_default()))
    }
    fn told<R>(&self, f: impl FnOnce(&mut u64) -> R) -> Option<R> {
        Some(f(&mut self.told.borrow_mut()))
    }
    fn sticky(&self, key: &StickyKey) -> Option<Sticky> {
        self.sticky.borrow().get(key).copied()
    }
    fn set_sticky(&self, key: &StickyKey, sticky: &Sticky) {
        self.sticky.borrow_mut().insert(*key, *sticky);
    }
    fn load(&self, backend: u32) -> Option<Load> {
        self.loads.borrow().get(&backend).copied()
    }
    fn set_load(&self, backend: u32, load: &Load) {
        self.loads.borrow_mut().insert(backend, *load);
    }
    fn ring(&self, service: u32, hash: u32) -> Option<u32> {
        slot(&self.rings, service, hash)
    }
    fn ring_before(&self, service: u32, hash: u32) -> Option<u32> {
        slot(&self.rings_before, service, hash)
    }
    fn backend(&self, id: u32) -> Option<&Backend> {
        self.backends.get(&id)
    }
    fn node(&self, id: u32) -> Option<&Node> {
        self.nodes.get(&id)
    }
    fn node_by_addr(&self, addr: &Addr) -> Option<NodeAddr> {
        self.node_by_addr.get(addr).copied()
    }
    fn is_local(&self, addr: &Addr) -> bool {
        self.locals.contains(addr)
    }
    fn owner(&self, addr: &Addr) -> Option<u32> {
        self.owners.get(addr).copied()
    }
    fn task(&self, key: &NetAddr) -> Option<Task> {
        self.tasks.get(key).copied()
    }
    fn is_ciphered(&self, net: u32) -> bool {
        self.ciphered.contains(&net)
    }
    fn subnet(&self, addr: &Addr) -> Option<u32> {
        let whole = u128::from_be_bytes(addr.octets());
        self.subnets
            .iter()
            .find(|(len, prefix, _)| {
                (whole ^ u128::from_be_bytes(prefix.octets())) >> (128 - len) == 0
            })
            .map(|(_, _, net)| *net)
    }
    fn endpoint(&self, ifindex: u32) -> Option<&Endpoint> {
        self.endpoints.get(&ifindex)
    }
    fn local_task(&self, id: u32) -> Option<&Endpoint> {
        self.endpoints.values().find(|e| e.id == id && id != 0)
    }
    fn flow<R>(&self, age: Age, key: &FlowKey, f: impl FnOnce(&mut Flow) -> R) -> Option<R> {
        let seen = self.table(age).borrow_mut().get_mut(key).map(f);
        self.looked();
        seen
    }
    fn begin_flow(&self, key: &FlowKey, flow: &Flow) -> Inserted {
        let mut table = self.flow_new.borrow_mut();
        if table.contains_key(key) {
            return Inserted::Exists;
        }
        if self.room.is_some_and(|room| table.len() >= room) {
            return Inserted::Full;
        }
        table.insert(*key, *flow);
        Inserted::Yes
    }
    fn promote_flow(&self, key: &FlowKey) -> Inserted {
        let Some(flow) = self.flow_new.borrow_mut().remove(key) else {
            return Inserted::Exists;
        };
        self.flow.borrow_mut().insert(*key, flow);
        Inserted::Yes
    }
    fn end_flow(&self, age: Age, key: &FlowKey) {
        self.table(age).borrow_mut().remove(key);
    }
    fn pick(&self, key: &FlowKey) -> Option<Pick> {
        self.pick.borrow().get(key).copied()
    }
    fn set_pick(&self, key: &FlowKey, pick: &Pick) {
        self.pick.borrow_mut().insert(*key, *pick);
    }
    fn frag(&self, key: &FragKey) -> Option<FragPorts> {
        self.frag.borrow().get(key).copied()
    }
    fn set_frag(&self, key: &FragKey, ports: &FragPorts) {
        self.frag.borrow_mut().insert(*key, *ports);
    }
    fn count(&self, service: u32, f: impl FnOnce(&mut ServiceCount)) {
        f(self.counts.borrow_mut().entry(service).or_default());
    }
}
