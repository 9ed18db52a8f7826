//! The doors to the kernel: the only place with `unsafe`.

pub(crate) mod error;
