//! The text form of a join.

use super::normalize::Normalize;
use super::spec::{JoinKind, JoinSpec, OnColumn, OnMiss, SelectColumn};
use crate::source::parse_data_type;
use crate::{Error, Result};

const GRAMMAR: &str = "[left|inner|semi|anti] TABLE [as ALIAS] on FACT[=KEY][, ...] \
                       [select COL [as NAME], ...] \
                       [on_miss null|drop|error|route|default COL=VALUE[, ...]]\n\
                       where FACT is a column, or trim(FACT), upper(FACT), lower(FACT), cast(FACT as TYPE)";

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// A name or a keyword.
    Word(String),
    /// A name in double quotes: never a keyword.
    Quoted(String),
    Comma,
    Equals,
    Open,
    Close,
}

struct Parser<'a> {
    text: &'a str,
    /// Tokens and where in the text each begins.
    tokens: Vec<(usize, Token)>,
    next: usize,
}

impl JoinSpec {
    /// Reads a join from text.
    ///
    /// ```text
    /// [left|inner|semi|anti] TABLE [as ALIAS] on FACT[=KEY][, ...] [select COL [as NAME], ...]
    ///     [on_miss null|drop|error|route|default COL=VALUE[, ...]]
    /// ```
    ///
    /// `FACT` is a fact column, or `trim(FACT)`, `upper(FACT)`, `lower(FACT)` or `cast(FACT as TYPE)`. Keywords are
    /// read in any case. A name or value with spaces, `,`, `=`, `(`, `)` or the letters of a keyword goes in double
    /// quotes, a quote within it is doubled.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid): the message points at the word and shows
    /// the grammar.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parser = Parser {
            text,
            tokens: tokenize(text)?,
            next: 0,
        };
        let spec = parser.join()?;
        match parser.peek() {
            None => Ok(spec),
            Some(_) => Err(parser.expected("`,`, `select`, `on_miss` or the end")),
        }
    }
}

impl Parser<'_> {
    fn join(&mut self) -> Result<JoinSpec> {
        let kinds = [
            ("left", JoinKind::Left),
            ("inner", JoinKind::Inner),
            ("semi", JoinKind::Semi),
            ("anti", JoinKind::Anti),
        ];
        let kind = kinds.into_iter().find(|(word, _)| self.take_keyword(word));
        let table = self.name("a table")?;
        let alias = if self.take_keyword("as") {
            Some(self.name("an alias")?)
        } else {
            None
        };
        if !self.take_keyword("on") {
            return Err(self.expected(if alias.is_some() {
                "`on`"
            } else {
                "`as` or `on`"
            }));
        }
        let mut on = Vec::new();
        let mut normalize = Vec::new();
        loop {
            let mut steps = Vec::new();
            let fact = self.fact(&mut steps)?;
            normalize.push(steps);
            let key = if self.take(&Token::Equals) {
                Some(self.name("a key column")?)
            } else {
                None
            };
            on.push(OnColumn { fact, key });
            if !self.take(&Token::Comma) {
                break;
            }
        }
        let select = if self.take_keyword("select") {
            Some(self.select()?)
        } else {
            None
        };
        let (on_miss, defaults) = if self.take_keyword("on_miss") {
            self.on_miss()?
        } else {
            (OnMiss::default(), Vec::new())
        };
        if normalize.iter().all(Vec::is_empty) {
            normalize.clear();
        }
        let kind = kind.map_or(JoinKind::default(), |(_, kind)| kind);
        Ok(JoinSpec {
            table,
            alias,
            kind,
            on,
            select,
            on_miss,
            defaults,
            normalize,
        })
    }

    /// A fact column, and what is done to it, innermost first.
    fn fact(&mut self, steps: &mut Vec<Normalize>) -> Result<String> {
        let is_call = matches!(self.tokens.get(self.next + 1), Some((_, Token::Open)));
        if !is_call || !matches!(self.peek(), Some(Token::Word(_))) {
            return self.name("a fact column");
        }
        let simple = [
            ("trim", Normalize::Trim),
            ("upper", Normalize::Upper),
            ("lower", Normalize::Lower),
        ];
        let step = simple.into_iter().find(|(word, _)| self.take_keyword(word));
        if step.is_none() && !self.take_keyword("cast") {
            return Err(self.expected("`trim`, `upper`, `lower` or `cast`"));
        }
        // The bracket that made it a call.
        self.next += 1;
        let fact = self.fact(steps)?;
        let step = if let Some((_, step)) = step {
            step
        } else {
            if !self.take_keyword("as") {
                return Err(self.expected("`as`"));
            }
            Normalize::Cast(self.data_type()?)
        };
        steps.push(step);
        if self.take(&Token::Close) {
            Ok(fact)
        } else {
            Err(self.expected("`)`"))
        }
    }

    /// A type, up to the bracket that closes the cast; it may have brackets of its own.
    fn data_type(&mut self) -> Result<arrow_schema::DataType> {
        let start = self.next;
        let mut depth = 0_usize;
        while let Some(token) = self.peek() {
            match token {
                Token::Open => depth += 1,
                Token::Close if depth == 0 => break,
                Token::Close => depth -= 1,
                _ => {}
            }
            self.next += 1;
        }
        let place = |at: usize| self.tokens.get(at).map_or(self.text.len(), |(at, _)| *at);
        let text = &self.text[place(start)..place(self.next)];
        parse_data_type(text).map_err(|error| error_at(self.text, place(start), &error.to_string()))
    }

    fn on_miss(&mut self) -> Result<(OnMiss, Vec<(String, String)>)> {
        let kinds = [
            ("null", OnMiss::Null),
            ("drop", OnMiss::Drop),
            ("error", OnMiss::Error),
            ("route", OnMiss::Route),
            ("default", OnMiss::Default),
        ];
        let kind = kinds.into_iter().find(|(word, _)| self.take_keyword(word));
        let Some((_, kind)) = kind else {
            return Err(self.expected("`null`, `drop`, `error`, `route` or `default`"));
        };
        let mut defaults = Vec::new();
        if kind != OnMiss::Default {
            return Ok((kind, defaults));
        }
        loop {
            let column = self.name("a column")?;
            if !self.take(&Token::Equals) {
                return Err(self.expected("`=`"));
            }
            let value = match self.peek() {
                Some(Token::Quoted(value) | Token::Word(value)) => value.clone(),
                _ => return Err(self.expected("a value")),
            };
            self.next += 1;
            defaults.push((column, value));
            if !self.take(&Token::Comma) {
                return Ok((kind, defaults));
            }
        }
    }

    fn select(&mut self) -> Result<Vec<SelectColumn>> {
        let mut columns = Vec::new();
        loop {
            let column = self.name("a column of the table")?;
            let name = if self.take_keyword("as") {
                Some(self.name("a new name")?)
            } else {
                None
            };
            columns.push(SelectColumn { column, name });
            if !self.take(&Token::Comma) {
                return Ok(columns);
            }
        }
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }

    fn take(&mut self, token: &Token) -> bool {
        let is_next = self.peek() == Some(token);
        self.next += usize::from(is_next);
        is_next
    }

    fn take_keyword(&mut self, keyword: &str) -> bool {
        let is_next =
            matches!(self.peek(), Some(Token::Word(word)) if word.eq_ignore_ascii_case(keyword));
        self.next += usize::from(is_next);
        is_next
    }

    fn name(&mut self, what: &str) -> Result<String> {
        let name = match self.peek() {
            Some(Token::Quoted(name)) if name.is_empty() => {
                let at = self.tokens[self.next].0;
                return Err(error_at(self.text, at, "an empty name"));
            }
            Some(Token::Quoted(name)) => name.clone(),
            Some(Token::Word(word)) if !is_reserved(word) => word.clone(),
            _ => return Err(self.expected(what)),
        };
        self.next += 1;
        Ok(name)
    }

    fn expected(&self, what: &str) -> Error {
        let at = self
            .tokens
            .get(self.next)
            .map_or(self.text.len(), |(at, _)| *at);
        error_at(self.text, at, &format!("expected {what}"))
    }
}

/// Words that end a list; as names they need quotes.
fn is_reserved(word: &str) -> bool {
    ["as", "on", "select", "on_miss"]
        .iter()
        .any(|keyword| word.eq_ignore_ascii_case(keyword))
}

fn tokenize(text: &str) -> Result<Vec<(usize, Token)>> {
    let mut tokens = Vec::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, char)) = chars.next() {
        let token = match char {
            _ if char.is_whitespace() => continue,
            ',' => Token::Comma,
            '=' => Token::Equals,
            '(' => Token::Open,
            ')' => Token::Close,
            '"' => {
                let mut name = String::new();
                loop {
                    match chars.next() {
                        None => return Err(error_at(text, at, "a quote that is not closed")),
                        Some((_, '"')) if chars.next_if(|(_, next)| *next == '"').is_none() => {
                            break;
                        }
                        Some((_, char)) => name.push(char),
                    }
                }
                Token::Quoted(name)
            }
            _ => {
                let mut word = String::from(char);
                let in_word =
                    |c: char| !c.is_whitespace() && !matches!(c, ',' | '=' | '"' | '(' | ')');
                while let Some((_, char)) = chars.next_if(|(_, char)| in_word(*char)) {
                    word.push(char);
                }
                Token::Word(word)
            }
        };
        tokens.push((at, token));
    }
    Ok(tokens)
}

/// The message, the text, a mark below the byte `at`, and the grammar.
fn error_at(text: &str, at: usize, what: &str) -> Error {
    // One line, so that the mark stands right.
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let column = text[..at].chars().count();
    Error::invalid(format!(
        "cannot read a join; {what}\n  {line}\n  {:column$}^\nthe form is: {GRAMMAR}",
        ""
    ))
}
