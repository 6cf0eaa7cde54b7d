//! What the prompt knows while a line is typed: whether it is complete, and how a word could go on.

use std::{fs, path::MAIN_SEPARATOR};

use darner_sql::is_complete;
use rustyline::{
    Context, Result,
    completion::{Completer, Pair},
    highlight::Highlighter,
    hint::Hinter,
    validate::{ValidationContext, ValidationResult, Validator},
};

use super::backslash::{COMMANDS, is_command};

/// The words of SQL that people type often.
const KEYWORDS: [&str; 88] = [
    "ALL",
    "ANALYZE",
    "AND",
    "ANTI",
    "AS",
    "ASC",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "COPY",
    "CREATE",
    "CROSS",
    "DELETE",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "DROP",
    "ELSE",
    "END",
    "EXCEPT",
    "EXECUTE",
    "EXISTS",
    "EXPLAIN",
    "EXTERNAL",
    "FALSE",
    "FILTER",
    "FIRST",
    "FOLLOWING",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "IF",
    "ILIKE",
    "IN",
    "INNER",
    "INSERT",
    "INTERSECT",
    "INTERVAL",
    "INTO",
    "IS",
    "JOIN",
    "KEY",
    "LAST",
    "LATERAL",
    "LEFT",
    "LIKE",
    "LIMIT",
    "LOCATION",
    "NOT",
    "NULL",
    "NULLS",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "PRECEDING",
    "PREPARE",
    "PRIMARY",
    "RANGE",
    "REPLACE",
    "RIGHT",
    "ROWS",
    "SELECT",
    "SEMI",
    "SET",
    "SHOW",
    "STORED",
    "TABLE",
    "TABLES",
    "THEN",
    "TO",
    "TRUE",
    "UNBOUNDED",
    "UNION",
    "UNNEST",
    "UPDATE",
    "USING",
    "VALUES",
    "VIEW",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
];

/// The formats of `\format`.
const FORMATS: [&str; 5] = ["table", "csv", "tsv", "ndjson", "arrow"];

/// How many files are offered.
const FILES_MAX: usize = 1000;

/// The names that there are now.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Tables and views, with their columns.
    pub(super) tables: Vec<(String, Vec<String>)>,
    pub(super) functions: Vec<String>,
}

/// What the prompt asks while a line is typed.
#[derive(Debug, Default)]
pub(super) struct Helper {
    pub(super) names: Names,
}

impl rustyline::Helper for Helper {}

impl Hinter for Helper {
    type Hint = String;
}

impl Highlighter for Helper {}

impl Validator for Helper {
    fn validate(&self, context: &mut ValidationContext<'_>) -> Result<ValidationResult> {
        Ok(if is_whole(context.input()) {
            ValidationResult::Valid(None)
        } else {
            ValidationResult::Incomplete
        })
    }
}

impl Completer for Helper {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> Result<(usize, Vec<Pair>)> {
        Ok(self.names.complete(&line[..pos], line))
    }
}

/// Whether the Enter key ends what was typed, rather than a line of it.
fn is_whole(text: &str) -> bool {
    is_command(text) || is_complete(text)
}

impl Names {
    /// Where the word begins that `before`, the text up to the cursor, ends with, and how it could go on.
    fn complete(&self, before: &str, line: &str) -> (usize, Vec<Pair>) {
        if before.trim_start().starts_with('\\') {
            return self.complete_command(before);
        }
        if let Some(start) = open_quote(before) {
            return (start, files(&before[start..]));
        }
        let start = before
            .rfind(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '$' | '.' | '"')))
            .map_or(0, |at| {
                at + before[at..].chars().next().map_or(1, char::len_utf8)
            });
        let word = &before[start..];
        if let Some((table, column)) = word.rsplit_once('.') {
            let start = start + table.len() + 1;
            return (start, matching(column, self.columns_of(table, line), false));
        }
        // An empty word has no end of continuations.
        if word.is_empty() {
            return (start, Vec::new());
        }
        let mut pairs = matching(word, self.columns_in(line), false);
        let tables = self.tables.iter().map(|(name, _)| name.as_str());
        pairs.extend(matching(word, tables, false));
        pairs.extend(matching(
            word,
            self.functions.iter().map(String::as_str),
            false,
        ));
        pairs.extend(matching(word, KEYWORDS, true));
        let mut seen = std::collections::BTreeSet::new();
        pairs.retain(|pair| seen.insert(pair.display.to_lowercase()));
        (start, pairs)
    }

    fn complete_command(&self, before: &str) -> (usize, Vec<Pair>) {
        let indent = before.len() - before.trim_start().len();
        let Some((command, rest)) = before[indent..].split_once(char::is_whitespace) else {
            let commands = COMMANDS.iter().map(|(command, ..)| *command);
            let mut pairs = matching(&before[indent..], commands, false);
            pairs.dedup_by(|left, right| left.display == right.display);
            return (indent, pairs);
        };
        let word = rest.trim_start();
        let start = before.len() - word.len();
        let pairs = match command {
            "\\d" | "\\dt" => {
                let tables = self.tables.iter().map(|(name, _)| name.as_str());
                matching(word.trim_start_matches('"'), tables, false)
            }
            "\\format" => matching(word, FORMATS, false),
            "\\timing" => matching(word, ["on", "off"], false),
            "\\i" | "\\o" => files(word),
            _ => Vec::new(),
        };
        (start, pairs)
    }

    /// The columns of the tables that a line names; of all tables if it names none.
    fn columns_in<'n>(&'n self, line: &str) -> Vec<&'n str> {
        let words: Vec<&str> = words(line).collect();
        let is_named = |name: &str| words.iter().any(|word| word.eq_ignore_ascii_case(name));
        let named = self.tables.iter().any(|(name, _)| is_named(name));
        let tables = self.tables.iter();
        let tables = tables.filter(|(name, _)| !named || is_named(name));
        tables
            .flat_map(|(_, columns)| columns)
            .map(String::as_str)
            .collect()
    }

    /// The columns of the table that a line calls so: by its name, or as in `airports AS a` and `airports a`.
    fn columns_of<'n>(&'n self, called: &str, line: &str) -> Vec<&'n str> {
        let called = called
            .rsplit('.')
            .next()
            .unwrap_or(called)
            .trim_matches('"');
        let find = |name: &str| {
            let mut tables = self.tables.iter();
            tables.find(|(table, _)| table.eq_ignore_ascii_case(name))
        };
        let words: Vec<&str> = words(line).collect();
        let aliased = words.iter().enumerate().find_map(|(at, word)| {
            if !word.eq_ignore_ascii_case(called) {
                return None;
            }
            let before = at.checked_sub(1)?;
            let is_as = words[before].eq_ignore_ascii_case("as");
            find(words[before.checked_sub(usize::from(is_as))?])
        });
        let Some((_, columns)) = find(called).or(aliased) else {
            return self.columns_in(line);
        };
        columns.iter().map(String::as_str).collect()
    }
}

/// The words of a line.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let words = line.split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '$')));
    words.filter(|word| !word.is_empty())
}

/// The names that begin with a word, upper and lower case being one. Keywords go on in the case in which they begin.
fn matching<'n>(
    word: &str,
    names: impl IntoIterator<Item = &'n str>,
    is_keyword: bool,
) -> Vec<Pair> {
    let begin = word.trim_start_matches('"').to_lowercase();
    let mut found: Vec<&str> = names
        .into_iter()
        .filter(|name| name.to_lowercase().starts_with(&begin))
        .collect();
    found.sort_unstable();
    found.dedup();
    let is_lower = !word.chars().any(char::is_uppercase);
    let pairs = found.into_iter().map(|name| {
        let replacement = if is_keyword && is_lower {
            name.to_lowercase()
        } else if is_keyword {
            name.to_owned()
        } else {
            quoted(name)
        };
        Pair {
            display: name.to_owned(),
            replacement,
        }
    });
    pairs.collect()
}

/// A name as SQL takes it.
fn quoted(name: &str) -> String {
    let mut chars = name.chars();
    let is_plain = chars
        .next()
        .is_some_and(|c| c.is_ascii_lowercase() || c == '_' || c == '\\')
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if is_plain || name.starts_with('\\') {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

/// Where the string begins that is still open, after its quote.
fn open_quote(text: &str) -> Option<usize> {
    let mut open = None;
    for (at, c) in text.char_indices() {
        match (c, open) {
            ('\'', None) => open = Some(at + 1),
            ('\'', Some(_)) => open = None,
            _ => {}
        }
    }
    open
}

/// The files and directories whose path begins so.
fn files(begin: &str) -> Vec<Pair> {
    let (dir, name) = match begin.rfind(MAIN_SEPARATOR) {
        Some(at) => begin.split_at(at + 1),
        None => ("", begin),
    };
    let Ok(entries) = fs::read_dir(if dir.is_empty() { "." } else { dir }) else {
        return Vec::new();
    };
    let mut pairs: Vec<Pair> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let mut display = entry.file_name().into_string().ok()?;
            let is_hidden = display.starts_with('.') && !name.starts_with('.');
            if is_hidden || !display.starts_with(name) {
                return None;
            }
            // Through a link, too.
            if entry.path().is_dir() {
                display.push(MAIN_SEPARATOR);
            }
            Some(Pair {
                replacement: format!("{dir}{display}"),
                display,
            })
        })
        .take(FILES_MAX)
        .collect();
    pairs.sort_by(|left, right| left.display.cmp(&right.display));
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let table = |name: &str, columns: &[&str]| {
            (
                name.to_owned(),
                columns.iter().map(|&c| c.to_owned()).collect(),
            )
        };
        Names {
            tables: vec![
                table("airports", &["faa", "name", "Alt M"]),
                table("airlines", &["carrier", "name"]),
            ],
            functions: vec!["arrow_typeof".to_owned(), "sum".to_owned()],
        }
    }

    #[track_caller]
    fn check(line: &str, expected_start: usize, expected: &[&str]) {
        // The cursor is at the bar.
        let pos = line.find('|').unwrap();
        let line = line.replace('|', "");
        let (start, pairs) = names().complete(&line[..pos], &line);
        let found: Vec<&str> = pairs.iter().map(|pair| pair.replacement.as_str()).collect();
        assert_eq!((start, &*found), (expected_start, expected), "{line}");
    }

    #[test]
    fn words_go_on_as_names_functions_and_keywords() {
        check("se|", 0, &["select", "semi", "set"]);
        check("SEL|", 0, &["SELECT"]);
        check("SELECT * FROM air|", 14, &["airlines", "airports"]);
        check(
            "SELECT s| FROM airlines",
            7,
            &["sum", "select", "semi", "set", "show", "stored"],
        );
        // Columns of the tables that are named; quoted where SQL needs it.
        check(
            "SELECT c| FROM airlines",
            7,
            &["carrier", "case", "cast", "copy", "create", "cross"],
        );
        check("SELECT al| FROM airports", 7, &["\"Alt M\"", "all"]);
        check("SELECT \"al| FROM airports", 7, &["\"Alt M\"", "all"]);
        check("SELECT carr| FROM airports", 7, &[]);
        check(
            "SELECT a.| FROM airports AS a",
            9,
            &["\"Alt M\"", "faa", "name"],
        );
        check("SELECT b.n| FROM airports a, airlines b", 9, &["name"]);
        check("SELECT airlines.c|", 16, &["carrier"]);
        check("SELECT |", 7, &[]);
        check(
            "SELECT 'é' = arr|",
            "SELECT 'é' = ".len(),
            &["arrow_typeof"],
        );
    }

    #[test]
    fn commands_and_their_arguments_go_on() {
        check("\\t|", 0, &["\\timing"]);
        check("\\d airp|", 3, &["airports"]);
        check("\\format n|", 8, &["ndjson"]);
        check("\\timing o|", 8, &["off", "on"]);
        check("\\q x|", 3, &[]);
    }

    #[test]
    fn files_go_on_inside_quotes() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        for name in ["in/a b.csv", "in/ab.csv", "in/.hidden.csv", "in/c.csv"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let base = dir.path().display();
        let expected = [format!("{base}/in/")];
        let line = format!("SELECT 'x', * FROM '{base}/i");
        let found = |line: &str| {
            let (start, pairs) = names().complete(line, line);
            assert_eq!(start, line.rfind('\'').unwrap() + 1);
            pairs
                .into_iter()
                .map(|pair| pair.replacement)
                .collect::<Vec<_>>()
        };
        assert_eq!(found(&line), expected);
        let expected = [format!("{base}/in/a b.csv"), format!("{base}/in/ab.csv")];
        assert_eq!(found(&format!("SELECT * FROM '{base}/in/a")), expected);
        assert_eq!(found(&format!("SELECT * FROM '{base}/none/a")), [""; 0]);
    }

    #[test]
    fn enter_ends_statements_and_commands() {
        for (text, expected) in [
            ("", true),
            ("SELECT 1", false),
            ("SELECT 1;", true),
            ("SELECT 1;\nSELECT '", false),
            ("\\d", true),
            ("\\i 'file", true),
            ("quit", true),
        ] {
            assert_eq!(is_whole(text), expected, "{text}");
        }
    }
}
