//! Tests of the agent's library, one file per subject.

mod fixture;
mod guest;
mod machine;
mod node;
mod session;
