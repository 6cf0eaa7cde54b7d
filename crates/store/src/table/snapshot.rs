//! A table as of one commit.

use std::sync::Arc;

use arrow_array::{BooleanArray, RecordBatch};
use arrow_schema::SchemaRef;

use super::{
    PageReader,
    live::{LiveRows, filter, num_kept},
};
use crate::{
    catalog::TableSpec,
    error::{Error, Result},
    page::{PageKind, PageMeta},
    state::TableState,
    version::Version,
};

/// A table as it was when this was taken: later commits do not show.
///
/// Cheap to take and to clone; it shares the page list, and keeps the files that it needs for as long as it lives.
#[derive(Clone)]
pub struct TableSnapshot {
    name: String,
    table: TableState,
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
        self.pages().map(|page| u64::from(page.num_bytes)).sum()
    }

    /// Rows in upsert pages, also those that were replaced or deleted since.
    pub fn num_stored_rows(&self) -> u64 {
        let upserts = self.pages().filter(|page| page.kind == PageKind::Upsert);
        upserts.map(|page| u64::from(page.num_rows)).sum()
    }

    /// Whether every stored row counts, so that nothing needs to be merged.
    pub fn is_distinct(&self) -> bool {
        self.table.is_distinct
    }

    /// The number of rows that count. Reads all keys, unless [`is_distinct`](Self::is_distinct).
    ///
    /// # Errors
    /// [`ErrorKind::Data`](crate::ErrorKind::Data) for damage.
    pub fn num_rows(&self) -> Result<u64> {
        Ok(LiveRows::find(&self.table)?.num_rows)
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
        let schema = match projection {
            None => Arc::clone(self.schema()),
            Some(columns) => Arc::new(self.schema().project(columns).map_err(|error| {
                Error::invalid(format!("no such column in table=`{}`", self.name))
                    .with_source(error)
            })?),
        };
        let live = LiveRows::find(&self.table)?;
        let pages = PageReader::new(&self.table, projection);
        Ok(Rows {
            schema,
            masks: live.masks.into_iter(),
            pages,
        })
    }
}

/// The rows of a table that count, in batches of about a page.
pub struct Rows {
    schema: SchemaRef,
    masks: std::vec::IntoIter<Option<BooleanArray>>,
    pages: PageReader,
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
            if page.kind == PageKind::Delete
                || mask.as_ref().is_some_and(|mask| num_kept(mask) == 0)
            {
                continue;
            }
            return Some(filter(&page.rows, mask.as_ref()));
        }
    }
}
