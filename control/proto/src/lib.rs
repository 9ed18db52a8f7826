//! The wire between processes of weft.
