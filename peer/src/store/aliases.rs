//! Short names for tickets. An alias's file is as private as the ticket in it.

use std::fs;
use std::io;
use std::str::FromStr;

use proto::name::ShareName;
use proto::ticket::Ticket;
use relay::program::Failure;
use relay::program::state::StateFile;
use serde::{Deserialize, Serialize};

use super::Store;

/// How tickets of every version begin, and no alias may.
const TICKET: &str = "culvert";

/// A short name for a ticket: as a share's name, and unlike a ticket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alias(ShareName);

/// Why a text is no alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an alias has 1 to 63 letters a-z, digits and hyphens, no hyphen at either end, and does not begin as a ticket"
)]
pub struct InvalidAlias;

impl FromStr for Alias {
    type Err = InvalidAlias;

    fn from_str(text: &str) -> Result<Self, InvalidAlias> {
        let name = text.parse().map_err(|_| InvalidAlias)?;
        if text.starts_with(TICKET) { Err(InvalidAlias) } else { Ok(Self(name)) }
    }
}

impl std::fmt::Display for Alias {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredAlias {
    ticket: String,
}

impl Store {
    /// The ticket that an alias stands for.
    ///
    /// # Errors
    /// The file can't be read, is damaged, or holds no ticket.
    pub fn alias(&self, alias: &Alias) -> Result<Option<Ticket>, Failure> {
        let file = self.alias_file(alias);
        let Some(stored) = file.load()? else { return Ok(None) };
        let ticket = stored.ticket.parse().map_err(|error| {
            Failure::failed("bad-alias", format_args!("{} holds no ticket: {error}", file.path().display()))
        })?;
        Ok(Some(ticket))
    }

    /// Keeps a ticket under an alias, in place of the one that had it.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn save_alias(&self, alias: &Alias, ticket: &Ticket) -> Result<(), Failure> {
        Ok(self.alias_file(alias).save(&StoredAlias { ticket: ticket.to_text() })?)
    }

    /// All aliases, in order.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn aliases(&self) -> Result<Vec<Alias>, Failure> {
        let dir = self.dir().join("aliases");
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(no_access("read", &dir, &error)),
        };
        // A draft, or a damaged one that was set aside, has a dot in its name.
        let mut aliases: Vec<Alias> =
            entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        aliases.sort();
        Ok(aliases)
    }

    /// Forgets an alias; tells whether there was one.
    ///
    /// # Errors
    /// The file can't be removed.
    pub fn remove_alias(&self, alias: &Alias) -> Result<bool, Failure> {
        let file = self.alias_file(alias);
        match fs::remove_file(file.path()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(no_access("remove", file.path(), &error)),
        }
    }

    fn alias_file(&self, alias: &Alias) -> StateFile<StoredAlias> {
        StateFile::new(self.dir().join("aliases").join(alias.0.as_str()))
    }
}

fn no_access(doing: &str, path: &std::path::Path, error: &io::Error) -> Failure {
    Failure::failed("state-io", format_args!("cannot {doing} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_a_ticket_or_a_path_is_no_alias() {
        for text in ["", "culvert1", "culvert2abc", "../x", "a/b", ".", "A", "-a", "@a", &"a".repeat(64)] {
            assert_eq!(text.parse::<Alias>(), Err(InvalidAlias), "{text}");
        }
        assert_eq!("my-nas".parse::<Alias>().unwrap().to_string(), "my-nas");
    }
}
