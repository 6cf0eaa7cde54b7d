use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow_schema::{Field, FieldRef, Schema, SchemaRef};

use super::{Dimension, Matches, Wanted};
use crate::index::NO_MATCH;
use crate::{Error, Result};

/// The rows that [`Dimension::get_many`] found.
#[derive(Clone, Debug)]
pub struct Found {
    /// One row per key asked for, in that order; all null where there is none, so that every field
    /// is nullable.
    pub batch: RecordBatch,
    /// Whether there is a row for the key.
    pub is_found: BooleanArray,
}

impl Dimension {
    /// The row with a key, given as arrays of one row; `None` if there is none or a part is null.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the arrays cannot be compared with the
    /// key or have not one row.
    pub fn get(&self, key: &[ArrayRef]) -> Result<Option<RecordBatch>> {
        let Some(row) = self.find(key)? else {
            return Ok(None);
        };
        let columns = self
            .columns
            .iter()
            .map(|column| column.slice(row, 1))
            .collect::<Result<_>>()?;
        batch(Arc::clone(&self.schema), columns, 1).map(Some)
    }

    /// Whether there is a row with a key, given as arrays of one row.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn contains(&self, key: &[ArrayRef]) -> Result<bool> {
        Ok(self.find(key)?.is_some())
    }

    /// The rows with these keys, in their order.
    ///
    /// # Errors
    /// As for [`probe`](Self::probe); [`ErrorKind::Resource`](crate::ErrorKind::Resource) if
    /// strings of the rows pass 2 GiB and their type does not hold that.
    pub fn get_many(&self, keys: &[ArrayRef]) -> Result<Found> {
        let mut matches = Matches::default();
        self.probe(keys, &mut matches)?;
        let wanted = Wanted::new(matches.build_idx());
        let columns = self
            .columns
            .iter()
            .map(|column| column.gather(&wanted))
            .collect::<Result<_>>()?;
        let fields: Vec<Field> = self
            .schema
            .fields()
            .iter()
            .map(|field| field.as_ref().clone().with_nullable(true))
            .collect();
        let schema = Schema::new_with_metadata(fields, self.schema.metadata().clone());
        Ok(Found {
            batch: batch(Arc::new(schema), columns, wanted.len())?,
            is_found: matches
                .build_idx()
                .iter()
                .map(|&row| Some(row != NO_MATCH))
                .collect(),
        })
    }

    fn find(&self, key: &[ArrayRef]) -> Result<Option<usize>> {
        if key.iter().any(|part| part.len() != 1) {
            return Err(Error::invalid(format!(
                "a key to look up must have one row: dimension=`{}`",
                self.name()
            )));
        }
        let mut matches = Matches::default();
        self.probe(key, &mut matches)?;
        Ok(matches
            .build_idx()
            .first()
            .filter(|&&row| row != NO_MATCH)
            .map(|&row| row as usize))
    }
}

/// Fields for arrays that have no names.
pub(super) fn fields_of(arrays: &[ArrayRef]) -> Vec<FieldRef> {
    arrays
        .iter()
        .enumerate()
        .map(|(idx, array)| {
            Arc::new(Field::new(
                format!("key {}", idx + 1),
                array.data_type().clone(),
                true,
            ))
        })
        .collect()
}

/// A batch whose number of rows is known even without columns.
pub(crate) fn batch(
    schema: SchemaRef,
    columns: Vec<ArrayRef>,
    num_rows: usize,
) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(num_rows));
    RecordBatch::try_new_with_options(schema, columns, &options)
        .map_err(|error| Error::internal("cannot put a batch together").with_source(error))
}

/// The place of a column; the error names the nearest one and lists all.
pub(crate) fn column_index(schema: &Schema, column: &str) -> Result<usize> {
    let names: Vec<&str> = schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    match names.iter().filter(|name| **name == column).count() {
        1 => Ok(names
            .iter()
            .position(|name| *name == column)
            .unwrap_or_default()),
        0 => Err(unknown_column(column, &names)),
        _ => Err(Error::invalid(format!(
            "a column name stands for several columns: column=`{column}`"
        ))),
    }
}

fn unknown_column(column: &str, names: &[&str]) -> Error {
    let distance =
        |name: &str| strsim::damerau_levenshtein(&name.to_lowercase(), &column.to_lowercase());
    let nearest = names
        .iter()
        .map(|name| (distance(name), *name))
        .min()
        .filter(|(distance, _)| *distance <= column.chars().count() / 3 + 1)
        .map(|(_, name)| format!("; did you mean `{name}`?"));
    Error::invalid(format!(
        "no such column{}: column=`{column}` columns=`{}`",
        nearest.unwrap_or_default(),
        names.join(", ")
    ))
}
