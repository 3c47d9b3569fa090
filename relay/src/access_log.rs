//! A line for each request: who asked for what, how it ended, how much it was and how long it took.
//!
//! It is written on a thread of its own, so that nobody's request waits for a slow disk or an unread pipe: while
//! the writer is behind by more than a bound, lines are lost and counted.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crate::program::Failure;

/// Lines that wait to be written, of about 200 bytes.
const QUEUE: usize = 8192;

/// Characters of a path that are written.
const PATH: usize = 256;

/// Where the lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogTo {
    /// Standard error.
    Stderr,
    /// The end of this file, which is made where there is none.
    File(PathBuf),
    /// Nowhere.
    Off,
}

impl FromStr for AccessLogTo {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "-" => Self::Stderr,
            "off" => Self::Off,
            path => Self::File(path.into()),
        })
    }
}

/// One request.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The visitor's address, as far as it is known.
    pub client: IpAddr,
    /// `1.1` or `2`.
    pub http: &'static str,
    /// The method.
    pub method: &'a str,
    /// The host that was asked for.
    pub host: &'a str,
    /// The path, without the query: queries carry secrets.
    pub path: &'a [u8],
    /// The final status; 499 for a visitor who did not wait for it.
    pub status: u16,
    /// Bytes of content from the visitor and to it.
    pub bytes: (u64, u64),
    /// From the request's head to the answer's last byte.
    pub took: Duration,
}

impl Entry<'_> {
    /// What is noted of somebody who sent no request.
    pub const fn nothing(client: IpAddr, http: &'static str) -> Self {
        let bytes = (0, 0);
        Self { client, http, method: "-", host: "-", path: b"-", status: 400, bytes, took: Duration::ZERO }
    }
}

impl fmt::Display for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, http, method, host, status, bytes: (came, went), took, .. } = self;
        let path: String = String::from_utf8_lossy(self.path).chars().take(PATH).collect();
        let ms = took.as_micros() as f64 / 1000.0;
        write!(f, "client={client} http={http} method={method} host={host} path={path:?} status={status} ")?;
        write!(f, "in={came} out={went} ms={ms:.3}")
    }
}

enum Job {
    Line(String),
    Reopen,
}

/// Writes the lines; clones write to the same place.
#[derive(Clone)]
pub struct AccessLog(Arc<Shared>);

struct Shared {
    /// None once it closes.
    jobs: Option<SyncSender<Job>>,
    lost: AtomicU64,
    writer: Option<JoinHandle<()>>,
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessLog")
    }
}

impl AccessLog {
    /// Opens it; nothing where none is wanted.
    ///
    /// # Errors
    /// The file can't be written to.
    pub fn open(to: &AccessLogTo) -> Result<Option<Self>, Failure> {
        let failed = |path: &Path, error: io::Error| {
            let what = format!(
                "cannot write the access log to {}: {error}; choose another with --access-log",
                path.display()
            );
            Failure::failed("no-access-log", what)
        };
        match to {
            AccessLogTo::Off => Ok(None),
            AccessLogTo::Stderr => Ok(Some(Self::to(Box::new(io::stderr()), None))),
            AccessLogTo::File(path) => {
                let file = append_to(path).map_err(|error| failed(path, error))?;
                Ok(Some(Self::to(Box::new(file), Some(path.clone()))))
            }
        }
    }

    fn to(sink: Box<dyn Write + Send>, path: Option<PathBuf>) -> Self {
        let (jobs, queue) = sync_channel(QUEUE);
        let writer = std::thread::Builder::new().name("access-log".to_owned());
        let writer = writer.spawn(move || write_all(&queue, sink, path.as_deref())).ok();
        Self(Arc::new(Shared { jobs: Some(jobs), lost: AtomicU64::new(0), writer }))
    }

    /// Notes a request.
    pub fn note(&self, entry: &Entry<'_>) {
        let mut line = String::with_capacity(256);
        // Writing to a string has no way to fail.
        let _ = writeln!(line, "{} {entry}", humantime::format_rfc3339_millis(SystemTime::now()));
        let taken = self.0.jobs.as_ref().is_some_and(|jobs| jobs.try_send(Job::Line(line)).is_ok());
        if !taken {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Opens its file anew, after somebody has moved it away.
    pub fn reopen(&self) {
        let full = self.0.jobs.as_ref().is_some_and(|jobs| jobs.try_send(Job::Reopen).is_err());
        if full {
            tracing::warn!("the access log is too far behind to be opened anew");
        }
    }

    /// Lines that were lost because the writer was behind.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Shared {
    /// What was noted is written first.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(writer) = self.writer.take() {
            let _panicked = writer.join();
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

fn write_all(queue: &Receiver<Job>, sink: Box<dyn Write + Send>, path: Option<&Path>) {
    let mut sink = BufWriter::new(sink);
    while let Ok(first) = queue.recv() {
        let mut job = Ok(first);
        while let Ok(next) = job {
            match next {
                // A full disk is no reason to stop serving, nor to stop trying.
                Job::Line(line) => drop(sink.write_all(line.as_bytes())),
                Job::Reopen => reopen(&mut sink, path),
            }
            job = queue.try_recv();
        }
        let _full = sink.flush();
        if job.is_err_and(|why| why == TryRecvError::Disconnected) {
            return;
        }
    }
}

fn reopen(sink: &mut BufWriter<Box<dyn Write + Send>>, path: Option<&Path>) {
    let Some(path) = path else { return };
    let _full = sink.flush();
    match append_to(path) {
        Ok(file) => *sink = BufWriter::new(Box::new(file)),
        Err(error) => tracing::warn!("the access log stays where it was: {}: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    fn entry() -> Entry<'static> {
        Entry {
            client: [192, 0, 2, 1].into(),
            http: "1.1",
            method: "GET",
            host: "nas.example.test:8080",
            path: b"/a \"b\"\n",
            status: 200,
            bytes: (1, 2),
            took: Duration::from_micros(1500),
        }
    }

    #[test]
    fn a_request_is_one_line_whatever_is_in_it() {
        assert_eq!(
            entry().to_string(),
            "client=192.0.2.1 http=1.1 method=GET host=nas.example.test:8080 path=\"/a \\\"b\\\"\\n\" status=200 in=1 \
             out=2 ms=1.500"
        );
    }

    #[test]
    fn a_file_is_appended_to_and_opened_anew_when_told() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("log"), dir.path().join("log.1"));
        std::fs::write(&path, "before\n").unwrap();
        let log = AccessLog::open(&AccessLogTo::File(path.clone())).unwrap().unwrap();
        log.note(&entry());
        std::fs::rename(&path, &moved).unwrap();
        log.note(&entry());
        log.reopen();
        log.note(&entry());
        drop(log);
        let lines = |path: &Path| std::fs::read_to_string(path).unwrap().lines().count();
        assert_eq!((lines(&moved), lines(&path)), (3, 1));
        assert!(AccessLog::open(&AccessLogTo::File(dir.path().join("no/log"))).is_err());
        assert!(AccessLog::open(&AccessLogTo::Off).unwrap().is_none());
    }

    /// Takes nothing until it is told to.
    struct Stuck(Mutex<Receiver<()>>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _told = self.0.lock().unwrap().recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_a_reader_that_does_not_read() {
        let (go, stuck): (Sender<()>, _) = channel();
        let log = AccessLog::to(Box::new(Stuck(Mutex::new(stuck))), None);
        for _ in 0..2 * QUEUE + 1000 {
            log.note(&entry());
        }
        assert!(log.lost() > 0 && log.lost() <= QUEUE as u64 + 1000, "{}", log.lost());
        drop(go);
        drop(log);
    }
}
