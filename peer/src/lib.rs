//! Culvert's client: share a local port, connect to one, directly and end-to-end encrypted.

pub mod path_socket;
