//! Names the commit this build is made from: `CULVERT_COMMIT` if it is set, else what git says, else `unknown`.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CULVERT_COMMIT");
    let commit = given().or_else(checkout).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=CULVERT_COMMIT={commit}");
}

/// The commit a packager names, for sources without their history.
fn given() -> Option<String> {
    let given = std::env::var("CULVERT_COMMIT").ok()?;
    let plain: String = given.trim().chars().filter(char::is_ascii_alphanumeric).take(40).collect();
    (!plain.is_empty()).then_some(plain)
}

/// The commit of the checkout these sources are in; not that of some other project's checkout around them.
fn checkout() -> Option<String> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?.canonicalize().ok()?;
    let top = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?).canonicalize().ok()?;
    if top != workspace {
        return None;
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    watch();
    Some(commit)
}

/// Asks for a rebuild when HEAD comes to name another commit. `--git-path` knows worktrees; a branch without a
/// file of its own is in `packed-refs`, and then the file's first appearance shows in its directory.
fn watch() {
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    let files = ["HEAD", "logs/HEAD", "packed-refs", "reftable/tables.list"].map(str::to_owned);
    for name in files.into_iter().chain(branch) {
        let Some(mut path) = git(&["rev-parse", "--git-path", &name]).map(PathBuf::from) else { continue };
        if name.starts_with("refs/") && !path.exists() {
            path.pop();
        }
        // Naming a file that is not there would rebuild every time.
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
