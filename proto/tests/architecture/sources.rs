//! The source files of a crate.

use std::fs;
use std::path::{Path, PathBuf};

/// One of them.
pub(crate) struct Source {
    /// Its path, for people.
    pub(crate) path: String,
    /// Its path within its crate.
    within: PathBuf,
    pub(crate) text: String,
}

impl Source {
    /// All of the crate that has this manifest.
    pub(crate) fn all_beside(manifest: &Path) -> Vec<Self> {
        let root = manifest.parent().expect("a manifest is in a directory");
        let mut files = Vec::new();
        for part in ["src", "tests", "examples", "benches"] {
            collect(&root.join(part), &mut files);
        }
        files.extend(Some(root.join("build.rs")).filter(|path| path.exists()));
        let source = |path: PathBuf| Self {
            path: path.display().to_string(),
            within: path.strip_prefix(root).expect("found below it").to_owned(),
            text: read(&path),
        };
        files.into_iter().map(source).collect()
    }

    /// The names of the file and of the directories in which it is.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.within.iter().filter_map(|part| part.to_str()).map(|part| part.trim_end_matches(".rs"))
    }

    pub(crate) fn is_test(&self) -> bool {
        self.names().any(|name| name == "tests")
    }

    pub(crate) fn is_product(&self) -> bool {
        self.within.starts_with("src")
    }

    /// The lines before the file's own tests that are no comments, with their numbers.
    pub(crate) fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(at, line)| (at + 1, line));
        lines
            .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.map(|entry| entry.expect("a readable directory").path()) {
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
}

pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The words of a line of code, without strings and comments.
pub(crate) fn words(line: &str) -> impl Iterator<Item = &str> {
    let code = line.split("//").next().unwrap_or_default();
    code.split('"').step_by(2).flat_map(|part| part.split(|c: char| !c.is_alphanumeric() && c != '_'))
}
