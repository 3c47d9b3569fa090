//! Options from four places, the first that has one wins: the command line, the environment (`CULVERT_<OPTION>`), a
//! TOML file, the built-in default.
//!
//! Every long option of every command takes part by itself, except hidden ones. In the environment a flag is
//! `1`/`true`/`yes`/`on` or their opposites, a repeatable option is separated by commas, and an empty variable is
//! none. In the file a key is the option's long name, either at the top for whichever command has it, or in a table
//! named after the command; a repeatable option is an array. A value given in a nearer place replaces those from a
//! farther one, also where the option is repeatable.
//!
//! Values from the environment and the file reach clap as defaults, so its `conflicts_with` and `requires` see the
//! command line only: what options mean together is for the program to check.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{ArgMatches, Command};

use super::exit::{Code, Exit, Failure};
use super::state;

mod file;
mod nearest;
mod option;

use file::OptionsFile;
use option::{Kind, Opt};

/// The `code` of the `error` event when the environment or the file is wrong.
const SLUG: &str = "bad-config";

type Env<'a> = dyn Fn(&str) -> Option<OsString> + 'a;

/// Reads a program's options.
pub struct Loader<'a> {
    program: &'static str,
    default_subcommand: Option<&'static str>,
    env: Box<Env<'a>>,
}

impl std::fmt::Debug for Loader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loader").field("program", &self.program).finish_non_exhaustive()
    }
}

/// Reads a program's options from `args` (with the program's name first), the process's environment and the file.
///
/// # Errors
/// When help was asked for, or something is wrong; [`Exit::finish`] says what.
pub fn parse<C: clap::Parser>(
    program: &'static str,
    args: impl IntoIterator<Item = OsString>,
) -> Result<C, Exit> {
    Loader::new(program).parse(args)
}

impl<'a> Loader<'a> {
    /// For the program of this name, with the process's environment.
    #[must_use]
    pub fn new(program: &'static str) -> Self {
        Self { program, default_subcommand: None, env: Box::new(|name| std::env::var_os(name)) }
    }

    /// The subcommand that is meant when none is named.
    #[must_use]
    pub fn default_subcommand(mut self, name: &'static str) -> Self {
        self.default_subcommand = Some(name);
        self
    }

    /// Another environment than the process's.
    #[must_use]
    pub fn env(mut self, env: impl Fn(&str) -> Option<OsString> + 'a) -> Self {
        self.env = Box::new(env);
        self
    }

    /// Reads the options from `args` (with the program's name first), the environment and the file.
    ///
    /// # Errors
    /// When help was asked for, or something is wrong; [`Exit::finish`] says what.
    pub fn parse<C: clap::Parser>(&self, args: impl IntoIterator<Item = OsString>) -> Result<C, Exit> {
        let mut command = C::command();
        let mut args: Vec<OsString> = args.into_iter().collect();
        if let Some(name) = self.default_subcommand {
            insert_subcommand(&command, &mut args, name);
        }
        // Before anything is parsed, only this can be told.
        let json = args.iter().skip(1).take_while(|arg| *arg != "--").any(|arg| arg == "--json")
            || (self.env)("CULVERT_JSON")
                .is_some_and(|value| value.to_str().and_then(option::boolish) == Some(true));
        let fail = |message: String| Exit::failure(Failure::new(Code::Usage, SLUG, message), json);

        let first = look(&command, &args).map_err(|error| Exit::clap(error, json))?;
        let file = self.file(&first).map_err(fail)?;
        if let Some(file) = &file {
            file.check(&command).map_err(fail)?;
        }
        let chain = chain(&first);
        command = self.layer(command, &[], &chain, file.as_ref()).map_err(fail)?;
        let mut matches = command.try_get_matches_from_mut(&args).map_err(|error| Exit::clap(error, json))?;
        C::from_arg_matches_mut(&mut matches).map_err(|error| Exit::clap(error.format(&mut command), json))
    }

    /// The file to read: the one named, which must be there, or the usual one, which need not.
    fn file(&self, matches: &ArgMatches) -> Result<Option<OptionsFile>, String> {
        let flag = matches.try_get_one::<PathBuf>("config").ok().flatten().cloned();
        let env = || (self.env)("CULVERT_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
        if let Some(path) = flag.or_else(env) {
            return match OptionsFile::read(&path)? {
                Some(file) => Ok(Some(file)),
                None => Err(format!(
                    "{}: there is no such file; give --config the path of one, or leave it out",
                    path.display()
                )),
            };
        }
        let usual = state::base(&self.env, "XDG_CONFIG_HOME", ".config")
            .map(|base| base.join("culvert").join(format!("{}.toml", self.program)));
        usual.map_or(Ok(None), |path| OptionsFile::read(&path))
    }

    /// Gives the options of a command, and of the subcommand chosen in it, their values from file and environment.
    fn layer(
        &self,
        mut command: Command,
        above: &[String],
        below: &[String],
        file: Option<&OptionsFile>,
    ) -> Result<Command, String> {
        let chain = [above, below].concat();
        let options: Vec<Opt> = Opt::all(&command).collect();
        for option in options {
            // A global option may be set in the table of whichever command is chosen.
            let innermost = if option.global { chain.len() } else { above.len() };
            let values = match self.in_environment(&option)? {
                Some(values) => Some(values),
                None => match file {
                    Some(file) => file.values(&option, &chain[..innermost])?,
                    None => None,
                },
            };
            if let Some(values) = values {
                command = command.mut_arg(&option.id, |arg| arg.default_values(values).required(false));
            }
        }
        if let [name, rest @ ..] = below {
            let mut above = above.to_vec();
            above.push(name.clone());
            let subcommand = command.find_subcommand(name).cloned();
            if let Some(subcommand) = subcommand {
                let layered = self.layer(subcommand, &above, rest, file)?;
                command = command.mut_subcommand(name, |_| layered);
            }
        }
        Ok(command)
    }

    fn in_environment(&self, option: &Opt) -> Result<Option<Vec<OsString>>, String> {
        let name = option.variable();
        let Some(value) = (self.env)(&name).filter(|value| !value.is_empty()) else { return Ok(None) };
        let wrong = |why: String| format!("{name} in the environment {why}");
        let text = || value.to_str().ok_or_else(|| wrong("is not UTF-8".to_owned()));
        let values: Vec<OsString> = match option.kind {
            Kind::Flag { given } => {
                let on = option::boolish(text()?).ok_or_else(|| wrong("must be true or false".to_owned()))?;
                vec![(on == given).to_string().into()]
            }
            Kind::Many => {
                text()?.split(',').map(str::trim).filter(|part| !part.is_empty()).map(Into::into).collect()
            }
            Kind::Count | Kind::One => vec![value.clone()],
        };
        for value in &values {
            option.check(value).map_err(&wrong)?;
        }
        Ok(Some(values))
    }
}

/// A first look at the command line, for the file's name and the subcommand. Whether something required is missing
/// is not known yet: the file may have it.
fn look(command: &Command, args: &[OsString]) -> Result<ArgMatches, clap::Error> {
    let strict = command.clone().try_get_matches_from(args);
    match strict {
        Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {
            command.clone().ignore_errors(true).try_get_matches_from(args)
        }
        result => result,
    }
}

/// The subcommands chosen, outermost first.
fn chain(matches: &ArgMatches) -> Vec<String> {
    let mut chain = Vec::new();
    let mut at = matches;
    while let Some((name, inner)) = at.subcommand() {
        chain.push(name.to_owned());
        at = inner;
    }
    chain
}

/// Inserts the default subcommand before the first argument that belongs to it: one that the program itself does not
/// know. Nothing is inserted where a subcommand, help or the version is asked for.
fn insert_subcommand(command: &Command, args: &mut Vec<OsString>, name: &str) {
    let mut built = command.clone();
    built.build();
    let mut at = 1;
    while let Some(arg) = args.get(at).map(|arg| arg.to_string_lossy().into_owned()) {
        if matches!(arg.as_str(), "-h" | "--help" | "-V" | "--version")
            || built
                .get_subcommands()
                .any(|sub| sub.get_name() == arg || sub.get_all_aliases().any(|a| a == arg))
        {
            return;
        }
        match option::words_taken(&built, &arg) {
            Some(words) => at += words,
            None => break,
        }
    }
    args.insert(at.min(args.len()), name.into());
}

#[cfg(test)]
mod tests;
