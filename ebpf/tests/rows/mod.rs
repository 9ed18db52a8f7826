//! Rows: maps, packet in, verdict, packet out. One list for the library on the host and for the loaded programs.

pub(crate) mod frames;
pub(crate) mod list;
pub(crate) mod town;
pub(crate) mod world;

use weft_abi::Program;
use weft_ebpf::packet::Tunnel;
use weft_ebpf::verdict::Verdict;

use frames::Frame;
use world::World;

/// One packet of a row.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// What it is, for the report.
    pub(crate) name: String,
    /// Program that sees it.
    pub(crate) program: Program,
    /// Interface.
    pub(crate) link: u32,
    /// Addressed to this host.
    pub(crate) for_host: bool,
    /// Received, not made here.
    pub(crate) received: bool,
    /// Bytes of payload per packet, of a large segment.
    pub(crate) segment: u32,
    /// Outer header it came in.
    pub(crate) tunnel: Option<Tunnel>,
    /// The frame.
    pub(crate) bytes: Vec<u8>,
    /// What must become of it.
    pub(crate) verdict: Verdict,
    /// What it must be afterwards, when that matters.
    pub(crate) out: Option<Frame>,
    /// Exact bytes afterwards, for what [`Frame`] does not describe.
    pub(crate) exact: Option<Vec<u8>>,
}

/// A row: tables, and packets one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// What it shows.
    pub(crate) name: String,
    /// The tables at the start.
    pub(crate) world: World,
    /// The packets.
    pub(crate) steps: Vec<Step>,
}
