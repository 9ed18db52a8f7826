//! Memory for one packet's judgement. The kernel's stack of 512 bytes does not hold it.

use weft_abi::{Flow, FlowKey, FragKey, Front};

use crate::conntrack::{Hit, Origin};
use crate::mesh::Ask;
use crate::parse::Headers;

/// Everything that one judgement writes down; what was in it before means nothing.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// The packet's headers.
    pub ip: Headers,
    /// Headers quoted in an ICMP error.
    pub quoted: Headers,
    /// The service it asks for.
    pub ask: Ask,
    /// The rest.
    pub notes: Notes,
    /// An answer to neighbour discovery.
    pub text: [u8; 72],
}

/// A number of which the verifier knows nothing once it is written: what hangs on it later is walked once, and not
/// once for every way that led to it.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Blurred(u32);

#[expect(
    unsafe_code,
    reason = "only a volatile access keeps the compiler from holding the number in a register"
)]
impl Blurred {
    /// Nothing yet.
    pub const NONE: Self = Self(0);

    /// Writes it.
    #[inline(always)]
    pub fn set(&mut self, number: u32) {
        // SAFETY: a place of its own.
        unsafe { core::ptr::write_volatile(&raw mut self.0, number) }
    }

    /// Reads it back from memory.
    #[inline(always)]
    pub fn get(&self) -> u32 {
        // SAFETY: a place of its own.
        unsafe { core::ptr::read_volatile(&raw const self.0) }
    }
}

/// What a search for a socket writes down.
#[derive(Clone, Copy, Debug)]
pub struct Paper {
    /// The ends, as the kernel wants them.
    pub words: [u32; 9],
    /// Whatever is known next.
    pub number: Blurred,
}

/// What flow tracking writes down.
#[derive(Clone, Copy, Debug)]
pub struct Notes {
    /// Key of the other side's entry.
    pub back: FlowKey,
    /// Key of a flow that another takes the place of.
    pub lost: FlowKey,
    /// What a reply entry says that another may have.
    pub taken: Blurred,
    /// Bits of [`tcp`](weft_abi::tcp) that its client's entry saw.
    pub asked: Blurred,
    /// An entry to insert.
    pub new: Flow,
    /// What a flow says.
    pub hit: Hit,
    /// Key of a fragmented datagram.
    pub frag: FragKey,
    /// What fits, of a packet that is too long.
    pub mtu: u32,
    /// Backend that a connection may have instead of the chosen one; 0 when there is none.
    pub or: Blurred,
    /// 1 when the chosen one is a guess, until an answer tells.
    pub guessed: Blurred,
    /// 1 when the less loaded of two is chosen.
    pub least: Blurred,
    /// A search for a socket.
    pub paper: Paper,
}

impl Work {
    /// Empty paper.
    pub const NONE: Self = Self {
        ip: Headers::NONE,
        quoted: Headers::NONE,
        ask: Ask {
            front: NO_FRONT,
            key: NO_KEY,
            origin: Origin {
                ingress: 0,
                link: 0,
                flags: 0,
            },
        },
        notes: Notes {
            back: NO_KEY,
            lost: NO_KEY,
            taken: Blurred::NONE,
            asked: Blurred::NONE,
            new: NO_FLOW,
            hit: Hit::NONE,
            frag: NO_FRAG,
            mtu: 0,
            or: Blurred::NONE,
            guessed: Blurred::NONE,
            least: Blurred::NONE,
            paper: Paper {
                words: [0; 9],
                number: Blurred::NONE,
            },
        },
        text: [0; 72],
    };
}

const NO_FRONT: Front = Front {
    service: 0,
    flags: 0,
    port: weft_abi::Be16::new(0),
    base: weft_abi::Be16::new(0),
    affinity: 0,
    generation: 0,
};
const NO_KEY: FlowKey = FlowKey {
    src: weft_abi::Addr::ANY,
    dst: weft_abi::Addr::ANY,
    net: 0,
    sport: weft_abi::Be16::new(0),
    dport: weft_abi::Be16::new(0),
    proto: 0,
    side: 0,
    pad: [0; 2],
};
const NO_FRAG: FragKey = FragKey {
    src: weft_abi::Addr::ANY,
    dst: weft_abi::Addr::ANY,
    id: 0,
    net: 0,
    proto: 0,
};
const NO_FLOW: Flow = Flow {
    client: weft_abi::Addr::ANY,
    service: weft_abi::Addr::ANY,
    seen: weft_abi::Addr::ANY,
    task: weft_abi::Addr::ANY,
    packets: 0,
    bytes: 0,
    last: 0,
    since: 0,
    net: 0,
    backend: 0,
    ingress: 0,
    link: 0,
    front: 0,
    cport: weft_abi::Be16::new(0),
    port: weft_abi::Be16::new(0),
    seen_port: weft_abi::Be16::new(0),
    task_port: weft_abi::Be16::new(0),
    flags: 0,
    tcp: 0,
    proto: 0,
};
