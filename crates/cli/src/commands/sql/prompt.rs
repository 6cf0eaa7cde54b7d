//! The prompt: a line is read, and run, until the user has had enough.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::Instant,
};

use darner_engine::{Error, ErrorKind};
use darner_sql::Answer;
use rustyline::{CompletionType, Config, Editor, error::ReadlineError, history::FileHistory};

use super::{
    backslash::{self, Backslash, is_command},
    complete::{Helper, Names},
    describe, history,
    runner::{Runner, count_text},
};
use crate::{
    args::{Output, RowFormat},
    context::Context,
    error::{Failure, Result},
    files::format_name,
    print,
};

const PROMPT: &str = "darner> ";
const HISTORY_MAX: usize = 10_000;

/// Reads lines from a terminal and runs them.
pub(super) fn run(context: &Context, runner: &Runner<'_>, output: &Output) -> Result<()> {
    let mut editor = editor()?;
    let history = history(&mut editor);
    print::note(
        context,
        format_args!(
            "store {}; \\? for help, \\q to end",
            context.store_dir.display()
        ),
    );
    let mut prompt = Prompt::new(context, runner, output);
    loop {
        if let Some(helper) = editor.helper_mut() {
            helper.names = prompt.names();
        }
        let line = match editor.readline(PROMPT) {
            Ok(line) => line,
            // Ctrl-C: the line is gone, and that is all.
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(ReadlineError::Signal(_)) if !context.cancel().load(Ordering::Relaxed) => continue,
            Err(error) => return Err(Error::io("cannot read from the terminal", io(error)).into()),
        };
        if context.cancel().load(Ordering::Relaxed) {
            // The terminal gives Ctrl-C as a key; this came from somewhere else.
            return Err(Error::new(ErrorKind::Cancelled, "stopped by a signal").into());
        }
        if line.trim().is_empty() {
            continue;
        }
        remember(&mut editor, history.as_deref(), &line);
        match prompt.enter(&line) {
            Ok(Next::Go) => {}
            Ok(Next::End) | Err(Failure::ClosedPipe) => return Ok(()),
            Err(failure) => print::failure(&failure),
        }
        // A signal stops one statement, not those that follow.
        context.cancel().store(false, Ordering::Relaxed);
    }
}

fn editor() -> Result<Editor<Helper, FileHistory>> {
    let config = || -> rustyline::Result<Config> {
        Ok(Config::builder()
            .max_history_size(HISTORY_MAX)?
            .history_ignore_dups(true)?
            .history_ignore_space(true)
            .completion_type(CompletionType::List)
            .auto_add_history(false)
            .build())
    };
    let mut editor = config()
        .and_then(Editor::with_config)
        .map_err(|error| Error::io("cannot use the terminal", io(error)))?;
    editor.set_helper(Some(Helper::default()));
    Ok(editor)
}

/// Takes up the history, where there is one. A prompt without is better than none.
fn history(editor: &mut Editor<Helper, FileHistory>) -> Option<PathBuf> {
    match history::file() {
        Ok(file) => {
            let file = file?;
            let loaded = editor.load_history(&file);
            if let Err(error) = loaded {
                print::warning(
                    "history cannot be read",
                    &Error::io("cannot read it", io(error)),
                );
                return None;
            }
            Some(file)
        }
        Err(error) => {
            print::warning("there will be no history", &error);
            None
        }
    }
}

/// Keeps what was typed at once: a prompt may end in any way.
fn remember(editor: &mut Editor<Helper, FileHistory>, history: Option<&Path>, line: &str) {
    let is_new = editor.add_history_entry(line).unwrap_or(false);
    if let (true, Some(history)) = (is_new, history) {
        // What cannot be written now is there as long as this prompt is.
        let _ = editor.append_history(history);
    }
}

fn io(error: ReadlineError) -> std::io::Error {
    match error {
        ReadlineError::Io(error) => error,
        error => std::io::Error::other(error),
    }
}

/// Whether the prompt goes on.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Go,
    End,
}

/// What was set at the prompt.
struct Prompt<'r> {
    context: &'r Context,
    runner: &'r Runner<'r>,
    format: Option<RowFormat>,
    /// Where the rows of the next statement go.
    output: Option<PathBuf>,
    is_timed: bool,
}

impl<'r> Prompt<'r> {
    fn new(context: &'r Context, runner: &'r Runner<'r>, output: &Output) -> Self {
        Self {
            context,
            runner,
            format: output.format,
            output: output.output.clone(),
            is_timed: true,
        }
    }

    /// Does what was typed.
    fn enter(&mut self, line: &str) -> Result<Next> {
        if !is_command(line) {
            self.run(line)?;
            return Ok(Next::Go);
        }
        match Backslash::parse(line)? {
            Backslash::Tables => describe::tables(self.context, self.runner)?,
            Backslash::Describe(name) => describe::table(self.context, self.runner, &name)?,
            Backslash::Include(file) => {
                self.runner.check_files(r"\i", false)?;
                let text = fs::read_to_string(&file).map_err(|error| {
                    Error::io(format!("cannot read `{}`", file.display()), error)
                })?;
                self.run(&text).map_err(|failure| match failure {
                    Failure::Error(error) => Failure::Error(error.context(file.display())),
                    other => other,
                })?;
            }
            Backslash::Output(file) => {
                self.runner.check_files(r"\o", true)?;
                print::note(
                    self.context,
                    format_args!("the rows of the next statement go to {}", file.display()),
                );
                self.output = Some(file);
            }
            Backslash::Format(None) => {
                let name = self.format.map_or("table", format_name);
                print::note(self.context, format_args!("rows are printed as {name}"));
            }
            Backslash::Format(Some(format)) => self.format = Some(format),
            Backslash::Timing(on) => {
                self.is_timed = on.unwrap_or(!self.is_timed);
                let word = if self.is_timed { "on" } else { "off" };
                print::note(self.context, format_args!("timing is {word}"));
            }
            Backslash::Help => print::result(backslash::help())?,
            Backslash::Quit => return Ok(Next::End),
        }
        Ok(Next::Go)
    }

    /// Runs the statements of a text until one fails, and says of each what it did.
    fn run(&mut self, text: &str) -> Result<()> {
        let statements = self.runner.session().split(text)?;
        for statement in &statements {
            let start = Instant::now();
            let file = if statement.gives_rows {
                self.output.take()
            } else {
                None
            };
            let output = Output {
                // A file's format is that of its name.
                format: self.format.filter(|_| file.is_none()),
                output: file,
            };
            let done = self.runner.run(&statement.text, &output);
            let done = done.map_err(|failure| match failure {
                Failure::Error(error) if statements.len() > 1 => {
                    Failure::Error(error.context(format!("statement at line {}", statement.line)))
                }
                other => other,
            })?;
            let what = match done.answer {
                Answer::Rows => count_text(done.num_rows),
                Answer::Count => format!("{} written", count_text(done.num_rows)),
                Answer::Nothing => "done".to_owned(),
            };
            let time = if self.is_timed {
                format!(" in {:.3} s", start.elapsed().as_secs_f64())
            } else {
                String::new()
            };
            print::note(self.context, format_args!("{what}{time}"));
        }
        Ok(())
    }

    /// What can be completed now.
    fn names(&self) -> Names {
        // What cannot be looked at has no names.
        let _ = self.runner.look();
        let session = self.runner.session();
        let tables = session.table_names().into_iter().map(|name| {
            let schema = session.table_schema(&name);
            let columns = schema.map_or_else(Vec::new, |schema| {
                schema.fields().iter().map(|f| f.name().clone()).collect()
            });
            (name, columns)
        });
        Names {
            tables: tables.collect(),
            functions: session.function_names(),
        }
    }
}
