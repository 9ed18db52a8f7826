//! What a name means to whom, and the resolver in every sandbox.
