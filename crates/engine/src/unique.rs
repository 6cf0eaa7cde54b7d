//! Uniqueness of keys over a load of many batches.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BooleanArray, UInt32Array};
use arrow_schema::FieldRef;
use arrow_select::filter::filter;

use crate::dimension::{Event, Step, resolve};
use crate::index::add_build_rows;
use crate::key::{KeyForm, KeyScratch, KeyText, null_union, plain_columns};
use crate::{Error, Result};

/// What to do with several rows of one key in one load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDuplicate {
    /// Refuse the load.
    #[default]
    Error,
    /// Keep the first of them.
    First,
    /// Keep the last of them.
    Last,
}

/// Finds the rows of a load whose key another row has too. Holds the key columns until the end.
#[derive(Debug)]
pub struct UniqueKeys {
    form: KeyForm,
    policy: OnDuplicate,
    batches: Vec<Vec<ArrayRef>>,
    null_key: Option<NullKey>,
    num_rows: u32,
}

/// What [`UniqueKeys::finish`] found. Rows are numbered from 0 over the whole load.
#[derive(Clone, Debug)]
pub struct UniqueRows {
    /// Per batch the rows to keep, ascending; `None` keeps all. Rows with a null key are not kept.
    /// With [`OnDuplicate::Error`] duplicates are not left out: the caller refuses the load.
    pub selections: Vec<Option<UInt32Array>>,
    /// `None` if every key is there once.
    pub duplicates: Option<Duplicates>,
    /// The first row with a null in its key, and the first such column there.
    pub null_key: Option<NullKey>,
}

/// Rows whose key another row has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicates {
    /// Rows less distinct keys.
    pub num_duplicate_rows: u64,
    /// The duplicate that comes first in the load.
    pub first: FirstDuplicate,
}

/// Two rows with one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstDuplicate {
    /// The key as text, its parts separated by `, `.
    pub key: String,
    /// Both rows, ascending.
    pub rows: [u64; 2],
}

/// A row with a null in its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NullKey {
    /// The row, counted over the whole load.
    pub row: u64,
    /// The key column's name.
    pub column: String,
}

impl UniqueKeys {
    /// Begins a load with these key columns.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if there is none or a type cannot be a
    /// key.
    pub fn new(table: &str, key_fields: &[FieldRef], policy: OnDuplicate) -> Result<Self> {
        let form = KeyForm::new(table, key_fields.to_vec())?;
        Ok(Self {
            form,
            policy,
            batches: Vec::new(),
            null_key: None,
            num_rows: 0,
        })
    }

    /// Adds the key columns of the next batch.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if their types or lengths are not right,
    /// [`ErrorKind::Resource`](crate::ErrorKind::Resource) past
    /// [`BUILD_ROWS_MAX`](crate::BUILD_ROWS_MAX) rows.
    pub fn push(&mut self, keys: &[ArrayRef]) -> Result<()> {
        let types = self.form.fields().iter().map(|field| field.data_type());
        let num_rows = keys.first().map_or(0, Array::len);
        if !types.eq(keys.iter().map(Array::data_type))
            || keys.iter().any(|key| key.len() != num_rows)
        {
            return Err(Error::invalid(format!(
                "key columns of a load must have the types of the first batch and one length: \
                 dimension=`{}`",
                self.form.table()
            )));
        }
        let num_load_rows = add_build_rows(self.form.table(), self.num_rows, num_rows)?;
        if self.null_key.is_none() {
            self.null_key = first_null(&self.form, keys, self.num_rows.into());
        }
        self.num_rows = num_load_rows;
        self.batches.push(plain_columns(keys)?);
        Ok(())
    }

    /// Ends the load and says which rows to keep.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::ErrorKind::Internal) if Arrow cannot encode keys, which no input causes.
    pub fn finish(mut self) -> Result<UniqueRows> {
        let mut scratch = KeyScratch::default();
        // Rows without nulls, numbered through: the rows of the index.
        let mut steps = Vec::with_capacity(self.batches.len());
        for keys in &self.batches {
            let keys = without_nulls(keys)?;
            self.form.widen(&keys, &mut scratch)?;
            steps.push(Step::Insert(keys));
        }
        let mut is_kept = vec![true; self.num_rows as usize];
        let mut num_duplicate_rows = 0;
        let mut first = None;
        resolve(&self.form, &steps, |event| {
            let Event::Superseded { before, row } = event else {
                return;
            };
            num_duplicate_rows += 1;
            first.get_or_insert((before as usize, row as usize));
            match self.policy {
                OnDuplicate::Error => {}
                OnDuplicate::First => is_kept[row as usize] = false,
                OnDuplicate::Last => is_kept[before as usize] = false,
            }
        })?;
        let mut is_kept = is_kept.into_iter();
        // The load's row of every row of the index.
        let mut load_rows = Vec::new();
        let mut selections = Vec::with_capacity(self.batches.len());
        let mut start = 0_usize;
        for keys in &self.batches {
            let nulls = null_union(keys);
            let num_rows = keys[0].len();
            if first.is_none() && nulls.is_none() {
                // The common case: nothing to look at row by row, as no other batch has a duplicate either.
                start += num_rows;
                selections.push(None);
                continue;
            }
            let mut selection = Vec::new();
            for (row, row_idx) in (0..num_rows).zip(0_u32..) {
                if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                    continue;
                }
                if first.is_some() {
                    load_rows.push(start + row);
                }
                if is_kept.next().unwrap_or_default() {
                    selection.push(row_idx);
                }
            }
            start += num_rows;
            selections.push((selection.len() < num_rows).then(|| selection.into()));
        }
        let duplicates = match first {
            None => None,
            Some((before, row)) => Some(Duplicates {
                num_duplicate_rows,
                first: FirstDuplicate {
                    key: self.key_text(load_rows[before])?,
                    rows: [load_rows[before] as u64, load_rows[row] as u64],
                },
            }),
        };
        Ok(UniqueRows {
            selections,
            duplicates,
            null_key: self.null_key,
        })
    }

    fn key_text(&self, load_row: usize) -> Result<String> {
        let mut row = load_row;
        for keys in &self.batches {
            if row < keys[0].len() {
                return Ok(KeyText::new(keys)?.get(row));
            }
            row -= keys[0].len();
        }
        Err(Error::internal(format!(
            "a row is not in the load: row=`{load_row}`"
        )))
    }
}

fn first_null(form: &KeyForm, keys: &[ArrayRef], first_row: u64) -> Option<NullKey> {
    let nulls = null_union(keys)?;
    let row = nulls.iter().position(|is_valid| !is_valid)?;
    let is_null = |key: &ArrayRef| key.logical_nulls().is_some_and(|nulls| nulls.is_null(row));
    let column = keys.iter().position(is_null)?;
    let column = form.fields()[column].name().clone();
    Some(NullKey {
        row: first_row + row as u64,
        column,
    })
}

fn without_nulls(keys: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
    let Some(nulls) = null_union(keys) else {
        return Ok(keys.iter().map(Arc::clone).collect());
    };
    let mask = BooleanArray::new(nulls.inner().clone(), None);
    keys.iter()
        .map(|key| {
            filter(key, &mask)
                .map_err(|error| Error::internal("cannot leave out null keys").with_source(error))
        })
        .collect()
}
