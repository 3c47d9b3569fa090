//! The names that keys have claimed, on disk: what is told to be kept is there before anybody relies on it.
#![allow(clippy::result_large_err, reason = "the library's error, on paths that a disk slows down anyhow")]

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use proto::id::PeerId;
use proto::name::ShareName;
use proto::tunnel::names::Claim;
use redb::{Database, DatabaseError, ReadableTable as _, TableDefinition};
use tokio::sync::{mpsc, oneshot};

use crate::program::Failure;

/// A name, and its owner's 32 bytes with the time of its last use behind them: seconds since 1970 in 8 bytes,
/// big-endian.
const NAMES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("names");

/// Changes that wait for the disk. Each waits in turn, so whoever claims waits too.
const QUEUE: usize = 1024;

/// Why names can't be kept.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot use the names kept in {path}: {source}: stop the other program that uses it, restore it from a backup, \
     or move it away to forget who has which name"
)]
pub struct ClaimsError {
    path: PathBuf,
    source: Box<redb::Error>,
}

impl From<ClaimsError> for Failure {
    fn from(error: ClaimsError) -> Self {
        Self::failed("names-unusable", error)
    }
}

/// Opens the database again, which is there already.
type Reopen = dyn Fn() -> Result<Database, DatabaseError> + Send + Sync;

/// A database that is opened again after it has failed: until then it refuses everything.
struct Store {
    database: Mutex<Option<Database>>,
    reopen: Box<Reopen>,
}

impl Store {
    /// Does something with the database; once more, with another one, where this one has failed.
    fn with<T>(&self, change: impl Fn(&Database) -> Result<T, redb::Error>) -> Result<T, redb::Error> {
        let mut database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = &*database {
            match change(database) {
                Ok(done) => return Ok(done),
                Err(error) => tracing::warn!(%error, "the names' file failed; it is opened again"),
            }
        }
        // It can't be open twice.
        *database = None;
        let done = change(database.insert((self.reopen)()?));
        if done.is_err() {
            *database = None;
        }
        done
    }
}

/// Where names are kept. Cheap to clone; the default keeps them in memory, for as long as it lives itself.
#[derive(Clone, Default)]
pub struct Claims {
    store: Option<Arc<Store>>,
    /// Those that were there when it was opened.
    known: Arc<Vec<(ShareName, Claim)>>,
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.store.is_some() { "Claims(on disk)" } else { "Claims(in memory)" })
    }
}

impl Claims {
    /// Those in this file, which is made where there is none. It blocks.
    ///
    /// # Errors
    /// The file can't be used: it is damaged, or another process has it.
    pub fn open(path: &Path) -> Result<Self, ClaimsError> {
        let again = path.to_owned();
        let opened = Database::create(path).map_err(redb::Error::from);
        opened
            .and_then(|database| Self::of(database, Box::new(move || Database::open(&again))))
            .map_err(|source| ClaimsError { path: path.to_owned(), source: Box::new(source) })
    }

    fn of(database: Database, reopen: Box<Reopen>) -> Result<Self, redb::Error> {
        let change = database.begin_write()?;
        drop(change.open_table(NAMES)?);
        change.commit()?;
        let known = Arc::new(read_all(&database)?);
        let database = Mutex::new(Some(database));
        Ok(Self { store: Some(Arc::new(Store { database, reopen })), known })
    }

    /// Those that were there when it was opened.
    pub(crate) fn known(&self) -> Vec<(ShareName, Claim)> {
        self.known.to_vec()
    }

    /// Makes these changes, one after the other. It blocks until the disk has them.
    fn make(&self, changes: &[Change]) -> Result<(), redb::Error> {
        let Some(store) = &self.store else { return Ok(()) };
        store.with(|database| {
            let write = database.begin_write()?;
            {
                let mut names = write.open_table(NAMES)?;
                for Change { kept, over } in changes {
                    for name in over {
                        names.remove(name.as_str())?;
                    }
                    for (name, claim) in kept {
                        let value = [&claim.owner.as_bytes()[..], &claim.used.to_be_bytes()].concat();
                        names.insert(name.as_str(), value.as_slice())?;
                    }
                }
            }
            write.commit()?;
            Ok(())
        })
    }
}

fn read_all(database: &Database) -> Result<Vec<(ShareName, Claim)>, redb::Error> {
    let names = database.begin_read()?.open_table(NAMES)?;
    let mut claims = Vec::new();
    for entry in names.iter()? {
        let (name, value) = entry?;
        match (name.value().parse(), read(value.value())) {
            (Ok(name), Some(claim)) => claims.push((name, claim)),
            (Err(_), _) | (_, None) => {
                return Err(redb::Error::Corrupted(format!("{:?} is no name with an owner", name.value())));
            }
        }
    }
    Ok(claims)
}

fn read(value: &[u8]) -> Option<Claim> {
    let (owner, used) = value.split_first_chunk::<32>()?;
    Some(Claim { owner: PeerId::from_bytes(*owner), used: u64::from_be_bytes(used.try_into().ok()?) })
}

/// Names that are used, and names that are nobody's any more.
struct Change {
    kept: Vec<(ShareName, Claim)>,
    over: Vec<ShareName>,
}

/// A change, and who waits for it.
struct Task {
    change: Change,
    done: Option<oneshot::Sender<bool>>,
}

/// Keeps names, one write for as many as come together. Changes are made in the order in which they were sent:
/// who decides whose a name is sends them under the lock of that decision.
#[derive(Clone)]
pub(crate) struct Keeper(mpsc::Sender<Task>);

/// A place in the queue.
pub(crate) struct Reserved<'a>(mpsc::Permit<'a, Task>);

impl Reserved<'_> {
    /// Keeps a name. What comes back tells whether it is kept; that nobody tells is the same as no.
    pub(crate) fn keep(self, name: ShareName, claim: Claim) -> oneshot::Receiver<bool> {
        let (done, kept) = oneshot::channel();
        let change = Change { kept: vec![(name, claim)], over: Vec::new() };
        self.0.send(Task { change, done: Some(done) });
        kept
    }

    /// Notes the use of a name.
    pub(crate) fn note(self, name: ShareName, claim: Claim) {
        let change = Change { kept: vec![(name, claim)], over: Vec::new() };
        self.0.send(Task { change, done: None });
    }
}

impl Keeper {
    /// A keeper, and the work that it takes: to be run for as long as names are kept.
    pub(crate) fn new(claims: Claims) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), work(claims, receiver))
    }

    /// Waits for a place in the queue. `None` where nothing is kept any more.
    pub(crate) async fn reserve(&self) -> Option<Reserved<'_>> {
        self.0.reserve().await.ok().map(Reserved)
    }

    /// Notes changes that nobody waits for; where there is no room they are noted another time.
    pub(crate) fn note(&self, kept: Vec<(ShareName, Claim)>, over: Vec<ShareName>) {
        if kept.is_empty() && over.is_empty() {
            return;
        }
        if self.0.try_send(Task { change: Change { kept, over }, done: None }).is_err() {
            tracing::warn!("the last uses of names could not be noted");
        }
    }
}

async fn work(claims: Claims, mut tasks: mpsc::Receiver<Task>) {
    while let Some(first) = tasks.recv().await {
        let (mut changes, mut waiting) = (vec![first.change], Vec::from_iter(first.done));
        while let Ok(next) = tasks.try_recv() {
            changes.push(next.change);
            waiting.extend(next.done);
        }
        let is_kept = write(&claims, changes).await;
        for done in waiting {
            let _gone = done.send(is_kept);
        }
    }
}

async fn write(claims: &Claims, changes: Vec<Change>) -> bool {
    if claims.store.is_none() {
        return true;
    }
    let claims = claims.clone();
    match tokio::task::spawn_blocking(move || claims.make(&changes)).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::error!(%error, "names can't be kept: new ones are refused");
            false
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn claim(used: u64) -> Claim {
        Claim { owner: PeerId::from_bytes([7; 32]), used }
    }

    async fn keep(keeper: &Keeper, name: &ShareName, used: u64) -> bool {
        keeper.reserve().await.unwrap().keep(name.clone(), claim(used)).await.unwrap()
    }

    /// A file on a disk that fails while it is told to.
    #[derive(Debug)]
    struct Disk(redb::backends::FileBackend, Arc<AtomicBool>);

    impl Disk {
        fn open(path: &Path, fails: &Arc<AtomicBool>) -> Result<Database, DatabaseError> {
            let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
            let file = file.map_err(redb::StorageError::from)?;
            let disk = Self(redb::backends::FileBackend::new(file)?, Arc::clone(fails));
            Database::builder().create_with_backend(disk)
        }

        fn works(&self) -> std::io::Result<()> {
            let fails = self.1.load(Ordering::Relaxed);
            if fails { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
    }

    impl redb::StorageBackend for Disk {
        fn len(&self) -> std::io::Result<u64> {
            self.0.len()
        }

        fn read(&self, offset: u64, len: usize) -> std::io::Result<Vec<u8>> {
            self.0.read(offset, len)
        }

        fn set_len(&self, len: u64) -> std::io::Result<()> {
            self.works().and_then(|()| self.0.set_len(len))
        }

        fn sync_data(&self, eventual: bool) -> std::io::Result<()> {
            self.works().and_then(|()| self.0.sync_data(eventual))
        }

        fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
            self.works().and_then(|()| self.0.write(offset, data))
        }
    }

    #[tokio::test]
    async fn a_disk_that_failed_once_keeps_names_again_as_soon_as_it_works() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("names.redb");
        let fails = Arc::new(AtomicBool::new(false));
        let (again, switch) = (path.clone(), Arc::clone(&fails));
        let reopen = move || Disk::open(&again, &switch);
        let claims = Claims::of(Disk::open(&path, &fails).unwrap(), Box::new(reopen)).unwrap();
        let (keeper, work) = Keeper::new(claims);
        let work = tokio::spawn(work);
        let names: Vec<ShareName> = ["a1", "a2", "a3"].map(|name| name.parse().unwrap()).to_vec();
        assert!(keep(&keeper, &names[0], 1).await);
        fails.store(true, Ordering::Relaxed);
        assert!(!keep(&keeper, &names[1], 2).await);
        assert!(!keep(&keeper, &names[1], 2).await);
        fails.store(false, Ordering::Relaxed);
        assert!(keep(&keeper, &names[2], 3).await);
        drop(keeper);
        work.await.unwrap();
        let known = Claims::open(&path).unwrap().known();
        assert_eq!(known, [(names[0].clone(), claim(1)), (names[2].clone(), claim(3))]);
    }

    #[tokio::test]
    async fn a_name_that_is_nobodys_any_more_is_its_next_owners() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("names.redb");
        let (keeper, work) = Keeper::new(Claims::open(&path).unwrap());
        let [old, new]: [ShareName; 2] = ["a1", "a2"].map(|name| name.parse().unwrap());
        // All of these are one write, and the last word on a name holds.
        keeper.note(vec![(old.clone(), claim(1))], Vec::new());
        keeper.note(Vec::new(), vec![old, new.clone()]);
        let _kept = keeper.reserve().await.unwrap().keep(new.clone(), claim(2));
        drop(keeper);
        work.await;
        assert_eq!(Claims::open(&path).unwrap().known(), [(new, claim(2))]);
    }

    #[tokio::test]
    async fn what_is_kept_is_there_in_the_next_run() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("names.redb");
        let (keeper, work) = Keeper::new(Claims::open(&path).unwrap());
        let work = tokio::spawn(work);
        let names: Vec<ShareName> = ["a1", "a2", "a3"].map(|name| name.parse().unwrap()).to_vec();
        for (n, name) in names.iter().enumerate() {
            assert!(keep(&keeper, name, n as u64).await);
        }
        keeper.note(vec![(names[0].clone(), claim(9))], vec![names[1].clone()]);
        drop(keeper);
        work.await.unwrap();
        let known = Claims::open(&path).unwrap().known();
        assert_eq!(known, [(names[0].clone(), claim(9)), (names[2].clone(), claim(2))]);
    }

    #[test]
    fn names_of_another_process_or_of_none_are_not_touched() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("names.redb");
        let first = Claims::open(&path).unwrap();
        assert!(Claims::open(&path).unwrap_err().to_string().contains("stop the other program"));
        drop(first);
        std::fs::write(&path, b"something else").unwrap();
        assert!(Claims::open(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"something else");
    }
}
