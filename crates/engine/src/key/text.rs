use std::sync::Arc;

use arrow_array::{Array, ArrayRef};
use arrow_buffer::NullBuffer;
use arrow_cast::cast;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::DataType;

use super::plan::plain_columns;
use crate::Result;

/// Writes keys as text: `EWR, 2013-01-01T06:00:00Z`.
pub(crate) struct KeyText {
    columns: Vec<ArrayRef>,
}

impl KeyText {
    pub(crate) fn new(columns: &[ArrayRef]) -> Result<Self> {
        let columns = plain_columns(columns)?.into_iter().map(in_utc).collect();
        Ok(Self { columns })
    }

    /// The key at a row. A time that no calendar holds is written as its number.
    pub(crate) fn get(&self, row: usize) -> String {
        let part = |column: &ArrayRef| {
            let value = column.slice(row, 1);
            written(&value)
                .or_else(|| written(&cast(&value, &DataType::Int64).ok()?))
                .unwrap_or_else(|| "?".to_owned())
        };
        self.columns.iter().map(part).collect::<Vec<_>>().join(", ")
    }
}

fn written(value: &ArrayRef) -> Option<String> {
    const OPTIONS: FormatOptions<'static> = FormatOptions::new().with_null("null");
    let formatter = ArrayFormatter::try_new(value, &OPTIONS).ok()?;
    let text = formatter.value(0).try_to_string().ok()?;
    // What Arrow writes for a duration past its bounds, without an error.
    let is_invalid = value.data_type().is_temporal() && text == "<invalid>";
    (!is_invalid).then_some(text)
}

/// Zoned times compare as instants and are written as such; so no time zone names need be known.
fn in_utc(column: ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Timestamp(unit, Some(_)) => {
            let utc = DataType::Timestamp(*unit, Some(Arc::from("+00:00")));
            cast(&column, &utc).unwrap_or(column)
        }
        _ => column,
    }
}

/// Where every part of the key is there: `None` if it is everywhere.
pub(crate) fn null_union(columns: &[ArrayRef]) -> Option<NullBuffer> {
    columns
        .iter()
        .fold(None, |nulls, column| {
            NullBuffer::union(nulls.as_ref(), column.logical_nulls().as_ref())
        })
        .filter(|nulls| nulls.null_count() > 0)
}
