//! Visitors through the real programs: what comes through, how it ends, what it costs, and what becomes of
//! it when a program dies.
#![allow(clippy::unwrap_used, reason = "these are tests")]

#[path = "../support/mod.rs"]
mod support;

mod pressure;
mod restarts;
mod streams;
