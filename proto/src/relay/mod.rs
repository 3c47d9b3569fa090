//! **Router**: who is connected to a relay, who may send to whom, and whose packets leave next.
//!
//! ```text
//!   sender ── Data, Check ──▶ way open?  ── yes ──▶ outbox  ── take ──▶ receiver
//!                                │                    ├ control: checks and the relay's own words
//!                                │                    └ data: each sender's in its turn
//!                                └── no ──▶ hold: a little, for a moment ── Allow ──▶ outbox
//! ```
//!
//! A relay forwards to a peer what that peer let in, and nothing else. A way is open for a minute after the
//! receiver said so, or sent to that sender itself. What comes before is held, for an allow may be on its
//! way; a flood of it costs a bounded number of bytes here, and nobody else anything.
//!
//! Every queue is bounded in bytes. What doesn't fit is lost, as packets are, from whoever has most in the
//! queue. The relay dials nobody, and keeps nothing of who is gone.

mod hold;
pub mod login;
mod outbox;
mod quota;
mod router;
mod session;
mod stats;
mod ways;

pub use quota::RouterLimits;
pub use router::{Router, RouterAction};
pub use stats::{DropReason, RouterStats};

/// Names a connection among those of this relay, never reused.
pub type SessionKey = u64;
