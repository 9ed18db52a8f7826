//! The front door: Docker Engine API, passed through or answered.
