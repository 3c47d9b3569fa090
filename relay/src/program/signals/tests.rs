use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::*;
use crate::program::exit::{Ending, Failure, conclude};
use crate::program::report::Report;

#[tokio::test]
async fn the_first_request_counts_and_reaches_every_clone() {
    let shutdown = Shutdown::by_hand();
    let other = shutdown.clone();
    assert_eq!(other.reason(), None);
    let waiting = tokio::spawn(async move { other.requested().await });
    tokio::task::yield_now().await;
    shutdown.request(Reason::Terminated);
    shutdown.request(Reason::Interrupted);
    assert_eq!(waiting.await.unwrap(), Reason::Terminated);
    assert_eq!(shutdown.requested().await, Reason::Terminated, "asking again answers at once");
}

#[tokio::test]
async fn draining_is_bounded_from_the_request_on() {
    let shutdown = Shutdown::by_hand();
    let now = Instant::now();
    shutdown.state.send_replace(Some((Reason::Interrupted, now + Duration::from_millis(50) - DRAIN)));
    assert!(!shutdown.drained(std::future::pending::<()>()).await);
    let took = now.elapsed();
    assert!((Duration::from_millis(50)..DRAIN).contains(&took), "{took:?}");
    assert!(shutdown.drained(std::future::ready(())).await, "what is done is done, however late");
    assert!(DRAIN < LIMIT);
}

/// What the tests below start as a process of its own; otherwise it does nothing.
#[test]
#[ignore = "started by the tests that send signals"]
fn child_process() {
    let Ok(mode) = std::env::var("TEST_CHILD") else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let report = Report::new(true);
    let ended: Result<Ending, Failure> = runtime.block_on(async {
        let shutdown = Shutdown::install().unwrap();
        let mut out = io::stdout();
        writeln!(out, "\nready").unwrap();
        let reason = shutdown.requested().await;
        writeln!(out, "draining").unwrap();
        match mode.as_str() {
            "drains" => assert!(shutdown.drained(std::future::ready(())).await),
            "never drains" => assert!(!shutdown.drained(std::future::pending::<()>()).await),
            _ => loop {
                std::thread::park(); // stuck for good
            },
        }
        Ok(reason.into())
    });
    std::process::exit(conclude(&report, ended) as i32);
}

struct Running {
    child: Child,
    lines: io::Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(mode: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "program::signals::tests::child_process", "--ignored", "--nocapture"])
            .env("TEST_CHILD", mode)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut running = Self { child, lines };
        running.wait_for("ready");
        running
    }

    fn wait_for(&mut self, text: &str) {
        let found = self.lines.by_ref().any(|line| line.unwrap().contains(text));
        assert!(found, "the child never said {text}");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    fn code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

#[test]
fn sigint_drains_and_exits_130_and_sigterm_0() {
    for (signal, reason, code) in [("-INT", "interrupted", 130), ("-TERM", "terminated", 0)] {
        let mut running = Running::start("drains");
        running.signal(signal);
        running.wait_for(&format!(r#""reason":"{reason}""#));
        assert_eq!(running.code(), Some(code));
    }
}

#[test]
fn a_second_signal_exits_at_once() {
    let mut running = Running::start("never drains");
    running.signal("-TERM");
    running.wait_for("draining");
    let start = std::time::Instant::now();
    running.signal("-INT");
    assert_eq!(running.code(), Some(130));
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_program_that_cannot_drain_still_stops_in_five_seconds() {
    for mode in ["never drains", "stuck"] {
        let mut running = Running::start(mode);
        let start = std::time::Instant::now();
        running.signal("-INT");
        assert_eq!(running.code(), Some(130), "{mode}");
        assert!(start.elapsed() < LIMIT + Duration::from_secs(1), "{mode}");
    }
}
