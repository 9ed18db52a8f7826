//! Holds a container's program back until its sandbox has its network.
fn main() {}
