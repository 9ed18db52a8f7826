//! Words of the cluster: ids, specs, objects, states, ports, addresses.
