//! The maps as the packet logic sees them. Meanings and keys are in `weft_abi`.

use weft_abi::{
    Addr, AllowKey, Backend, Cap, Config, Endpoint, Flow, FlowKey, FragKey, FragPorts, Front,
    FrontKey, Load, NetAddr, Node, NodeAddr, Pick, Prefixed, RangeKey, ServiceCount, Spent, Sticky,
    StickyKey, Task,
};

/// Which of the two flow tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// Not yet accepted by the task; may be evicted.
    New,
    /// Accepted by the task; never evicted.
    Established,
}

/// What became of an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is there.
    Yes,
    /// Another is there.
    Exists,
    /// There is no room.
    Full,
}

/// Access to every map. References point into the maps: copy what must outlive the next change.
pub trait Tables {
    /// Whether this is a dry run: every method that changes then does nothing.
    fn is_dry(&self) -> bool {
        false
    }
    /// The one configuration, once the agent has written it.
    fn config(&self) -> Option<&Config>;
    /// Service at an address.
    fn front(&self, key: &FrontKey) -> Option<Front>;
    /// Service that publishes a range with this port.
    fn front_range(&self, key: &Prefixed<RangeKey>) -> Option<Front>;
    /// Whether this source may ask this service.
    fn is_allowed(&self, key: &Prefixed<AllowKey>) -> bool;
    /// What a service may use.
    fn cap(&self, service: u32) -> Option<Cap>;
    /// Lets `f` see and change what a service has used. None when there is no room.
    fn spent<R>(&self, service: u32, f: impl FnOnce(&mut Spent) -> R) -> Option<R>;
    /// Lets `f` see and change until when ICMP errors told so far take.
    fn told<R>(&self, f: impl FnOnce(&mut u64) -> R) -> Option<R>;
    /// Which backend a client stays with.
    fn sticky(&self, key: &StickyKey) -> Option<Sticky>;
    /// Remembers it.
    fn set_sticky(&self, key: &StickyKey, sticky: &Sticky);
    /// What is known of a backend's load.
    fn load(&self, backend: u32) -> Option<Load>;
    /// Writes it down.
    fn set_load(&self, backend: u32, load: &Load);
    /// Backend that `hash` takes in the service's ring, 0 in an empty slot; none without a ring.
    fn ring(&self, service: u32, hash: u32) -> Option<u32>;
    /// The same in the ring before the last change.
    fn ring_before(&self, service: u32, hash: u32) -> Option<u32>;
    /// A backend anywhere.
    fn backend(&self, id: u32) -> Option<&Backend>;
    /// A host.
    fn node(&self, id: u32) -> Option<&Node>;
    /// Whose address this is.
    fn node_by_addr(&self, addr: &Addr) -> Option<NodeAddr>;
    /// Whether published ports answer on this address of this node.
    fn is_local(&self, addr: &Addr) -> bool;
    /// Node that holds a published address now.
    fn owner(&self, addr: &Addr) -> Option<u32>;
    /// Task at an address of a network.
    fn task(&self, key: &NetAddr) -> Option<Task>;
    /// Whether packets of a network travel between nodes only encrypted.
    fn is_ciphered(&self, net: u32) -> bool;
    /// VNI of the overlay network that the address lies in.
    fn subnet(&self, addr: &Addr) -> Option<u32>;
    /// Local task behind a veth.
    fn endpoint(&self, ifindex: u32) -> Option<&Endpoint>;
    /// Local task by backend id.
    fn local_task(&self, id: u32) -> Option<&Endpoint>;
    /// Lets `f` see and change a flow entry.
    fn flow<R>(&self, age: Age, key: &FlowKey, f: impl FnOnce(&mut Flow) -> R) -> Option<R>;
    /// Adds an entry to the table of new flows, never over another.
    fn begin_flow(&self, key: &FlowKey, flow: &Flow) -> Inserted;
    /// Moves an entry from the new to the established table.
    fn promote_flow(&self, key: &FlowKey) -> Inserted;
    /// Forgets an entry.
    fn end_flow(&self, age: Age, key: &FlowKey);
    /// Remembered choice.
    fn pick(&self, key: &FlowKey) -> Option<Pick>;
    /// Remembers a choice.
    fn set_pick(&self, key: &FlowKey, pick: &Pick);
    /// Ports of a fragmented datagram.
    fn frag(&self, key: &FragKey) -> Option<FragPorts>;
    /// Remembers them.
    fn set_frag(&self, key: &FragKey, ports: &FragPorts);
    /// Adds to a service's counts, if the agent counts it.
    fn count(&self, service: u32, f: impl FnOnce(&mut ServiceCount));
}
