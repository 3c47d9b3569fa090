//! When a visitor's next request goes over the same connection to the local server as its last one.
//!
//! A visitor that asks again at once would pay each time for a stream, a connection and its end. So a connection
//! may stay for as long as its visitor asks on, and never for another visitor: whoever confuses a local server
//! about where a message ends (RFC 9112 §11.2) gets the rest of it himself.

use super::head::{Body, Version};
use super::proxy::Visit;
use super::request::RequestHead;
use super::response::ResponseHead;

/// Fields by which a proxy shows that it stands between: one connection of its may carry many visitors.
const PROXIED: [&str; 4] = ["via", "forwarded", "x-forwarded-for", "x-real-ip"];

/// Whether the local server is asked to keep the connection behind its answer.
pub fn may_ask(request: &RequestHead, visit: &Visit) -> bool {
    let proxied = PROXIED.iter().any(|name| request.fields.first(name).is_some());
    request.keep_alive && request.upgrade.is_none() && visit.is_direct() && !proxied
}

/// Whether the connection can carry another answer behind this one.
pub fn may_stay(response: &ResponseHead) -> bool {
    response.version == Version::Current
        && response.status != 101
        && response.body != Body::UntilClose
        && !response.fields.lists("connection", "close")
}

/// Whether this request may go over a connection that has stayed. The server may be closing it just now, and
/// only what may be asked twice can be asked again.
pub fn may_use(request: &RequestHead, visit: &Visit) -> bool {
    request.may_be_repeated() && may_ask(request, visit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(head: &str, trusted: &str) -> (bool, bool) {
        let request = RequestHead::parse(head.as_bytes()).unwrap();
        let visit = Visit::new("10.0.0.1".parse().unwrap(), false, &request, &[trusted.parse().unwrap()]);
        (may_ask(&request, &visit), may_use(&request, &visit))
    }

    fn answered(head: &str) -> bool {
        may_stay(&ResponseHead::parse(head.as_bytes(), "GET").unwrap())
    }

    #[test]
    fn a_visitor_that_may_ask_again_keeps_its_connection() {
        assert_eq!(asked("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "192.0.2.0/24"), (true, true));
        assert_eq!(
            asked("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n", "192.0.2.0/24"),
            (true, false)
        );
        assert_eq!(
            asked("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "192.0.2.0/24"),
            (false, false)
        );
        assert_eq!(asked("GET / HTTP/1.0\r\nHost: x\r\n\r\n", "192.0.2.0/24"), (false, false));
        let upgrade = "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        assert_eq!(asked(upgrade, "192.0.2.0/24"), (false, false));
    }

    #[test]
    fn visitors_behind_one_proxy_never_share_a_connection() {
        for field in ["Via: 1.1 x", "Forwarded: for=x", "X-Forwarded-For: 192.0.2.1", "X-Real-IP: 192.0.2.1"]
        {
            let head = format!("GET / HTTP/1.1\r\nHost: x\r\n{field}\r\n\r\n");
            assert_eq!(asked(&head, "10.0.0.0/8"), (false, false), "{field}");
            assert_eq!(asked(&head, "192.0.2.0/24"), (false, false), "{field}");
        }
        assert_eq!(asked("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "10.0.0.0/8"), (false, false));
    }

    #[test]
    fn a_connection_stays_only_behind_an_answer_that_ends_by_itself() {
        assert!(answered("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"));
        assert!(answered("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"));
        assert!(answered("HTTP/1.1 304 Not Modified\r\n\r\n"));
        assert!(!answered("HTTP/1.1 200 OK\r\n\r\n"));
        assert!(!answered("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\n"));
        assert!(!answered("HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 3\r\n\r\n"));
        assert!(!answered("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"));
    }
}
