//! The only place that prints. Human lines, or with `--json` one event per line, on stdout; errors on stderr.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::Serialize;

use super::exit::Failure;

/// How much of a text from elsewhere [`clean`] lets through, in characters.
const CLEAN_CAP: usize = 256;

/// Where a program says what it does. Clones print to the same place, whole lines at a time. Printing waits for
/// whoever reads stdout, so a reader that stops reading stops the program, as it does every Unix tool; one that
/// closes it does not.
#[derive(Clone)]
pub struct Report {
    inner: Arc<Inner>,
}

struct Inner {
    json: bool,
    style: Style,
    /// None when stdout carries something else.
    out: Option<Mutex<Box<dyn Write + Send>>>,
    err: Mutex<Box<dyn Write + Send>>,
    closed: AtomicBool,
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report").field("json", &self.inner.json).finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Line<'a, T> {
    event: &'a str,
    at: String,
    #[serde(flatten)]
    fields: T,
}

#[derive(Serialize)]
struct ErrorFields<'a> {
    code: &'a str,
    message: &'a str,
}

#[derive(Serialize)]
struct StoppedFields<'a> {
    reason: &'a str,
}

impl Report {
    /// Prints to stdout and stderr; with `json`, events instead of human lines.
    #[must_use]
    pub fn new(json: bool) -> Self {
        let colour = !json && colour(io::stdout().is_terminal(), |name| std::env::var_os(name));
        Self::to(json, Style { on: colour }, Some(Box::new(io::stdout())), Box::new(io::stderr()))
    }

    /// Leaves stdout alone, for a program whose stdout carries something else; errors still go to stderr.
    #[must_use]
    pub fn without_stdout() -> Self {
        Self::to(false, Style { on: false }, None, Box::new(io::stderr()))
    }

    fn to(json: bool, style: Style, out: Option<Box<dyn Write + Send>>, err: Box<dyn Write + Send>) -> Self {
        let inner = Inner {
            json,
            style,
            out: out.map(Mutex::new),
            err: Mutex::new(err),
            closed: AtomicBool::new(false),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Whether this prints JSON.
    #[must_use]
    pub fn json(&self) -> bool {
        self.inner.json
    }

    /// How to paint human lines here.
    #[must_use]
    pub fn style(&self) -> Style {
        self.inner.style
    }

    /// Whether whoever read stdout has gone: a program that does nothing but print may stop then.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.inner.closed.load(Ordering::Relaxed)
    }

    /// With JSON: one event. `fields` is a struct or map whose entries stand beside `event` and `at`, or `()`.
    pub fn event(&self, name: &str, fields: impl Serialize) {
        if !self.inner.json {
            return;
        }
        let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        match serde_json::to_vec(&Line { event: name, at, fields }) {
            Ok(mut line) => {
                line.push(b'\n');
                self.print(&line);
            }
            Err(error) => tracing::error!("the event {name} cannot be written as JSON: {error}"),
        }
    }

    /// Without JSON: one line for a human. Text from elsewhere belongs through [`clean`] first.
    pub fn line(&self, line: impl fmt::Display) {
        if !self.inner.json {
            self.print(format!("{line}\n").as_bytes());
        }
    }

    /// Bytes on stdout as they are, JSON or not: a completion script, a manual page.
    pub fn raw(&self, bytes: &[u8]) {
        self.print(bytes);
    }

    /// One line on stderr: what failed, why, what to do; with JSON the `error` event too.
    pub fn failure(&self, failure: &Failure) {
        let message = failure.to_string();
        self.error_event(failure.slug, &message);
        self.note(&format!("error: {message}"));
    }

    /// One line on stderr that is no failure: what the user should know before going on.
    pub fn warning(&self, message: impl fmt::Display) {
        self.note(&format!("warning: {}", one_line(&message.to_string())));
    }

    pub(super) fn error_event(&self, slug: &str, message: &str) {
        self.event("error", ErrorFields { code: slug, message });
    }

    /// The `stopped` event of a program that ran until something stopped it.
    pub fn stopped(&self, reason: &str) {
        self.event("stopped", StoppedFields { reason });
    }

    fn note(&self, line: &str) {
        let mut err = self.inner.err.lock().unwrap_or_else(PoisonError::into_inner);
        // There is nowhere left to say that stderr is closed.
        let _closed = err.write_all(format!("{line}\n").as_bytes()).and_then(|()| err.flush());
    }

    fn print(&self, bytes: &[u8]) {
        let Some(out) = &self.inner.out else { return };
        if self.closed() {
            return;
        }
        let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = out.write_all(bytes).and_then(|()| out.flush()) {
            self.inner.closed.store(true, Ordering::Relaxed);
            if error.kind() != io::ErrorKind::BrokenPipe {
                tracing::warn!("stdout cannot be written to: {error}");
            }
        }
    }
}

/// Whether to use colour: only on a terminal, and not where `NO_COLOR` or a dumb terminal forbids it.
pub(super) fn colour(terminal: bool, env: impl Fn(&str) -> Option<OsString>) -> bool {
    terminal && env("NO_COLOR").is_none_or(|v| v.is_empty()) && env("TERM").is_none_or(|v| v != "dumb")
}

/// Paints text where colour is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    on: bool,
}

/// A text and how it is painted.
#[derive(Clone, Copy, Debug)]
pub struct Painted<T> {
    text: T,
    code: Option<u8>,
}

impl Style {
    fn paint<T>(self, text: T, code: u8) -> Painted<T> {
        Painted { text, code: self.on.then_some(code) }
    }

    /// What matters most.
    pub fn bold<T: fmt::Display>(self, text: T) -> Painted<T> {
        self.paint(text, 1)
    }

    /// What matters least.
    pub fn dim<T: fmt::Display>(self, text: T) -> Painted<T> {
        self.paint(text, 2)
    }

    /// What is well.
    pub fn green<T: fmt::Display>(self, text: T) -> Painted<T> {
        self.paint(text, 32)
    }

    /// What could be better.
    pub fn yellow<T: fmt::Display>(self, text: T) -> Painted<T> {
        self.paint(text, 33)
    }
}

impl<T: fmt::Display> fmt::Display for Painted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => {
                write!(f, "\x1b[{code}m")?;
                self.text.fmt(f)?;
                f.write_str("\x1b[0m")
            }
            None => self.text.fmt(f),
        }
    }
}

/// Text from elsewhere, safe to show: no control characters, nothing that moves the cursor, hides, or turns the
/// direction of writing; at most 256 characters. What was taken out leaves a mark.
#[must_use]
pub fn clean(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(CLEAN_CAP) {
        None => one_line(text),
        Some(_) => {
            let end = text.char_indices().nth(CLEAN_CAP - 1).map_or(text.len(), |(at, _)| at);
            Cow::Owned(one_line(&text[..end]).into_owned() + "…")
        }
    }
}

/// As [`clean`], of any length.
pub(super) fn one_line(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| shown(c) != c) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace("\r\n", "\n").chars().map(shown).collect())
}

fn shown(c: char) -> char {
    match c {
        '\n' | '\r' | '\t' => ' ',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        // Direction marks, embeddings, overrides and isolates.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            char::REPLACEMENT_CHARACTER
        }
        // Invisible, or a line of its own: zero width space, separators, joiners, annotations, tags. What joins
        // letters and emoji (200c, 200d) stays.
        '\u{200b}'
        | '\u{2028}'
        | '\u{2029}'
        | '\u{2060}'..='\u{2065}'
        | '\u{206a}'..='\u{206f}'
        | '\u{feff}' => char::REPLACEMENT_CHARACTER,
        '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

#[cfg(test)]
pub(super) use tests::Captured;

#[cfg(test)]
mod tests;
