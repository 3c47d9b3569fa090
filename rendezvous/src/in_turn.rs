//! When quinn's tasks have their turn.

use std::fmt::Debug;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};

/// tokio as quinn's runtime, but for the turn of a busy connection's task: that comes after those of all tasks that
/// are ready when it is woken.
///
/// A task that writes to a stream wakes its connection's, and tokio runs what a task wakes right behind that
/// task. So of many streams that have something to say each would have a packet, and a system call, for itself.
#[derive(Debug)]
pub(crate) struct InTurn;

impl Runtime for InTurn {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        TokioRuntime.spawn(Box::pin(last_in_line(future, FEW)));
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

/// A task that has more turns than this within a millisecond has much to do. One that has less should not wait:
/// stepping aside wakes another worker, which finds nothing to do.
const FEW: u32 = 8;

/// A task that goes to the end of the line when it is woken after many turns.
async fn last_in_line(mut future: Pin<Box<dyn Future<Output = ()> + Send>>, few: u32) {
    let (mut since, mut turns) = (Instant::now(), 0);
    loop {
        if since.elapsed() >= Duration::from_millis(1) {
            (since, turns) = (Instant::now(), 0);
        }
        if turns >= few {
            tokio::task::yield_now().await;
        }
        if poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await {
            return;
        }
        turns += 1;
        let mut woken = false;
        poll_fn(|_| if std::mem::replace(&mut woken, true) { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_ready_tasks_say_is_there_when_the_turn_comes() {
        let (said, mut hears) = mpsc::unbounded_channel();
        let (told, mut together) = mpsc::unbounded_channel();
        let hearing = async move {
            while hears.recv().await.is_some() {
                let more = std::iter::from_fn(|| hears.try_recv().ok()).count();
                told.send(1 + more).unwrap();
            }
        };
        tokio::spawn(last_in_line(Box::pin(hearing), 0));
        // It is idle, and not about to have its first turn.
        said.send(()).unwrap();
        assert_eq!(together.recv().await, Some(1));
        // Within the one worker, so that all are ready before the first has its turn.
        tokio::spawn(async move {
            for _ in 0..8 {
                let said = said.clone();
                tokio::spawn(async move { said.send(()).unwrap() });
            }
        });
        assert_eq!(together.recv().await, Some(8));
    }
}
