//! Every map. What they mean is written in `weft_abi::maps`.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{Array as BtfArray, HashOfMaps};
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf};
use weft_abi::{
    Addr, AllowKey, Backend, Cap, Config, Counter, Endpoint, Flow, FlowKey, FragKey, FragPorts,
    Front, FrontKey, Load, NetAddr, Netns, Node, NodeAddr, Pick, RangeKey, ServiceCount, SockKey,
    SockOrigin, Spent, Sticky, StickyKey, Task, maps,
};
use weft_ebpf::work::Work;

/// `BPF_F_INNER_MAP`: arrays of several sizes may be values of one map.
const INNER_MAP: usize = 0x1000;
const RINGS_MAX: usize = maps::RINGS.entries as usize;
const RINGS_BEFORE_MAX: usize = maps::RINGS_BEFORE.entries as usize;

/// Slot 0 is the size, the slots follow.
pub type Ring = BtfArray<u32, 1, INNER_MAP>;

#[map(name = "config")]
pub static CONFIG: Array<Config> = Array::with_max_entries(maps::CONFIG.entries, 0);
#[map(name = "front")]
pub static FRONT: HashMap<FrontKey, Front> =
    HashMap::with_max_entries(maps::FRONT.entries, BPF_F_NO_PREALLOC);
#[map(name = "front_ranges")]
pub static FRONT_RANGES: LpmTrie<RangeKey, Front> =
    LpmTrie::with_max_entries(maps::FRONT_RANGES.entries, BPF_F_NO_PREALLOC);
#[map(name = "allowed")]
pub static ALLOWED: LpmTrie<AllowKey, u32> =
    LpmTrie::with_max_entries(maps::ALLOWED.entries, BPF_F_NO_PREALLOC);
#[map(name = "caps")]
pub static CAPS: HashMap<u32, Cap> =
    HashMap::with_max_entries(maps::CAPS.entries, BPF_F_NO_PREALLOC);
#[map(name = "spent")]
pub static SPENT: LruHashMap<u32, Spent> = LruHashMap::with_max_entries(maps::SPENT.entries, 0);
#[map(name = "sticky")]
pub static STICKY: LruHashMap<StickyKey, Sticky> =
    LruHashMap::with_max_entries(maps::STICKY.entries, 0);
#[map(name = "loads")]
pub static LOADS: LruHashMap<u32, Load> = LruHashMap::with_max_entries(maps::LOADS.entries, 0);
#[map(name = "told")]
pub static TOLD: PerCpuArray<u64> = PerCpuArray::with_max_entries(maps::TOLD.entries, 0);
#[btf_map(name = "rings")]
pub static RINGS: HashOfMaps<u32, Ring, RINGS_MAX, 1> = HashOfMaps::new();
#[btf_map(name = "rings_before")]
pub static RINGS_BEFORE: HashOfMaps<u32, Ring, RINGS_BEFORE_MAX, 1> = HashOfMaps::new();
#[map(name = "backends")]
pub static BACKENDS: HashMap<u32, Backend> =
    HashMap::with_max_entries(maps::BACKENDS.entries, BPF_F_NO_PREALLOC);
#[map(name = "nodes")]
pub static NODES: HashMap<u32, Node> =
    HashMap::with_max_entries(maps::NODES.entries, BPF_F_NO_PREALLOC);
#[map(name = "node_by_addr")]
pub static NODE_BY_ADDR: HashMap<Addr, NodeAddr> =
    HashMap::with_max_entries(maps::NODE_BY_ADDR.entries, BPF_F_NO_PREALLOC);
#[map(name = "local_addrs")]
pub static LOCAL_ADDRS: HashMap<Addr, u32> =
    HashMap::with_max_entries(maps::LOCAL_ADDRS.entries, BPF_F_NO_PREALLOC);
#[map(name = "owner")]
pub static OWNER: HashMap<Addr, u32> =
    HashMap::with_max_entries(maps::OWNER.entries, BPF_F_NO_PREALLOC);
#[map(name = "tasks")]
pub static TASKS: HashMap<NetAddr, Task> =
    HashMap::with_max_entries(maps::TASKS.entries, BPF_F_NO_PREALLOC);
#[map(name = "subnets")]
pub static SUBNETS: LpmTrie<Addr, u32> =
    LpmTrie::with_max_entries(maps::SUBNETS.entries, BPF_F_NO_PREALLOC);
#[map(name = "ciphered")]
pub static CIPHERED: HashMap<u32, u32> =
    HashMap::with_max_entries(maps::CIPHERED.entries, BPF_F_NO_PREALLOC);
#[map(name = "endpoints")]
pub static ENDPOINTS: HashMap<u32, Endpoint> =
    HashMap::with_max_entries(maps::ENDPOINTS.entries, BPF_F_NO_PREALLOC);
#[map(name = "local_tasks")]
pub static LOCAL_TASKS: HashMap<u32, Endpoint> =
    HashMap::with_max_entries(maps::LOCAL_TASKS.entries, BPF_F_NO_PREALLOC);
#[map(name = "netns")]
pub static NETNS: HashMap<u64, Netns> =
    HashMap::with_max_entries(maps::NETNS.entries, BPF_F_NO_PREALLOC);
#[map(name = "services")]
pub static SERVICES: PerCpuHashMap<u32, ServiceCount> =
    PerCpuHashMap::with_max_entries(maps::SERVICES.entries, BPF_F_NO_PREALLOC);
#[map(name = "flow_new")]
pub static FLOW_NEW: LruHashMap<FlowKey, Flow> =
    LruHashMap::with_max_entries(maps::FLOW_NEW.entries, 0);
#[map(name = "flow")]
pub static FLOW: HashMap<FlowKey, Flow> =
    HashMap::with_max_entries(maps::FLOW.entries, BPF_F_NO_PREALLOC);
#[map(name = "pick")]
pub static PICK: LruHashMap<FlowKey, Pick> = LruHashMap::with_max_entries(maps::PICK.entries, 0);
#[map(name = "frag")]
pub static FRAG: LruHashMap<FragKey, FragPorts> =
    LruHashMap::with_max_entries(maps::FRAG.entries, 0);
#[map(name = "sk_rev")]
pub static SK_REV: LruHashMap<SockKey, SockOrigin> =
    LruHashMap::with_max_entries(maps::SK_REV.entries, 0);
#[map(name = "counters")]
pub static COUNTERS: PerCpuArray<Counter> =
    PerCpuArray::with_max_entries(maps::COUNTERS.entries, 0);
#[map(name = "sampled")]
pub static SAMPLED: Array<u64> = Array::with_max_entries(maps::SAMPLED.entries, 0);
#[map(name = "events")]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(maps::EVENTS.entries, 0);
/// Paper for one judgement, one sheet per CPU. Not pinned: holds nothing between packets.
#[map(name = "work")]
pub static WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);
