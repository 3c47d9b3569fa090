//! What a connection lives through: silence, and routers that forget.

use std::time::Duration;

use nat_sim::kind::Kind;
use nat_sim::link::Quality;
use nat_sim::nat::{Allocation, Expiry, Policy, Refresh};
use nat_sim::world::{Plan, World};
use tokio::time::{Instant, sleep};

use crate::lab::{D, GRAIN, Lab, MS, R, SEC, run};
use crate::service::Visitor;

/// Two port-restricted homes whose routers are changed like this.
fn homes(change: impl Fn(&mut Policy)) -> Plan {
    let plan = World::plan(1).home("a", Kind::PORT_RESTRICTED).whose_routers(&change);
    let plan = plan.home("b", Kind::PORT_RESTRICTED).whose_routers(&change);
    plan.server("s").server_rtt(R).direct_rtt(D)
}

#[test]
fn ten_idle_minutes_behind_bindings_of_30_s_change_nothing() {
    let plan = homes(|policy| policy.expiry = Expiry::after(30 * SEC, Refresh::Outbound));
    run(&plan, 1, async |lab| {
        let _server = lab.server();
        let (a, b) = lab.both().await;
        let connection = a.connect(&lab.ticket()).await.unwrap();
        let mut visitor = Visitor::echo(&connection).await;
        visitor.round_trip().await;
        sleep(60 * SEC).await;
        let (paths, before) = ([a.paths().len(), b.paths().len()], lab.traffic("a").sent);
        sleep(600 * SEC).await;
        let sent = lab.traffic("a").sent - before;
        let took = visitor.round_trip().await;
        println!("{sent} datagrams in ten minutes; the first round trip takes {took:?}");
        assert!(took <= D + 4 * GRAIN, "{took:?}");
        assert_eq!([a.paths().len(), b.paths().len()], paths, "nothing is punched again");
        // A check and a ping every 15 s, each answered or acknowledged.
        assert!(sent <= 250, "{sent} datagrams");
    });
}

/// What a host sends in ten minutes in which its connection is idle, once it has had five to learn. Nothing is
/// punched again in all that time.
fn idle_traffic(kept: Duration) -> u64 {
    let plan = homes(|policy| policy.expiry = Expiry::after(kept, Refresh::Outbound));
    run(&plan, 1, async |lab| {
        let _server = lab.server();
        let (a, b) = lab.both().await;
        let connection = a.connect(&lab.ticket()).await.unwrap();
        let mut visitor = Visitor::echo(&connection).await;
        visitor.round_trip().await;
        sleep(300 * SEC).await;
        let before = lab.traffic("a").sent;
        sleep(600 * SEC).await;
        let sent = lab.traffic("a").sent - before;
        assert!(visitor.round_trip().await <= D + 4 * GRAIN);
        assert_eq!([a.paths().len(), b.paths().len()], [1, 1], "nothing is punched again");
        sent
    })
}

#[test]
fn an_idle_connection_learns_what_its_nat_keeps_and_sends_no_more_than_that_needs() {
    let [short, long] = [30 * SEC, 90 * SEC].map(idle_traffic);
    println!("{short} datagrams in ten minutes behind bindings of 30 s, {long} behind bindings of 90 s");
    // Checks of either side and their answers: every 16 s at the rarest, and every 52 s.
    let difference = 2 * (600 / 16 - 600 / 47);
    assert!(long + difference <= short, "{short} and {long} datagrams");
}

/// The longest wait for an echo while one is asked for every 100 ms.
async fn longest_stall(visitor: &mut Visitor, during: Duration) -> Duration {
    let until = Instant::now() + during;
    let mut longest = Duration::ZERO;
    while Instant::now() < until {
        longest = longest.max(visitor.round_trip().await);
        sleep(100 * MS).await;
    }
    longest
}

/// Breaks something under a stream in use, so long after it was quiet, and returns the longest stall.
pub(crate) fn stall_after(plan: &Plan, calm: Duration, fault: impl Fn(&Lab)) -> Duration {
    run(plan, 1, async |lab| {
        let _server = lab.server();
        let (a, b) = lab.both().await;
        let connection = a.connect(&lab.ticket()).await.unwrap();
        let mut visitor = Visitor::echo(&connection).await;
        let before = longest_stall(&mut visitor, calm).await;
        assert!(before <= D + 10 * GRAIN, "{before:?}");
        let at = lab.world.elapsed();
        fault(&lab);
        let stall = longest_stall(&mut visitor, 20 * SEC).await;
        for (name, peer) in [("a", &a), ("b", &b)] {
            for (when, path) in peer.paths().iter().filter(|(when, _)| *when > at) {
                println!("{name} {:?} {} {}", *when - at, path.remote, path.reason);
            }
        }
        stall
    })
}

/// A lull of 0.3 s is noticed within 0.55 s, the check in it is suspect 0.3 s later, and the server says where
/// we are now; an offer or a trickle, and a new path, are a few round trips more.
const FORGOTTEN: Duration = Duration::from_secs(2);

/// At different times since the last sign of life.
pub(crate) fn calms() -> impl Iterator<Item = Duration> {
    (0..3).map(|n| 2 * SEC + n * 4 * SEC)
}

#[test]
fn a_stream_in_use_outlives_the_reboot_of_a_router() {
    let plan = homes(|policy| policy.allocation = Allocation::Random);
    for (home, calm) in ["a", "b"].into_iter().flat_map(|home| calms().map(move |calm| (home, calm))) {
        let stall = stall_after(&plan, calm, |lab| lab.world.with_world(|world| world.reboot_routers(home)));
        println!("reboot of {home}'s router after {calm:?}: {stall:?}");
        assert!(stall <= FORGOTTEN, "{home}: {stall:?}");
    }
}

#[test]
fn a_stream_in_use_outlives_a_new_public_address() {
    let address = "203.0.113.99".parse().unwrap();
    for (home, calm) in ["a", "b"].into_iter().flat_map(|home| calms().map(move |calm| (home, calm))) {
        let change = |lab: &Lab| lab.world.with_world(|world| world.change_public_address(home, address));
        let stall = stall_after(&homes(|_| ()), calm, change);
        println!("a new address for {home} after {calm:?}: {stall:?}");
        assert!(stall <= FORGOTTEN, "{home}: {stall:?}");
    }
}

#[test]
fn a_transfer_under_way_outlives_a_new_public_address() {
    for home in ["a", "b"] {
        let took = run(&homes(|_| ()), 1, async |lab| {
            let _server = lab.server();
            let (a, _b) = lab.both().await;
            let connection = a.connect(&lab.ticket()).await.unwrap();
            // A megabyte a second, so that the change comes in the middle.
            let slow = Quality { rate: Some(1_000_000), ..Quality::default() };
            lab.world.with_world(|world| world.set_quality("a", slow, slow));
            let address = "203.0.113.99".parse().unwrap();
            let change = async {
                sleep(2 * SEC).await;
                lab.world.with_world(|world| world.change_public_address(home, address));
            };
            tokio::join!(Visitor::fetch(&connection, 4_000_000), change).0
        });
        println!("4 MB at 1 MB/s, a new address for {home} on the way: {took:?}");
        // By the time of the new path QUIC's own timer has doubled to as much again, and then it starts slowly.
        assert!(took <= 4 * SEC + 2 * FORGOTTEN, "{home}: {took:?}");
    }
}
