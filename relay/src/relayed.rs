//! A link whose datagrams travel in a relay's frames, under quinn as if it were a socket.
//!
//! ```text
//!   quinn ── fd63:…:7 ──▶ Book ──▶ (PeerId, instance) ──▶ Data ──▶ Outlet ──▶ relay
//!   quinn ◀─ fd63:…:7 ──  Book ◀── (PeerId, instance) ◀── Data ◀── Inbox  ◀── relay
//! ```
//!
//! A relay knows peers by identity and instance; quinn, and everything about paths, by socket address. So each
//! remote has an address here, private and of this link alone. A peer has such a link to each of its relays,
//! and a server has one to the relay in its own process.

mod book;
mod inbox;
mod link;

pub use book::{Book, is_relayed};
pub use link::{Lane, Outlet, RelayedLink};
