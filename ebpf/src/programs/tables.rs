//! [`Tables`] over the maps.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::maps::lpm_trie::Key;
use weft_abi::{
    Addr, AllowKey, Backend, Cap, Config, Endpoint, Flow, FlowKey, FragKey, FragPorts, Front,
    FrontKey, Load, NetAddr, Node, NodeAddr, Pick, Prefixed, RangeKey, ServiceCount, Spent, Sticky,
    StickyKey, Task, config, ring_slot,
};
use weft_ebpf::tables::{Age, Inserted, Tables};

use crate::maps::*;

/// The maps. A dry run reads them all and writes none.
pub struct Maps {
    /// Whether this is a dry run.
    pub dry: bool,
}

const FILE_EXISTS: i32 = -17;

/// A value behind a pointer that a lookup gave.
///
/// # Safety
/// `pointer` must come from a map lookup of this program's run: such memory stays readable to its end
/// (RCU). Another CPU may write it meanwhile; every value is valid for any bits.
#[inline(always)]
unsafe fn behind<'a, V>(pointer: Option<*const V>) -> Option<&'a V> {
    match pointer {
        // SAFETY: as the function asks.
        Some(pointer) => Some(unsafe { &*pointer }),
        None => None,
    }
}

/// A key as the library's map type wants it, where it lies: the stack has no room for another.
#[inline(always)]
fn as_key<K>(key: &Prefixed<K>) -> &Key<K> {
    // SAFETY: both are a word and the key after it, and the target type asks for no alignment.
    unsafe { &*core::ptr::from_ref(key).cast() }
}

macro_rules! look {
    ($map:ident, $key:expr) => {
        // SAFETY: the pointer comes from this lookup.
        unsafe { behind($map.get_ptr($key)) }
    };
}

impl Tables for Maps {
    #[inline(always)]
    fn is_dry(&self) -> bool {
        self.dry
    }

    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        let config = CONFIG.get(0)?;
        if config.node == 0 { None } else { Some(config) }
    }

    #[inline(always)]
    fn front(&self, key: &FrontKey) -> Option<Front> {
        look!(FRONT, key).copied()
    }

    #[inline(always)]
    fn front_range(&self, key: &Prefixed<RangeKey>) -> Option<Front> {
        FRONT_RANGES.get(as_key(key)).copied()
    }

    #[inline(always)]
    fn is_allowed(&self, key: &Prefixed<AllowKey>) -> bool {
        ALLOWED.get(as_key(key)).is_some()
    }

    #[inline(always)]
    fn cap(&self, service: u32) -> Option<Cap> {
        look!(CAPS, &service).copied()
    }

    #[inline(always)]
    fn spent<R>(&self, service: u32, f: impl FnOnce(&mut Spent) -> R) -> Option<R> {
        let pointer = match SPENT.get_ptr_mut(&service) {
            Some(pointer) => pointer,
            None if self.dry => return None,
            None => {
                let _ = SPENT.insert(&service, &Spent::default(), BPF_NOEXIST as u64);
                SPENT.get_ptr_mut(&service)?
            }
        };
        // SAFETY: from a lookup of this run; racing writers may let a packet more pass, never break the value.
        Some(f(unsafe { &mut *pointer }))
    }

    #[inline(always)]
    fn told<R>(&self, f: impl FnOnce(&mut u64) -> R) -> Option<R> {
        let pointer = TOLD.get_ptr_mut(0)?;
        // SAFETY: this CPU's own element.
        Some(f(unsafe { &mut *pointer }))
    }

    #[inline(always)]
    fn sticky(&self, key: &StickyKey) -> Option<Sticky> {
        look!(STICKY, key).copied()
    }

    #[inline(always)]
    fn set_sticky(&self, key: &StickyKey, sticky: &Sticky) {
        if !self.dry {
            let _ = STICKY.insert(key, sticky, 0);
        }
    }

    #[inline(always)]
    fn load(&self, backend: u32) -> Option<Load> {
        look!(LOADS, &backend).copied()
    }

    #[inline(always)]
    fn set_load(&self, backend: u32, load: &Load) {
        if !self.dry {
            let _ = LOADS.insert(&backend, load, 0);
        }
    }

    #[inline(always)]
    fn ring(&self, service: u32, hash: u32) -> Option<u32> {
        // SAFETY: arrays in a hash of maps stay alive to the end of this run (RCU).
        let ring = unsafe { RINGS.get(&service) }?;
        let size = *ring.get(0)?;
        if size == 0 {
            return None;
        }
        ring.get(1 + ring_slot(hash, size)).copied()
    }

    #[inline(always)]
    fn ring_before(&self, service: u32, hash: u32) -> Option<u32> {
        // SAFETY: as in `ring`.
        let ring = unsafe { RINGS_BEFORE.get(&service) }?;
        let size = *ring.get(0)?;
        if size == 0 {
            return None;
        }
        ring.get(1 + ring_slot(hash, size)).copied()
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<&Backend> {
        look!(BACKENDS, &id)
    }

    #[inline(always)]
    fn node(&self, id: u32) -> Option<&Node> {
        look!(NODES, &id)
    }

    #[inline(always)]
    fn node_by_addr(&self, addr: &Addr) -> Option<NodeAddr> {
        look!(NODE_BY_ADDR, addr).copied()
    }

    #[inline(always)]
    fn is_local(&self, addr: &Addr) -> bool {
        LOCAL_ADDRS.get_ptr(addr).is_some()
    }

    #[inline(always)]
    fn owner(&self, addr: &Addr) -> Option<u32> {
        look!(OWNER, addr).copied()
    }

    #[inline(always)]
    fn task(&self, key: &NetAddr) -> Option<Task> {
        look!(TASKS, key).copied()
    }

    #[inline(always)]
    fn is_ciphered(&self, net: u32) -> bool {
        match self.config() {
            Some(config) if config.flags & config::CIPHERED != 0 => {
                CIPHERED.get_ptr(&net).is_some()
            }
            _ => false,
        }
    }

    #[inline(always)]
    fn subnet(&self, addr: &Addr) -> Option<u32> {
        SUBNETS.get(Key::new(128, *addr)).copied()
    }

    #[inline(always)]
    fn endpoint(&self, ifindex: u32) -> Option<&Endpoint> {
        look!(ENDPOINTS, &ifindex)
    }

    #[inline(always)]
    fn local_task(&self, id: u32) -> Option<&Endpoint> {
        look!(LOCAL_TASKS, &id)
    }

    #[inline(always)]
    fn flow<R>(&self, age: Age, key: &FlowKey, f: impl FnOnce(&mut Flow) -> R) -> Option<R> {
        let pointer = match age {
            Age::New => FLOW_NEW.get_ptr_mut(key),
            Age::Established => FLOW.get_ptr_mut(key),
        }?;
        // SAFETY: from a lookup of this run; racing writers may lose counts, never break the value.
        Some(f(unsafe { &mut *pointer }))
    }

    #[inline(always)]
    fn begin_flow(&self, key: &FlowKey, flow: &Flow) -> Inserted {
        if self.dry {
            return match FLOW_NEW.get_ptr(key) {
                Some(_) => Inserted::Exists,
                None => Inserted::Yes,
            };
        }
        result(FLOW_NEW.insert(key, flow, BPF_NOEXIST as u64))
    }

    #[inline(always)]
    fn promote_flow(&self, key: &FlowKey) -> Inserted {
        if self.dry {
            return Inserted::Yes;
        }
        let Some(flow) = look!(FLOW_NEW, key) else {
            return Inserted::Exists;
        };
        let inserted = result(FLOW.insert(key, flow, BPF_NOEXIST as u64));
        if !matches!(inserted, Inserted::Full) {
            let _ = FLOW_NEW.remove(key);
        }
        inserted
    }

    #[inline(always)]
    fn end_flow(&self, age: Age, key: &FlowKey) {
        if self.dry {
            return;
        }
        let _ = match age {
            Age::New => FLOW_NEW.remove(key),
            Age::Established => FLOW.remove(key),
        };
    }

    #[inline(always)]
    fn pick(&self, key: &FlowKey) -> Option<Pick> {
        look!(PICK, key).copied()
    }

    #[inline(always)]
    fn set_pick(&self, key: &FlowKey, pick: &Pick) {
        if !self.dry {
            let _ = PICK.insert(key, pick, 0);
        }
    }

    #[inline(always)]
    fn frag(&self, key: &FragKey) -> Option<FragPorts> {
        look!(FRAG, key).copied()
    }

    #[inline(always)]
    fn set_frag(&self, key: &FragKey, ports: &FragPorts) {
        if !self.dry {
            let _ = FRAG.insert(key, ports, 0);
        }
    }

    #[inline(always)]
    fn count(&self, service: u32, f: impl FnOnce(&mut ServiceCount)) {
        if self.dry {
            return;
        }
        if let Some(pointer) = SERVICES.get_ptr_mut(&service) {
            // SAFETY: from a lookup of this run, and of this CPU alone.
            f(unsafe { &mut *pointer });
        }
    }
}

#[inline(always)]
fn result(inserted: Result<(), i32>) -> Inserted {
    match inserted {
        Ok(()) => Inserted::Yes,
        Err(FILE_EXISTS) => Inserted::Exists,
        Err(_) => Inserted::Full,
    }
}
