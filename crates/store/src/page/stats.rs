//! The smallest and the largest value of each column of a page.

use arrow_array::{Array, ArrayRef};
use arrow_row::{RowConverter, SortField};
use arrow_schema::DataType;

use crate::{
    codec::{Decoder, Encoder},
    error::Result,
};

/// A longer encoded value is not kept: a page list is read as a whole, so it must stay small.
const VALUE_BYTES_MAX: usize = 128;

/// The smallest and the largest value of a column, encoded.
pub type Bounds = (Box<[u8]>, Box<[u8]>);

/// What is known of one column of a page.
///
/// The bounds are in the order-preserving encoding of the `arrow-row` crate for the column's (value) type, ascending,
/// nulls first: they compare as bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnStats {
    /// Rows in which the column is null.
    pub num_nulls: u32,
    /// The smallest and the largest value that is not null. `None` if there is none, or if it is not known.
    pub bounds: Option<Bounds>,
}

impl ColumnStats {
    /// Looks at one column.
    pub(crate) fn of(column: &ArrayRef) -> Self {
        let num_nulls = u32::try_from(column.logical_null_count()).unwrap_or(u32::MAX);
        if !has_bounds(column.data_type()) || num_nulls as usize >= column.len() {
            return Self {
                num_nulls,
                bounds: None,
            };
        }
        let bounds = bounds(column)
            .filter(|(min, max)| min.len() <= VALUE_BYTES_MAX && max.len() <= VALUE_BYTES_MAX);
        Self { num_nulls, bounds }
    }

    pub(crate) fn encode(&self, out: &mut Encoder) {
        out.put_u32(self.num_nulls);
        match &self.bounds {
            None => out.put_u8(0),
            Some((min, max)) => {
                out.put_u8(1);
                out.put_bytes(min);
                out.put_bytes(max);
            }
        }
    }

    pub(crate) fn decode(input: &mut Decoder<'_>) -> Result<Self> {
        let num_nulls = input.get_u32()?;
        let bounds = match input.get_u8()? {
            0 => None,
            _ => Some((input.get_bytes()?.into(), input.get_bytes()?.into())),
        };
        Ok(Self { num_nulls, bounds })
    }
}

/// Types whose smallest and largest value is of use to somebody.
fn has_bounds(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, value) => has_bounds(value),
        DataType::Null | DataType::Interval(_) => false,
        data_type => !data_type.is_nested(),
    }
}

fn bounds(column: &ArrayRef) -> Option<Bounds> {
    let field = SortField::new(column.data_type().clone());
    let converter = RowConverter::new(vec![field]).ok()?;
    let rows = converter.convert_columns(&[ArrayRef::clone(column)]).ok()?;
    let nulls = column.logical_nulls();
    let valid = (0..column.len())
        .filter(|row| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(*row)))
        .map(|row| rows.row(row));
    let (mut min, mut max) = (None, None);
    for row in valid {
        if min.is_none_or(|min| row < min) {
            min = Some(row);
        }
        if max.is_none_or(|max| row > max) {
            max = Some(row);
        }
    }
    Some((min?.as_ref().into(), max?.as_ref().into()))
}
