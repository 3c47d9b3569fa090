//! One option of a command, as the environment and the file see it.

use std::any::TypeId;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, Command};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Stands for itself; what it stores when it is given.
    Flag { given: bool },
    /// Counts how often it is given.
    Count,
    /// Takes one value.
    One,
    /// May be given often.
    Many,
}

#[derive(Clone, Debug)]
pub(super) struct Opt {
    pub(super) id: String,
    pub(super) long: String,
    pub(super) kind: Kind,
    pub(super) global: bool,
    /// Whether a value is any text, rather than something written as one.
    pub(super) text: bool,
    parser: ValueParser,
    delimiter: Option<char>,
}

impl Opt {
    /// The options of a command that environment and file may set.
    pub(super) fn all(command: &Command) -> impl Iterator<Item = Self> {
        command.get_arguments().filter_map(Self::of)
    }

    fn of(arg: &Arg) -> Option<Self> {
        let long = arg.get_long().filter(|_| !arg.is_hide_set())?.to_owned();
        let parser = arg.get_value_parser().clone();
        let texts = [TypeId::of::<String>(), TypeId::of::<PathBuf>(), TypeId::of::<OsString>()];
        let text = texts.iter().any(|id| parser.type_id() == *id);
        let many = arg.get_num_args().is_some_and(|range| range.max_values() > 1);
        let kind = match arg.get_action() {
            ArgAction::SetTrue => Kind::Flag { given: true },
            ArgAction::SetFalse => Kind::Flag { given: false },
            ArgAction::Count => Kind::Count,
            ArgAction::Append => Kind::Many,
            ArgAction::Set if many => Kind::Many,
            ArgAction::Set => Kind::One,
            // Also whatever clap comes to invent.
            ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version | _ => {
                return None;
            }
        };
        let id = arg.get_id().to_string();
        let (global, delimiter) = (arg.is_global_set(), arg.get_value_delimiter());
        Some(Self { id, long, kind, global, text, parser, delimiter })
    }

    /// Its name in the environment.
    pub(super) fn variable(&self) -> String {
        format!("CULVERT_{}", self.long.replace('-', "_").to_uppercase())
    }

    /// Says what is wrong with a value, without repeating it: it may be a secret.
    pub(super) fn check(&self, value: &OsStr) -> Result<(), String> {
        let arg = Arg::new("value")
            .num_args(1)
            .allow_hyphen_values(true)
            .value_parser(self.parser.clone())
            .value_delimiter(self.delimiter);
        let command = Command::new("check").no_binary_name(true).disable_help_flag(true).arg(arg);
        let Err(error) = command.try_get_matches_from([value]) else { return Ok(()) };
        if let Some(why) = std::error::Error::source(&error) {
            return Err(format!("is not valid: {why}"));
        }
        match error.get(ContextKind::ValidValue) {
            Some(ContextValue::Strings(all)) if !all.is_empty() => {
                Err(format!("must be {}", all.join(" or ")))
            }
            _ => Err("is not valid".to_owned()),
        }
    }
}

/// What a truth value may be written as in the environment.
pub(super) fn boolish(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" | "y" | "t" => Some(true),
        "0" | "false" | "no" | "off" | "n" | "f" => Some(false),
        _ => None,
    }
}

/// How many words of the command line the option at its beginning takes, with its value if that is a word of its
/// own. None if the command has no such option.
pub(super) fn words_taken(command: &Command, word: &str) -> Option<usize> {
    let takes_value = |arg: &Arg| matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    if let Some(long) = word.strip_prefix("--") {
        let (name, inline) = long.split_once('=').map_or((long, false), |(name, _)| (name, true));
        let arg = command.get_arguments().find(|arg| !name.is_empty() && arg.get_long() == Some(name))?;
        return Some(if takes_value(arg) && !inline { 2 } else { 1 });
    }
    let shorts = word.strip_prefix('-').filter(|shorts| !shorts.is_empty())?;
    for (at, short) in shorts.char_indices() {
        let arg = command.get_arguments().find(|arg| arg.get_short() == Some(short))?;
        if takes_value(arg) {
            return Some(if at + short.len_utf8() == shorts.len() { 2 } else { 1 });
        }
    }
    Some(1)
}
