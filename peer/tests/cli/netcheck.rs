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
    assert_eq!(
        (&said["public_v4"], &said["public_v6"]),
        (&Value::Null, &Value::Null),
        "no private one is public"
    );
    assert_eq!((&said["seen_v4"], &said["udp_error"]), (&"127.0.0.1".into(), &Value::Null));
    assert_eq!((&said["silent_ports"], &said["warnings"]), (&json!([]), &json!([])));
    assert_eq!((&said["hairpin"], &said["port_mapping"]), (&true.into(), &json!([])));
    let relays = said["relays"].as_array().unwrap();
    assert!(relays.iter().all(|relay| relay["rtt_ms"].as_f64().unwrap() > 0.0), "{said}");
}

#[tokio::test]
async fn netcheck_says_that_no_udp_comes_back_and_blames_neither_side_alone() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let http = FakeHttp::naming(key().peer_id(), &[silent.local_addr().unwrap()]).await;
    let (human, script) =
        (["netcheck", "--server", &http.url()], ["netcheck", "--json", "--server", &http.url()]);
    let ended = Home::new().run(&human).await;
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    let last = ended.stdout.lines().last().unwrap();
    assert!(
        last.starts_with("No UDP comes through: no UDP came back from the server at 127.0.0.1:"),
        "{last}"
    );
    assert!(last.contains("either the server's firewall or this network"), "{last}");
    let said: Value = serde_json::from_str(&Home::new().run(&script).await.stdout).unwrap();
    assert_eq!((&said["udp"], &said["udp_error"]), (&false.into(), &"silent".into()));
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
