//! `darner sql`: statements from the command line, from standard input, or typed at a prompt.

mod backslash;
mod complete;
mod describe;
mod history;
mod prompt;
mod runner;

use std::io::{IsTerminal, Read, stdin};

use darner_engine::Error;

use self::runner::{Rights, Runner};
use crate::{args::Sql, context::Context, error::Result};

pub(crate) fn run(context: &Context, args: &Sql) -> Result<()> {
    let is_terminal = stdin().is_terminal();
    let text = match args.query.as_deref() {
        Some("-") => Some(read_stdin()?),
        Some(query) => Some(query.to_owned()),
        None if is_terminal || args.interactive => None,
        None => Some(read_stdin()?),
    };
    // Who types a statement means it. What comes through a pipe may have been written by anybody.
    let is_typed = is_terminal || !matches!(args.query.as_deref(), None | Some("-"));
    let rights = Rights {
        may_write: (is_typed || args.allow_writes) && !args.read_only,
        may_name_files: (is_typed || args.allow_files) && !args.no_files,
    };
    let remedies = if is_typed {
        ["leave out --read-only", "leave out --no-files"]
    } else {
        [
            "statements from standard input may write with --allow-writes",
            "statements from standard input may name files with --allow-files",
        ]
    };
    let runner = Runner::new(context, rights, remedies)?;
    match text {
        Some(text) => runner.run_script(&text, &args.output),
        None => prompt::run(context, &runner, &args.output),
    }
}

fn read_stdin() -> Result<String> {
    let mut text = String::new();
    stdin()
        .read_to_string(&mut text)
        .map_err(|error| Error::io("cannot read standard input", error))?;
    Ok(text)
}
