//! What the walks are made of.

pub(crate) mod lab;
pub(crate) mod netns;
pub(crate) mod node;
pub(crate) mod report;
pub(crate) mod talk;
