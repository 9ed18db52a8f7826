//! Every story, one file per subject.

mod bed;
mod change;
mod crowd;
mod door;
mod golden;
mod guest;
mod manager;
mod mesh;
mod names;
mod refuse;
mod registry;
mod service;
mod swarm;
mod task;
mod update;
