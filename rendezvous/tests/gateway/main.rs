//! The gateway with a localtunnel client that is as plain as can be: what visitors get through it, and what
//! they get when something fails.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod claims;
mod failures;
mod http2;
mod https;
mod limits;
mod passing;
mod sharer;
#[path = "../support/mod.rs"]
mod support;
mod tunnel;
mod unread;
mod websockets;
