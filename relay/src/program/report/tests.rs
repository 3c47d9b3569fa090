use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::*;

/// What a report printed.
#[derive(Clone, Default)]
pub(crate) struct Captured {
    out: Arc<Mutex<Vec<u8>>>,
    err: Arc<Mutex<Vec<u8>>>,
}

struct Into(Arc<Mutex<Vec<u8>>>);

impl Write for Into {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Captured {
    pub(crate) fn report(&self, json: bool) -> Report {
        let (out, err) = (Into(self.out.clone()), Into(self.err.clone()));
        Report::to(json, Style { on: false }, Some(Box::new(out)), Box::new(err))
    }
    pub(crate) fn out(&self) -> String {
        String::from_utf8(self.out.lock().unwrap().clone()).unwrap()
    }
    pub(crate) fn err(&self) -> String {
        String::from_utf8(self.err.lock().unwrap().clone()).unwrap()
    }
}

#[derive(Serialize)]
struct Path {
    zulu: &'static str,
    alpha: f64,
    nothing: Option<u8>,
}

#[test]
fn an_event_is_one_line_with_its_name_its_time_and_its_fields() {
    let seen = Captured::default();
    let report = seen.report(true);
    report.event("path", Path { zulu: "a\nb", alpha: 1.5, nothing: None });
    report.event("empty", ());
    report.line("not shown");
    let out = seen.out();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with(r#"{"event":"path","at":""#), "{out}");
    assert!(lines[0].ends_with(r#"","zulu":"a\nb","alpha":1.5,"nothing":null}"#), "{out}");
    let value: Value = serde_json::from_str(lines[1]).unwrap();
    let at = value["at"].as_str().unwrap();
    assert_eq!((at.len(), &at[19..20], &at[23..]), (24, ".", "Z"), "milliseconds in UTC: {at}");
    assert!(humantime::parse_rfc3339(at).is_ok());
}

#[test]
fn without_json_only_the_human_lines_are_printed() {
    let seen = Captured::default();
    let report = seen.report(false);
    report.event("path", ());
    report.line(format_args!("{} {}", report.style().bold("a"), report.style().dim(1)));
    report.raw(b"x");
    assert_eq!(seen.out(), "a 1\nx");
}

#[test]
fn a_program_whose_stdout_is_a_stream_prints_nothing_there() {
    let report = Report::without_stdout();
    report.raw(b"must not appear");
    report.line("must not appear");
    assert!(report.inner.out.is_none() && !report.closed());
}

struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

#[test]
fn a_closed_stdout_and_stderr_are_noticed_and_harmless() {
    let report = Report::to(true, Style::default(), Some(Box::new(Closed)), Box::new(Closed));
    assert!(!report.closed());
    report.event("one", ());
    assert!(report.closed());
    report.event("two", ());
    report.failure(&Failure::failed("x", "y"));
    report.warning("z");
}

#[test]
fn a_real_pipe_whose_reader_has_gone_is_harmless_too() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let report = Report::to(false, Style::default(), Some(Box::new(writer)), Box::new(Closed));
    report.line("hello");
    assert!(report.closed());
}

#[test]
fn lines_of_many_threads_do_not_mix() {
    let seen = Captured::default();
    let report = seen.report(true);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let report = report.clone();
            scope.spawn(move || {
                (0..100)
                    .for_each(|i| report.event("n", Path { zulu: "z", alpha: f64::from(i), nothing: None }))
            });
        }
    });
    let out = seen.out();
    assert_eq!(out.lines().count(), 800);
    assert!(out.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
}

#[test]
fn colour_is_for_terminals_that_want_it() {
    let env = |no_color: Option<&'static str>, term: Option<&'static str>| {
        move |name: &str| match name {
            "NO_COLOR" => no_color.map(OsString::from),
            "TERM" => term.map(OsString::from),
            _ => None,
        }
    };
    assert!(colour(true, env(None, Some("xterm"))));
    assert!(colour(true, env(Some(""), None)));
    assert!(!colour(true, env(Some("1"), None)));
    assert!(!colour(true, env(None, Some("dumb"))));
    assert!(!colour(false, env(None, Some("xterm"))));
    assert_eq!(Style { on: true }.green("x").to_string(), "\x1b[32mx\x1b[0m");
    assert_eq!(Style { on: true }.bold(format_args!("{:>3}", 1)).to_string(), "\x1b[1m  1\x1b[0m");
    assert_eq!(format!("[{:<4}]", Style { on: false }.yellow("x")), "[x   ]");
}

#[test]
fn text_from_elsewhere_cannot_move_the_cursor_or_turn_the_line() {
    assert_eq!(clean("\x1b[2Jhi\x07"), "\u{fffd}[2Jhi\u{fffd}");
    assert_eq!(clean("a\u{202e}b\u{2066}c\u{9b}d\u{7f}"), "a\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}");
    assert_eq!(clean("one\r\ntwo\tthree"), "one two three");
    assert_eq!(clean("in\u{200b}visible\u{feff}"), "in\u{fffd}visible\u{fffd}");
    assert!(matches!(clean("grüße 👩\u{200d}🔬"), Cow::Borrowed(_)));
}

#[test]
fn text_from_elsewhere_is_cut_after_256_characters() {
    let exact = "ü".repeat(256);
    assert_eq!(clean(&exact), exact);
    let cut = clean(&"ü".repeat(257)).into_owned();
    assert_eq!(cut.chars().count(), 256);
    assert!(cut.ends_with("ü…"));
}
