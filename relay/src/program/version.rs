//! Which build this is.

/// The commit this build was made from, twelve digits; `unknown` outside a checkout.
pub const COMMIT: &str = env!("CULVERT_COMMIT");

/// Version and commit, `0.1.0 (abc123def456)`: for clap's `version`, which puts the program's name before it.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("CULVERT_COMMIT"), ")");

/// What `--version` prints: `peer 0.1.0 (abc123def456)`.
#[must_use]
pub fn version_text(program: &str) -> String {
    format!("{program} {VERSION}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_names_program_version_and_commit() {
        assert_eq!(version_text("peer"), format!("peer {} ({COMMIT})", env!("CARGO_PKG_VERSION")));
        let plain = COMMIT.chars().all(|c| c.is_ascii_alphanumeric());
        assert!(plain && (COMMIT == "unknown" || COMMIT.len() >= 7), "{COMMIT}");
    }

    #[test]
    fn clap_prints_the_same_version() {
        let command = clap::Command::new("peer").version(VERSION);
        assert_eq!(command.render_version(), version_text("peer") + "\n");
    }
}
