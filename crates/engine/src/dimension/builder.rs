use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow_buffer::BooleanBuffer;
use arrow_schema::{Schema, SchemaRef};
use arrow_select::filter::filter;

use super::column::{Column, check_payload_field};
use super::{Dimension, Event, Step, lookup, resolve};
use crate::index::add_build_rows;
use crate::key::{KeyForm, KeyScratch, check_comparable, plain_columns};
use crate::{Error, ErrorKind, Result};

/// The number of the next dimension.
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// Collects the pages of a dimension, oldest to newest, and builds it. The newest row of a key
/// wins.
///
/// Holds all that it is given until [`finish`](Self::finish).
#[derive(Debug)]
pub struct DimensionBuilder {
    version: u64,
    /// What batches must look like.
    input_schema: SchemaRef,
    /// The columns of batches that are kept, in schema order.
    kept: Vec<usize>,
    /// The places of the key columns among those kept, in key order.
    key_indices: Vec<usize>,
    form: KeyForm,
    pages: Vec<Page>,
    num_rows: u32,
}

#[derive(Debug)]
enum Page {
    /// The kept columns.
    Upsert(Vec<ArrayRef>),
    /// The key columns.
    Delete(Vec<ArrayRef>),
}

impl DimensionBuilder {
    /// Begins a dimension of this name, schema and key.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if a key column does not exist, is named twice or has a type that
    /// cannot be a key, or if a column has a type that cannot be joined (unions, run-end encoding).
    pub fn new(name: &str, schema: SchemaRef, key_columns: &[String]) -> Result<Self> {
        let mut key_indices = Vec::with_capacity(key_columns.len());
        for column in key_columns {
            let idx = lookup::column_index(&schema, column)
                .map_err(|error| error.context(format_args!("key of dimension `{name}`")))?;
            if key_indices.contains(&idx) {
                return Err(Error::invalid(format!(
                    "a key names a column twice: column=`{column}` dimension=`{name}`"
                )));
            }
            key_indices.push(idx);
        }
        let key_fields = key_indices
            .iter()
            .map(|&idx| Arc::clone(&schema.fields()[idx]))
            .collect();
        let form = KeyForm::new(name, key_fields)?;
        let kept = (0..schema.fields().len()).collect();
        for field in schema.fields() {
            check_payload_field(name, field)?;
        }
        Ok(Self {
            version: 0,
            input_schema: schema,
            kept,
            key_indices,
            form,
            pages: Vec::new(),
            num_rows: 0,
        })
    }

    /// Says which version of the table the pages make.
    #[must_use]
    pub fn with_version(mut self, version: u64) -> Self {
        self.version = version;
        self
    }

    /// Keeps only the key columns and these. Batches are given with all their columns all the same.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if a column does not exist, or if rows were given already.
    pub fn with_projection(mut self, columns: &[String]) -> Result<Self> {
        if !self.pages.is_empty() {
            return Err(Error::invalid(
                "the projection of a dimension comes before its rows",
            ));
        }
        let mut kept: Vec<usize> = self.key_indices.iter().map(|&idx| self.kept[idx]).collect();
        let key_inputs = kept.clone();
        for column in columns {
            kept.push(lookup::column_index(&self.input_schema, column)?);
        }
        kept.sort_unstable();
        kept.dedup();
        let place = |input: &usize| kept.iter().position(|idx| idx == input);
        self.key_indices = key_inputs.iter().filter_map(place).collect();
        self.kept = kept;
        Ok(self)
    }

    /// Adds rows; each takes the place of an earlier row with its key, in this batch too.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the batch's columns are not the schema's or a key is null (the
    /// message names row, counted from 0 over all rows given, and column); [`ErrorKind::Resource`]
    /// past [`BUILD_ROWS_MAX`](crate::BUILD_ROWS_MAX). The builder is then as it was before.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the builder keeps the batch's columns"
    )]
    pub fn upsert(&mut self, batch: RecordBatch) -> Result<()> {
        self.check_batch(&batch)?;
        let num_rows = add_build_rows(self.form.table(), self.num_rows, batch.num_rows())?;
        let columns: Vec<_> = self
            .kept
            .iter()
            .map(|&idx| Arc::clone(batch.column(idx)))
            .collect();
        for &idx in &self.key_indices {
            if let Some(nulls) = columns[idx].logical_nulls().filter(|n| n.null_count() > 0) {
                let row = nulls
                    .iter()
                    .position(|is_valid| !is_valid)
                    .unwrap_or_default() as u64;
                return Err(Error::invalid(format!(
                    "a key of a dimension is null: column=`{}` row=`{}` dimension=`{}`",
                    self.input_schema.field(self.kept[idx]).name(),
                    u64::from(self.num_rows) + row,
                    self.form.table()
                )));
            }
        }
        if batch.num_rows() > 0 {
            self.num_rows = num_rows;
            self.pages.push(Page::Upsert(columns));
        }
        Ok(())
    }

    /// Removes the rows with these keys. Keys that are not there and null keys do nothing.
    ///
    /// # Shapes
    /// One column per key column, in key order, of comparable types; names do not matter.
    /// # Errors
    /// [`ErrorKind::Invalid`] if the columns cannot be compared with the key. The builder is then
    /// as it was before.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the builder keeps the batch's columns"
    )]
    pub fn delete(&mut self, keys: RecordBatch) -> Result<()> {
        let schema = keys.schema();
        if keys.num_columns() != self.form.fields().len() {
            return Err(Error::invalid(format!(
                "keys to delete must have the key's columns: got=`{}` expected=`{}` dimension=`{}`",
                keys.num_columns(),
                self.form.fields().len(),
                self.form.table()
            )));
        }
        for (key, field) in self.form.fields().iter().zip(schema.fields()) {
            check_comparable(self.form.table(), key, field)?;
        }
        self.pages.push(Page::Delete(keys.columns().to_vec()));
        Ok(())
    }

    /// The number of rows given so far, superseded ones included.
    pub fn num_input_rows(&self) -> u32 {
        self.num_rows
    }

    /// Builds the dimension, on the current rayon pool: hold no lock that its tasks want.
    ///
    /// # Errors
    /// [`ErrorKind::Resource`] if nested columns or dictionaries pass what their offsets hold.
    pub fn finish(mut self) -> Result<Dimension> {
        let mut scratch = KeyScratch::default();
        let mut keys = Vec::with_capacity(self.pages.len());
        for page in &self.pages {
            keys.push(match page {
                Page::Upsert(columns) => plain_columns(&pick(columns, &self.key_indices))?,
                Page::Delete(keys) => plain_columns(keys)?,
            });
        }
        for (page, keys) in self.pages.iter().zip(&keys) {
            if matches!(page, Page::Upsert(_)) {
                self.form.widen(keys, &mut scratch)?;
            }
        }
        let inserted = self.pages.iter().zip(&keys);
        let inserted = inserted.filter(|(page, _)| matches!(page, Page::Upsert(_)));
        let inserted: Vec<&[ArrayRef]> = inserted.map(|(_, keys)| &keys[..]).collect();
        self.form.pack(&inserted);
        let mut steps = Vec::with_capacity(self.pages.len());
        for (page, keys) in self.pages.iter().zip(keys) {
            steps.push(match page {
                Page::Upsert(_) => Step::Insert(keys),
                // Bound only now: the domains are chosen.
                Page::Delete(_) => {
                    let plan = self.form.bind(&lookup::fields_of(&keys))?;
                    Step::Delete(keys, plan)
                }
            });
        }
        let mut is_live = vec![true; self.num_rows as usize];
        let (index, layout) = resolve(&self.form, &steps, |event| match event {
            Event::Superseded { before, .. } => is_live[before as usize] = false,
            Event::Deleted { row } => is_live[row as usize] = false,
        })?;
        drop(steps);
        let num_live = is_live.iter().map(|&is_live| u32::from(is_live)).sum();
        let is_live = (num_live < self.num_rows).then_some(is_live);

        let schema = Arc::new(Schema::new_with_metadata(
            self.kept
                .iter()
                .map(|&i| Arc::clone(&self.input_schema.fields()[i]))
                .collect::<Vec<_>>(),
            self.input_schema.metadata().clone(),
        ));
        let pages: Vec<Vec<ArrayRef>> = self
            .pages
            .into_iter()
            .filter_map(|page| match page {
                Page::Upsert(columns) => Some(columns),
                Page::Delete(_) => None,
            })
            .collect();
        // Where rows are dead, the first index holds them, and the others by their old numbers: it makes room.
        let first = is_live.is_none().then_some((index, layout));
        let columns = build_columns(&schema, &pages, is_live.as_deref())?;
        drop(pages);
        let (index, layout) = if let Some(first) = first {
            first
        } else {
            let keys: Vec<_> = self
                .key_indices
                .iter()
                .map(|&idx| Arc::clone(columns[idx].values()))
                .collect();
            let steps = [Step::Insert(plain_columns(&keys)?)];
            resolve(&self.form, &steps, |_| ())?
        };
        Ok(Dimension {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            version: self.version,
            schema,
            key_indices: self.key_indices,
            columns,
            num_rows: num_live,
            form: self.form,
            index,
            layout,
            packs: Mutex::default(),
            whole: OnceLock::new(),
        })
    }

    fn check_batch(&self, batch: &RecordBatch) -> Result<()> {
        let schema = batch.schema();
        let expected = self.input_schema.fields();
        if schema.fields().len() != expected.len() {
            return Err(Error::invalid(format!(
                "a batch has not the columns of its dimension: got=`{}` expected=`{}` dimension=`{}`",
                schema.fields().len(),
                expected.len(),
                self.form.table()
            )));
        }
        for (got, expected) in schema.fields().iter().zip(expected) {
            if got.data_type() != expected.data_type() {
                return Err(Error::invalid(format!(
                    "a column of a batch has not its dimension's type: column=`{}` got=`{}` \
                     expected=`{}` dimension=`{}`",
                    expected.name(),
                    got.data_type(),
                    expected.data_type(),
                    self.form.table()
                )));
            }
        }
        Ok(())
    }
}

fn pick(columns: &[ArrayRef], indices: &[usize]) -> Vec<ArrayRef> {
    indices
        .iter()
        .map(|&idx| Arc::clone(&columns[idx]))
        .collect()
}

fn build_columns(
    schema: &SchemaRef,
    pages: &[Vec<ArrayRef>],
    is_live: Option<&[bool]>,
) -> Result<Vec<Column>> {
    let mut masks = Vec::new();
    if let Some(mut rest) = is_live {
        for page in pages {
            let (of_page, after) = rest.split_at(page[0].len());
            masks.push(BooleanArray::new(BooleanBuffer::from(of_page), None));
            rest = after;
        }
    }
    schema
        .fields()
        .iter()
        .enumerate()
        .map(|(idx, field)| {
            let mut arrays = Vec::with_capacity(pages.len());
            for (page_idx, page) in pages.iter().enumerate() {
                arrays.push(match masks.get(page_idx) {
                    None => Arc::clone(&page[idx]),
                    Some(mask) => filter(&page[idx], mask).map_err(|error| {
                        Error::new(
                            ErrorKind::Invalid,
                            format!("cannot drop superseded rows: column=`{}`", field.name()),
                        )
                        .with_source(error)
                    })?,
                });
            }
            Column::build(Arc::clone(field), &arrays)
        })
        .collect()
}
