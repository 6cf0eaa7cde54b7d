//! A table as of one commit.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use arrow_array::{BooleanArray, RecordBatch};
use arrow_schema::SchemaRef;

use super::{
    PageReader,
    live::{LiveRows, count_history, filter, num_kept},
};
use crate::{
    catalog::TableSpec,
    error::{Error, Result},
    history::{HISTORY_UNREADABLE_MAX, Retention, TableCommit},
    page::{PageKind, PageMeta},
    state::TableState,
    version::{AsOf, Version},
};

/// A table as it was when this was taken: later commits do not show.
///
/// Cheap to take and to clone; it shares the page list, and keeps the files that it needs for as long as it lives.
#[derive(Clone)]
pub struct TableSnapshot {
    name: String,
    pub(super) table: TableState,
}

impl fmt::Debug for TableSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableSnapshot")
            .field("name", &self.name)
            .field("version", &self.version().number)
            .finish_non_exhaustive()
    }
}

impl TableSnapshot {
    pub(crate) fn new(name: &str, table: TableState) -> Self {
        // The keyspace knows where the files are; this would only keep an old checkpoint.
        let table = TableState {
            checkpointed: None,
            ..table
        };
        Self {
            name: name.to_owned(),
            table,
        }
    }

    /// The table's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The columns and key.
    pub fn spec(&self) -> &Arc<TableSpec> {
        &self.table.spec
    }

    /// All columns.
    pub fn schema(&self) -> &SchemaRef {
        self.table.spec.schema()
    }

    /// The names of the key columns, in key order.
    pub fn key_names(&self) -> Vec<&str> {
        let schema = self.schema();
        self.table
            .spec
            .key_columns()
            .iter()
            .map(|i| schema.field(*i).name().as_str())
            .collect()
    }

    /// The last commit that changed the table.
    pub fn version(&self) -> Version {
        self.table.changed
    }

    /// The commit that made the table.
    pub fn created(&self) -> Version {
        self.table.created
    }

    /// The stored pages, oldest first.
    pub fn pages(&self) -> impl ExactSizeIterator<Item = &PageMeta> {
        self.table.pages.iter().map(|page| &**page)
    }

    /// Encoded bytes of all pages.
    pub fn num_bytes(&self) -> u64 {
        self.table.num_bytes()
    }

    /// Rows in upsert pages, also those that were replaced or deleted since.
    pub fn num_stored_rows(&self) -> u64 {
        self.table.num_stored_rows()
    }

    /// So many pages at the front are in key order and hold each key once.
    pub fn num_sorted_pages(&self) -> usize {
        self.table.num_sorted_pages
    }

    /// How much of the past is kept.
    pub fn retention(&self) -> Retention {
        self.table.retention
    }

    /// Whether every stored row counts, so that nothing needs to be merged.
    pub fn is_distinct(&self) -> bool {
        self.table.is_distinct
    }

    /// The number of rows that count. Reads all keys, unless [`is_distinct`](Self::is_distinct) or counted before.
    ///
    /// # Errors
    /// [`ErrorKind::Data`](crate::ErrorKind::Data) for damage.
    pub fn num_rows(&self) -> Result<u64> {
        let num_live = match self.num_rows_known() {
            Some(num_live) => num_live,
            None => self.table.live_rows()?.num_rows,
        };
        Ok(*self.table.num_live.get_or_init(|| num_live))
    }

    /// The number of rows that count, if it is known without a look at the keys.
    pub fn num_rows_known(&self) -> Option<u64> {
        if self.table.is_distinct {
            return Some(self.table.num_stored_rows());
        }
        let counted = self.table.history.last().and_then(|entry| entry.counts);
        let counted = counted.map(|counts| counts.num_live);
        self.table.num_live.get().copied().or(counted)
    }

    /// The table as it was at an earlier version or time.
    ///
    /// The answer's [`version`](Self::version) is the last commit that changed the table by then.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if the table was not made yet or that version is not kept
    /// any more; the message has the next one that is.
    pub fn at(&self, as_of: AsOf) -> Result<Self> {
        let table = &self.table;
        let at = table.history.partition_point(|entry| match as_of {
            AsOf::Version(number) => entry.version.number <= number,
            AsOf::Time(time_us) => entry.version.time_us <= time_us,
        });
        let Some(entry) = at.checked_sub(1).map(|at| table.history[at]) else {
            if at == table.history.len() || table.history[at].version == table.created {
                return Err(Error::not_found(format!(
                    "table was made later: table=`{}` {as_of} made=`{}`",
                    self.name, table.created
                )));
            }
            return Err(self.not_kept(as_of));
        };
        let asked = match as_of {
            AsOf::Version(number) => number,
            AsOf::Time(_) => entry.version.number,
        };
        let found = table
            .older
            .iter()
            .chain([table])
            .rfind(|table| table.begun.number <= entry.version.number)
            // What a reader sees as of `asked` stands there as long as every page since `oldest` is its own.
            .filter(|table| table.oldest <= asked)
            .ok_or_else(|| self.not_kept(as_of))?;
        let number = entry.version.number;
        let mut found = found.with_pages(|page| page.version <= asked);
        found.changed = found.changed.min(entry.version);
        found.created = table.created;
        found.history = if at == table.history.len() {
            Arc::clone(&table.history)
        } else {
            Arc::new(table.history[..at].to_vec())
        };
        found.num_live = Arc::new(OnceLock::new());
        found.older = table
            .older
            .iter()
            .filter(|older| older.begun.number < found.begun.number && older.begun.number <= number)
            .cloned()
            .collect();
        Ok(Self {
            name: self.name.clone(),
            table: found,
        })
    }

    fn not_kept(&self, as_of: AsOf) -> Error {
        let later = self.table.history.iter().find(|entry| {
            let is_later = match as_of {
                AsOf::Version(number) => entry.version.number > number,
                AsOf::Time(time_us) => entry.version.time_us > time_us,
            };
            is_later && self.table.is_kept(entry.version.number)
        });
        let next = later.map_or(self.table.oldest, |entry| entry.version.number);
        Error::not_found(format!(
            "version is not kept any more: table=`{}` {as_of} next_kept=`{next}`; ask for that one, and have more kept \
             from now on (`darner retention`)",
            self.name
        ))
    }

    /// The number of the oldest commit as of which the table can be read.
    pub fn oldest_version(&self) -> u64 {
        self.table
            .older
            .first()
            .map_or(self.table.oldest, |older| older.oldest)
    }

    /// The commits that changed the table, oldest first, with what they added and removed. Among those that cannot be
    /// read any more only the newest are listed.
    ///
    /// Reads all keys, unless they were counted before.
    ///
    /// # Errors
    /// [`ErrorKind::Data`](crate::ErrorKind::Data) for damage.
    pub fn history(&self) -> Result<Vec<TableCommit>> {
        let history = count_history(&self.table)?;
        let commits: Vec<TableCommit> = history
            .into_iter()
            .map(|entry| TableCommit {
                version: entry.version,
                kind: entry.kind,
                counts: entry.counts,
                is_readable: self.table.is_kept(entry.version.number),
            })
            .collect();
        let num_unreadable = commits
            .iter()
            .take_while(|commit| !commit.is_readable)
            .count();
        let skip = num_unreadable.saturating_sub(HISTORY_UNREADABLE_MAX);
        Ok(commits[skip..].to_vec())
    }

    /// What has changed since an earlier commit: the new form of each row that was added or replaced, and the keys of
    /// those that were deleted.
    ///
    /// Putting the upserts into the table as of `version`, and taking the deleted keys out of it, gives this snapshot.
    /// A key that came and went since then is among the deleted ones.
    ///
    /// # Shapes
    /// `projection`: positions of columns of the upserted rows, ascending; `None` for all.
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if what followed that commit is not kept any more,
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a position without a column.
    pub fn changes_since(
        &self,
        version: u64,
        projection: Option<&[usize]>,
    ) -> Result<TableChanges> {
        let is_replaced = version < self.table.begun.number;
        if !is_replaced && version < self.table.oldest {
            return Err(self.not_kept(AsOf::Version(version)));
        }
        let schema = self.projected(projection)?;
        let table = if is_replaced {
            self.table.clone()
        } else {
            self.table.with_pages(|page| page.version > version)
        };
        let live = LiveRows::find(&table)?;
        Ok(TableChanges {
            is_replaced,
            upserts: Rows {
                schema,
                masks: live.masks.clone().into_iter(),
                pages: PageReader::new(&table, projection),
                kind: PageKind::Upsert,
            },
            deletes: Rows {
                schema: Arc::clone(table.spec.key_schema()),
                masks: live
                    .masks
                    .into_iter()
                    .zip(table.pages.iter())
                    .filter(|(_, page)| page.kind == PageKind::Delete)
                    .map(|(mask, _)| mask)
                    .collect::<Vec<_>>()
                    .into_iter(),
                pages: PageReader::new(
                    &table.with_pages(|page| page.kind == PageKind::Delete && !is_replaced),
                    None,
                ),
                kind: PageKind::Delete,
            },
        })
    }

    pub(super) fn projected(&self, projection: Option<&[usize]>) -> Result<SchemaRef> {
        match projection {
            None => Ok(Arc::clone(self.schema())),
            Some(columns) => self
                .schema()
                .project(columns)
                .map(Arc::new)
                .map_err(|error| {
                    Error::invalid(format!("no such column in table=`{}`", self.name))
                        .with_source(error)
                }),
        }
    }

    /// Reads the stored pages as they are, oldest first: the newest row of a key is the one that counts.
    ///
    /// # Shapes
    /// `projection`: positions of columns, ascending; `None` for all.
    pub fn read_pages(&self, projection: Option<&[usize]>) -> PageReader {
        PageReader::new(&self.table, projection)
    }

    /// Reads the rows that count, in the order in which their newest versions were written.
    ///
    /// # Shapes
    /// `projection`: positions of columns, ascending; `None` for all.
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a position without a column,
    /// [`ErrorKind::Data`](crate::ErrorKind::Data) for damage.
    /// # Examples
    /// ```
    /// # fn print(store: &darner_store::Store) -> darner_store::Result<()> {
    /// let mut num_rows = 0;
    /// for rows in store.table("names")?.rows(None)? {
    ///     num_rows += rows?.num_rows();
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn rows(&self, projection: Option<&[usize]>) -> Result<Rows> {
        let schema = self.projected(projection)?;
        let live = self.table.live_rows()?;
        let pages = PageReader::new(&self.table, projection);
        Ok(Rows {
            schema,
            masks: live.masks.clone().into_iter(),
            pages,
            kind: PageKind::Upsert,
        })
    }
}

/// What has changed in a table since an earlier commit.
pub struct TableChanges {
    /// The table was replaced meanwhile: nothing that was there before counts, and `upserts` has all rows.
    pub is_replaced: bool,
    /// The rows that were added, or their new forms.
    pub upserts: Rows,
    /// The keys that were deleted, as a delete wants them: the key columns in key order.
    pub deletes: Rows,
}

/// Rows of a table, in batches of about a page.
pub struct Rows {
    schema: SchemaRef,
    masks: std::vec::IntoIter<Option<BooleanArray>>,
    pages: PageReader,
    /// The pages that are looked at.
    kind: PageKind,
}

impl Rows {
    /// The columns of the batches.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

impl Iterator for Rows {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let page = match self.pages.next()? {
                Ok(page) => page,
                Err(error) => return Some(Err(error)),
            };
            // One mask per page.
            let mask = self.masks.next()?;
            if page.kind != self.kind || mask.as_ref().is_some_and(|mask| num_kept(mask) == 0) {
                continue;
            }
            return Some(filter(&page.rows, mask.as_ref()));
        }
    }
}
