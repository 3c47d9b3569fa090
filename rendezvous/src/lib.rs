//! Culvert's public server: sessions, matchmaking and STUN on one UDP port, and what it says of itself over
//! HTTP.
//!
//! [`Server`] is all of it. The `rendezvous` program runs one with the options of its command line, and a
//! `peer` that shares without any server runs one of its own.

mod accept;
mod addresses;
mod admin;
mod bound;
mod checks;
pub mod cli;
pub mod config;
mod front;
mod in_turn;
pub mod program;
mod relays;
mod server;
mod sessions;
mod setup;
mod socket;
pub mod stats;
pub mod well_known;

pub use config::{Alternate, Bind, Limits, Relaying, ServerConfig};
pub use relay::listen::StartError;
pub use relay::program::identity;
pub use server::Server;
pub use stats::{ByWay, Stats};
pub use well_known::{WellKnown, WellKnownRelay};
