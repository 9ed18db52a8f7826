//! The layout both halves of the data plane agree on.
