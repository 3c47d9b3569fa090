//! Culvert's packet plumbing: datagram links, TLS identity, and what every program shares.

pub mod demux;
pub mod gateway;
pub mod net;
pub mod program;
pub mod quic;
pub mod tls;
