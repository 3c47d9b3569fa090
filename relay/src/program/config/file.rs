//! The TOML file of options: finding what it says, and telling where it is wrong.

use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::Command;
use toml_edit::{Document, Item, TableLike, Value};

use super::nearest::nearest;
use super::option::{Kind, Opt};

pub(super) struct OptionsFile {
    path: PathBuf,
    document: Document<String>,
}

impl OptionsFile {
    /// Reads the file; none if it is not there.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, String> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("{}: cannot be read: {error}", path.display())),
        };
        let at = |line: usize, what: &str| Err(format!("{}:{line}: {what}", path.display()));
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                return at(1 + good.iter().filter(|byte| **byte == b'\n').count(), "is not UTF-8");
            }
        };
        match Document::parse(text.clone()) {
            Ok(document) => Ok(Some(Self { path: path.to_owned(), document })),
            Err(error) => at(line(&text, error.span()), error.message()),
        }
    }

    /// Says what is wrong with the first key that no command has, or whose value no command could take.
    pub(super) fn check(&self, command: &Command) -> Result<(), String> {
        self.check_table(self.document.as_table(), command, &[])
    }

    /// `inherited`: the global options of the commands above.
    fn check_table(&self, table: &dyn TableLike, command: &Command, inherited: &[Opt]) -> Result<(), String> {
        let mut known = inherited.to_vec();
        collect(command, &mut known);
        let mut globals = inherited.to_vec();
        globals.extend(Opt::all(command).filter(|option| option.global));
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, item)| key_span(table, key, item).map(|span| span.start));
        for (key, item) in entries {
            let span = key_span(table, key, item);
            let options: Vec<&Opt> = known.iter().filter(|option| option.long == key).collect();
            let subcommand = command.find_subcommand(key).filter(|sub| sub.get_name() == key);
            match (item.as_table_like(), subcommand) {
                (Some(inner), Some(subcommand)) => self.check_table(inner, subcommand, &globals)?,
                (Some(_), None) if options.is_empty() => {
                    let names = command.get_subcommands().filter(|sub| !sub.is_hide_set());
                    let names = names.map(Command::get_name).chain(names_of(&known));
                    return Err(self.unknown("table", key, span, names));
                }
                (None, Some(_)) if options.is_empty() => {
                    return Err(self.at(
                        span,
                        &format!("`{key}` is a command: its options belong in a table `[{key}]`"),
                    ));
                }
                (None, _) if options.is_empty() => {
                    return Err(self.unknown("key", key, span, names_of(&known)));
                }
                _ => {
                    // Commands may differ in what they take; the one that is run checks for itself.
                    let mut wrong = None;
                    for option in options {
                        match self.value(option, item, span.clone()) {
                            Ok(_) => {
                                wrong = None;
                                break;
                            }
                            Err(error) => wrong = Some(error),
                        }
                    }
                    wrong.map_or(Ok(()), Err)?;
                }
            }
        }
        Ok(())
    }

    /// What the file says of an option in the innermost of these nested tables that has it.
    pub(super) fn values(&self, option: &Opt, tables: &[String]) -> Result<Option<Vec<OsString>>, String> {
        let mut found = None;
        let mut table: &dyn TableLike = self.document.as_table();
        let mut names = tables.iter();
        loop {
            if let Some(item) = table.get(&option.long).filter(|item| !item.is_table_like()) {
                found = Some((item, key_span(table, &option.long, item)));
            }
            let next = names.next().and_then(|name| table.get(name)).and_then(Item::as_table_like);
            match next {
                Some(inner) => table = inner,
                None => break,
            }
        }
        found.map(|(item, span)| self.value(option, item, span)).transpose()
    }

    fn value(&self, option: &Opt, item: &Item, span: Option<Range<usize>>) -> Result<Vec<OsString>, String> {
        let key = &option.long;
        let wrong = |span: Option<Range<usize>>, why: &str| Err(self.at(span, &format!("`{key}` {why}")));
        let Some(value) = item.as_value() else { return wrong(span, "is an option, not a table") };
        match (option.kind, value) {
            (Kind::Flag { given }, Value::Boolean(on)) => Ok(vec![(*on.value() == given).to_string().into()]),
            (Kind::Flag { .. }, _) => wrong(span, "must be true or false"),
            (Kind::Many, Value::Array(all)) => {
                let mut values = Vec::new();
                for one in all {
                    values.push(self.scalar(option, one, one.span().or_else(|| span.clone()))?);
                }
                Ok(values)
            }
            (_, Value::Array(_)) => wrong(span, "takes one value, not an array"),
            (Kind::Count, Value::Integer(_)) => Ok(vec![self.scalar(option, value, span)?]),
            (Kind::Count, _) => wrong(span, "must be a whole number"),
            (Kind::One | Kind::Many, _) => Ok(vec![self.scalar(option, value, span)?]),
        }
    }

    fn scalar(&self, option: &Opt, value: &Value, span: Option<Range<usize>>) -> Result<OsString, String> {
        let text = match value {
            Value::String(text) => text.value().clone(),
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) if option.text => {
                return Err(self.at(span, &format!("`{}` must be a string, in quotes", option.long)));
            }
            Value::Integer(number) => number.value().to_string(),
            Value::Float(number) => number.value().to_string(),
            Value::Boolean(truth) => truth.value().to_string(),
            Value::Datetime(_) | Value::Array(_) | Value::InlineTable(_) => {
                return Err(self.at(span, &format!("`{}` must be a string or a number", option.long)));
            }
        };
        let text = OsString::from(text);
        option.check(&text).map_err(|why| self.at(span, &format!("`{}` {why}", option.long)))?;
        Ok(text)
    }

    fn unknown<'a>(
        &self,
        what: &str,
        key: &str,
        span: Option<Range<usize>>,
        known: impl Iterator<Item = &'a str>,
    ) -> String {
        let hint =
            nearest(key, known).map_or(String::new(), |name| format!("; the nearest known one is `{name}`"));
        self.at(span, &format!("unknown {what} `{key}`{hint}"))
    }

    fn at(&self, span: Option<Range<usize>>, what: &str) -> String {
        format!("{}:{}: {what}", self.path.display(), line(self.document.raw(), span))
    }
}

/// The options of a command and of all commands below it.
fn collect(command: &Command, options: &mut Vec<Opt>) {
    // The file cannot name the next file.
    options.extend(Opt::all(command).filter(|option| option.long != "config"));
    for subcommand in command.get_subcommands() {
        collect(subcommand, options);
    }
}

fn names_of(options: &[Opt]) -> impl Iterator<Item = &str> {
    options.iter().map(|option| option.long.as_str())
}

fn key_span(table: &dyn TableLike, key: &str, item: &Item) -> Option<Range<usize>> {
    table.key(key).and_then(toml_edit::Key::span).or_else(|| item.span())
}

fn line(text: &str, span: Option<Range<usize>>) -> usize {
    let before = span.map_or(0, |span| span.start.min(text.len()));
    1 + text.as_bytes()[..before].iter().filter(|byte| **byte == b'\n').count()
}
