//! What a query names, for programs that have queries in files of their own.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use darner_engine::Result;
use datafusion::sql::{
    parser::Statement,
    sqlparser::ast::{self, VisitMut, VisitorMut},
};

use super::query;
use crate::{error::from_datafusion, files::has_path};

/// The tables, views and files that a query names, once each.
///
/// # Errors
/// [`ErrorKind::Invalid`](darner_engine::ErrorKind::Invalid) for what is no query.
///
/// # Examples
/// ```
/// let names = darner_sql::relations_of("SELECT * FROM 'days/*.csv' JOIN airports ON dest = faa")?;
/// assert_eq!(names, ["airports", "days/*.csv"]);
/// # Ok::<(), darner_engine::Error>(())
/// ```
pub fn relations_of(query: &str) -> Result<Vec<String>> {
    let (_, names) = parse(query)?;
    Ok(names)
}

fn parse(query: &str) -> Result<(Statement, Vec<String>)> {
    let state = query::base(1).map_err(from_datafusion)?;
    let statement = query::parse(&state, query).map_err(from_datafusion)?;
    let relations = query::relations(&state, &statement).map_err(from_datafusion)?;
    let mut names: Vec<String> = relations
        .iter()
        .map(|relation| relation.table().to_owned())
        .collect();
    names.sort_unstable();
    names.dedup();
    Ok((statement, names))
}

/// A query in which paths begin in a directory, and in which `files` can be read by the names that stand beside them.
///
/// # Errors
/// As [`relations_of`].
pub fn with_files(query: &str, dir: &Path, files: &[(String, PathBuf)]) -> Result<String> {
    let (mut statement, names) = parse(query)?;
    let mut placing = Placing { dir, files, names };
    if let Statement::Statement(statement) = &mut statement {
        // Nothing breaks off.
        let _: ControlFlow<()> = statement.visit(&mut placing);
    }
    Ok(statement.to_string())
}

struct Placing<'f> {
    dir: &'f Path,
    files: &'f [(String, PathBuf)],
    /// What the query names and does not define itself, in a WITH.
    names: Vec<String>,
}

impl Placing<'_> {
    /// The path that a name stands for.
    fn path_of(&self, ident: &ast::Ident) -> Option<PathBuf> {
        let is_quoted = ident.quote_style.is_some();
        let name = if is_quoted {
            ident.value.clone()
        } else {
            ident.value.to_lowercase()
        };
        if !self.names.contains(&name) {
            return None;
        }
        if let Some((_, path)) = self.files.iter().find(|(file, _)| *file == name) {
            return Some(path.clone());
        }
        let is_path = is_quoted && has_path(&name) && !name.contains("://");
        is_path.then(|| self.dir.join(name))
    }
}

impl VisitorMut for Placing<'_> {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut ast::TableFactor) -> ControlFlow<()> {
        let ast::TableFactor::Table {
            name,
            alias,
            args: None,
            ..
        } = factor
        else {
            return ControlFlow::Continue(());
        };
        let [ast::ObjectNamePart::Identifier(ident)] = &mut name.0[..] else {
            return ControlFlow::Continue(());
        };
        let path = self.path_of(ident);
        let Some(path) = path.as_deref().and_then(Path::to_str) else {
            return ControlFlow::Continue(());
        };
        // Columns may be named by the name that stood there.
        let said = ast::Ident {
            quote_style: ident.quote_style.map(|_| '"'),
            ..ident.clone()
        };
        alias.get_or_insert_with(|| ast::TableAlias {
            explicit: true,
            name: said,
            columns: Vec::new(),
            at: None,
        });
        *ident = ast::Ident::with_quote('\'', path);
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(query: &str) -> String {
        let files = [("days".to_owned(), PathBuf::from("/out/days"))];
        with_files(query, Path::new("data"), &files).unwrap()
    }

    #[test]
    fn names_become_paths_where_they_stand_for_files() {
        assert_eq!(
            placed("SELECT days.a FROM Days JOIN t ON a = k"),
            "SELECT days.a FROM '/out/days' AS Days JOIN t ON a = k"
        );
        assert_eq!(
            placed("SELECT * FROM 'x/*.csv' AS x"),
            "SELECT * FROM 'data/x/*.csv' AS x"
        );
        assert_eq!(
            placed("SELECT * FROM '/x.csv'"),
            "SELECT * FROM '/x.csv' AS \"/x.csv\""
        );
    }

    #[test]
    fn a_name_that_the_query_defines_stays() {
        let query = "WITH days AS (SELECT 1) SELECT * FROM days";
        assert_eq!(placed(query), query);
        assert_eq!(relations_of(query).unwrap(), [""; 0]);
    }

    #[test]
    fn what_is_no_query_is_refused() {
        assert!(relations_of("DELETE FROM t").is_err());
        assert!(relations_of("SELEC").is_err());
    }
}
