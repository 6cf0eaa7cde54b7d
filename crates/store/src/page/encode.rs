//! Rows to page bytes.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, BinaryViewArray, FixedSizeListArray, GenericListArray, MapArray,
    OffsetSizeTrait, RecordBatch, StringViewArray, StructArray, cast::AsArray,
};
use arrow_buffer::OffsetBuffer;
use arrow_ipc::writer::{
    DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions, write_message,
};
use arrow_schema::{DataType, FieldRef, SchemaRef};
use rayon::prelude::*;

use super::{ColumnStats, EncodedPage, PageKind};
use crate::{
    error::{Error, ErrorKind, Result},
    settings::PAGE_BYTES_MAX,
};

/// So many pages of one batch are encoded by several threads.
const PARALLEL_PAGES_MIN: usize = 8;

/// Cuts batches of one schema into pages of about the wanted size.
pub(crate) struct PageEncoder {
    kind: PageKind,
    schema: SchemaRef,
    page_bytes: usize,
}

impl PageEncoder {
    pub(crate) fn new(kind: PageKind, schema: SchemaRef, page_bytes: usize) -> Self {
        Self {
            kind,
            schema,
            page_bytes,
        }
    }

    /// Encodes the rows of a batch, in order.
    ///
    /// # Errors
    /// [`ErrorKind::Resource`] if one row alone is larger than a page may be.
    pub(crate) fn encode(&self, batch: &RecordBatch) -> Result<Vec<EncodedPage>> {
        let starts = self.starts(batch);
        // A small commit is done sooner by itself than by handing pages to other threads.
        if starts.len() < PARALLEL_PAGES_MIN {
            return self.encode_alone(batch);
        }
        let (num_rows, page_rows) = (batch.num_rows(), starts[1]);
        let encoded: Vec<Vec<EncodedPage>> = starts
            .into_par_iter()
            .map(|start| {
                let mut pages = Vec::new();
                let rows = batch.slice(start, page_rows.min(num_rows - start));
                self.encode_rows(&rows, &mut pages).map(|()| pages)
            })
            .collect::<Result<_>>()?;
        Ok(encoded.into_iter().flatten().collect())
    }

    /// Encodes the rows of a batch on this thread alone.
    ///
    /// # Errors
    /// As for [`encode`](Self::encode).
    pub(crate) fn encode_alone(&self, batch: &RecordBatch) -> Result<Vec<EncodedPage>> {
        let starts = self.starts(batch);
        let num_rows = batch.num_rows();
        let mut pages = Vec::with_capacity(starts.len());
        for (i, start) in starts.iter().enumerate() {
            let end = starts.get(i + 1).copied().unwrap_or(num_rows);
            self.encode_rows(&batch.slice(*start, end - start), &mut pages)?;
        }
        Ok(pages)
    }

    /// The first row of each page.
    fn starts(&self, batch: &RecordBatch) -> Vec<usize> {
        let num_rows = batch.num_rows();
        if num_rows == 0 {
            return Vec::new();
        }
        let row_bytes = slice_bytes(batch).div_ceil(num_rows).max(1);
        let page_rows = (self.page_bytes / row_bytes).clamp(1, u32::MAX as usize);
        (0..num_rows).step_by(page_rows).collect()
    }

    /// Encodes rows as one page, or as several where their sizes are so uneven that one would be too large.
    fn encode_rows(&self, rows: &RecordBatch, pages: &mut Vec<EncodedPage>) -> Result<()> {
        let num_rows = rows.num_rows();
        if slice_bytes(rows) > PAGE_BYTES_MAX / 2 && num_rows > 1 {
            let half = num_rows / 2;
            self.encode_rows(&rows.slice(0, half), pages)?;
            return self.encode_rows(&rows.slice(half, num_rows - half), pages);
        }
        let columns = compact_columns(rows.columns())?;
        let stats = columns.iter().map(ColumnStats::of).collect();
        let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(num_rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            .map_err(|error| Error::internal("page does not fit its schema").with_source(error))?;
        let bytes = encode_batch(&batch)?;
        if bytes.len() > PAGE_BYTES_MAX {
            return Err(Error::new(
                ErrorKind::Resource,
                format!(
                    "row is too large: row_bytes=`{}` page_bytes_max=`{PAGE_BYTES_MAX}`",
                    bytes.len()
                ),
            ));
        }
        pages.push(EncodedPage {
            kind: self.kind,
            // `page_rows` is clamped to u32.
            num_rows: u32::try_from(num_rows).unwrap_or(u32::MAX),
            stats,
            bytes: bytes.into(),
        });
        Ok(())
    }
}

fn encode_batch(batch: &RecordBatch) -> Result<Vec<u8>> {
    let failed = |error| Error::invalid("rows cannot be stored as Arrow IPC").with_source(error);
    let options = IpcWriteOptions::default();
    let generator = IpcDataGenerator::default();
    let mut tracker = DictionaryTracker::new(false);
    let has_dictionaries = batch
        .schema_ref()
        .flattened_fields()
        .iter()
        .any(|field| matches!(field.data_type(), DataType::Dictionary(..)));
    if has_dictionaries {
        // Gives each dictionary its id, in the order in which the decoder's schema has them.
        generator.schema_to_bytes_with_dictionary_tracker(&batch.schema(), &mut tracker, &options);
    }
    let (dictionaries, rows) = generator
        .encode(
            batch,
            &mut tracker,
            &options,
            &mut IpcWriteContext::default(),
        )
        .map_err(failed)?;
    let messages: Vec<_> = dictionaries.into_iter().chain([rows]).collect();
    let as_u32 = |len: usize| {
        u32::try_from(len).map_err(|_| Error::new(ErrorKind::Resource, "page is over 4 GiB"))
    };
    let mut header = Vec::with_capacity(64);
    header.extend_from_slice(&as_u32(messages.len())?.to_le_bytes());
    let header_bytes = (4 + 8 * messages.len()).next_multiple_of(64);
    let mut page = Vec::with_capacity(header_bytes + slice_bytes(batch) + 1024);
    page.resize(header_bytes, 0);
    for message in messages {
        let (metadata, body) = write_message(&mut page, message, &options).map_err(failed)?;
        header.extend_from_slice(&as_u32(metadata)?.to_le_bytes());
        header.extend_from_slice(&as_u32(body)?.to_le_bytes());
    }
    page[..header.len()].copy_from_slice(&header);
    Ok(page)
}

/// Bytes that the rows of a batch take, without what other slices of the same buffers take.
fn slice_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(column_bytes).sum()
}

fn column_bytes(column: &ArrayRef) -> usize {
    match column.data_type() {
        DataType::Utf8View => {
            let lengths = column.as_string_view().lengths();
            column.len() * 16 + lengths.map(|len| len as usize).sum::<usize>()
        }
        DataType::BinaryView => {
            let lengths = column.as_binary_view().lengths();
            column.len() * 16 + lengths.map(|len| len as usize).sum::<usize>()
        }
        // The dictionary is packed for each page, so it weighs about as much as its used values.
        DataType::Dictionary(..) => column.len() * 16,
        // `get_slice_memory_size` fails on types with no fixed layout; the whole buffers are a safe upper bound.
        _ => column
            .to_data()
            .get_slice_memory_size()
            .unwrap_or_else(|_| column.get_buffer_memory_size()),
    }
}

/// Rebuilds the columns of a slice so that they hold on to nothing but their own rows.
///
/// The IPC writer cuts most arrays to the slice, but writes views and dictionaries whole, so that each page of a
/// large batch would carry the strings of all of it.
pub(crate) fn compact_columns(columns: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
    columns.iter().map(compact).collect()
}

fn compact(column: &ArrayRef) -> Result<ArrayRef> {
    let failed = |error| Error::invalid("column cannot be repacked").with_source(error);
    Ok(match column.data_type() {
        DataType::Utf8View => {
            let array: &StringViewArray = column.as_string_view();
            Arc::new(array.gc())
        }
        DataType::BinaryView => {
            let array: &BinaryViewArray = column.as_binary_view();
            Arc::new(array.gc())
        }
        DataType::Dictionary(_, value_type) => {
            let is_packable = !value_type.is_nested();
            if !is_packable {
                return Ok(ArrayRef::clone(column));
            }
            let values = arrow_cast::cast(column, value_type).map_err(failed)?;
            arrow_cast::cast(&values, column.data_type()).map_err(failed)?
        }
        DataType::Struct(fields) => {
            let array: &StructArray = column.as_struct();
            let children = compact_columns(array.columns())?;
            let rebuilt = StructArray::try_new_with_length(
                fields.clone(),
                children,
                array.nulls().cloned(),
                array.len(),
            );
            Arc::new(rebuilt.map_err(failed)?)
        }
        DataType::List(field) if holds_views(field.data_type()) => {
            Arc::new(compact_list(field, column.as_list::<i32>())?)
        }
        DataType::LargeList(field) if holds_views(field.data_type()) => {
            Arc::new(compact_list(field, column.as_list::<i64>())?)
        }
        DataType::FixedSizeList(field, size) if holds_views(field.data_type()) => {
            let array: &FixedSizeListArray = column.as_fixed_size_list();
            let child = compact(array.values())?;
            let nulls = array.nulls().cloned();
            Arc::new(
                FixedSizeListArray::try_new(Arc::clone(field), *size, child, nulls)
                    .map_err(failed)?,
            )
        }
        DataType::Map(field, sorted) if holds_views(field.data_type()) => {
            let array: &MapArray = column.as_map();
            let (start, len) = child_range(array.offsets());
            let entries = array.entries().slice(start, len);
            let entries = compact(&(Arc::new(entries) as ArrayRef))?;
            let offsets = OffsetBuffer::from_lengths(array.offsets().lengths());
            Arc::new(
                MapArray::try_new(
                    Arc::clone(field),
                    offsets,
                    entries.as_struct().clone(),
                    array.nulls().cloned(),
                    *sorted,
                )
                .map_err(failed)?,
            )
        }
        _ => ArrayRef::clone(column),
    })
}

fn compact_list<O: OffsetSizeTrait>(
    field: &FieldRef,
    array: &GenericListArray<O>,
) -> Result<GenericListArray<O>> {
    let (start, len) = child_range(array.offsets());
    let child = compact(&array.values().slice(start, len))?;
    let offsets = OffsetBuffer::from_lengths(array.offsets().lengths());
    GenericListArray::try_new(Arc::clone(field), offsets, child, array.nulls().cloned())
        .map_err(|error| Error::invalid("column cannot be repacked").with_source(error))
}

/// Where the children of a list slice begin, and how many there are.
fn child_range<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>) -> (usize, usize) {
    let start = offsets[0].as_usize();
    (start, offsets[offsets.len() - 1].as_usize() - start)
}

/// Whether arrays of this type have a part that the IPC writer would write whole for a slice.
fn holds_views(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8View | DataType::BinaryView | DataType::Dictionary(..) => true,
        DataType::Struct(fields) => fields.iter().any(|field| holds_views(field.data_type())),
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => holds_views(field.data_type()),
        _ => false,
    }
}
