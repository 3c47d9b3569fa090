//! The NAT laboratory: what the Internet does to a UDP packet, as pure machines under a virtual clock.
//!
//! From the inside out:
//! - [`nat`]: one translator, two functions, `egress` and `ingress`, in the words of RFC 4787.
//! - [`link`]: one direction of a wire: delay, jitter, loss, reordering, duplicates, rate, MTU.
//! - [`net`]: hosts, LANs, routers in series and the public core, moving packets from event to event.
//! - [`world`]: a sentence that builds a [`net::Net`], and the loop that drives a [`world::Node`] on each host.
//! - [`kind`]: the names of `CLI.md` (`port-restricted+leaky`, `cgnat(full-cone)`, …) and what they stand for.
//! - [`oracle`]: which remedy a pair of kinds needs. It is an expectation and never supplies a result.
//! - [`sim_net`]: the product's network seam over a world on tokio's clock: its real libraries, without a socket.
//! - [`wire`]: the same translators and links as a router between real interfaces, for real programs (Linux).
//! - [`node`]: the product's own machines at a world's hosts, mutations of them, and what is seen of them.
//! - [`matrix`]: pairs of kinds, run many times. [`random`]: any world, and the rules that hold in all of them.
//! - [`log`]: what happened, with virtual times, and a hash over it.
//!
//! Time is a parameter everywhere and all chance comes from one seed ([`dice`]), so a world is replayed exactly.
//! Nothing here reads a clock but [`world::Plan::build`], once, because an `Instant` can't be invented.

pub mod dice;
pub mod kind;
pub mod link;
pub mod log;
pub mod matrix;
pub mod nat;
pub mod net;
pub mod node;
pub mod oracle;
pub mod random;
pub mod sim_net;
#[cfg(target_os = "linux")]
pub mod wire;
pub mod world;
