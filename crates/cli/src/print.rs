//! The only place that prints: results to standard output, all else to standard error.

use std::{
    error::Error as _,
    io::{self, Write},
    sync::atomic::{AtomicBool, Ordering},
};

use darner_engine::Error;
use darner_store::Clock;
use indicatif::HumanCount;

use crate::{
    args::LogFormat,
    context::Context,
    error::{Failure, Result, stdout_failure},
};

/// Says why the program failed, with all causes, on one line. A job file's error shows the place in the file below it.
pub(crate) fn failure(failure: &Failure) {
    match failure {
        Failure::ClosedPipe => {}
        Failure::Gate(message) => say("error", message),
        Failure::Error(error) => say("error", &with_causes(error)),
    }
}

/// Whether notes and errors are JSON.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Says how notes and errors are written from now on.
pub(crate) fn set_format(format: LogFormat) {
    IS_JSON.store(format == LogFormat::Json, Ordering::Relaxed);
}

/// Writes a line to standard error.
fn say(level: &str, text: &str) {
    let line = if IS_JSON.load(Ordering::Relaxed) {
        if text.trim().is_empty() {
            return;
        }
        let time = time(Clock::default().now_us());
        serde_json::json!({"time": time, "level": level, "message": text.trim()}).to_string()
    } else {
        match level {
            "info" => text.to_owned(),
            "warning" => format!("darner: warning: {text}"),
            _ => format!("darner: {text}"),
        }
    };
    // Nobody may be listening any more; that is no reason to stop.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Says of one of several things that are wrong.
pub(crate) fn problem(error: &Error) {
    say("error", &with_causes(error));
}

/// An error and its causes on one line. A cause that the text before has told already is left out.
pub(crate) fn with_causes(error: &Error) -> String {
    let mut text = printable(error.message(), true);
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = printable(&cause.to_string(), false);
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Text from files and libraries, without what could steer a terminal.
fn printable(text: &str, keep_lines: bool) -> String {
    let mut out = String::new();
    for c in text.trim().chars() {
        match c {
            '\n' if keep_lines => out.push('\n'),
            '\n' | '\t' => {
                if !out.ends_with(' ') {
                    out.push(' ');
                }
            }
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

/// Says that something went wrong that did no harm.
pub(crate) fn warning(what: &str, error: &Error) {
    // Not even --quiet silences it.
    say("warning", &format!("{what}: {}", with_causes(error)));
}

/// Says what was done, unless `--quiet`.
pub(crate) fn note(context: &Context, text: impl std::fmt::Display) {
    if !context.quiet {
        say("info", &text.to_string());
    }
}

/// Says what only some want to know, with `--verbose`.
pub(crate) fn detail(context: &Context, text: impl std::fmt::Display) {
    if context.verbose {
        say("info", &text.to_string());
    }
}

/// Prints a result and a line end.
pub(crate) fn result(text: impl std::fmt::Display) -> Result<()> {
    writeln!(io::stdout(), "{text}").map_err(stdout_error)
}

/// Prints results, one on a line, many of them fast.
pub(crate) fn results(texts: impl Iterator<Item = Result<String>>) -> Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for text in texts {
        let text = text?;
        writeln!(out, "{text}").map_err(stdout_error)?;
    }
    out.flush().map_err(stdout_error)
}

/// Prints bytes as they are.
pub(crate) fn bytes(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(stdout_error)
}

fn stdout_error(error: io::Error) -> Failure {
    stdout_failure(Error::io("cannot write to standard output", error))
}

/// A number of things: `1 row`, `2,000 rows`.
pub(crate) fn counted(number: u64, what: &str) -> String {
    let end = if number == 1 { "" } else { "s" };
    format!("{} {what}{end}", HumanCount(number))
}

/// A time in microseconds since 1970 as text, in UTC.
pub(crate) fn time(time_us: i64) -> String {
    let array = arrow_array::TimestampMicrosecondArray::from(vec![time_us]).with_timezone("UTC");
    arrow_cast::display::array_value_to_string(&array, 0).unwrap_or_else(|_| time_us.to_string())
}
