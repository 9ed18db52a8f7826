//! The user half's leave to copy these types in and out of maps.
#![expect(
    unsafe_code,
    reason = "aya::Pod is an unsafe trait, and must be implemented beside the types"
)]

use crate::*;

macro_rules! pod {
    ($($t:ty),* $(,)?) => {
        // SAFETY: each is repr(C) or repr(transparent), of integers only, without hidden padding
        // (sizes asserted beside the types), and valid for any bit pattern.
        $(unsafe impl aya::Pod for $t {})*
    };
}

pod! {
    Addr, AllowKey, Be16, Backend, Cap, Config, Counter, Endpoint, Event, Flow, FlowKey, FragKey, FragPorts, Front, FrontKey,
    Load, NetAddr, Netns, Node, NodeAddr, Pick, RangeKey, ServiceCount, SockKey, SockOrigin, Spent, Sticky, StickyKey,
    SubnetKey, Task,
}

// SAFETY: repr(C), a word before a key of words; the keys' sizes are asserted where they are used.
unsafe impl<K: aya::Pod> aya::Pod for Prefixed<K> {}
