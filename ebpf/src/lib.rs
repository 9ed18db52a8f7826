//! The kernel half: packet logic for the host and for BPF.
