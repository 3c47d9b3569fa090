//! Options that are secrets: given in the environment, in a file, or on the command line, where others may
//! see them.

use std::fmt;
use std::str::FromStr;

/// The largest file that a secret is read from, in bytes.
const MAX_FILE: u64 = 4096;

/// A secret that the user gave: itself, or `@FILE` for what the file holds, without the end of its line.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum NoSecret {
    /// The file can't be read.
    #[error("cannot read {0}: {1}; name a file that holds the secret, or leave out the @")]
    File(String, std::io::Error),
    /// It is empty, or more than a secret.
    #[error("a secret has one line of 1 to 256 visible characters")]
    Malformed,
}

impl Secret {
    /// The secret. It is not to be logged.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = NoSecret;

    fn from_str(text: &str) -> Result<Self, NoSecret> {
        let secret = match text.strip_prefix('@') {
            Some(path) => read(path).map_err(|error| NoSecret::File(path.to_owned(), error))?,
            None => text.to_owned(),
        };
        let secret = secret.trim_end_matches(['\r', '\n']);
        let plain = !secret.chars().any(char::is_control);
        if secret.is_empty() || secret.len() > 256 || !plain {
            return Err(NoSecret::Malformed);
        }
        Ok(Self(secret.to_owned()))
    }
}

fn read(path: &str) -> std::io::Result<String> {
    use std::io::Read as _;

    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_itself_or_what_a_file_holds_and_never_shows() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "from a file\n").unwrap();
        let from = |text: &str| text.parse::<Secret>();
        assert_eq!(from("plain").unwrap().reveal(), "plain");
        assert_eq!(from(&format!("@{}", path.display())).unwrap().reveal(), "from a file");
        assert_eq!(format!("{:?}", from("plain").unwrap()), "Secret");
        assert!(matches!(from("@/nonexistent/file"), Err(NoSecret::File(..))));
        for text in ["", "two\nlines", &"a".repeat(257)] {
            assert!(matches!(from(text), Err(NoSecret::Malformed)));
        }
    }
}
