//! Load at a fixed rate: so many requests a second over so many kept connections, and how long each took. It
//! needs no crates: `rustc --edition 2024 -O load.rs`.
//!
//! usage: load ADDRESS HOST CONNECTIONS RATE SECONDS
//!
//! A request that had to wait for the one before it on its connection is as late as it had to wait: what is slow is
//! not asked less often (Gil Tene's coordinated omission).

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);

struct Plan {
    address: String,
    request: String,
    connections: u32,
    rate: f64,
    seconds: f64,
    start: Instant,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, host, connections, rate, seconds] = args.as_slice() else {
        eprintln!("usage: load ADDRESS HOST CONNECTIONS RATE SECONDS");
        std::process::exit(2);
    };
    let plan = Plan {
        address: address.clone(),
        request: format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        connections: connections.parse().expect("a number of connections"),
        rate: rate.parse().expect("a number of requests a second"),
        seconds: seconds.parse().expect("a number of seconds"),
        start: Instant::now() + Duration::from_millis(50),
    };
    let (mut times, mut failed) = (Vec::new(), 0);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.connections)
            .map(|number| (number, &plan))
            .map(|(n, plan)| scope.spawn(move || plan.work(n)))
            .collect();
        for worker in workers {
            let (took, missed) = worker.join().expect("a worker does not panic");
            times.extend(took);
            failed += missed;
        }
    });
    times.sort_unstable();
    let at = |part: f64| {
        let index = (times.len() as f64 * part) as usize;
        times
            .get(index.min(times.len().saturating_sub(1)))
            .map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
    };
    println!(
        r#"{{"rate":{:.1},"failed":{failed},"p50":{:.3},"p90":{:.3},"p99":{:.3},"max":{:.3}}}"#,
        times.len() as f64 / plan.seconds,
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
}

impl Plan {
    /// One connection's requests: what each took, and how many had no good answer.
    fn work(&self, number: u32) -> (Vec<Duration>, u64) {
        let (mut times, mut failed, mut connection) = (Vec::new(), 0, None);
        let mut free = self.start;
        for turn in 0_u32.. {
            let at =
                f64::from(number) / self.rate + f64::from(turn) * f64::from(self.connections) / self.rate;
            if at >= self.seconds {
                break;
            }
            let due = self.start + Duration::from_secs_f64(at);
            // A connection that was busy when the request was due makes it late. That this thread wakes late
            // does not.
            let since = if free > due {
                due
            } else {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                Instant::now()
            };
            match self.ask(&mut connection) {
                Ok(()) => times.push(since.elapsed()),
                Err(_) => {
                    failed += 1;
                    connection = None;
                }
            }
            free = Instant::now();
        }
        (times, failed)
    }

    /// One request and its whole answer, which has a length.
    fn ask(&self, connection: &mut Option<TcpStream>) -> io::Result<()> {
        let stream = match connection {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(&self.address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                connection.insert(stream)
            }
        };
        stream.write_all(self.request.as_bytes())?;
        let mut answer = Vec::with_capacity(1024);
        let mut block = [0; 4096];
        loop {
            let count = stream.read(&mut block)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            answer.extend_from_slice(&block[..count]);
            let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
            if !answer.starts_with(b"HTTP/1.1 200 ") {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
            let length = head.split("\r\ncontent-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            let length: usize =
                length.and_then(|length| length.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
            if answer.len() >= end + 4 + length {
                return Ok(());
            }
        }
    }
}
