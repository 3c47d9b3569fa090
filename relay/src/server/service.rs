//! The server's own services, reached through its relay.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::hub::{Hub, Seat};
use crate::relayed::{Lane, Outlet, RelayedLink};

/// Peers that the services know at once: as many as a server has sessions.
const REMOTES: usize = 50_000;

/// What is taken from the router at once.
const TAKE: usize = 64 * 1024;

/// What the services send goes into the router like any peer's frames. What it has no room for is lost, as
/// packets are.
#[derive(Debug)]
struct Services(Arc<Seat>);

impl Outlet for Services {
    fn send(&self, _lane: Lane, frame: Vec<u8>) -> bool {
        self.0.frame(frame);
        true
    }

    fn poll_room(&self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

/// Seats the services: their link, and what carries frames to it until the relay closes.
pub(super) fn open(hub: &Arc<Hub>) -> Option<(Arc<RelayedLink>, impl Future<Output = ()> + use<>)> {
    let seat = Arc::new(hub.service().ok()?);
    let outlet = Arc::new(Services(Arc::clone(&seat)));
    let link = Arc::new(RelayedLink::new(outlet, REMOTES, true));
    let to = Arc::clone(&link);
    let carry = async move {
        let frames = async {
            loop {
                for frame in seat.next(TAKE).await {
                    to.deliver(&frame.into());
                }
            }
        };
        tokio::select! {
            biased;
            _closed = seat.closed() => {}
            () = frames => {}
        }
    };
    Some((link, carry))
}
