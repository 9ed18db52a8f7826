//! What this node's network should be, and making it so.
