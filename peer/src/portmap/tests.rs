//! How a mapping is kept, in virtual time.

use std::sync::Mutex;

use tokio::task::yield_now;
use tokio::time::{Instant, advance};

use super::*;

/// A router that gives ports 5000, 5001, … and notes when it was asked for what.
#[derive(Debug)]
struct Fake {
    start: Instant,
    lifetime: Duration,
    /// How often each lease is renewed before the router refuses.
    renewals: u32,
    asked: Arc<Mutex<Vec<(Duration, &'static str)>>>,
    given: Mutex<u16>,
}

struct FakeLease {
    port: u16,
    lifetime: Duration,
    left: u32,
    start: Instant,
    asked: Arc<Mutex<Vec<(Duration, &'static str)>>>,
}

impl Fake {
    fn new(lifetime: Duration, renewals: u32) -> Self {
        let (start, asked, given) = (Instant::now(), Arc::default(), Mutex::new(5000));
        Self { start, lifetime, renewals, asked, given }
    }

    fn asked(&self) -> Vec<(u64, &'static str)> {
        self.asked.lock().unwrap().iter().map(|(at, what)| (at.as_secs(), *what)).collect()
    }
}

impl Router for Fake {
    type Lease = FakeLease;

    async fn find(&self) -> Option<FakeLease> {
        self.asked.lock().unwrap().push((self.start.elapsed(), "find"));
        let mut given = self.given.lock().unwrap();
        *given += 1;
        let (start, asked) = (self.start, Arc::clone(&self.asked));
        Some(FakeLease { port: *given - 1, lifetime: self.lifetime, left: self.renewals, start, asked })
    }
}

impl Lease for FakeLease {
    fn external(&self) -> SocketAddr {
        ([203, 0, 113, 1], self.port).into()
    }

    fn lifetime(&self) -> Duration {
        self.lifetime
    }

    async fn renew(&mut self) -> bool {
        self.asked.lock().unwrap().push((self.start.elapsed(), "renew"));
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

/// Keeps a port of this router's for so long. Gives the port at the end.
async fn kept_for(fake: &Fake, span: Duration, changes: &Notify) -> Option<u16> {
    let (sender, external) = watch::channel(None);
    let mut standing = None;
    let _over = timeout(span, keep(fake, changes, &sender, &mut standing)).await;
    external.borrow().map(|addr| addr.port())
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_at_half_of_its_life_each_time() {
    let fake = Fake::new(Duration::from_secs(1200), 100);
    assert_eq!(kept_for(&fake, Duration::from_secs(2000), &Notify::new()).await, Some(5000));
    assert_eq!(fake.asked(), [(0, "find"), (600, "renew"), (1200, "renew"), (1800, "renew")]);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_would_have_us_ask_without_end_is_renewed_once_a_minute() {
    let fake = Fake::new(Duration::ZERO, 100);
    kept_for(&fake, Duration::from_secs(130), &Notify::new()).await;
    assert_eq!(fake.asked(), [(0, "find"), (60, "renew"), (120, "renew")]);
}

#[tokio::test(start_paused = true)]
async fn a_router_that_renews_no_more_is_looked_for_anew_at_once() {
    let fake = Fake::new(Duration::from_secs(1200), 1);
    assert_eq!(kept_for(&fake, Duration::from_secs(1300), &Notify::new()).await, Some(5001));
    assert_eq!(fake.asked(), [(0, "find"), (600, "renew"), (1200, "renew"), (1200, "find")]);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_network_renews_at_once() {
    let fake = Fake::new(Duration::from_secs(1200), 100);
    let changes = Notify::new();
    let (_, port) = tokio::join!(
        async {
            while fake.asked().is_empty() {
                yield_now().await;
            }
            advance(Duration::from_secs(100)).await;
            changes.notify_one();
        },
        kept_for(&fake, Duration::from_secs(300), &changes)
    );
    assert_eq!((port, fake.asked()), (Some(5000), vec![(0, "find"), (100, "renew")]));
}
