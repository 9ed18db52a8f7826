//! The manager: store, loops, consensus, certificates, sessions.
