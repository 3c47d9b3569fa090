//! The names that keys have claimed, on disk: what is told to be kept is there before anybody relies on it.
#![allow(clippy::result_large_err, reason = "the library's error, on paths that a disk slows down anyhow")]

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proto::id::PeerId;
use proto::name::ShareName;
use proto::tunnel::names::Claim;
use redb::{Database, ReadableTable as _, TableDefinition};
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

/// Where names are kept. Cheap to clone; the default keeps them in memory, for as long as it lives itself.
#[derive(Clone, Default)]
pub struct Claims {
    database: Option<Arc<Database>>,
    /// Those that were there when it was opened.
    known: Arc<Vec<(ShareName, Claim)>>,
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.database.is_some() { "Claims(on disk)" } else { "Claims(in memory)" })
    }
}

impl Claims {
    /// Those in this file, which is made where there is none. It blocks.
    ///
    /// # Errors
    /// The file can't be used: it is damaged, or another process has it.
    pub fn open(path: &Path) -> Result<Self, ClaimsError> {
        let open = || {
            let database = Database::create(path)?;
            let change = database.begin_write()?;
            drop(change.open_table(NAMES)?);
            change.commit()?;
            let known = Arc::new(read_all(&database)?);
            Ok(Self { database: Some(Arc::new(database)), known })
        };
        open().map_err(|source| ClaimsError { path: path.to_owned(), source: Box::new(source) })
    }

    /// Those that were there when it was opened.
    pub(crate) fn known(&self) -> Vec<(ShareName, Claim)> {
        self.known.to_vec()
    }

    /// Writes these, and takes those out. It blocks until the disk has it.
    fn change(&self, kept: &[(ShareName, Claim)], over: &[ShareName]) -> Result<(), redb::Error> {
        let Some(database) = &self.database else { return Ok(()) };
        let change = database.begin_write()?;
        {
            let mut names = change.open_table(NAMES)?;
            for name in over {
                names.remove(name.as_str())?;
            }
            for (name, claim) in kept {
                let value = [&claim.owner.as_bytes()[..], &claim.used.to_be_bytes()].concat();
                names.insert(name.as_str(), value.as_slice())?;
            }
        }
        change.commit()?;
        Ok(())
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

/// Something to be kept, and who waits for it.
struct Change {
    kept: Vec<(ShareName, Claim)>,
    over: Vec<ShareName>,
    done: Option<oneshot::Sender<bool>>,
}

/// Keeps names, one write for as many as come together.
#[derive(Clone)]
pub(crate) struct Keeper(mpsc::Sender<Change>);

impl Keeper {
    /// A keeper, and the work that it takes: to be run for as long as names are kept.
    pub(crate) fn new(claims: Claims) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), work(claims, receiver))
    }

    /// Keeps a name. Whether it is kept.
    pub(crate) async fn keep(&self, name: ShareName, claim: Claim) -> bool {
        let (done, kept) = oneshot::channel();
        let change = Change { kept: vec![(name, claim)], over: Vec::new(), done: Some(done) };
        self.0.send(change).await.is_ok() && kept.await.unwrap_or(false)
    }

    /// Notes changes that nobody waits for; where there is no room they are noted another time.
    pub(crate) fn note(&self, kept: Vec<(ShareName, Claim)>, over: Vec<ShareName>) {
        if kept.is_empty() && over.is_empty() {
            return;
        }
        if self.0.try_send(Change { kept, over, done: None }).is_err() {
            tracing::warn!("the last uses of names could not be noted");
        }
    }
}

async fn work(claims: Claims, mut changes: mpsc::Receiver<Change>) {
    while let Some(first) = changes.recv().await {
        let mut together = vec![first];
        while let Ok(next) = changes.try_recv() {
            together.push(next);
        }
        let is_kept = write(&claims, &together).await;
        for done in together.into_iter().filter_map(|change| change.done) {
            let _gone = done.send(is_kept);
        }
    }
}

async fn write(claims: &Claims, together: &[Change]) -> bool {
    if claims.database.is_none() {
        return true;
    }
    let kept: Vec<_> = together.iter().flat_map(|change| change.kept.clone()).collect();
    let over: Vec<_> = together.iter().flat_map(|change| change.over.clone()).collect();
    let claims = claims.clone();
    match tokio::task::spawn_blocking(move || claims.change(&kept, &over)).await {
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
    use super::*;

    fn claim(used: u64) -> Claim {
        Claim { owner: PeerId::from_bytes([7; 32]), used }
    }

    #[tokio::test]
    async fn what_is_kept_is_there_in_the_next_run() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("names.redb");
        let (keeper, work) = Keeper::new(Claims::open(&path).unwrap());
        let work = tokio::spawn(work);
        let names: Vec<ShareName> = ["a1", "a2", "a3"].map(|name| name.parse().unwrap()).to_vec();
        for (n, name) in names.iter().enumerate() {
            assert!(keeper.keep(name.clone(), claim(n as u64)).await);
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
