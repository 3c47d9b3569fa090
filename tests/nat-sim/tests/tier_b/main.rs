//! Tier B: the libraries that the programs link, with quinn, over simulated worlds on a paused clock.
//!
//! R is the round trip to the server, D the one between the homes. All times are virtual.
#![allow(clippy::unwrap_used, reason = "these are tests")]
#![allow(clippy::print_stdout, reason = "their figures are worth reading")]

mod deployments;
mod elsewhere;
mod faults;
mod gateway;
mod goodbyes;
mod lab;
mod life;
mod pairs;
mod relayed;
mod roaming;
mod service;
mod switching;
mod transfer;
