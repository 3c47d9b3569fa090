//! The program itself: its output, its state, its end; and what its peers see when it dies.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod support;

use std::io::{BufRead as _, BufReader, Lines};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use proto::wire::session::{ToServer, close};
use quinn::ConnectionError;
use serde_json::Value;
use support::{Client, PATIENCE, get};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

fn command(data: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rendezvous"));
    command.env_clear().env("HOME", data).arg("--json").arg("--data").arg(data.join("state")).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Program {
    fn start(data: &Path, udp: &str) -> Self {
        let args =
            ["--udp", udp, "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--domain", "example.test"];
        Self::run(command(data, &args))
    }

    fn run(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn event(&mut self, name: &str) -> Value {
        let line = self.lines.next().expect("the program said nothing more").unwrap();
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["event"], name, "{line}");
        assert!(event["at"].is_string(), "{line}");
        event
    }

    /// What it has of the machine's memory, in kB.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    fn wait(&mut self) -> ExitStatus {
        let (pid, (ended, end)) = (self.child.id().to_string(), mpsc::channel());
        std::thread::scope(|scope| {
            scope.spawn(|| ended.send(self.child.wait().unwrap()).unwrap());
            end.recv_timeout(PATIENCE).unwrap_or_else(|_| {
                let _killed = Command::new("kill").args(["-s", "KILL", &pid]).status();
                panic!("it does not end");
            })
        })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn addr(value: &Value) -> SocketAddr {
    value.as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn it_says_where_it_listens_and_stops_when_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::start(dir.path(), "127.0.0.1:0");
    let listening = program.event("listening");
    assert_eq!(listening["domain"], "example.test");
    assert_eq!(listening["https"], Value::Array(vec![]));
    let id = listening["peer_id"].as_str().unwrap();
    let udp = addr(&listening["udp"][0]);
    let document = get(addr(&listening["http"][0]), "/.well-known/culvert").await;
    assert!(document.contains(id) && document.contains(&udp.to_string()), "{document}");
    assert!(get(addr(&listening["admin"]), "/metrics").await.contains("culvert_build_info{"));
    let mode = std::fs::metadata(dir.path().join("state")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o700);

    let mut session = Client::new().session_at(udp, id.parse().unwrap(), 1).await;
    let since = Instant::now();
    program.signal("TERM");
    assert_eq!(session.closed_with().await, u64::from(close::RESTARTING));
    assert_eq!(program.event("stopped")["reason"], "terminated");
    assert_eq!(program.wait().code(), Some(0));
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
}

#[tokio::test]
async fn an_interrupt_ends_it_with_130() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::start(dir.path(), "127.0.0.1:0");
    program.event("listening");
    program.signal("INT");
    assert_eq!(program.event("stopped")["reason"], "interrupted");
    assert_eq!(program.wait().code(), Some(130));
}

/// The program, where a shell's `ulimit` is given this first.
fn limited(dir: &Path, limit: &str, args: &[&str]) -> Program {
    let listen = ["--udp", "127.0.0.1:0", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let plain = command(dir, &[&listen[..], args].concat());
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &format!("ulimit {limit}; exec \"$0\" \"$@\"")]);
    shell.arg(plain.get_program()).args(plain.get_args()).env_clear().env("HOME", dir);
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Program::run(shell)
}

#[test]
fn it_warns_where_fewer_files_can_be_open_than_it_admits_connections() {
    let dir = tempfile::tempdir().unwrap();
    let said = |limit, args: &[&str]| {
        let mut program = limited(dir.path(), limit, args);
        program.event("listening");
        program.signal("TERM");
        program.wait();
        std::io::read_to_string(program.child.stderr.take().unwrap()).unwrap()
    };
    let warning = said("-n 2000", &[]);
    assert!(
        warning.contains("may have 2000 files open") && warning.contains("LimitNOFILE=38628"),
        "{warning}"
    );
    // Without the relay's connections they are enough.
    assert_eq!(said("-n 19000", &["--no-relay"]), "");
}

#[test]
fn what_is_wrong_with_a_deployment_is_one_line_on_stderr() {
    let dir = tempfile::tempdir().unwrap();
    let listen = ["--udp", "127.0.0.1:0", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let url = ["--public-url", "https://203.0.113.1"];
    let mut program = Program::run(command(dir.path(), &[&listen[..], &url].concat()));
    program.event("listening");
    program.signal("TERM");
    program.wait();
    let said = std::io::read_to_string(program.child.stderr.take().unwrap()).unwrap();
    assert_eq!(said.matches("WARN rendezvous::checks: ").count(), 1, "{said}");
    assert!(
        said.contains("WARN") && said.contains("only this machine reaches") && said.contains("--udp [::]:"),
        "{said}"
    );
}

#[test]
fn it_may_have_as_many_files_open_as_the_system_allows() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = limited(dir.path(), "-Sn 256", &[]);
    program.event("listening");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", program.child.id())).unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let (soft, hard) = files.trim().split_once(' ').unwrap();
    assert_eq!(Some(soft), hard.split_whitespace().next(), "{files}");
}

#[tokio::test]
async fn peers_of_a_server_that_died_notice_as_soon_as_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::start(dir.path(), "127.0.0.1:0");
    let listening = program.event("listening");
    let (udp, id) = (addr(&listening["udp"][0]), listening["peer_id"].as_str().unwrap().parse().unwrap());
    let client = Client::new();
    let mut session = client.session_at(udp, id, 1).await;
    session.ping(1).await;

    program.signal("KILL");
    program.wait();
    let mut again = Program::start(dir.path(), &udp.to_string());
    assert_eq!(again.event("listening")["peer_id"], listening["peer_id"], "the identity stays");
    session.send(ToServer::Ping(2)).await;
    let lost = tokio::time::timeout(Duration::from_secs(5), session.connection.closed()).await;
    assert_eq!(lost.expect("it does not notice"), ConnectionError::Reset);
    client.session_at(udp, id, 1).await.ping(1).await;
}

#[tokio::test]
async fn what_strangers_leave_unfinished_takes_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::start(dir.path(), "127.0.0.1:0");
    let listening = program.event("listening");
    let (udp, id) = (addr(&listening["udp"][0]), listening["peer_id"].as_str().unwrap().parse().unwrap());
    let mut good = Client::new().session_at(udp, id, 1).await;
    let before = program.memory();

    // A head that has no end on each of more connections than one prefix gets.
    let mut open = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(addr(&listening["http"][0])).await.unwrap();
        let _refused = stream.write_all(&[b"GET / HTTP/1.1\r\nX: ", &[b'x'; 12_000][..]].concat()).await;
        open.push(stream);
    }
    // Sessions with a frame that lacks its last byte, and as many that never say hello.
    let mut sessions = Vec::new();
    for n in 0..60 {
        let mut session = Client::new().open(udp, id).await;
        if n % 2 == 0 {
            session.send.write_all(&[&[0x10, 0x00][..], &[0; 4095]].concat()).await.unwrap();
        }
        sessions.push(session);
    }
    let socket = support::udp(udp).await;
    for n in 0..20_000_u32 {
        let _lost = socket.send(&[&n.to_be_bytes()[..], &[0x40; 1200]].concat()).await;
        if n % 2000 == 0 {
            good.ping(n).await;
        }
    }
    good.ping(1).await;
    // 128 heads of 16 kB, 60 connections of some 100 kB in a debug build, and slack.
    let grown = program.memory().saturating_sub(before);
    assert!(grown < 24_000, "{grown} kB more than before");
}

fn run(data: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let output = command(data, args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_taken_port_is_one_helpful_line() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let holder = std::net::UdpSocket::bind(&taken).unwrap();
    let (code, out, err) =
        run(dir.path(), &["--udp", &taken, "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    drop(holder);
    assert_eq!(code, Some(1));
    assert_eq!(err.lines().count(), 1, "{err}");
    assert!(err.contains(&taken) && err.contains("taken") && err.contains("--udp"), "{err}");
    let event: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((event["event"].as_str(), event["code"].as_str()), (Some("error"), Some("port-taken")));
}

#[test]
fn help_has_an_example_and_the_version_a_commit() {
    let print = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_rendezvous")).env_clear().args(args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(print(&["--help"]).contains("Example:"));
    assert!(print(&["serve", "--help"]).contains("Example:"));
    assert_eq!(print(&["--version"]), format!("rendezvous {}\n", relay::program::VERSION));
}

#[test]
fn an_unknown_option_is_a_usage_error() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(run(dir.path(), &["--cluster", "http://x"]).0, Some(2));
    let config = dir.path().join("rendezvous.toml");
    std::fs::write(&config, "domian = \"example.test\"\n").unwrap();
    let (code, _, err) = run(dir.path(), &["--config", config.to_str().unwrap()]);
    assert_eq!(code, Some(2));
    assert!(err.contains("rendezvous.toml:1") && err.contains("`domain`"), "{err}");
}

#[tokio::test]
async fn each_request_is_a_line_without_its_query_and_sighup_opens_the_file_anew() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access");
    let any = ["--udp", "127.0.0.1:0", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let args = [&any[..], &["--access-log", log.to_str().unwrap()]].concat();
    let mut program = Program::run(command(dir.path(), &args));
    let http = addr(&program.event("listening")["http"][0]);
    get(http, "/.well-known/culvert?secret=1").await;
    let lines = || std::fs::read_to_string(&log).unwrap_or_default();
    support::until("there is a line", || lines().ends_with('\n')).await;
    let line = lines();
    assert_eq!(line.lines().count(), 1, "{line}");
    let wanted = format!(
        "client=127.0.0.1 http=1.1 method=GET host={http} path=\"/.well-known/culvert\" status=200 in=0 out="
    );
    assert!(line.contains(&wanted) && line.contains(" ms=") && !line.contains("secret"), "{line}");
    std::fs::rename(&log, dir.path().join("access.1")).unwrap();
    program.signal("HUP");
    support::until("there is a file again", || log.exists()).await;
    get(http, "/a/b").await;
    support::until("there is a line", || lines().contains("path=\"/a/b\" status=404")).await;
    program.signal("TERM");
    program.event("stopped");
}

#[test]
fn tls_without_its_certificate_is_one_helpful_line() {
    let dir = tempfile::tempdir().unwrap();
    let (code, _, err) = run(dir.path(), &["--https", "127.0.0.1:0"]);
    assert_eq!((code, err.lines().count()), (Some(2), 1), "{err}");
    assert!(err.contains("--cert") && err.contains("--key"), "{err}");
    let missing = dir.path().join("cert.pem");
    let missing = missing.to_str().unwrap();
    let (code, _, err) = run(dir.path(), &["--https", "127.0.0.1:0", "--cert", missing, "--key", missing]);
    assert_eq!((code, err.lines().count()), (Some(1), 1), "{err}");
    assert!(err.contains(missing) && err.contains("--cert"), "{err}");
}
