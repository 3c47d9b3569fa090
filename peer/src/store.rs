//! What a user's programs keep between runs: the identity, the shares with their tickets' secrets, the
//! servers' pinned identities and last addresses, and aliases of tickets. Nothing else of this crate touches the disk.

mod aliases;
mod servers;

use std::path::{Path, PathBuf};

use proto::id::{PeerId, ShareId, TicketId};
use proto::key::SecretKey;
use proto::proof::TicketSecret;
use relay::program::Failure;
use relay::program::state::{self, StateFile};
use serde::{Deserialize, Serialize};

pub use aliases::{Alias, InvalidAlias};

/// A directory that no system has: nothing can be read or written there.
const NOWHERE: &str = "/dev/null/culvert";

/// The directory of a user's state.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
    /// Whether it is an error when something can't be kept, or read again.
    keeps: bool,
}

/// One share, as it is kept. The file is private: it holds the ticket's secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredShare {
    /// What was shared, for whoever reads the file.
    pub targets: Vec<String>,
    /// Its id.
    #[serde(with = "hex")]
    pub share: [u8; 8],
    /// Its name.
    pub name: String,
    /// Its name on servers, where it was public under a name that nobody chose: it can't be guessed.
    #[serde(default)]
    pub public_name: Option<String>,
    /// Its ticket's id.
    #[serde(with = "hex")]
    pub ticket: [u8; 8],
    /// Its ticket's secret.
    #[serde(with = "hex")]
    pub secret: [u8; 16],
    /// When the ticket ends, in seconds since 1970.
    pub expires: Option<u64>,
}

impl StoredShare {
    /// The share's id.
    pub const fn share_id(&self) -> ShareId {
        ShareId(self.share)
    }

    /// The ticket's id.
    pub const fn ticket_id(&self) -> TicketId {
        TicketId(self.ticket)
    }

    /// The ticket's secret.
    pub const fn ticket_secret(&self) -> TicketSecret {
        TicketSecret::from_bytes(self.secret)
    }
}

/// A server's identity, as it was first seen.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct PinnedServer {
    url: String,
    peer_id: String,
}

/// The ports that an embedded server had.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmbeddedPorts {
    /// STUN and QUIC.
    pub udp: u16,
    /// HTTP.
    pub http: u16,
}

impl Store {
    /// The store of this user: `$XDG_STATE_HOME/culvert/peer`, or `~/.local/state/culvert/peer`.
    ///
    /// # Errors
    /// There is no home directory.
    pub fn of_this_user() -> Result<Self, Failure> {
        Ok(Self { dir: state::directory("peer")?, keeps: true })
    }

    /// The same for a run that keeps nothing of its own. What is there is read; where there is no directory, or none that
    /// can be written, it does without.
    pub fn for_one_run() -> Self {
        let dir = state::directory("peer").unwrap_or_else(|_| NOWHERE.into());
        Self { dir, keeps: false }
    }

    /// What a state file's access came to; what this run can do without is `instead`.
    fn or<T>(&self, done: Result<T, state::Error>, instead: impl FnOnce() -> T) -> Result<T, Failure> {
        match done {
            Err(state::Error::Io { .. }) if !self.keeps => Ok(instead()),
            done => Ok(done?),
        }
    }

    /// Whether what is to be kept must be.
    pub const fn keeps(&self) -> bool {
        self.keeps
    }

    /// A store in this directory.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), keeps: true }
    }

    /// The identity, made on first use.
    ///
    /// # Errors
    /// The key's file can't be read or made, or others can read it.
    pub fn identity(&self) -> Result<SecretKey, Failure> {
        self.key("identity")
    }

    /// The identity of the embedded server, made on first use.
    ///
    /// # Errors
    /// As [`Self::identity`].
    pub fn embedded_identity(&self) -> Result<SecretKey, Failure> {
        self.key("embedded-server")
    }

    fn key(&self, name: &str) -> Result<SecretKey, Failure> {
        let path = self.dir.join(name);
        let new = || new_key().pkcs8().to_vec();
        let der = self.or(state::load_or_create_secret(&path, new), new)?;
        SecretKey::from_pkcs8(&der).map_err(|error| {
            Failure::failed(
                "bad-identity",
                format!("{} is {error}; restore it from a backup", path.display()),
            )
        })
    }

    /// A share by what makes it the same share: its name where the user chose one, else its targets.
    ///
    /// # Errors
    /// The file can't be read, or is damaged.
    pub fn share(&self, key: &str) -> Result<Option<StoredShare>, Failure> {
        Ok(self.share_file(key).load()?)
    }

    /// Keeps a share.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn save_share(&self, key: &str, share: &StoredShare) -> Result<(), Failure> {
        Ok(self.share_file(key).save(share)?)
    }

    fn share_file(&self, key: &str) -> StateFile<StoredShare> {
        StateFile::new(self.dir.join("shares").join(file_name(key)))
    }

    /// The identity under which a server is known.
    ///
    /// # Errors
    /// The file can't be read, or is damaged.
    pub fn pinned(&self, url: &str) -> Result<Option<PeerId>, Failure> {
        let pinned = self.or(self.pin_file(url).load(), || None)?;
        Ok(pinned.and_then(|pinned| pinned.peer_id.parse().ok()))
    }

    /// Remembers a server's identity.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn pin(&self, url: &str, peer_id: PeerId) -> Result<(), Failure> {
        let pinned = PinnedServer { url: url.to_owned(), peer_id: peer_id.to_string() };
        self.or(self.pin_file(url).save(&pinned), || ())
    }

    /// Where a server's identity is kept, for the words that tell a user how to forget it.
    pub fn pin_path(&self, url: &str) -> PathBuf {
        self.dir.join("servers").join(file_name(url))
    }

    fn pin_file(&self, url: &str) -> StateFile<PinnedServer> {
        StateFile::new(self.pin_path(url))
    }

    /// The ports that the embedded server had last.
    ///
    /// # Errors
    /// The file can't be read, or is damaged.
    pub fn embedded_ports(&self) -> Result<EmbeddedPorts, Failure> {
        Ok(self.or(self.ports_file().load(), || None)?.unwrap_or_default())
    }

    /// Remembers them.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn save_embedded_ports(&self, ports: EmbeddedPorts) -> Result<(), Failure> {
        self.or(self.ports_file().save(&ports), || ())
    }

    fn ports_file(&self) -> StateFile<EmbeddedPorts> {
        StateFile::new(self.dir.join("embedded-ports"))
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// A new identity.
pub fn new_key() -> SecretKey {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("the system has randomness");
    SecretKey::from_pkcs8(pair.serialized_der()).expect("rcgen writes PKCS #8")
}

/// A file name that says what it is for and is unlike any other key's.
fn file_name(key: &str) -> String {
    let readable: String = key
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '.' { c } else { '_' })
        .take(60)
        .collect();
    let hash = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
    let short: String = hash.as_ref()[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{readable}-{short}")
}

mod hex {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer, const N: usize>(bytes: &[u8; N], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&data_encoding::HEXLOWER.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(d: D) -> Result<[u8; N], D::Error> {
        let text = String::deserialize(d)?;
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(D::Error::custom)?;
        bytes.try_into().map_err(|_| D::Error::custom("of another length"))
    }
}
