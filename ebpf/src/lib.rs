//! The kernel half of the data plane: which way a packet goes.
//!
//! The library is pure and compiled for the host too: [`packet::Packet`] and [`tables::Tables`] stand for
//! the socket buffer and the maps, and each hook is one function from those to a [`verdict::Verdict`].
//! The programs in `src/programs` only connect these with the kernel. Everything is inlined into them:
//! the verifier then sees one straight body per program.
#![no_std]

pub mod conntrack;
pub mod encap;
pub mod fragment;
pub mod host;
pub mod icmp;
pub mod least;
pub mod limit;
pub mod mesh;
pub mod neighbour;
pub mod overlay;
pub mod packet;
pub mod parse;
pub mod refuse;
pub mod service;
pub mod socket;
pub mod tables;
pub mod task;
pub mod tell;
pub mod translate;
pub mod uplink;
pub mod verdict;
pub mod work;
