//! When a visitor's next request goes over the same connection to the local server as its last one.
//!
//! A visitor that asks again at once would pay each time for a stream, a connection and its end. So a connection
//! may stay for as long as its visitor asks on, and never for another visitor: whoever confuses a local server
//! about where a message ends (RFC 9112 §11.2) gets the rest of it himself.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::head::{Body, Version};
use super::proxy::Visit;
use super::request::RequestHead;
use super::response::ResponseHead;

/// How long a connection waits: a browser asks for all that belongs to a page at once, and many servers close theirs
/// after a few seconds.
const STAYS: Duration = Duration::from_secs(1);

/// Fields by which a proxy shows that it stands between: one connection of its may carry many visitors.
const PROXIED: [&str; 4] = ["via", "forwarded", "x-forwarded-for", "x-real-ip"];

/// Whether the local server is asked to keep the connection behind its answer.
pub fn may_ask(request: &RequestHead, visit: &Visit) -> bool {
    let proxied = PROXIED.iter().any(|name| request.fields.first(name).is_some());
    // A server that answers without reading the content takes the rest of it for a request, which others may have
    // written: a page of theirs has the visitor's browser send it.
    let is_bare = matches!(request.body, Body::None | Body::Length(0));
    request.keep_alive && request.upgrade.is_none() && is_bare && visit.is_direct() && !proxied
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

/// What waits behind the exchanges of one visitor's connection.
#[derive(Debug)]
pub struct Waiting<T> {
    room: usize,
    /// Each until when. The one that came last is the last.
    held: VecDeque<(Instant, T)>,
}

impl<T> Waiting<T> {
    /// Nothing yet, and `room` for so many.
    pub fn new(room: usize) -> Self {
        Self { room, held: VecDeque::new() }
    }

    /// Has one wait. Returns the one that has waited longest, where there is no room for both.
    pub fn put(&mut self, one: T, now: Instant) -> Option<T> {
        self.held.push_back((now + STAYS, one));
        if self.held.len() > self.room { self.pop() } else { None }
    }

    /// The one that came last of those that are meant.
    pub fn take(&mut self, is_meant: impl Fn(&T) -> bool) -> Option<T> {
        let at = self.held.iter().rposition(|(_, one)| is_meant(one))?;
        self.held.remove(at).map(|(_, one)| one)
    }

    /// When the first of them will have waited long enough.
    pub fn timeout(&self) -> Option<Instant> {
        self.held.front().map(|(until, _)| *until)
    }

    /// One that has waited long enough.
    pub fn pop_due(&mut self, now: Instant) -> Option<T> {
        if self.timeout()? <= now { self.pop() } else { None }
    }

    fn pop(&mut self) -> Option<T> {
        self.held.pop_front().map(|(_, one)| one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::start;

    #[test]
    fn the_newest_that_is_meant_is_taken_and_the_oldest_gives_way() {
        let (mut waiting, now) = (Waiting::new(3), start());
        for one in [10, 21, 30] {
            assert_eq!(waiting.put(one, now), None);
        }
        assert_eq!(waiting.put(41, now), Some(10));
        assert_eq!(waiting.take(|one| one % 2 == 0), Some(30));
        assert_eq!(waiting.take(|one| one % 2 == 0), None);
        assert_eq!(waiting.take(|_| true), Some(41));
        assert_eq!(waiting.take(|_| true), Some(21));
    }

    #[test]
    fn each_waits_for_a_second_and_no_longer() {
        let (mut waiting, now) = (Waiting::new(3), start());
        assert_eq!((waiting.timeout(), waiting.pop_due(now)), (None, None));
        waiting.put(1, now);
        waiting.put(2, now + STAYS / 2);
        assert_eq!(waiting.timeout(), Some(now + STAYS));
        assert_eq!(waiting.pop_due(now + STAYS - Duration::from_nanos(1)), None);
        assert_eq!(waiting.pop_due(now + STAYS), Some(1));
        assert_eq!(waiting.pop_due(now + STAYS), None);
        assert_eq!(waiting.timeout(), Some(now + STAYS * 3 / 2));
    }

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
        let post = |length| format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        assert_eq!(asked(&post(0), "192.0.2.0/24"), (true, false));
        assert_eq!(asked(&post(1), "192.0.2.0/24"), (false, false));
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
