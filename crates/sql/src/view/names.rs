//! What a query names, for programs that have queries in files of their own.

use std::path::{Path, PathBuf};

use darner_engine::Result;
use datafusion::sql::parser::Statement;

use super::{
    place::{known_as, place},
    query,
};
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
    let (mut statement, _) = parse(query)?;
    place(&mut statement, &mut |ident| {
        let name = known_as(ident);
        if let Some((_, path)) = files.iter().find(|(file, _)| *file == name) {
            return path.to_str().map(ToOwned::to_owned);
        }
        // In single quotes a name is of a file or a directory.
        let is_path = match ident.quote_style {
            None => false,
            Some('\'') => has_path(&name) || dir.join(&name).exists(),
            Some(_) => has_path(&name),
        };
        let is_local = is_path && !name.contains("://");
        is_local.then(|| dir.join(name).to_str().map(ToOwned::to_owned))?
    });
    query::written(&statement).map_err(from_datafusion)
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
        // Only behind its own query, or everywhere in it if that is recursive.
        assert_eq!(
            placed(
                "WITH days AS (SELECT * FROM days) SELECT * FROM days, (SELECT * FROM days) AS d"
            ),
            "WITH days AS (SELECT * FROM '/out/days' AS days) SELECT * FROM days, (SELECT * FROM days) AS d"
        );
        let query = "WITH RECURSIVE days AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM days WHERE n < 9) SELECT * FROM days";
        assert_eq!(placed(query), query);
        assert_eq!(
            placed(
                "SELECT * FROM (WITH days AS (SELECT 1) SELECT * FROM days) AS a JOIN days ON true"
            ),
            "SELECT * FROM (WITH days AS (SELECT 1) SELECT * FROM days) AS a JOIN '/out/days' AS days ON true"
        );
    }

    #[test]
    fn what_is_no_query_is_refused() {
        assert!(relations_of("DELETE FROM t").is_err());
        assert!(relations_of("SELEC").is_err());
    }
}
