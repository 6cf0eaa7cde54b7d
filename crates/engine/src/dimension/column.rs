use std::sync::{Arc, OnceLock};

use arrow_array::cast::AsArray;
use arrow_array::types::ByteViewType;
use arrow_array::{Array, ArrayRef, GenericByteViewArray, new_empty_array, new_null_array};
use arrow_buffer::Buffer;
use arrow_cast::{CastOptions, can_cast_types, cast_with_options};
use arrow_schema::{ArrowError, DataType, Field, FieldRef};
use arrow_select::concat::concat;

use super::Wanted;
use crate::huge;
use crate::{Error, ErrorKind, Result};

/// One column of a dimension, contiguous.
#[derive(Debug)]
pub(crate) struct Column {
    field: FieldRef,
    /// Of the field's type, or of a wider one where that cannot hold the column: strings with
    /// 64-bit offsets, the values of dictionaries that have too many together.
    values: ArrayRef,
    /// Strings and binary as views over the buffers of `values`; made when a join first asks.
    views: OnceLock<ArrayRef>,
}

/// Checks that a column can be carried through a join.
pub(super) fn check_payload_field(table: &str, field: &Field) -> Result<()> {
    if is_supported(field.data_type()) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "a column of this type cannot be in a dimension; cast it or leave it out: \
         column=`{}` type=`{}` dimension=`{table}`",
        field.name(),
        field.data_type()
    )))
}

/// Unions have no null, and a gather of run-end encoding has none either: a miss could not be
/// written.
fn is_supported(data_type: &DataType) -> bool {
    match data_type {
        DataType::Union(..) | DataType::RunEndEncoded(..) => false,
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => is_supported(field.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| is_supported(field.data_type())),
        DataType::Dictionary(_, values) => {
            !matches!(**values, DataType::Dictionary(..)) && is_supported(values)
        }
        _ => true,
    }
}

impl Column {
    /// Joins the arrays of a column, each of the field's type, into one.
    pub(super) fn build(field: FieldRef, arrays: &[ArrayRef]) -> Result<Self> {
        let failed = |error| gather_error(&field, error);
        let declared = field.data_type();
        let stored = stored_type(&field, arrays)?;
        let values = if arrays.is_empty() {
            new_empty_array(declared)
        } else if stored == *declared {
            concat(&arrays.iter().map(AsRef::as_ref).collect::<Vec<_>>()).map_err(failed)?
        } else {
            let wide: Vec<_> = arrays
                .iter()
                .map(|array| strict_cast(array, &stored))
                .collect::<Result<_, _>>()
                .map_err(failed)?;
            concat(&wide.iter().map(AsRef::as_ref).collect::<Vec<_>>()).map_err(failed)?
        };
        let values = dense(values);
        collapse(&values);
        Ok(Self {
            field,
            values,
            views: OnceLock::new(),
        })
    }

    pub(crate) fn field(&self) -> &FieldRef {
        &self.field
    }

    /// The column as it is held: not always of the field's type.
    pub(crate) fn values(&self) -> &ArrayRef {
        &self.values
    }

    /// Rows from `start` on, of the field's type.
    pub(super) fn slice(&self, start: usize, len: usize) -> Result<ArrayRef> {
        self.declare(self.values.slice(start, len))
    }

    /// The rows that are wanted, null where there is none, of the field's type.
    pub(crate) fn gather(&self, wanted: &Wanted<'_>) -> Result<ArrayRef> {
        self.declare(gather(&self.field, &self.values, wanted)?)
    }

    /// As [`gather`](Self::gather), of type [`view_type`](Self::view_type).
    pub(crate) fn gather_views(&self, wanted: &Wanted<'_>) -> Result<ArrayRef> {
        gather(&self.field, self.view_values()?, wanted)
    }

    /// The column as [`gather_views`](Self::gather_views) reads it.
    pub(crate) fn view_values(&self) -> Result<&ArrayRef> {
        match self.view_type() {
            None => Ok(&self.values),
            Some(view_type) => self.views(&view_type),
        }
    }

    /// The view type that holds this column, if it is strings or binary.
    pub(crate) fn view_type(&self) -> Option<DataType> {
        match self.field.data_type() {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(DataType::Utf8View),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
                Some(DataType::BinaryView)
            }
            _ => None,
        }
    }

    fn views(&self, view_type: &DataType) -> Result<&ArrayRef> {
        if let Some(views) = self.views.get() {
            return Ok(views);
        }
        let views =
            to_views(&self.values, view_type).map_err(|error| gather_error(&self.field, error))?;
        collapse(&views);
        // Another thread may have been faster; then its views are the ones.
        Ok(self.views.get_or_init(|| views))
    }

    /// Casts what was gathered from [`values`](Self::values) to the field's type.
    pub(crate) fn declare(&self, array: ArrayRef) -> Result<ArrayRef> {
        if array.data_type() == self.field.data_type() {
            return Ok(array);
        }
        strict_cast(&array, self.field.data_type()).map_err(|error| {
            Error::new(
                ErrorKind::Resource,
                format!(
                    "a batch is too large for a column's type; take smaller batches or another \
                     encoding: column=`{}` type=`{}`",
                    self.field.name(),
                    self.field.data_type()
                ),
            )
            .with_source(error)
        })
    }

    pub(super) fn num_bytes(&self) -> usize {
        let views = self
            .views
            .get()
            .filter(|_| self.view_type().as_ref() != Some(self.values.data_type()));
        // Views share the buffers of the values; what they add is 16 bytes a row.
        self.values.get_array_memory_size() + views.map_or(0, |views| views.len() * 16)
    }
}

/// Views over few buffers that hold nothing else. Joined ones point into the pages that they came from, all columns of
/// which they would keep, and every batch of a join would have thousands of buffers.
///
/// Views that share bytes are left as they are: apart they might take any amount of memory.
fn dense(values: ArrayRef) -> ArrayRef {
    fn is_apart<T: ByteViewType>(values: &GenericByteViewArray<T>) -> bool {
        let held: usize = values.data_buffers().iter().map(Buffer::len).sum();
        values.total_buffer_bytes_used() <= held
    }
    match values.data_type() {
        DataType::Utf8View if is_apart(values.as_string_view()) => {
            Arc::new(values.as_string_view().gc())
        }
        DataType::BinaryView if is_apart(values.as_binary_view()) => {
            Arc::new(values.as_binary_view().gc())
        }
        _ => values,
    }
}

/// Brings a column into large pages: joins read it in the order of the facts.
fn collapse(values: &ArrayRef) {
    for buffer in values.to_data().buffers() {
        huge::collapse(buffer);
    }
}

/// Takes rows; an empty column, whose rows can all but be null, included.
fn gather(field: &FieldRef, values: &ArrayRef, wanted: &Wanted<'_>) -> Result<ArrayRef> {
    if values.is_empty() {
        return Ok(new_null_array(values.data_type(), wanted.len()));
    }
    super::gather::gather(values, wanted).map_err(|error| gather_error(field, error))
}

fn gather_error(field: &FieldRef, error: ArrowError) -> Error {
    let kind = match error {
        ArrowError::OffsetOverflowError(_) | ArrowError::DictionaryKeyOverflowError => {
            ErrorKind::Resource
        }
        _ => ErrorKind::Internal,
    };
    let message = format!(
        "cannot gather a dimension's column: column=`{}` type=`{}`",
        field.name(),
        field.data_type()
    );
    Error::new(kind, message).with_source(error)
}

fn strict_cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(
        array,
        to,
        &CastOptions {
            safe: false,
            ..CastOptions::default()
        },
    )
}

/// Views over an array's own buffers. A buffer past what a view can point into is copied in parts.
fn to_views(values: &ArrayRef, view_type: &DataType) -> Result<ArrayRef, ArrowError> {
    /// Views have signed 32-bit offsets in the Arrow specification.
    const BUFFER_BYTES_MAX: usize = i32::MAX as usize;
    let (offsets, small_type) = match values.data_type() {
        DataType::LargeUtf8 => (values.as_string::<i64>().value_offsets(), DataType::Utf8),
        DataType::LargeBinary => (values.as_binary::<i64>().value_offsets(), DataType::Binary),
        _ => return strict_cast(values, view_type),
    };
    let offsets: Vec<usize> = offsets
        .iter()
        .map(|&offset| usize::try_from(offset).expect("offsets are not negative"))
        .collect();
    if offsets.last().is_none_or(|&end| end <= BUFFER_BYTES_MAX) {
        return strict_cast(values, view_type);
    }
    let mut parts = Vec::new();
    let mut start = 0;
    while start < values.len() {
        let bound = offsets[start] + BUFFER_BYTES_MAX;
        let num_rows = offsets[start + 1..]
            .partition_point(|&end| end <= bound)
            .max(1);
        let part = strict_cast(&values.slice(start, num_rows), &small_type)?;
        parts.push(strict_cast(&part, view_type)?);
        start += num_rows;
    }
    concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>())
}

/// The type in which a column is held, see [`Column::values`].
fn stored_type(field: &FieldRef, arrays: &[ArrayRef]) -> Result<DataType> {
    let declared = field.data_type();
    let stored = match declared {
        _ if fits(declared, arrays) => declared.clone(),
        DataType::Utf8 => DataType::LargeUtf8,
        DataType::Binary => DataType::LargeBinary,
        DataType::Dictionary(_, values) if can_cast_types(values, declared) => {
            match (&**values, fits(values, &plain(arrays))) {
                (DataType::Utf8, false) => DataType::LargeUtf8,
                (DataType::Binary, false) => DataType::LargeBinary,
                (other, true) => other.clone(),
                _ => return Err(too_large(field)),
            }
        }
        _ => return Err(too_large(field)),
    };
    Ok(stored)
}

fn too_large(field: &FieldRef) -> Error {
    Error::new(
        ErrorKind::Resource,
        format!(
            "a dimension's column is too large for its offsets; use a type with 64-bit offsets: \
             column=`{}` type=`{}`",
            field.name(),
            field.data_type()
        ),
    )
}

fn plain(arrays: &[ArrayRef]) -> Vec<ArrayRef> {
    arrays
        .iter()
        .filter_map(|array| array.as_any_dictionary_opt())
        .map(|dictionary| Arc::clone(dictionary.values()))
        .collect()
}

/// Whether the arrays, joined into one of their type, keep within its offsets and dictionary keys.
/// Arrow's `concat` panics on some that do not.
fn fits(data_type: &DataType, arrays: &[ArrayRef]) -> bool {
    const SMALL_MAX: usize = i32::MAX as usize;
    let span = |offsets: &[i32]| {
        let (first, last) = (offsets.first().copied(), offsets.last().copied());
        usize::try_from(last.unwrap_or(0) - first.unwrap_or(0)).unwrap_or(0)
    };
    match data_type {
        DataType::Utf8 => {
            arrays
                .iter()
                .map(|a| span(a.as_string::<i32>().value_offsets()))
                .sum::<usize>()
                <= SMALL_MAX
        }
        DataType::Binary => {
            arrays
                .iter()
                .map(|a| span(a.as_binary::<i32>().value_offsets()))
                .sum::<usize>()
                <= SMALL_MAX
        }
        DataType::List(field) => {
            arrays
                .iter()
                .map(|a| span(a.as_list::<i32>().value_offsets()))
                .sum::<usize>()
                <= SMALL_MAX
                && fits(
                    field.data_type(),
                    &map(arrays, |a| Arc::clone(a.as_list::<i32>().values())),
                )
        }
        DataType::LargeList(field) => fits(
            field.data_type(),
            &map(arrays, |a| Arc::clone(a.as_list::<i64>().values())),
        ),
        DataType::ListView(field) => {
            arrays
                .iter()
                .map(|a| a.as_list_view::<i32>().values().len())
                .sum::<usize>()
                <= SMALL_MAX
                && fits(
                    field.data_type(),
                    &map(arrays, |a| Arc::clone(a.as_list_view::<i32>().values())),
                )
        }
        DataType::LargeListView(field) => fits(
            field.data_type(),
            &map(arrays, |a| Arc::clone(a.as_list_view::<i64>().values())),
        ),
        DataType::FixedSizeList(field, _) => fits(
            field.data_type(),
            &map(arrays, |a| Arc::clone(a.as_fixed_size_list().values())),
        ),
        DataType::Map(field, _) => {
            arrays
                .iter()
                .map(|a| span(a.as_map().value_offsets()))
                .sum::<usize>()
                <= SMALL_MAX
                && fits(
                    field.data_type(),
                    &map(arrays, |a| {
                        Arc::new(a.as_map().entries().clone()) as ArrayRef
                    }),
                )
        }
        DataType::Struct(fields) => fields.iter().enumerate().all(|(idx, field)| {
            fits(
                field.data_type(),
                &map(arrays, |a| Arc::clone(a.as_struct().column(idx))),
            )
        }),
        DataType::Dictionary(keys, values) => {
            let mut dictionaries = plain(arrays);
            dictionaries.dedup_by(|a, b| Arc::ptr_eq(a, b));
            let num_values: usize = dictionaries.iter().map(Array::len).sum();
            num_values <= dictionary_values_max(keys) && fits(values, &dictionaries)
        }
        _ => true,
    }
}

fn map(arrays: &[ArrayRef], child: impl Fn(&ArrayRef) -> ArrayRef) -> Vec<ArrayRef> {
    arrays.iter().map(child).collect()
}

fn dictionary_values_max(keys: &DataType) -> usize {
    match keys {
        DataType::Int8 => i8::MAX as usize,
        DataType::Int16 => i16::MAX as usize,
        DataType::UInt8 => u8::MAX.into(),
        DataType::UInt16 => u16::MAX.into(),
        DataType::Int32 => i32::MAX as usize,
        // Wider keys hold any number of values that fits in memory.
        _ => u32::MAX as usize,
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{StringArray, StringViewArray};
    use arrow_select::take::take;

    use super::*;

    #[test]
    fn views_that_share_bytes_are_not_copied_apart() {
        let word = StringArray::from(vec!["a word that has more than twelve bytes"]);
        let word = StringViewArray::from(&word);
        let shared = take(&word, &arrow_array::UInt32Array::from(vec![0; 1000]), None).unwrap();
        let kept = dense(Arc::clone(&shared));
        assert_eq!(&kept, &shared);
        let held: usize = kept
            .as_string_view()
            .data_buffers()
            .iter()
            .map(Buffer::len)
            .sum();
        assert_eq!(held, 38);
    }
}
