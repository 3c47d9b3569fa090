//! A server's identity, kept between runs.

use std::path::Path;

use super::exit::Failure;
use super::state;
use proto::key::SecretKey;
use rcgen::{KeyPair, PKCS_ED25519};

/// The file of the secret key in a directory of state.
const FILE: &str = "identity";

/// The key kept in `directory`, made at the first use. It blocks.
///
/// # Errors
/// When it can't be read or written, when others could read it, and when the file holds something else.
pub fn load_or_create(directory: &Path) -> Result<SecretKey, Failure> {
    let path = directory.join(FILE);
    let pkcs8 = match state::load_secret(&path)? {
        Some(pkcs8) => pkcs8,
        None => {
            let fresh = KeyPair::generate_for(&PKCS_ED25519).map_err(|error| {
                Failure::failed("no-identity", format_args!("cannot make a new identity: {error}"))
            })?;
            // Another process may be as far as we are: all get the first one's key.
            state::load_or_create_secret(&path, || fresh.serialize_der())?
        }
    };
    SecretKey::from_pkcs8(&pkcs8).map_err(|error| {
        let path = path.display();
        Failure::failed(
            "state-damaged",
            format_args!(
                "{path}: {error}: restore it from a backup, or move it away to start with a new identity"
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_identity_stays_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("state");
        let first = load_or_create(&home).unwrap().peer_id();
        assert_eq!(load_or_create(&home).unwrap().peer_id(), first);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&home), 0o700);
        assert_eq!(mode(&home.join(FILE)), 0o600);
    }

    #[test]
    fn an_identity_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        load_or_create(dir.path()).unwrap();
        fs::set_permissions(dir.path().join(FILE), fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(load_or_create(dir.path()).unwrap_err().slug, "secret-exposed");
    }

    #[test]
    fn a_secret_that_is_no_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        state::load_or_create_secret(&dir.path().join(FILE), || b"no key".to_vec()).unwrap();
        assert_eq!(load_or_create(dir.path()).unwrap_err().slug, "state-damaged");
    }
}
