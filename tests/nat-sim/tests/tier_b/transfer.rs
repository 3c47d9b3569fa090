//! Bytes over the path, and runs that repeat.

use std::time::Duration;

use nat_sim::kind::Kind;
use nat_sim::link::{Loss, Quality};
use nat_sim::world::{Plan, World};
use tokio::time::sleep;

use crate::lab::{D, MS, R, SEC, run};
use crate::service::Visitor;

/// Two port-restricted homes whose wires are like this.
fn wired(seed: u64, quality: Quality) -> Plan {
    let plan = World::plan(seed).home("a", Kind::PORT_RESTRICTED).over(quality, quality);
    let plan = plan.home("b", Kind::PORT_RESTRICTED).over(quality, quality).server("s");
    plan.server_rtt(R).direct_rtt(D)
}

#[test]
fn twenty_megabytes_arrive_whole_at_the_wires_speed() {
    let quality = Quality { rate: Some(12_500_000), queue: 250_000, ..Quality::default() };
    let took = run(&wired(1, quality), 1, async |lab| {
        let _server = lab.server();
        let (a, _b) = lab.both().await;
        let connection = a.connect(&lab.ticket()).await.unwrap();
        Visitor::fetch(&connection, 20_000_000).await
    });
    println!("20 MB in {took:?}");
    // 1.6 s at the wire's rate; headers and slow start take the rest.
    assert!(took < 2500 * MS, "{took:?}");
}

#[test]
fn with_5_percent_loss_and_50_ms_of_jitter_they_connect_and_data_flows() {
    // The wires of both homes, up and down: each way has two of them.
    let quality = Quality { loss: Loss::Uniform(0.025), jitter: 25 * MS, ..Quality::default() };
    let mut slowest = (Duration::ZERO, Duration::ZERO);
    for seed in 0..20 {
        let took = run(&wired(seed, quality), seed, async |lab| {
            let _server = lab.server();
            let (a, _b) = lab.both().await;
            let began = lab.world.elapsed();
            let connection = a.connect(&lab.ticket()).await.unwrap();
            let ready = lab.world.elapsed() - began;
            (ready, Visitor::fetch(&connection, 200_000).await)
        });
        slowest = (slowest.0.max(took.0), slowest.1.max(took.1));
    }
    println!("slowest of 20: ready after {:?}, 200 kB in {:?}", slowest.0, slowest.1);
    assert!(slowest.0 < 5 * SEC, "{slowest:?}");
}

#[test]
fn the_same_seed_gives_the_same_datagrams_and_another_seed_does_not() {
    let quality = Quality { loss: Loss::Uniform(0.02), jitter: 10 * MS, ..Quality::default() };
    let fingerprint = |seed| {
        run(&wired(seed, quality), seed, async |lab| {
            let _server = lab.server();
            let (a, _b) = lab.both().await;
            let connection = a.connect(&lab.ticket()).await.unwrap();
            Visitor::fetch(&connection, 300_000).await;
            sleep(60 * SEC).await;
            lab.world.fingerprint()
        })
    };
    assert_eq!(fingerprint(7), fingerprint(7));
    assert_ne!(fingerprint(7), fingerprint(8));
}
