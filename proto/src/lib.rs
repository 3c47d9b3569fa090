//! Every wire type and every decision of Culvert, without sockets, clocks, tasks or ambient randomness.
//!
//! A machine takes an input and `now`, and is then drained: `poll_transmit` and `poll_event` until both
//! answer `None`, then `poll_timeout` says when `handle_timeout` wants to be called. A driver drains one
//! input's output before it hands in the next.

pub mod admission;
pub mod candidate;
pub mod dial;
pub mod doorman;
pub mod id;
pub mod interface;
pub mod key;
pub mod limit;
pub mod machine;
pub mod matchmaker;
pub mod name;
pub mod nat;
pub mod nat64;
pub mod no_udp;
pub mod path;
pub mod proof;
pub mod public_udp;
pub mod punch;
pub mod reach;
pub mod relay;
pub mod seen;
pub mod server_addrs;
pub mod server_health;
pub mod session;
pub mod sighting;
pub mod stun;
pub mod ticket;
pub mod tunnel;
pub mod wire;

#[cfg(test)]
#[path = "../tests/support/clock.rs"]
mod clock;
