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
    Addr, Be16, Backend, Config, Counter, Endpoint, Event, Flow, FlowKey, FragKey, FragPorts, Front, FrontKey,
    NetAddr, Netns, Node, NodeAddr, Pick, ServiceCount, SockKey, SockOrigin, SubnetKey, Task,
}
