//! How a program ends: its exit codes, the one line that explains a failure, and the `error` and `stopped` events.

use std::fmt;
use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use super::report::{Report, one_line};
use super::signals::Reason;

/// The exit codes of all programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    /// Did what was asked.
    Done = 0,
    /// It failed; one line on stderr says what, why, and what to do.
    Failed = 1,
    /// The command line, environment or options file is wrong.
    Usage = 2,
    /// The server could not be reached.
    Unreachable = 3,
    /// The server or the remote peer does not let us in.
    NotAuthorised = 4,
    /// The remote peer is not online.
    Offline = 5,
    /// Stopped by an interrupt.
    Interrupted = 130,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// Why a program could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the process exits with.
    pub code: Code,
    /// The `code` of the `error` event, for scripts: `server-unreachable`.
    pub slug: &'static str,
    /// What failed, why, and what to do.
    pub message: String,
}

impl Failure {
    /// A failure with all its parts.
    pub fn new(code: Code, slug: &'static str, message: impl fmt::Display) -> Self {
        Self { code, slug, message: message.to_string() }
    }

    /// It failed, for a reason that has no exit code of its own.
    pub fn failed(slug: &'static str, message: impl fmt::Display) -> Self {
        Self::new(Code::Failed, slug, message)
    }

    /// An option's value, or several options together, make no sense.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(Code::Usage, "usage", message)
    }

    /// The server could not be reached.
    pub fn unreachable(message: impl fmt::Display) -> Self {
        Self::new(Code::Unreachable, "server-unreachable", message)
    }

    /// The server or the remote peer refused us.
    pub fn not_authorised(message: impl fmt::Display) -> Self {
        Self::new(Code::NotAuthorised, "not-authorised", message)
    }

    /// The remote peer is not online.
    pub fn offline(message: impl fmt::Display) -> Self {
        Self::new(Code::Offline, "peer-offline", message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.message))
    }
}

impl std::error::Error for Failure {}

/// How a program came to its end without a failure. A plain `()` is a command that did its work; a [`Reason`] is
/// one that ran until it was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// What the process exits with.
    pub code: Code,
    /// The `reason` of the `stopped` event; none for a command that just finished its work.
    pub reason: Option<&'static str>,
}

impl Ending {
    /// A running program that stopped by itself, for this reason.
    #[must_use]
    pub fn stopped(reason: &'static str) -> Self {
        Self { code: Code::Done, reason: Some(reason) }
    }
}

impl From<()> for Ending {
    fn from((): ()) -> Self {
        Self { code: Code::Done, reason: None }
    }
}

impl From<Code> for Ending {
    fn from(code: Code) -> Self {
        Self { code, reason: None }
    }
}

impl From<Reason> for Ending {
    fn from(reason: Reason) -> Self {
        Self { code: reason.code(), reason: Some(reason.as_str()) }
    }
}

/// Runs a program's body on a runtime of its own and reports how it ended. Whatever the body leaves running does
/// not keep the process alive.
pub fn run<F, E>(report: &Report, body: F) -> ExitCode
where
    F: Future<Output = Result<E, Failure>>,
    E: Into<Ending>,
{
    let ended = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let ended = runtime.block_on(body);
            // A blocked read of stdin cannot be cancelled, only left behind.
            runtime.shutdown_timeout(Duration::from_millis(100));
            ended.map(Into::into)
        }
        Err(error) => {
            Err(Failure::failed("no-runtime", format_args!("cannot start worker threads: {error}")))
        }
    };
    conclude(report, ended).into()
}

/// Reports how a program ended, and gives its exit code.
pub fn conclude(report: &Report, ended: Result<Ending, Failure>) -> Code {
    match ended {
        Ok(Ending { code, reason }) => {
            if let Some(reason) = reason {
                report.stopped(reason);
            }
            code
        }
        Err(failure) => {
            report.failure(&failure);
            failure.code
        }
    }
}

/// Why a program's options could not be had: help was asked for, or something is wrong with them.
#[derive(Debug)]
pub struct Exit {
    cause: Cause,
    json: bool,
}

#[derive(Debug)]
enum Cause {
    Clap(clap::Error),
    Failure(Failure),
}

impl Exit {
    /// `json`: whether JSON was asked for, as far as that could be told.
    pub(super) fn clap(error: clap::Error, json: bool) -> Self {
        Self { cause: Cause::Clap(error), json }
    }

    /// See [`Exit::clap`].
    pub(super) fn failure(failure: Failure, json: bool) -> Self {
        Self { cause: Cause::Failure(failure), json }
    }

    /// What the process should exit with.
    #[must_use]
    pub fn code(&self) -> Code {
        match &self.cause {
            Cause::Clap(error) if error.use_stderr() => Code::Usage,
            Cause::Clap(_) => Code::Done,
            Cause::Failure(failure) => failure.code,
        }
    }

    /// What is wrong, in one line; for `--help` and `--version` the beginning of what was asked for.
    #[must_use]
    pub fn message(&self) -> String {
        match &self.cause {
            Cause::Clap(error) => {
                let text = error.to_string();
                // The first paragraph is the error; the usage follows.
                let paragraph = text.split("\n\n").next().unwrap_or_default();
                one_line(paragraph.strip_prefix("error: ").unwrap_or(paragraph)).into_owned()
            }
            Cause::Failure(failure) => failure.to_string(),
        }
    }

    /// Prints what there is to say, and gives the exit code.
    #[must_use]
    pub fn finish(self) -> ExitCode {
        let code = self.code();
        let report = Report::new(self.json);
        match &self.cause {
            Cause::Failure(failure) => report.failure(failure),
            Cause::Clap(error) => {
                if error.use_stderr() {
                    report.error_event("usage", &self.message());
                }
                // A closed terminal is no reason to fail.
                let _closed = error.print();
            }
        }
        code.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::report::Captured;

    #[test]
    fn a_failure_is_one_line_on_stderr_and_nothing_on_stdout() {
        let seen = Captured::default();
        let report = seen.report(false);
        let code = conclude(&report, Err(Failure::unreachable("cannot reach x:\nrefused\u{1b}[2J")));
        assert_eq!(code, Code::Unreachable);
        assert_eq!(seen.err(), "error: cannot reach x: refused\u{fffd}[2J\n");
        assert_eq!(seen.out(), "");
    }

    #[test]
    fn with_json_a_failure_is_also_an_event() {
        let seen = Captured::default();
        let code = conclude(&seen.report(true), Err(Failure::offline("the peer is away")));
        assert_eq!(code, Code::Offline);
        assert_eq!(seen.err(), "error: the peer is away\n");
        let event: serde_json::Value = serde_json::from_str(&seen.out()).unwrap();
        assert_eq!(event["event"], "error");
        assert_eq!(event["code"], "peer-offline");
        assert_eq!(event["message"], "the peer is away");
    }

    #[test]
    fn an_interrupt_ends_with_130_and_a_termination_with_0() {
        for (reason, code, name) in [
            (Reason::Interrupted, Code::Interrupted, "interrupted"),
            (Reason::Terminated, Code::Done, "terminated"),
        ] {
            let seen = Captured::default();
            assert_eq!(conclude(&seen.report(true), Ok(reason.into())), code);
            let event: serde_json::Value = serde_json::from_str(&seen.out()).unwrap();
            assert_eq!((event["event"].as_str(), event["reason"].as_str()), (Some("stopped"), Some(name)));
        }
    }

    #[test]
    fn a_finished_command_says_nothing_more() {
        let seen = Captured::default();
        assert_eq!(conclude(&seen.report(true), Ok(().into())), Code::Done);
        assert_eq!((seen.out(), seen.err()), (String::new(), String::new()));
    }

    #[test]
    fn the_body_runs_on_a_runtime_and_may_leave_work_behind() {
        let seen = Captured::default();
        let code = run(&seen.report(false), async {
            tokio::spawn(std::future::pending::<()>());
            tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_secs(30)));
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok::<(), Failure>(())
        });
        assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
    }
}
