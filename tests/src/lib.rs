//! Stories on the testbed.
