//! What `netcheck` says where there is no NAT, no UDP, no server.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::fake_server::FakeHttp;
use crate::support::{Home, Rendezvous, key};

#[tokio::test]
async fn netcheck_of_a_server_on_this_machine_finds_no_nat_and_asks_no_router() {
    let (server, home, began) = (Rendezvous::start(), Home::new(), Instant::now());
    let ended = home.run(&["netcheck", "--server", &server.url(), "--json"]).await;
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    assert!(began.elapsed() < Duration::from_secs(15), "three seconds, on a machine that is not this busy");
    let said: Value = serde_json::from_str(ended.stdout.trim_end()).unwrap();
    assert_eq!(
        (&said["event"], &said["udp"], &said["translated"]),
        (&"netcheck".into(), &true.into(), &false.into())
    );
    assert_eq!((&said["public_v4"], &said["public_v6"]), (&"127.0.0.1".into(), &Value::Null));
    assert_eq!((&said["hairpin"], &said["port_mapping"]), (&true.into(), &json!([])));
    let relays = said["relays"].as_array().unwrap();
    assert!(relays.iter().all(|relay| relay["rtt_ms"].as_f64().unwrap() > 0.0), "{said}");
}

#[tokio::test]
async fn netcheck_says_that_udp_is_blocked_and_how_to_mend_it() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let http = FakeHttp::naming(key().peer_id(), &[silent.local_addr().unwrap()]).await;
    let ended = Home::new().run(&["netcheck", "--server", &http.url()]).await;
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    assert!(ended.stdout.contains("blocked"), "{ended:#?}");
    assert!(
        ended.stdout.lines().last().unwrap().starts_with("No UDP gets through here: let UDP out"),
        "{ended:#?}"
    );
}

#[tokio::test]
async fn netcheck_without_a_server_is_a_usage_error_and_with_a_dead_one_unreachable() {
    Home::new().run(&["netcheck", "--json"]).await.failed(2, "usage").says("--server");
    let (_held, closed) = super::unreachable::refusing_port();
    let ended = Home::new().run(&["netcheck", "--server", &format!("http://{closed}"), "--json"]).await;
    ended.failed(3, "server-unreachable").says(&closed.to_string());
}

#[tokio::test]
async fn netcheck_refuses_a_server_that_is_not_the_one_its_url_names() {
    let server = Rendezvous::start();
    let url = format!("{}#{}", server.url().split('#').next().unwrap(), key().peer_id());
    let ended = Home::new().run(&["netcheck", "--server", &url, "--json"]).await;
    ended.failed(4, "server-changed");
}
