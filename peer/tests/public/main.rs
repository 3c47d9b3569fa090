//! Shares that the world can see: real programs at a real gateway, visited as browsers do.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod access;
mod http2;
mod names;
mod passing;
mod staying;
#[path = "../support/mod.rs"]
mod support;
mod trust;
mod web;
