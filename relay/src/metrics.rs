//! What a program counts, and Prometheus's text form of it.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::program::COMMIT;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The answer to `GET /metrics`, as it grows.
#[derive(Debug)]
pub struct Metrics(String);

impl Metrics {
    /// The content type of the text.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// Begins with which build of which program this is.
    pub fn new(program: &str) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        Self(format!(
            "# HELP culvert_build_info Which build this is.\n# TYPE culvert_build_info gauge\n\
             culvert_build_info{{program=\"{program}\",version=\"{version}\",commit=\"{COMMIT}\"}} 1\n"
        ))
    }

    /// One metric with one value: its name, and what it counts.
    pub fn single(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help);
        self.line(format_args!("culvert_{name} {value}"));
    }

    /// One metric, with a value for each value of a label.
    pub fn labelled<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = &'a (&'a str, u64)>,
    ) {
        self.head(name, help);
        for (of, value) in values {
            self.line(format_args!("culvert_{name}{{{label}=\"{of}\"}} {value}"));
        }
    }

    /// The text.
    pub fn into_text(self) -> String {
        self.0
    }

    /// What only grows is named so.
    fn head(&mut self, name: &str, help: &str) {
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        self.line(format_args!("# HELP culvert_{name} {help}\n# TYPE culvert_{name} {kind}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string has no way to fail.
        let _ = writeln!(self.0, "{line}");
    }
}
