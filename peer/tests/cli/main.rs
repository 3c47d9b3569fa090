//! The command line of `peer` as users and scripts meet it: what it refuses and how, what it prints, and how
//! it ends.
#![allow(clippy::unwrap_used, reason = "these are tests")]

#[path = "../support/mod.rs"]
mod support;

mod aliases;
mod netcheck;
mod options;
mod ping;
mod privacy;
mod refusals;
mod running;
mod status;
mod tickets;
mod unreachable;
