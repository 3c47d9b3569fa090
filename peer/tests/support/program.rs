//! The `peer` program, as a script runs it: a home, a command line, events, an exit code.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::soon;

/// One user's home directory.
#[derive(Debug)]
pub(crate) struct Home {
    dir: TempDir,
}

/// A program that runs.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// What a program says, read as it comes so that it never waits for us.
#[derive(Debug)]
struct Lines {
    coming: mpsc::UnboundedReceiver<String>,
    seen: Vec<String>,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where the program keeps its state.
    pub(crate) fn state(&self) -> PathBuf {
        self.path().join("state/culvert/peer")
    }

    /// Where it looks for its options.
    pub(crate) fn write_config(&self, text: &str) -> PathBuf {
        let dir = self.path().join("config/culvert");
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("peer.toml");
        std::fs::write(&file, text).unwrap();
        file
    }

    /// The program with these arguments and nothing of our own environment.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, args: &[A]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peer"));
        command.env_clear().env("HOME", self.path());
        command.env("XDG_STATE_HOME", self.path().join("state"));
        command.env("XDG_CONFIG_HOME", self.path().join("config"));
        command.args(args).current_dir(self.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn spawn<A: AsRef<OsStr>>(&self, args: &[A]) -> Program {
        Program::spawn(&mut self.command(args))
    }

    /// Runs the program to its end.
    pub(crate) async fn run<A: AsRef<OsStr>>(&self, args: &[A]) -> Ended {
        self.spawn(args).ended().await
    }

    /// `peer share TARGET --server URL --json`.
    pub(crate) fn share(&self, url: &str, target: &str) -> Program {
        self.spawn(&["share", target, "--server", url, "--json"])
    }

    /// `peer connect TICKET --json`, at a free port.
    pub(crate) fn connect(&self, ticket: &str) -> Program {
        self.spawn(&["connect", ticket, "--listen", "127.0.0.1:0", "--json"])
    }
}

impl Program {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = Lines::of(child.stdout.take().unwrap());
        let stderr = Lines::of(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    /// Spawns it with this on its standard input.
    pub(crate) fn spawn_with_input(command: &mut Command, input: &str) -> Self {
        let mut program = Self::spawn(command.stdin(Stdio::piped()));
        let mut stdin = program.child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        program
    }

    /// The next event of this name; those before it are passed over.
    pub(crate) async fn event(&mut self, name: &str) -> Value {
        loop {
            let event = self.next_event().await;
            if event["event"] == name {
                return event;
            }
        }
    }

    /// The next event. Every line on stdout has to be one.
    pub(crate) async fn next_event(&mut self) -> Value {
        let stderr = &mut self.stderr;
        let Some(line) = soon("an event", self.stdout.next()).await else {
            panic!("it ended; stderr: {}", stderr.rest().await);
        };
        let event: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no event: {line}"));
        assert!(event["event"].is_string() && event["at"].is_string(), "{line}");
        event
    }

    /// The next line on stdout that holds this text.
    pub(crate) async fn line(&mut self, text: &str) -> String {
        self.stdout.find(text).await
    }

    /// The next line on stderr that holds this text.
    pub(crate) async fn note(&mut self, text: &str) -> String {
        self.stderr.find(text).await
    }

    /// Of a share: the ticket, once it is registered.
    pub(crate) async fn ticket(&mut self) -> String {
        self.event("ready").await["ticket"].as_str().unwrap().to_owned()
    }

    /// How many events of this name have come so far, those passed over included.
    pub(crate) fn count(&mut self, name: &str) -> usize {
        self.stdout.drain();
        let is =
            |line: &&String| serde_json::from_str::<Value>(line).is_ok_and(|event| event["event"] == name);
        self.stdout.seen.iter().filter(is).count()
    }

    /// Everything on stderr so far.
    pub(crate) fn notes(&mut self) -> Vec<String> {
        self.stderr.drain();
        self.stderr.seen.clone()
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// As a power failure ends it.
    pub(crate) async fn kill(mut self) {
        self.child.kill().unwrap();
        self.ended().await;
    }

    /// Waits for its end.
    pub(crate) async fn ended(mut self) -> Ended {
        let (stdout, stderr) =
            soon("the program's end", async { tokio::join!(self.stdout.rest(), self.stderr.rest()) }).await;
        let code = self.child.wait().unwrap().code();
        Ended { code, stdout, stderr }
    }

    /// What it has of the machine's memory, in kB.
    pub(crate) fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
        if std::thread::panicking() {
            eprintln!("stdout: {:#?}\nstderr: {:#?}", self.stdout.last(), self.stderr.last());
        }
    }
}

impl Ended {
    /// It failed as every command does: this code, one line on stderr, and with `--json` an event at the end.
    pub(crate) fn failed(&self, code: i32, slug: &str) -> &Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        let line = self.stderr.strip_suffix('\n').unwrap_or_else(|| panic!("{self:#?}"));
        assert!(line.starts_with("error: ") && !line.contains('\n'), "{self:#?}");
        let last = self.stdout.lines().last().unwrap_or_default();
        let event: Value = serde_json::from_str(last).unwrap_or_else(|_| panic!("{self:#?}"));
        assert_eq!(event["event"], "error", "{self:#?}");
        assert_eq!(event["code"], slug, "{self:#?}");
        assert_eq!(event["message"], line["error: ".len()..], "{self:#?}");
        self
    }

    /// The one line holds this.
    pub(crate) fn says(&self, text: &str) -> &Self {
        assert!(self.stderr.contains(text), "no {text:?} in {self:#?}");
        self
    }
}

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let (sender, coming) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { coming, seen: Vec::new() }
    }

    async fn next(&mut self) -> Option<String> {
        let line = self.coming.recv().await?;
        self.seen.push(line.clone());
        Some(line)
    }

    async fn find(&mut self, text: &str) -> String {
        let find = async {
            loop {
                match self.next().await {
                    Some(line) if line.contains(text) => return line,
                    Some(_) => {}
                    None => panic!("it ended without saying {text:?}"),
                }
            }
        };
        soon(text, find).await
    }

    fn drain(&mut self) {
        while let Ok(line) = self.coming.try_recv() {
            self.seen.push(line);
        }
    }

    /// The last of them, for whoever wonders why a test failed.
    fn last(&mut self) -> &[String] {
        self.drain();
        &self.seen[self.seen.len().saturating_sub(20)..]
    }

    /// All of it, at its end.
    async fn rest(&mut self) -> String {
        while self.next().await.is_some() {}
        self.seen.iter().map(|line| format!("{line}\n")).collect()
    }
}
