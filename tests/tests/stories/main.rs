//! Every story, one file per subject.

mod bed;
mod change;
mod cluster;
mod crowd;
mod door;
mod flags;
mod golden;
mod guest;
mod keys;
mod labels;
mod logs;
mod manager;
mod mesh;
mod names;
mod rebalance;
mod refuse;
mod registry;
mod secret;
mod service;
mod stack;
mod swarm;
mod task;
mod tell;
mod trouble;
mod update;
