//! One per node: session, worker, tasks, executor, network.
fn main() {}
