//! The local control socket: how `peer status` asks a running program how things stand.
//!
//! Each `share` and `connect` has one, in a private directory, for its own user alone: whoever connects says
//! `status` and gets one line of JSON ([`Snapshot`]). There is no other request, and nothing can be changed.

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use proto::stun::Role;
use relay::program::state;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::endpoint::{Endpoint, EndpointConfig, PathChange, PeerStatus, Standing};
use crate::path_report;
use crate::store::Store;

/// The one request.
const REQUEST: &[u8] = b"status\n";

/// Who asks at a time; more are turned away.
const MAX_ASKING: usize = 8;

/// How long asking and answering may take together: a program that was stopped holds nobody up.
const PATIENCE: Duration = Duration::from_secs(2);

/// The longest answer that is read: a thousand peers.
const MAX_ANSWER: u64 = 4 * 1024 * 1024;

/// A socket that refuses is taken for a dead process's once it is this old: a younger one may be about to listen.
const STALE: Duration = Duration::from_secs(2);

/// After an error of the listener's (no descriptors left, usually), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How one process stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) pid: u32,
    /// `share` or `connect`.
    pub(crate) command: String,
    pub(crate) since: String,
    pub(crate) server: String,
    /// `starting`, `up`, `down` or `failed`.
    pub(crate) session: String,
    /// Whether the session goes through the server's relay, and why, as far as that is known.
    #[serde(default)]
    pub(crate) relayed: bool,
    #[serde(default)]
    pub(crate) relayed_because: Option<String>,
    pub(crate) observed: Option<SocketAddr>,
    /// For how many seconds the NAT here was seen to keep an idle flow.
    pub(crate) nat_keeps_s: Option<u64>,
    /// Of a share: its name and its targets.
    pub(crate) name: Option<String>,
    pub(crate) targets: Vec<String>,
    /// Of a connect: where it listens.
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) peers: Vec<PeerFields>,
}

/// One peer of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PeerFields {
    pub(crate) peer_id: String,
    /// What it is to us: `visitor` or `sharer`.
    pub(crate) part: String,
    pub(crate) kind: Option<String>,
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) rtt_ms: Option<f64>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) since: String,
    pub(crate) changes: Vec<ChangeFields>,
}

/// One change of its path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ChangeFields {
    pub(crate) at: String,
    pub(crate) kind: Option<String>,
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) reason: String,
}

/// What a process tells of itself that its endpoint does not know.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) command: &'static str,
    pub(crate) server: String,
    pub(crate) name: Option<String>,
    pub(crate) targets: Vec<String>,
    /// Known once the listeners are open.
    pub(crate) listen: Arc<OnceLock<Vec<SocketAddr>>>,
}

/// An open control socket; it goes with this.
#[derive(Debug)]
pub(crate) struct Control {
    path: PathBuf,
    task: AbortHandle,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
        let _gone = fs::remove_file(&self.path);
    }
}

/// Opens this process's socket. Without one all else works, so a failure is only logged.
pub(crate) fn open(store: &Store, endpoint: Endpoint, subject: Subject) -> Option<Control> {
    let random = EndpointConfig::random_seed();
    let random = data_encoding::HEXLOWER.encode(&random[..4]);
    let name = format!("peer-{}-{random}.sock", std::process::id());
    let mut failure = None;
    for dir in directories(store) {
        match listen(&dir, &name) {
            Ok((path, listener)) => {
                let owner = fs::metadata(&path).ok()?.uid();
                let desk = Desk { endpoint, subject, since: SystemTime::now(), owner };
                let task = tokio::spawn(serve(dir, listener, Arc::new(desk))).abort_handle();
                return Some(Control { path, task });
            }
            Err(error) => failure = Some((dir, error)),
        }
    }
    if store.keeps() {
        tracing::warn!(?failure, "`peer status` will not see this process");
    } else {
        tracing::debug!(?failure, "`peer status` will not see this process");
    }
    None
}

/// Where sockets are: in `$XDG_RUNTIME_DIR`, or in the state directory where there is none.
fn directories(store: &Store) -> Vec<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let runtime = runtime.map(|dir| dir.join("culvert"));
    runtime.into_iter().chain([store.dir().join("run")]).collect()
}

fn listen(dir: &Path, name: &str) -> io::Result<(PathBuf, UnixListener)> {
    state::create_private_dir(dir).map_err(io::Error::other)?;
    let path = dir.join(name);
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok((path, listener))
}

struct Desk {
    endpoint: Endpoint,
    subject: Subject,
    since: SystemTime,
    owner: u32,
}

async fn serve(dir: PathBuf, listener: UnixListener, desk: Arc<Desk>) {
    tokio::spawn(forget_dead(dir));
    let asking = Arc::new(Semaphore::new(MAX_ASKING));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&asking).try_acquire_owned() else { continue };
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            let _ = timeout(PATIENCE, desk.answer(stream, permit)).await;
        });
    }
}

impl Desk {
    /// Answers one request. The place among those who ask is free again before the stream ends, so that who sees the end
    /// can ask again.
    async fn answer(&self, mut stream: UnixStream, _place: OwnedSemaphorePermit) -> io::Result<()> {
        if stream.peer_cred()?.uid() != self.owner {
            return Ok(());
        }
        let mut request = [0; REQUEST.len()];
        stream.read_exact(&mut request).await?;
        if request != REQUEST {
            return Ok(());
        }
        let Some(snapshot) = self.snapshot().await else { return Ok(()) };
        let mut line = serde_json::to_vec(&snapshot)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        stream.shutdown().await
    }

    async fn snapshot(&self) -> Option<Snapshot> {
        let status = self.endpoint.status().await.ok()?;
        let now = SystemTime::now();
        let session = match &*self.endpoint.standing().borrow() {
            Standing::Starting => "starting",
            Standing::Up => "up",
            Standing::Down => "down",
            Standing::Failed(_) => "failed",
        };
        let is_up = session == "up";
        Some(Snapshot {
            pid: std::process::id(),
            command: self.subject.command.to_owned(),
            since: rfc3339(self.since),
            server: self.subject.server.clone(),
            session: session.to_owned(),
            relayed: is_up && status.is_relayed,
            relayed_because: status.no_udp.filter(|_| is_up).map(|cause| cause.to_string()),
            observed: status.observed,
            nat_keeps_s: status.nat_keeps.map(|kept| kept.as_secs()),
            name: self.subject.name.clone(),
            targets: self.subject.targets.clone(),
            listen: self.subject.listen.get().cloned().unwrap_or_default(),
            peers: status.peers.iter().map(|peer| peer_fields(peer, now)).collect(),
        })
    }
}

fn peer_fields(peer: &PeerStatus, now: SystemTime) -> PeerFields {
    let part = match peer.role {
        Role::Sharer => "visitor",
        Role::Connector => "sharer",
    };
    PeerFields {
        peer_id: peer.peer.to_string(),
        part: part.to_owned(),
        kind: peer.path.map(|(kind, ..)| path_report::kind_word(kind).to_owned()),
        remote: peer.path.map(|(_, remote, _)| remote),
        rtt_ms: peer.path.map(|(.., rtt)| path_report::millis(rtt)),
        bytes_in: peer.bytes_in,
        bytes_out: peer.bytes_out,
        since: rfc3339(now - peer.known_for),
        changes: peer.changes.iter().map(|change| change_fields(change, now)).collect(),
    }
}

fn change_fields(change: &PathChange, now: SystemTime) -> ChangeFields {
    ChangeFields {
        at: rfc3339(now - change.ago),
        kind: change.path.map(|(kind, _)| path_report::kind_word(kind).to_owned()),
        remote: change.path.map(|(_, remote)| remote),
        reason: change.reason.to_string(),
    }
}

fn rfc3339(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

/// Asks every process of this user, by age of their sockets. Of one that does not answer only its socket is known.
pub(crate) async fn ask(store: &Store) -> Vec<Result<Snapshot, PathBuf>> {
    let mut answers = Vec::new();
    for dir in directories(store) {
        answers.extend(ask_all(&dir).await);
    }
    answers
}

/// The sockets in a directory, the oldest first.
fn sockets(dir: &Path) -> Vec<PathBuf> {
    let is_socket = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("peer-") && name.ends_with(".sock")
    };
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_socket).collect();
    paths.sort_by_key(|path| (fs::metadata(path).and_then(|it| it.modified()).ok(), path.clone()));
    paths
}

/// Removes what was left by processes that were killed.
async fn forget_dead(dir: PathBuf) {
    for path in sockets(&dir) {
        if let Ok(Err(error)) = timeout(PATIENCE, UnixStream::connect(&path)).await
            && error.kind() == io::ErrorKind::ConnectionRefused
        {
            forget_stale(&path);
        }
    }
}

async fn ask_all(dir: &Path) -> Vec<Result<Snapshot, PathBuf>> {
    let mut answers = Vec::new();
    for path in sockets(dir) {
        match timeout(PATIENCE, ask_one(&path)).await {
            Ok(Ok(snapshot)) => answers.push(Ok(snapshot)),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => forget_stale(&path),
            // It has just ended.
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(Err(_)) | Err(_) => answers.push(Err(path)),
        }
    }
    answers
}

async fn ask_one(path: &Path) -> io::Result<Snapshot> {
    let mut stream = UnixStream::connect(path).await?;
    stream.write_all(REQUEST).await?;
    let mut line = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut line).await?;
    Ok(serde_json::from_slice(&line)?)
}

/// Nobody listens at this socket any more.
fn forget_stale(path: &Path) {
    let age = fs::metadata(path).and_then(|it| it.modified()).ok().and_then(|at| at.elapsed().ok());
    if age.is_some_and(|age| age >= STALE) {
        let _gone = fs::remove_file(path);
    }
}
