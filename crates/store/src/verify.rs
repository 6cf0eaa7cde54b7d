//! Reads every byte of a store and checks all that can be checked.

use std::{collections::HashSet, path::Path, sync::Arc};

use crate::{
    checkpoint::{self, Current},
    error::{Error, ErrorKind, Result},
    keyspace::{Attach, check_file},
    log::read_log,
    namespace::{namespace_of, stored_name},
    page::{ColumnStats, PageKind},
    state::TableState,
    store::{LOG_DIR, READ_ATTEMPTS_MAX, Store, absolute},
    table::{LiveRows, PageReader, key_converter},
    workdir::WorkDir,
};

/// What [`Store::verify`] has read and found.
#[derive(Debug, Default)]
pub struct VerifyReport {
    /// Files of the current checkpoint, and log segments.
    pub num_files: u64,
    /// Bytes of the checkpoint's files.
    pub num_bytes: u64,
    /// Tables and namespaces, with earlier incarnations that are kept.
    pub num_tables: u64,
    /// Pages that were read and decoded.
    pub num_pages: u64,
    /// Rows and deleted keys in these pages.
    pub num_rows: u64,
    /// Commits that are in the log only.
    pub num_commits: u64,
    /// What is wrong. Each names the file or the table.
    pub problems: Vec<Error>,
}

impl Store {
    /// Checks a store as of its last commit: every checksum, every page, the order of keys, and whether the catalog
    /// says what is true. A writer may go on meanwhile. Nothing is changed.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no store, [`ErrorKind::Unavailable`] if it cannot be read. What is wrong with
    /// its content is in the report.
    pub fn verify(dir: impl AsRef<Path>) -> Result<VerifyReport> {
        let dir = absolute(dir.as_ref())?;
        let mut report = VerifyReport::default();
        if let Err(error) = verify_files(&dir, &mut report) {
            report.add(error)?;
        }
        match Self::open_read_only(&dir) {
            Ok(store) => store.verify_tables(&mut report)?,
            Err(error) => report.add(error)?,
        }
        // The same damage is met on several ways.
        let mut seen = HashSet::new();
        report
            .problems
            .retain(|problem| seen.insert(problem.message().to_owned()));
        Ok(report)
    }

    fn verify_tables(&self, report: &mut VerifyReport) -> Result<()> {
        let state = self.read_state().clone();
        let tables = state
            .tables
            .iter()
            .map(|(name, table)| (name.clone(), table.clone()));
        let namespaces = state.namespaces.iter();
        let namespaces = namespaces.map(|(name, found)| (stored_name(name), found.table()));
        for (name, table) in tables.chain(namespaces) {
            let place = match namespace_of(&name) {
                Some(namespace) => format!("namespace=`{namespace}`"),
                None => format!("table=`{name}`"),
            };
            for part in table.older.iter().chain([&table]) {
                report.num_tables += 1;
                if let Err(error) = verify_table(part, report) {
                    report.add(error.context(&place))?;
                }
            }
            let history = &table.history;
            let is_ascending = history.is_sorted_by(|a, b| a.version.number < b.version.number);
            let is_last = history
                .last()
                .is_none_or(|last| last.version.number == table.changed.number);
            if !is_ascending || !is_last {
                report.problems.push(Error::data(format!(
                    "{place}: the history does not fit the table"
                )));
            }
        }
        Ok(())
    }
}

impl VerifyReport {
    /// Notes what is wrong with the store; passes on what is not the store's fault.
    fn add(&mut self, error: Error) -> Result<()> {
        if error.kind() == ErrorKind::Data {
            self.problems.push(error);
            return Ok(());
        }
        Err(error)
    }
}

/// Checks the files against the manifest, and the log.
fn verify_files(dir: &Path, report: &mut VerifyReport) -> Result<()> {
    let work_dir = Arc::new(WorkDir::for_reader(0)?);
    for _ in 0..READ_ATTEMPTS_MAX {
        let Some(current) = Current::read(dir)? else {
            return Err(Error::not_found(format!("no store in `{}`", dir.display())));
        };
        let Some(pinned) = checkpoint::pin(dir, current)? else {
            continue;
        };
        let state = pinned.state(&work_dir, Attach::Symlink)?;
        let mut num_commits = 0;
        let read = read_log(&dir.join(LOG_DIR), state.version.number + 1, |_| {
            num_commits += 1;
            Ok(())
        });
        if Current::read(dir)? != Some(current) {
            continue;
        }
        if let Err(error) = read {
            report.add(error)?;
        }
        report.num_commits = num_commits;
        report.num_files = 2;
        for table in state.tables.values() {
            let parts = table.older.iter().chain([table]);
            for source in parts.filter_map(|part| part.checkpointed.as_ref()) {
                for file in &source.files {
                    report.num_files += 1;
                    report.num_bytes += file.num_bytes;
                    if let Err(error) = check_file(&source.dir.join(&file.name), file) {
                        report.add(error)?;
                    }
                }
            }
        }
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Conflict,
        format!(
            "store changes too fast to be read: store=`{}`; try again",
            dir.display()
        ),
    ))
}

/// Reads every page of a table and checks what the catalog says of it.
fn verify_table(table: &TableState, report: &mut VerifyReport) -> Result<()> {
    let wrong = |what: String| Error::data(format!("{}: {what}", table.keyspace.place()));
    let mut ids = HashSet::new();
    let mut last_version = 0;
    for page in table.pages.iter() {
        if !ids.insert(page.id) || page.id >= table.keyspace.next_page_id() {
            return Err(wrong(format!(
                "page number was used twice: page=`{}`",
                page.id
            )));
        }
        if page.version < last_version || page.version > table.changed.number {
            return Err(wrong(format!("page is out of order: page=`{}`", page.id)));
        }
        last_version = page.version;
    }
    let converter = key_converter(table.spec.key_schema())?;
    let mut last_key: Option<Box<[u8]>> = None;
    for (page_idx, rows) in PageReader::new(table, None).enumerate() {
        let rows = rows?;
        let page = &table.pages[page_idx];
        report.num_pages += 1;
        report.num_rows += u64::from(page.num_rows);
        for (column, stats) in rows.rows.columns().iter().zip(&page.stats) {
            if ColumnStats::of(column) != *stats {
                return Err(wrong(format!("page has wrong bounds: page=`{}`", page.id)));
            }
        }
        if page_idx >= table.num_sorted_pages {
            continue;
        }
        let keys = rows
            .rows
            .project(table.spec.key_columns())
            .map_err(|error| Error::data("page has no keys").with_source(error))?;
        let keys = converter
            .convert_columns(keys.columns())
            .map_err(|error| Error::data("keys are not readable").with_source(error))?;
        let is_ascending = page.kind == PageKind::Upsert
            && keys.iter().is_sorted_by(|a, b| a < b)
            && last_key.is_none_or(|last| *last < *keys.row(0).as_ref());
        if !is_ascending {
            return Err(wrong(format!(
                "page is not in key order: page=`{}`",
                page.id
            )));
        }
        last_key = keys
            .num_rows()
            .checked_sub(1)
            .map(|row| keys.row(row).as_ref().into());
    }
    if table.is_distinct {
        let merged = TableState {
            is_distinct: false,
            // Read them all, whatever is said of them.
            num_sorted_pages: 0,
            ..table.clone()
        };
        if LiveRows::find(&merged)?.num_rows != table.num_stored_rows() {
            return Err(wrong(
                "a key stands twice in a table that is said to hold each once".to_owned(),
            ));
        }
    }
    Ok(())
}
