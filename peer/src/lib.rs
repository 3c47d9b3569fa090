//! Culvert's client: share a local port, connect to one, directly and end-to-end encrypted.
//!
//! The programs are thin over [`Endpoint`]: bind one, [`Endpoint::share`] or [`Endpoint::connect`], and move
//! bytes with [`forward`].

mod alias;
pub mod cli;
pub mod congestion;
mod connect;
mod control;
mod embedded;
pub mod endpoint;
pub mod error;
pub mod forward;
mod frames;
pub mod locate;
mod netcheck;
mod path_report;
pub mod path_socket;
mod ping;
mod portmap;
mod probe;
mod public;
pub mod server_url;
mod share;
mod status;
pub mod store;
pub mod target;
mod ticket_source;
mod trust;
mod warning;

pub use endpoint::{Connection, Endpoint, EndpointConfig, PathPolicy, Visit};
pub use error::Error;
