//! Culvert's packet plumbing: datagram links, TLS identity, the relay, and what every program shares.

pub mod access_log;
pub mod certificate;
pub mod client;
pub mod demux;
pub mod gateway;
pub mod http;
pub mod https;
pub mod listen;
pub mod metrics;
pub mod net;
pub mod outbound;
pub mod program;
pub mod quic;
pub mod relayed;
pub mod server;
pub mod standalone;
pub mod tls;
mod websocket;
