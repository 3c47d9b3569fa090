//! What outlives a program: where it is kept, files that are written whole or not at all and whose damage shows,
//! and secrets that only their owner can read. All of it blocks; call it off the runtime's workers.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::exit::Failure;

mod envelope;

use envelope::Broken;

/// What can go wrong with a file of state.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was tried: `read`, `write`…
        doing: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not as it was written; it has been moved aside, and nothing stands in its place.
    #[error(
        "{path} is damaged and was kept as {kept_as}: restore it from a backup, or start again to begin without it"
    )]
    Damaged {
        /// Where it was.
        path: PathBuf,
        /// Where it is now.
        kept_as: PathBuf,
    },
    /// A secret is not as it was written; it has been left where it is.
    #[error("{path} is damaged: restore it from a backup, or move it away to start with a new identity")]
    DamagedSecret {
        /// Where it is.
        path: PathBuf,
    },
    /// The file is whole, but was written by a program of another version; it has been left as it is.
    #[error(
        "{path} was written by another version of this program ({detail}): use that version, or move the file away"
    )]
    OtherVersion {
        /// Where it is.
        path: PathBuf,
        /// What does not fit.
        detail: String,
    },
    /// Others can read a secret, so it may not be one any more.
    #[error(
        "{path} can be read by other users (mode {mode:04o}): run `chmod 600 {path}`, or replace it if they may have"
    )]
    Exposed {
        /// Where it is.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The value cannot be written down.
    #[error("cannot write {path}: its content has no JSON form: {source}")]
    Encode {
        /// Where it should have gone.
        path: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
    /// There is no place for state.
    #[error("there is no directory for state: set HOME, XDG_STATE_HOME, or name a directory")]
    NoHome,
}

impl Error {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }

    /// The `code` of the `error` event.
    #[must_use]
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Io { .. } | Self::Encode { .. } => "state-io",
            Self::Damaged { .. } | Self::DamagedSecret { .. } => "state-damaged",
            Self::OtherVersion { .. } => "state-version",
            Self::Exposed { .. } => "secret-exposed",
            Self::NoHome => "no-home",
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::failed(error.slug(), error)
    }
}

/// Where a program keeps its state: `$XDG_STATE_HOME/culvert/<program>`, else `~/.local/state/culvert/<program>`.
///
/// # Errors
/// [`Error::NoHome`] where neither is set.
pub fn directory(program: &str) -> Result<PathBuf, Error> {
    let base = base(|name| std::env::var_os(name), "XDG_STATE_HOME", ".local/state").ok_or(Error::NoHome)?;
    Ok(base.join("culvert").join(program))
}

/// A directory of the XDG scheme, which wants relative ones ignored.
pub(super) fn base(env: impl Fn(&str) -> Option<OsString>, variable: &str, at_home: &str) -> Option<PathBuf> {
    let named = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    named(variable).or_else(|| Some(named("HOME")?.join(at_home)))
}

/// Makes a directory and those above it, for nobody else to look into. One that is there stays as it is.
///
/// # Errors
/// If the system refuses.
pub fn create_private_dir(path: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::io("create", path))
}

/// A value kept in a file of its own: a line of text with a checksum, then JSON. Readers see the old file or the new
/// one, never a part, also after a power cut.
#[derive(Debug)]
pub struct StateFile<T> {
    path: PathBuf,
    value: PhantomData<fn(T) -> T>,
}

impl<T: Serialize + DeserializeOwned> StateFile<T> {
    /// The file at this path, which need not be there yet, nor its directory.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), value: PhantomData }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was saved last; none if nothing ever was.
    ///
    /// # Errors
    /// [`Error::Damaged`] if the file is not as it was written: it is moved aside then, never read in part.
    pub fn load(&self) -> Result<Option<T>, Error> {
        loop {
            let bytes = match fs::read(&self.path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(Error::io("read", &self.path)(error)),
            };
            let detail = match envelope::open(&bytes, envelope::STATE) {
                Ok(body) => match serde_json::from_slice(body) {
                    Ok(value) => return Ok(Some(value)),
                    Err(error) => error.to_string(),
                },
                Err(Broken::OtherVersion(version)) => format!("its format is {version}"),
                Err(Broken::Damaged) => match self.set_aside(&bytes)? {
                    Some(kept_as) => return Err(Error::Damaged { path: self.path.clone(), kept_as }),
                    // Another process has put a good one in its place meanwhile.
                    None => continue,
                },
            };
            return Err(Error::OtherVersion { path: self.path.clone(), detail });
        }
    }

    /// Replaces what the file holds.
    ///
    /// # Errors
    /// If it could not be written; what was there before is still there then.
    pub fn save(&self, value: &T) -> Result<(), Error> {
        let mut body = serde_json::to_vec_pretty(value)
            .map_err(|source| Error::Encode { path: self.path.clone(), source })?;
        body.push(b'\n');
        let draft = Draft::write(&self.path, &envelope::seal(&body, envelope::STATE))?;
        fs::rename(&draft.path, &self.path).map_err(Error::io("replace", &self.path))?;
        sync_dir(&self.path)
    }

    /// Moves a damaged file aside and says where to. None if it was not there any more.
    fn set_aside(&self, damaged: &[u8]) -> Result<Option<PathBuf>, Error> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let name = self.path.file_name().unwrap_or_default();
        let kept_as = (0_u32..)
            .map(|attempt| {
                let mut kept = name.to_owned();
                kept.push(format!(".damaged-{seconds}"));
                if attempt > 0 {
                    kept.push(format!("-{attempt}"));
                }
                self.path.with_file_name(kept)
            })
            .find(|kept| !kept.exists())
            .unwrap_or_default();
        match fs::rename(&self.path, &kept_as) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("set aside", &self.path)(error)),
        }
        // Was it the one we read, or one another process has saved since?
        if fs::read(&kept_as).is_ok_and(|now| now != damaged) {
            match fs::hard_link(&kept_as, &self.path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::io("put back", &self.path)(error));
                }
                Ok(()) | Err(_) => {}
            }
            fs::remove_file(&kept_as).map_err(Error::io("remove", &kept_as))?;
            return Ok(None);
        }
        sync_dir(&self.path)?;
        Ok(Some(kept_as))
    }
}

/// Loads a secret, or makes it if there is none. Of several processes that make it at the same time one wins, and all
/// get the winner's. The file begins with a checksum and is readable by its owner only.
///
/// # Errors
/// [`Error::Exposed`] if others can read it, [`Error::DamagedSecret`] if it is not as it was written: neither is ever
/// replaced, as that would be another identity.
pub fn load_or_create_secret(path: &Path, make: impl FnOnce() -> Vec<u8>) -> Result<Vec<u8>, Error> {
    if let Some(secret) = load_secret(path)? {
        return Ok(secret);
    }
    let secret = make();
    let draft = Draft::write(path, &envelope::seal(&secret, envelope::SECRET))?;
    // A link appears whole, and never replaces what is there.
    match fs::hard_link(&draft.path, path) {
        Ok(()) => {
            drop(draft);
            sync_dir(path)?;
            Ok(secret)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let gone = || Error::io("read", path)(io::ErrorKind::NotFound.into());
            load_secret(path)?.ok_or_else(gone)
        }
        Err(error) => Err(Error::io("create", path)(error)),
    }
}

/// Loads a secret; none if there is no such file.
///
/// # Errors
/// As [`load_or_create_secret`].
pub fn load_secret(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    let mode = file.metadata().map_err(Error::io("read", path))?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Error::Exposed { path: path.to_owned(), mode });
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    match envelope::open(&bytes, envelope::SECRET) {
        Ok(secret) => Ok(Some(secret.to_vec())),
        Err(Broken::Damaged) => Err(Error::DamagedSecret { path: path.to_owned() }),
        Err(Broken::OtherVersion(version)) => {
            Err(Error::OtherVersion { path: path.to_owned(), detail: format!("its format is {version}") })
        }
    }
}

/// A file written and synced beside the one it is to become; gone when dropped, unless it became it.
struct Draft {
    path: PathBuf,
}

impl Draft {
    fn write(target: &Path, bytes: &[u8]) -> Result<Self, Error> {
        create_private_dir(directory_of(target))?;
        // Process numbers would not do: two containers on one volume have the same.
        let random: [u8; 8] = ring::rand::generate(&ring::rand::SystemRandom::new())
            .map_err(|_| Error::io("draw a name beside", target)(io::Error::other("no randomness")))?
            .expose();
        let mut name = OsString::from(".");
        name.push(target.file_name().unwrap_or_default());
        name.push(format!(".new-{:016x}", u64::from_ne_bytes(random)));
        let path = target.with_file_name(name);
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let mut file = opened.map_err(Error::io("write", &path))?;
        let draft = Self { path };
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(Error::io("write", target))?;
        Ok(draft)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _renamed = fs::remove_file(&self.path);
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_dir(path: &Path) -> Result<(), Error> {
    let dir = directory_of(path);
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(Error::io("sync", dir))
}

#[cfg(test)]
mod tests;
