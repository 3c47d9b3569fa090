//! A TCP service that swallows or echoes, and its clients; each prints its figures and nothing else. Plain threads, and
//! plain `rustc -O`: what is measured is between them.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What a client wants, in its first byte.
const SWALLOW: u8 = b's';
const ECHO: u8 = b'e';

const CHUNK: usize = 256 * 1024;

const USAGE: &str = "\
usage: tcp serve ADDR                  the service
       tcp bulk ADDR BYTES             send as much to it                       → Gbit/s
       tcp ping ADDR COUNT             round trips of one byte                  → p50 and p99 in µs
       tcp connects ADDR THREADS SECS  connections with a round trip each       → per second";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["serve", addr] => serve(addr),
        ["bulk", addr, bytes] => println!("{:.3}", bulk(addr, bytes.parse().unwrap())),
        ["ping", addr, count] => {
            let (p50, p99) = ping(addr, count.parse().unwrap());
            println!("{p50:.0} {p99:.0}");
        }
        ["connects", addr, threads, seconds] => {
            println!("{:.0}", connects(addr, threads.parse().unwrap(), seconds.parse().unwrap()));
        }
        _ => {
            eprintln!("{USAGE}");
            std::process::exit(2);
        }
    }
}

/// Serves for ever.
fn serve(addr: &str) {
    let listener = TcpListener::bind(addr).unwrap();
    println!("listening on {}", listener.local_addr().unwrap());
    for stream in listener.incoming().flatten() {
        // A client that goes away ends its own thread and no other.
        thread::spawn(move || answer(stream));
    }
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    if kind[0] == ECHO {
        let mut byte = [0];
        loop {
            stream.read_exact(&mut byte)?;
            stream.write_all(&byte)?;
        }
    }
    let mut count = [0; 8];
    stream.read_exact(&mut count)?;
    let (mut left, mut buffer) = (u64::from_le_bytes(count), vec![0; CHUNK]);
    while left > 0 {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        left = left.saturating_sub(read as u64);
    }
    stream.write_all(&[SWALLOW])
}

fn connect(addr: &str, kind: u8) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(&[kind])?;
    Ok(stream)
}

/// Sends `bytes` and waits until they were all read; gigabits per second.
fn bulk(addr: &str, bytes: u64) -> f64 {
    let mut stream = connect(addr, SWALLOW).unwrap();
    let (chunk, began, mut left) = (vec![0x5a; CHUNK], Instant::now(), bytes);
    stream.write_all(&bytes.to_le_bytes()).unwrap();
    while left > 0 {
        let count = left.min(CHUNK as u64);
        stream.write_all(&chunk[..usize::try_from(count).unwrap()]).unwrap();
        left -= count;
    }
    stream.read_exact(&mut [0]).unwrap();
    bytes as f64 * 8.0 / 1e9 / began.elapsed().as_secs_f64()
}

fn round_trip(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(&[1])?;
    stream.read_exact(&mut [0])
}

/// The median and the 99th percentile of so many round trips, in microseconds.
fn ping(addr: &str, count: usize) -> (f64, f64) {
    let mut stream = connect(addr, ECHO).unwrap();
    for _ in 0..count / 10 {
        round_trip(&mut stream).unwrap();
    }
    let mut took: Vec<Duration> = (0..count)
        .map(|_| {
            let began = Instant::now();
            round_trip(&mut stream).unwrap();
            began.elapsed()
        })
        .collect();
    took.sort_unstable();
    let at = |share: usize| took[(count - 1) * share / 100].as_secs_f64() * 1e6;
    (at(50), at(99))
}

/// Connections with one round trip each, one after the other in each of the threads; per second.
fn connects(addr: &str, threads: usize, seconds: f64) -> f64 {
    let (done, failed, began) = (AtomicU64::new(0), AtomicU64::new(0), Instant::now());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while began.elapsed().as_secs_f64() < seconds {
                    let tried = connect(addr, ECHO).and_then(|mut stream| round_trip(&mut stream));
                    let count = if tried.is_ok() { &done } else { &failed };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let failed = failed.into_inner();
    if failed > 0 {
        eprintln!("{failed} connections failed");
    }
    done.into_inner() as f64 / began.elapsed().as_secs_f64()
}
