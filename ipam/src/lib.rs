//! Which address is free: pool, subnet, bitmap, quarantine.
