//! Rows that a program gives to a view.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use arrow_array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow_schema::SchemaRef;
use darner_engine::{Error, Result};
use datafusion::arrow::array::ArrayData;

use super::{
    define::StoredView,
    lookup::cast_whole,
    refresh::{RefreshReport, Views, push_schema},
};
use crate::{error::from_datafusion, session::Session};

/// So long rows wait at most, as long as others come.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// So many rows wait at most.
const ROWS_MAX: usize = 1 << 20;

/// So many bytes of rows wait at most.
const BYTES_MAX: usize = 256 << 20;

/// Gives rows to a view, batch by batch.
///
/// Rows wait in memory. They are counted by one commit, together with the watermark that came with the last of them:
/// when a second has passed since the last commit and another batch comes, when a million of them wait, or when
/// [`commit`](Self::commit) asks for it. What was not committed is lost with the program: whoever reads
/// [`watermark`](Self::watermark) when it begins, and goes on from there, counts each row once.
///
/// # Examples
/// ```
/// # use darner_sql::{Session, ViewWriter};
/// # use arrow_array::RecordBatch;
/// # fn read_from(place: u64) -> Vec<(u64, RecordBatch)> { Vec::new() }
/// # fn count(session: &Session) -> darner_engine::Result<()> {
/// let mut writer = session.view_writer("clicks_per_page")?;
/// let place = writer.watermark().and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
/// for (next, batch) in read_from(place) {
///     writer.push(&batch, &next.to_le_bytes())?;
/// }
/// writer.commit()?;
/// # Ok(())
/// # }
/// ```
pub struct ViewWriter<'s> {
    session: &'s Session,
    views: Views,
    name: String,
    schema: SchemaRef,
    rows: Vec<RecordBatch>,
    num_rows: usize,
    held: Held,
    /// Of the last row that waits.
    next: Option<Vec<u8>>,
    /// Of the last row that is counted.
    committed: Option<Vec<u8>>,
    last_commit: Instant,
}

impl<'s> ViewWriter<'s> {
    pub(crate) fn open(session: &'s Session, views: Views, name: &str) -> Result<Self> {
        let store = views.handle.store();
        let view = StoredView::get(&store, name)?;
        let (seen, _) = view.seen(&store)?;
        Ok(Self {
            session,
            schema: push_schema(&view)?,
            views,
            name: name.to_owned(),
            rows: Vec::new(),
            num_rows: 0,
            held: Held::default(),
            next: None,
            committed: seen.watermark(),
            last_commit: Instant::now(),
        })
    }

    /// The columns that rows are to have.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The watermark that came with the last row that is counted; `None` if none ever did.
    pub fn watermark(&self) -> Option<&[u8]> {
        self.committed.as_deref()
    }

    /// Rows that wait.
    pub fn num_waiting(&self) -> usize {
        self.num_rows
    }

    /// Gives rows. The watermark says, in bytes of the caller's, how far the caller has come with them.
    ///
    /// # Shapes
    /// `rows`: the columns of [`schema`](Self::schema) by name, in any order; values are cast if that loses none of them.
    /// # Errors
    /// [`ErrorKind::Invalid`](darner_engine::ErrorKind::Invalid) for rows without one of the columns, or whose values do
    /// not fit: nothing of them is kept. Errors of the commit, if there was one: all rows wait as before then.
    pub fn push(&mut self, rows: &RecordBatch, watermark: &[u8]) -> Result<()> {
        let rows = fit(&self.name, rows, &self.schema)?;
        self.num_rows += rows.num_rows();
        self.held.add(&rows);
        self.rows.push(rows);
        self.next = Some(watermark.to_vec());
        let is_due = self.last_commit.elapsed() >= COMMIT_EVERY
            || self.num_rows >= ROWS_MAX
            || self.held.num_bytes >= BYTES_MAX;
        if is_due {
            self.commit()?;
        }
        Ok(())
    }

    /// Counts the rows that wait. They are durable then; `None` if there were none.
    ///
    /// # Errors
    /// Those of the store and of the view's expressions: the rows wait as before.
    pub fn commit(&mut self) -> Result<Option<RefreshReport>> {
        self.last_commit = Instant::now();
        if self.rows.is_empty() {
            return Ok(None);
        }
        let (views, name) = (self.views.clone(), self.name.clone());
        let (rows, next) = (self.rows.clone(), self.next.clone());
        let report = self.session.worker().run(async move {
            let pushed = views.push(&name, rows, next.as_deref()).await;
            pushed.map_err(from_datafusion)
        })?;
        self.rows.clear();
        self.num_rows = 0;
        self.held = Held::default();
        self.committed = self.next.take();
        Ok(Some(report))
    }
}

/// The memory that rows keep. Batches are often parts of a larger one, whose buffers all of them keep, once.
#[derive(Default)]
struct Held {
    /// Where the buffers begin.
    buffers: HashSet<usize>,
    num_bytes: usize,
}

impl Held {
    fn add(&mut self, rows: &RecordBatch) {
        for column in rows.columns() {
            self.add_data(&column.to_data());
        }
    }

    fn add_data(&mut self, data: &ArrayData) {
        let nulls = data.nulls().map(|nulls| nulls.inner().inner());
        for buffer in data.buffers().iter().chain(nulls) {
            if self.buffers.insert(buffer.data_ptr().addr().get()) {
                self.num_bytes += buffer.capacity();
            }
        }
        for child in data.child_data() {
            self.add_data(child);
        }
    }
}

/// Rows with the columns that a view counts.
fn fit(view: &str, rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if rows.schema_ref() == schema {
        return Ok(rows.clone());
    }
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let Some(column) = rows.column_by_name(field.name()) else {
            let found = rows.schema();
            let found: Vec<&str> = found.fields().iter().map(|f| f.name().as_str()).collect();
            return Err(Error::invalid(format!(
                "rows lack a column of the view's facts: view=`{view}` column=`{}` columns=`{}`",
                field.name(),
                found.join(", ")
            )));
        };
        let does_not_fit = || {
            Error::invalid(format!(
                "values do not fit the view's facts: view=`{view}` column=`{}` got=`{}` expected=`{}`",
                field.name(),
                column.data_type(),
                field.data_type()
            ))
        };
        columns.push(if column.null_count() == column.len() {
            new_null_array(field.data_type(), column.len())
        } else {
            cast_whole(column, field.data_type()).ok_or_else(does_not_fit)?
        });
    }
    RecordBatch::try_new(SchemaRef::clone(schema), columns).map_err(|error| {
        Error::invalid(format!("rows do not fit the view's facts: view=`{view}`"))
            .with_source(error)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Int64Array, StringViewArray};

    use super::*;

    #[test]
    fn a_buffer_that_many_rows_keep_counts_once() {
        let numbers = Int64Array::from_iter_values(0..10_000);
        let words = StringViewArray::from_iter_values(vec!["longer than twelve bytes"; 10_000]);
        let columns: Vec<(&str, ArrayRef)> = vec![("n", Arc::new(numbers)), ("w", Arc::new(words))];
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let mut whole = Held::default();
        whole.add(&rows);
        assert!(whole.num_bytes >= 10_000 * (8 + 16 + 24));
        let mut parts = Held::default();
        for start in (0..10_000).step_by(100) {
            parts.add(&rows.slice(start, 100));
        }
        // A slice may begin inside of a buffer, never outside of it.
        assert_eq!(parts.num_bytes, whole.num_bytes);
    }
}
