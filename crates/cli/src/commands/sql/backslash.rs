//! Commands of the prompt that are not SQL.

use std::path::PathBuf;

use darner_engine::Error;

use crate::{
    args::{RowFormat, parse_row_format},
    error::Result,
};

/// All commands, as they are typed, and what they do.
pub(super) const COMMANDS: [(&str, &str, &str); 8] = [
    ("\\d", "", "list tables and views"),
    ("\\d", "NAME", "say what is known of a table or a view"),
    ("\\i", "FILE", "run the statements of a file"),
    (
        "\\o",
        "FILE",
        "write the rows of the next statement to a file",
    ),
    (
        "\\format",
        "[NAME]",
        "print rows as table, csv, tsv, ndjson or arrow",
    ),
    (
        "\\timing",
        "[on|off]",
        "say, or do not, how long statements take",
    ),
    ("\\?", "", "print this"),
    ("\\q", "", "end; so does Ctrl-D"),
];

/// What was typed.
#[derive(Debug, PartialEq)]
pub(super) enum Backslash {
    Tables,
    Describe(String),
    Include(PathBuf),
    Output(PathBuf),
    /// `None`: say which it is.
    Format(Option<RowFormat>),
    /// `None`: the other way round.
    Timing(Option<bool>),
    Help,
    Quit,
}

/// Whether a line is a command, and complete as it stands.
pub(super) fn is_command(line: &str) -> bool {
    let line = line.trim();
    line.starts_with('\\') || is_quit(line)
}

/// Other prompts end so.
fn is_quit(line: &str) -> bool {
    let word = line.trim_end_matches(';').trim_end();
    word.eq_ignore_ascii_case("quit") || word.eq_ignore_ascii_case("exit")
}

impl Backslash {
    /// Reads a command.
    pub(super) fn parse(line: &str) -> Result<Self> {
        let line = line.trim();
        if is_quit(line) {
            return Ok(Self::Quit);
        }
        // Who is used to SQL types a semicolon.
        let line = line.trim_end_matches(';').trim_end();
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = unquoted(rest.trim());
        let usage = |arguments: &str| {
            Error::invalid(format!(
                "{command} is used as `{command} {arguments}`; \\? lists all commands"
            ))
        };
        Ok(match (command, rest) {
            ("\\d" | "\\dt", "") => Self::Tables,
            ("\\d" | "\\dt", name) => Self::Describe(name.to_owned()),
            ("\\i" | "\\o", "") => return Err(usage("FILE").into()),
            ("\\i", file) => Self::Include(PathBuf::from(file)),
            ("\\o", file) => Self::Output(PathBuf::from(file)),
            ("\\format", "") => Self::Format(None),
            ("\\format", name) => {
                Self::Format(Some(parse_row_format(name).map_err(Error::invalid)?))
            }
            ("\\timing", "") => Self::Timing(None),
            ("\\timing", "on") => Self::Timing(Some(true)),
            ("\\timing", "off") => Self::Timing(Some(false)),
            ("\\timing", _) => return Err(usage("[on|off]").into()),
            ("\\?" | "\\h" | "\\help", "") => Self::Help,
            ("\\q", "") => Self::Quit,
            ("\\?" | "\\h" | "\\help" | "\\q", _) => {
                return Err(Error::invalid(format!("{command} takes no argument")).into());
            }
            _ => {
                return Err(Error::invalid(format!(
                    "no such command: command=`{command}`; \\? lists all"
                ))
                .into());
            }
        })
    }
}

/// A name without the quotes around it.
fn unquoted(text: &str) -> &str {
    for quote in ['\'', '"'] {
        let inner = text
            .strip_prefix(quote)
            .and_then(|text| text.strip_suffix(quote));
        if let Some(inner) = inner {
            return inner;
        }
    }
    text
}

/// What `\?` prints.
pub(super) fn help() -> String {
    let mut lines = vec!["Statements end with a semicolon. Commands:".to_owned()];
    lines.extend(COMMANDS.iter().map(|(command, arguments, what)| {
        let typed = format!("{command} {arguments}");
        format!("  {typed:<18} {what}")
    }));
    lines.push("Ctrl-C clears the line, or stops the statement that runs.".to_owned());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use darner_engine::Format;

    use super::*;

    #[test]
    fn commands_are_read() {
        for (line, expected) in [
            ("\\d", Backslash::Tables),
            (" \\d ; ", Backslash::Tables),
            ("\\d airports", Backslash::Describe("airports".to_owned())),
            (
                "\\d \"My Table\";",
                Backslash::Describe("My Table".to_owned()),
            ),
            ("\\i 'a b.sql'", Backslash::Include("a b.sql".into())),
            ("\\o out.csv", Backslash::Output("out.csv".into())),
            ("\\format", Backslash::Format(None)),
            ("\\format table", Backslash::Format(Some(RowFormat::Table))),
            (
                "\\format CSV",
                Backslash::Format(Some(RowFormat::File(Format::Csv))),
            ),
            ("\\timing", Backslash::Timing(None)),
            ("\\timing off", Backslash::Timing(Some(false))),
            ("\\?", Backslash::Help),
            ("\\q", Backslash::Quit),
            ("quit", Backslash::Quit),
            ("EXIT ;", Backslash::Quit),
        ] {
            assert!(is_command(line), "{line}");
            assert_eq!(Backslash::parse(line).unwrap(), expected, "{line}");
        }
        for line in [
            "\\",
            "\\x",
            "\\i",
            "\\o",
            "\\format xyz",
            "\\timing maybe",
            "\\q now",
            "\\dx",
        ] {
            assert!(is_command(line), "{line}");
            assert!(Backslash::parse(line).is_err(), "{line}");
        }
        for line in ["", "SELECT 1;", "exit now", "quitting"] {
            assert!(!is_command(line), "{line}");
        }
    }

    #[test]
    fn the_help_names_every_command() {
        let help = help();
        for (command, ..) in COMMANDS {
            assert!(help.contains(command), "{help} lacks {command}");
        }
    }
}
