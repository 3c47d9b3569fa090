//! Every wire type and every decision of Culvert, without sockets, clocks, tasks or ambient randomness.

pub mod id;
pub mod key;
pub mod path;
