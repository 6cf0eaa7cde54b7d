//! Texts of several statements.

use darner_engine::{Error, ErrorKind, Result};
use datafusion::{
    common::config,
    execution::SessionState,
    sql::{
        parser,
        sqlparser::{
            ast,
            dialect::{Dialect, GenericDialect, dialect_from_str},
            keywords::Keyword,
            tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer},
        },
    },
};

use crate::{create::Parsed, error::from_datafusion, view::ViewStatement};

/// The most words and signs that an expression may have: each can be a level of the plan. DataFusion's time to plan grows
/// with the square of the levels (a sum of 4,000 terms took it 40 s), and some of what walks over plans takes a piece of
/// the stack for each.
pub(crate) const TERMS_MAX: usize = 10_000;

/// The most joins, and queries beside each other as in `UNION`, that a query may have: each is a level, too.
const LINKS_MAX: usize = 2_000;

/// The most parentheses around anything. The parser takes fewer, but far too long to say so.
const LEVELS_MAX: usize = 60;

/// One statement of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// As it was written, without the semicolon.
    pub text: String,
    /// The line on which it begins, from 1.
    pub line: usize,
    /// Whether rows come out of it that were asked for.
    pub gives_rows: bool,
}

/// The statements of a text, each of which can be parsed.
pub(crate) fn parse(sql: &str, state: &SessionState) -> Result<Vec<Statement>> {
    let (_, dialect) = dialect_of(state)?;
    let mut statements = split(sql, dialect.as_ref())?;
    let num_statements = statements.len();
    for statement in &mut statements {
        let in_place = |error: Error| match num_statements {
            1 => error,
            _ => error.context(format!("statement at line {}", statement.line)),
        };
        check_depth(&statement.text, dialect.as_ref()).map_err(in_place)?;
        let parsed = Parsed::of(state, &statement.text);
        let parsed = parsed.map_err(|error| in_place(from_datafusion(error)))?;
        statement.gives_rows = match &parsed {
            Parsed::View(statement) => matches!(statement, ViewStatement::Explain { .. }),
            Parsed::Other(statement) => gives_rows(statement),
        };
    }
    Ok(statements)
}

/// The dialect in which a session reads statements.
pub(crate) fn dialect_of(state: &SessionState) -> Result<(config::Dialect, Box<dyn Dialect>)> {
    let name = state.config().options().sql_parser.dialect;
    let dialect = dialect_from_str(name)
        .ok_or_else(|| Error::invalid(format!("no such SQL dialect: dialect=`{name}`")))?;
    Ok((name, dialect))
}

fn gives_rows(statement: &parser::Statement) -> bool {
    match statement {
        parser::Statement::Explain(_) => true,
        parser::Statement::Statement(statement) => matches!(
            **statement,
            ast::Statement::Query(_)
                | ast::Statement::Explain { .. }
                | ast::Statement::ExplainTable { .. }
                | ast::Statement::Execute { .. }
                | ast::Statement::ShowVariable { .. }
                | ast::Statement::ShowVariables { .. }
                | ast::Statement::ShowTables { .. }
                | ast::Statement::ShowColumns { .. }
                | ast::Statement::ShowFunctions { .. }
                | ast::Statement::ShowCreate { .. }
        ),
        _ => false,
    }
}

/// Splits a text at semicolons that stand in no string and no comment.
fn split(sql: &str, dialect: &dyn Dialect) -> Result<Vec<Statement>> {
    let mut cursor = Cursor::of(sql);
    let mut statements = Vec::new();
    let mut span: Option<Span> = None;
    let end = TokenWithSpan::wrap(Token::SemiColon);
    for token in tokens(sql, dialect)?.iter().chain([&end]) {
        match token.token {
            Token::SemiColon => {
                if let Some(span) = span.take() {
                    let (start, end) = (cursor.place(span.start), cursor.place(span.end));
                    statements.push(Statement {
                        text: sql[start..end].to_owned(),
                        line: usize::try_from(span.start.line).unwrap_or(usize::MAX),
                        gives_rows: false,
                    });
                }
            }
            Token::Whitespace(_) | Token::EOF => {}
            _ => {
                let start = span.map_or(token.span.start, |span| span.start);
                span = Some(Span::new(start, token.span.end));
            }
        }
    }
    Ok(statements)
}

/// Whether a text that is being typed ends with a semicolon that ends its last statement, or has no statement.
pub fn is_complete(sql: &str) -> bool {
    // What cannot be read yet is a string or a comment that goes on.
    let Ok(tokens) = tokens(sql, &GenericDialect {}) else {
        return false;
    };
    let mut words = tokens
        .iter()
        .rev()
        .map(|token| &token.token)
        .filter(|token| !matches!(token, Token::Whitespace(_) | Token::EOF));
    words.next().is_none_or(|last| *last == Token::SemiColon)
}

/// Refuses a statement that is so deep that its plan could not be walked over.
pub(crate) fn check_depth(sql: &str, dialect: &dyn Dialect) -> Result<()> {
    // Each word and sign takes a byte.
    if sql.len() <= LEVELS_MAX {
        return Ok(());
    }
    // Per pair of parentheses around, the innermost last.
    let mut levels = vec![Level::default()];
    for token in tokens(sql, dialect)? {
        match &token.token {
            Token::Whitespace(_) => continue,
            Token::LParen | Token::LBracket => levels.push(Level::default()),
            Token::RParen | Token::RBracket if levels.len() > 1 => {
                levels.pop();
            }
            _ => {}
        }
        // One is never taken away.
        let Some(level) = levels.last_mut() else {
            continue;
        };
        level.add(&token.token);
        let (num_terms, num_links) = (level.num_terms, level.num_links);
        let (what, max) = if levels.len() > LEVELS_MAX {
            ("levels_max", LEVELS_MAX)
        } else if num_terms > TERMS_MAX {
            ("terms_max", TERMS_MAX)
        } else if num_links > LINKS_MAX {
            ("joins_max", LINKS_MAX)
        } else {
            continue;
        };
        return Err(Error::new(
            ErrorKind::Resource,
            format!(
                "statement is too deep: {what}=`{max}` line=`{}`; split it up, or put the values into a table",
                token.span.start.line
            ),
        ));
    }
    Ok(())
}

/// What stands between two parentheses.
#[derive(Default)]
struct Level {
    /// Words and signs since the last comma or link.
    num_terms: usize,
    num_links: usize,
    /// A comma is a link: tables of `FROM` are joined, each to those before, and queries of `WITH` may stand for one
    /// inside the other. Elsewhere rows, arguments and values stand side by side.
    is_linking: bool,
}

impl Level {
    fn add(&mut self, token: &Token) {
        self.num_terms += 1;
        let is_link = match token {
            Token::Comma => {
                self.num_terms = 0;
                self.is_linking
            }
            Token::Word(word) => match word.keyword {
                Keyword::FROM | Keyword::WITH => {
                    self.is_linking = true;
                    false
                }
                Keyword::SELECT
                | Keyword::VALUES
                | Keyword::WHERE
                | Keyword::GROUP
                | Keyword::HAVING
                | Keyword::ORDER => {
                    self.is_linking = false;
                    false
                }
                Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT | Keyword::JOIN => true,
                _ => false,
            },
            _ => false,
        };
        if is_link {
            self.num_links += 1;
            self.num_terms = 0;
        }
    }
}

fn tokens(sql: &str, dialect: &dyn Dialect) -> Result<Vec<TokenWithSpan>> {
    Tokenizer::new(dialect, sql)
        .tokenize_with_location()
        .map_err(|error| Error::invalid("statement cannot be read").with_source(error))
}

/// Finds places in a text, one after the other.
struct Cursor<'t> {
    text: &'t str,
    at: usize,
    line: u64,
    column: u64,
}

impl<'t> Cursor<'t> {
    fn of(text: &'t str) -> Self {
        Self {
            text,
            at: 0,
            line: 1,
            column: 1,
        }
    }

    /// The place of a line and a column, which count from 1, columns in characters. It is not before the last one.
    fn place(&mut self, location: Location) -> usize {
        for c in self.text[self.at..].chars() {
            if (self.line, self.column) >= (location.line, location.column) {
                break;
            }
            self.at += c.len_utf8();
            if c == '\n' {
                self.line += 1;
                self.column = 1;
            } else {
                self.column += 1;
            }
        }
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_split_where_statements_end() {
        let check = |sql: &str, expected: &[(&str, usize)]| {
            let found = split(sql, &GenericDialect {}).unwrap();
            let found: Vec<(&str, usize)> = found.iter().map(|s| (&*s.text, s.line)).collect();
            assert_eq!(found, expected, "{sql}");
        };
        check("", &[]);
        check(" ;; -- nothing;\n ;", &[]);
        check("SELECT 1", &[("SELECT 1", 1)]);
        check(
            "SELECT 1;\nSELECT 2 ; ",
            &[("SELECT 1", 1), ("SELECT 2", 2)],
        );
        check(
            "SELECT ';' AS \"a;b\" /* ; */;-- ;\n\n  SELECT 'é;\n;',\n 2;x",
            &[
                ("SELECT ';' AS \"a;b\"", 1),
                ("SELECT 'é;\n;',\n 2", 3),
                ("x", 5),
            ],
        );
        assert!(split("SELECT 'open", &GenericDialect {}).is_err());
    }

    #[test]
    fn a_statement_is_complete_at_its_semicolon() {
        for (sql, expected) in [
            ("", true),
            ("  -- only a comment", true),
            ("SELECT 1", false),
            ("SELECT 1;", true),
            ("SELECT 1; -- done", true),
            ("SELECT 1; SELECT", false),
            ("SELECT ';", false),
            ("SELECT ';'", false),
            ("SELECT 1 /* ;", false),
            ("SELECT 1 -- ;", false),
        ] {
            assert_eq!(is_complete(sql), expected, "{sql}");
        }
    }

    #[test]
    fn many_rows_are_not_deep() {
        let check = |sql: &str, is_taken: bool| {
            let found = check_depth(sql, &GenericDialect {}).map_err(|error| error.kind());
            let expected = if is_taken {
                Ok(())
            } else {
                Err(ErrorKind::Resource)
            };
            assert_eq!(found, expected, "{}", &sql[..50]);
        };
        let n = TERMS_MAX;
        let rows = "(1, 'a'), ".repeat(n);
        check(&format!("INSERT INTO t VALUES {rows}(2, 'b')"), true);
        let numbers = "1, ".repeat(n);
        check(&format!("SELECT * FROM t WHERE a IN ({numbers}2)"), true);
        let columns = "a + b AS c, ".repeat(n);
        check(&format!("SELECT {columns}d FROM t, u"), true);
        check(&format!("SELECT 1{}", " + 1".repeat(n)), false);
        check(&format!("SELECT f(1{})", "::INT".repeat(n)), false);
        check(&format!("SELECT {}", "(".repeat(LEVELS_MAX)), false);
        check(&format!("SELECT {}", "(1) + ".repeat(LEVELS_MAX)), true);
        let n = LINKS_MAX + 1;
        for sql in [
            format!("SELECT * FROM t{}", ", t".repeat(n)),
            format!("SELECT * FROM t{}", " JOIN t USING (a)".repeat(n)),
            format!("SELECT 1, 2{}", " UNION SELECT 1, 2".repeat(n)),
            format!(
                "SELECT * FROM (VALUES (1){})",
                " EXCEPT VALUES (1)".repeat(n)
            ),
            format!(
                "WITH x AS (SELECT 1){} SELECT 1",
                ", x AS (TABLE x)".repeat(n)
            ),
        ] {
            check(&sql, false);
        }
    }
}
