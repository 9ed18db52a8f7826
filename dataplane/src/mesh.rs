//! Rings: which backend a slot of a service names. The same on every node from the same state.
