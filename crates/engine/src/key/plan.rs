use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, Int64Array};
use arrow_buffer::ScalarBuffer;
use arrow_row::{RowConverter, Rows};
use arrow_schema::DataType;

use super::int::{Factor, IntConversion, to_ints};
use super::packed::{PackScratch, Packing};
use super::wide::{WIDE, to_wide};
use crate::{Error, Result};

/// A prepared comparison of fact columns with the key of one dimension.
///
/// Made once per fact schema by [`Dimension::bind`](crate::Dimension::bind), which is where columns
/// that cannot be compared are refused. Valid only for the dimension that made it.
#[derive(Debug)]
pub struct KeyPlan {
    pub(super) parts: Vec<PartPlan>,
    pub(super) form: Form,
}

/// How one fact column becomes a part of the key.
#[derive(Debug)]
pub(super) struct PartPlan {
    /// The fact column's type; for a dictionary, the type of its values.
    pub(super) source: DataType,
    pub(super) conversion: Conversion,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conversion {
    /// The fact column has no type and only nulls.
    AlwaysNull,
    Ints(IntConversion),
    Wide(Factor),
    Bytes,
}

#[derive(Debug)]
pub(super) enum Form {
    AlwaysNull,
    Ints,
    Bytes,
    /// Several columns in one number.
    Packed(Arc<Packing>),
    Rows(Box<RowConverter>),
}

/// Buffers of [`KeyPlan::encode`], reused from batch to batch.
#[derive(Debug, Default)]
pub(crate) struct KeyScratch {
    ints: Vec<i64>,
    misses: Vec<u32>,
    packed: PackScratch,
    rows: Option<Rows>,
}

/// Keys in the form in which an index compares them. What stands at a null means nothing.
pub(crate) enum KeyValues<'a> {
    Ints(&'a [i64]),
    /// Strings or binary of any layout.
    Bytes(&'a dyn Array),
    Rows(&'a Rows),
}

pub(crate) struct EncodedKeys<'a> {
    pub(crate) values: KeyValues<'a>,
    /// Rows whose value the key's domain does not hold.
    pub(crate) misses: &'a [u32],
}

impl KeyPlan {
    /// Whether no row can have a key, because a column has no type.
    pub(crate) fn is_always_null(&self) -> bool {
        matches!(self.form, Form::AlwaysNull)
    }

    /// Brings plain columns (see [`plain_columns`]) into the form in which they are compared.
    pub(crate) fn encode<'a>(
        &self,
        columns: &'a [ArrayRef],
        scratch: &'a mut KeyScratch,
    ) -> Result<EncodedKeys<'a>> {
        self.check(columns)?;
        let KeyScratch {
            ints,
            misses,
            packed,
            rows,
        } = scratch;
        misses.clear();
        let values = match &self.form {
            Form::AlwaysNull => KeyValues::Ints(&[]),
            Form::Bytes => KeyValues::Bytes(&columns[0]),
            Form::Ints => {
                let Conversion::Ints(conversion) = self.parts[0].conversion else {
                    unreachable!("an integer key has an integer conversion, see `KeyForm::bind`")
                };
                KeyValues::Ints(to_ints(&columns[0], conversion, ints, misses))
            }
            Form::Packed(packing) => {
                packing.encode(&self.parts, columns, packed, misses);
                KeyValues::Ints(&packed.keys)
            }
            Form::Rows(converter) => {
                let parts: Vec<ArrayRef> = self
                    .parts
                    .iter()
                    .zip(columns)
                    .map(|(part, column)| row_part(part, column, ints, misses))
                    .collect::<Result<_>>()?;
                let encoded = converter.convert_columns(&parts).map_err(|error| {
                    Error::internal("cannot encode keys as rows").with_source(error)
                })?;
                KeyValues::Rows(rows.insert(encoded))
            }
        };
        Ok(EncodedKeys { values, misses })
    }

    /// Refuses columns of other types than were bound.
    pub(crate) fn check(&self, columns: &[ArrayRef]) -> Result<()> {
        let types = self.parts.iter().map(|part| &part.source);
        if types.eq(columns.iter().map(Array::data_type)) {
            return Ok(());
        }
        let name = |types: Vec<&DataType>| {
            types
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        };
        Err(Error::invalid(format!(
            "key columns are not of the types that were bound: got=`{}` expected=`{}`",
            name(columns.iter().map(Array::data_type).collect()),
            name(self.parts.iter().map(|part| &part.source).collect()),
        )))
    }
}

/// The type in which a part enters the row encoding. Strings and binary of all layouts have one
/// encoding there, fixed-size binary excepted (tested below; revisit when Arrow changes it).
pub(super) fn row_type(part: &PartPlan) -> DataType {
    match (&part.conversion, &part.source) {
        (Conversion::Bytes, DataType::FixedSizeBinary(_)) => DataType::BinaryView,
        (Conversion::Bytes, source) => source.clone(),
        (Conversion::Wide(_), _) => WIDE,
        (Conversion::Ints(_) | Conversion::AlwaysNull, _) => DataType::Int64,
    }
}

fn row_part(
    part: &PartPlan,
    column: &ArrayRef,
    ints: &mut Vec<i64>,
    misses: &mut Vec<u32>,
) -> Result<ArrayRef> {
    Ok(match part.conversion {
        Conversion::Ints(conversion) => {
            let values = to_ints(column, conversion, ints, misses);
            let values = ScalarBuffer::from(values.to_vec());
            Arc::new(Int64Array::new(values, column.nulls().cloned()))
        }
        Conversion::Wide(factor) => Arc::new(to_wide(column, factor, misses)),
        Conversion::Bytes if matches!(part.source, DataType::FixedSizeBinary(_)) => {
            arrow_cast::cast(column, &DataType::BinaryView).map_err(|error| {
                Error::internal("cannot read fixed-size binary as binary").with_source(error)
            })?
        }
        Conversion::Bytes | Conversion::AlwaysNull => Arc::clone(column),
    })
}

/// The column with a dictionary replaced by the values that its rows have.
pub(crate) fn plain_column(column: &ArrayRef) -> Result<ArrayRef> {
    let Some(dictionary) = column.as_any_dictionary_opt() else {
        return Ok(Arc::clone(column));
    };
    arrow_select::take::take(dictionary.values(), dictionary.keys(), None)
        .map_err(|error| Error::data("cannot decode a dictionary column").with_source(error))
}

/// [`plain_column`] for all columns of a key.
pub(crate) fn plain_columns(columns: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
    columns.iter().map(plain_column).collect()
}

#[cfg(test)]
mod tests {
    use arrow_array::{
        BinaryArray, BinaryViewArray, LargeStringArray, StringArray, StringViewArray,
    };
    use arrow_row::SortField;

    use super::*;

    #[test]
    fn rows_of_all_string_layouts_are_the_same_bytes() {
        let long = "x".repeat(100);
        let values = [Some(""), None, Some("abc"), Some(long.as_str())];
        let bytes = |array: ArrayRef| {
            let fields = vec![SortField::new(array.data_type().clone())];
            let rows = RowConverter::new(fields)
                .unwrap()
                .convert_columns(&[array])
                .unwrap();
            rows.iter()
                .map(|row| row.data().to_vec())
                .collect::<Vec<_>>()
        };
        let expected = bytes(Arc::new(StringArray::from_iter(values)));
        let binary = values.map(|value| value.map(str::as_bytes));
        assert_eq!(
            bytes(Arc::new(LargeStringArray::from_iter(values))),
            expected
        );
        assert_eq!(
            bytes(Arc::new(StringViewArray::from_iter(values))),
            expected
        );
        assert_eq!(bytes(Arc::new(BinaryArray::from_iter(binary))), expected);
        assert_eq!(
            bytes(Arc::new(BinaryViewArray::from_iter(binary))),
            expected
        );
    }
}
