//! Two streams as one, once both sides have agreed to go on in a protocol of their own.

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::time::Duration;

use super::inbox::{Inbox, write_all};
use crate::net::Outgoing;

/// One side: what comes from it, and the way to it.
pub(crate) struct Side<'a> {
    pub(crate) inbox: &'a mut Inbox,
    pub(crate) write: &'a mut Box<dyn Outgoing>,
}

/// A piece that says the stream is not busy, so that its memory can go.
const SMALL_PIECE: usize = 1024;

/// Carries bytes both ways until both sides have ended, each direction by itself. No time is too long: only who
/// does not read for `blocked` is cut. Gives the bytes to `b` and to `a`, and whether both ended as they should.
pub(crate) async fn splice(a: Side<'_>, b: Side<'_>, blocked: Duration) -> (u64, u64, bool) {
    let (mut there, mut back) = (0, 0);
    let one = copy(a.inbox, b.write, blocked, &mut there);
    let other = copy(b.inbox, a.write, blocked, &mut back);
    let ended = tokio::try_join!(one, other).is_ok();
    (there, back, ended)
}

/// One direction, until it has ended and that was said.
pub(super) async fn copy(
    from: &mut Inbox,
    to: &mut (dyn AsyncWrite + Send + Unpin),
    blocked: Duration,
    count: &mut u64,
) -> std::io::Result<()> {
    loop {
        let data = from.data();
        if !data.is_empty() {
            let length = data.len();
            write_all(to, data, blocked).await?;
            *count += length as u64;
            from.consume(length);
            if length <= SMALL_PIECE {
                from.rest();
            }
        }
        if from.fill().await? == 0 {
            return to.shutdown().await;
        }
    }
}
