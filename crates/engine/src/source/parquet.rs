//! Parquet: a piece per row group, or per million rows of a larger one.

use super::{
    Piece, Source, SourceOptions,
    guard::guarded,
    malformed,
    options::project,
    parquet_check::{check_chunk, check_footer, check_page},
};
use crate::{Error, Result};
use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::SchemaRef;
use bytes::Bytes;
use parquet::{
    arrow::{
        FieldLevels, ProjectionMask,
        arrow_reader::{
            ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, RowGroups,
            RowSelection, RowSelector,
        },
        parquet_to_arrow_field_levels,
    },
    column::page::{Page, PageIterator, PageMetadata, PageReader},
    errors::ParquetError,
    file::{
        metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData},
        reader::{ChunkReader, Length},
        serialized_reader::SerializedPageReader,
    },
};
use std::{
    fs::File,
    iter,
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, PoisonError},
};

/// Rows of a piece, at most: what most writers put into a row group.
const PIECE_ROWS: u64 = 1 << 20;

/// The most bytes that a batch's fixed-width values of one column may take; a type whose values are
/// long gets batches of fewer rows.
const FIXED_BATCH_BYTES_MAX: u64 = 64 << 20;

/// Where a Parquet file's bytes are.
#[derive(Clone)]
pub(super) enum ParquetInput {
    /// On disk; read by position, so that workers do not disturb one another.
    File(Arc<File>, u64),
    /// In memory (standard input).
    Bytes(Bytes),
}

impl ParquetInput {
    fn read(&self, start: u64, len: u64) -> Result<Bytes> {
        let outside = || {
            Error::data(format!(
                "a part lies outside the file: offset=`{start}`, length=`{len}`, file \
                 length=`{}`",
                self.len()
            ))
        };
        let end = start
            .checked_add(len)
            .filter(|end| *end <= self.len())
            .ok_or_else(outside)?;
        match self {
            Self::File(file, _) => {
                let mut bytes = vec![0; usize::try_from(len).map_err(|_| outside())?];
                file.read_exact_at(&mut bytes, start)
                    .map_err(|error| Error::io("cannot read", error))?;
                Ok(bytes.into())
            }
            Self::Bytes(bytes) => {
                let start = usize::try_from(start).map_err(|_| outside())?;
                let end = usize::try_from(end).map_err(|_| outside())?;
                Ok(bytes.slice(start..end))
            }
        }
    }
}

impl Length for ParquetInput {
    fn len(&self) -> u64 {
        match self {
            Self::File(_, len) => *len,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }
}

/// What all pieces share.
struct Shared {
    input: ParquetInput,
    metadata: Arc<ParquetMetaData>,
    levels: FieldLevels,
    mask: ProjectionMask,
    /// For each column of the output its place among the columns read, which are in file order.
    order: Vec<usize>,
    schema: SchemaRef,
    batch_rows: usize,
}

/// A Parquet file.
pub(super) struct ParquetSource {
    name: Arc<str>,
    shared: Arc<Shared>,
    row_group: usize,
    /// The rows of `row_group` that pieces have been made for.
    row: u64,
    chunks: Arc<Chunks>,
}

impl ParquetSource {
    /// Reads the footer.
    ///
    /// # Errors
    /// `Data` for a damaged file, `Invalid` for a projection that it cannot give. The caller adds the
    /// file's name.
    pub(super) fn new(
        name: Arc<str>,
        input: ParquetInput,
        options: &SourceOptions,
    ) -> Result<Self> {
        guarded(|| {
            let footer = read_footer(&input)?;
            check_footer(&footer)?;
            let metadata = ParquetMetaDataReader::decode_metadata(&footer)
                .map_err(|error| malformed("footer", error))?;
            let metadata = Arc::new(metadata);
            let reader_options =
                ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Skip);
            let arrow = ArrowReaderMetadata::try_new(Arc::clone(&metadata), reader_options)
                .map_err(|error| malformed("schema", error))?;
            let (indices, schema) = project(arrow.schema(), options.projection.as_deref())?;
            let indices = indices.unwrap_or_else(|| (0..schema.fields().len()).collect());
            let descr = metadata.file_metadata().schema_descr();
            let mask = ProjectionMask::roots(descr, indices.iter().copied());
            let levels =
                parquet_to_arrow_field_levels(descr, mask.clone(), Some(arrow.schema().fields()))
                    .map_err(|error| malformed("schema", error))?;
            let mut sorted = indices.clone();
            sorted.sort_unstable();
            let order = indices
                .iter()
                .filter_map(|idx| sorted.binary_search(idx).ok())
                .collect();
            let batch_rows = check_metadata(&metadata, &input, options.batch_rows)?;
            let shared = Shared {
                input,
                metadata,
                levels,
                mask,
                order,
                schema,
                batch_rows,
            };
            Ok(Self {
                name,
                shared: Arc::new(shared),
                row_group: 0,
                row: 0,
                chunks: Arc::default(),
            })
        })
    }
}

impl Source for ParquetSource {
    fn schema(&self) -> &SchemaRef {
        &self.shared.schema
    }

    fn next_piece(&mut self) -> Result<Option<Piece>> {
        loop {
            let Some(group) = self.shared.metadata.row_groups().get(self.row_group) else {
                return Ok(None);
            };
            // Not negative: `check_metadata`.
            let num_rows = group.num_rows().unsigned_abs();
            if self.row >= num_rows {
                self.row_group += 1;
                self.row = 0;
                self.chunks = Arc::default();
                continue;
            }
            let start = self.row;
            let len = PIECE_ROWS.min(num_rows - start);
            self.row += len;
            let bytes: u64 = group
                .columns()
                .iter()
                .map(|c| u64::try_from(c.compressed_size()).unwrap_or(0))
                .sum();
            let num_bytes =
                u64::try_from(u128::from(bytes) * u128::from(len) / u128::from(num_rows))
                    .unwrap_or(bytes);
            let shared = Arc::clone(&self.shared);
            let chunks = Arc::clone(&self.chunks);
            let idx = self.row_group;
            return Ok(Some(Piece::new(
                Arc::clone(&self.name),
                num_bytes,
                move || {
                    decode(&shared, &chunks, idx, start, len).map_err(|error| {
                        error.context(format_args!("row group {idx}, from row {start}"))
                    })
                },
            )));
        }
    }

    fn num_bytes(&self) -> Option<u64> {
        Some(self.shared.input.len())
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// The footer's Thrift bytes.
fn read_footer(input: &ParquetInput) -> Result<Bytes> {
    let cut_off = || {
        Error::data(
            "the Parquet file has no footer: it is cut off, or its writer was not finished; write \
             it again",
        )
    };
    let len = input.len();
    if len < 12 {
        return Err(cut_off());
    }
    let trailer = input.read(len - 8, 8)?;
    match &trailer[4..] {
        b"PAR1" => {}
        b"PARE" => return Err(Error::invalid("encrypted Parquet files are not supported")),
        _ => return Err(cut_off()),
    }
    let footer_len = trailer
        .first_chunk::<4>()
        .map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let start = (len - 8)
        .checked_sub(u64::from(footer_len))
        .filter(|start| *start >= 4)
        .ok_or_else(|| {
            Error::data(format!(
                "the footer's length does not fit the file: footer length=`{footer_len}`, file \
                 length=`{len}`"
            ))
        })?;
    input.read(start, u64::from(footer_len))
}

/// Checks what the footer says of sizes; gives the rows of a batch.
fn check_metadata(
    metadata: &ParquetMetaData,
    input: &ParquetInput,
    batch_rows: usize,
) -> Result<usize> {
    let mut sum = 0_i64;
    for (idx, group) in metadata.row_groups().iter().enumerate() {
        let next = Some(group.num_rows())
            .filter(|n| *n >= 0)
            .and_then(|n| sum.checked_add(n));
        sum = next.ok_or_else(|| {
            Error::data(format!(
                "row group {idx}: implausible rows=`{}`",
                group.num_rows()
            ))
        })?;
        for column in group.columns() {
            let start = column
                .dictionary_page_offset()
                .unwrap_or(column.data_page_offset());
            let end = start.checked_add(column.compressed_size());
            let inside = start >= 0
                && column.compressed_size() >= 0
                && column.num_values() >= 0
                && end
                    .and_then(|end| u64::try_from(end).ok())
                    .is_some_and(|e| e <= input.len());
            if !inside {
                return Err(Error::data(format!(
                    "row group {idx}: a column lies outside the file: column=`{}`, \
                     offset=`{start}`, length=`{}`, file length=`{}`",
                    column.column_path(),
                    column.compressed_size(),
                    input.len()
                )));
            }
        }
    }
    // The footer's own total is not compared: there are writers that leave it zero, and nothing here
    // uses it.
    let mut rows = batch_rows.max(1);
    for column in metadata.file_metadata().schema_descr().columns() {
        let width = u64::try_from(column.type_length()).unwrap_or(0);
        if width > input.len().max(FIXED_BATCH_BYTES_MAX) {
            return Err(Error::data(format!(
                "implausible value length: column=`{}`, length=`{width}`",
                column.path()
            )));
        }
        if let Some(fitting) = FIXED_BATCH_BYTES_MAX.checked_div(width) {
            rows = rows.min(usize::try_from(fitting).unwrap_or(usize::MAX).max(1));
        }
    }
    Ok(rows)
}

/// The bytes of a row group's columns, read by the first of its pieces and kept for the others.
#[derive(Default)]
struct Chunks(Mutex<Option<Arc<Vec<Bytes>>>>);

impl Chunks {
    /// The chunks of all columns; those that are not read are empty.
    fn load(&self, shared: &Shared, group: &RowGroupMetaData) -> Result<Arc<Vec<Bytes>>> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(chunks) = &*slot {
            return Ok(Arc::clone(chunks));
        }
        let mut chunks = Vec::with_capacity(group.num_columns());
        for (idx, column) in group.columns().iter().enumerate() {
            if !shared.mask.leaf_included(idx) {
                chunks.push(Bytes::new());
                continue;
            }
            let (start, len) = column.byte_range();
            let context =
                |error: Error| error.context(format_args!("column `{}`", column.column_path()));
            let chunk = shared.input.read(start, len).map_err(context)?;
            check_chunk(&chunk, column, group.num_rows().unsigned_abs()).map_err(context)?;
            chunks.push(chunk);
        }
        let chunks = Arc::new(chunks);
        *slot = Some(Arc::clone(&chunks));
        Ok(chunks)
    }
}

/// Decodes `len` rows from row `start` of a row group.
fn decode(
    shared: &Arc<Shared>,
    chunks: &Chunks,
    group_idx: usize,
    start: u64,
    len: u64,
) -> Result<Vec<RecordBatch>> {
    let group = shared.metadata.row_group(group_idx);
    let chunks = chunks.load(shared, group)?;
    // Row numbers fit: they were checked against a file that is in memory or on a 64-bit disk.
    let start = usize::try_from(start).map_err(|_| Error::data("too many rows"))?;
    let len = usize::try_from(len).map_err(|_| Error::data("too many rows"))?;
    if shared.schema.fields().is_empty() {
        let options = RecordBatchOptions::new().with_row_count(Some(len));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&shared.schema), vec![], &options)
            .map_err(|error| malformed("batch", error))?;
        let mut batches = Vec::new();
        super::split(&batch, shared.batch_rows, &mut batches);
        return Ok(batches);
    }
    let is_part = start > 0 || (len as u64) < group.num_rows().unsigned_abs();
    let selection = is_part
        .then(|| RowSelection::from(vec![RowSelector::skip(start), RowSelector::select(len)]));
    let view = GroupView {
        shared: Arc::clone(shared),
        group_idx,
        chunks,
    };
    let batch_rows = shared.batch_rows.min(len.max(1));
    let reader = ParquetRecordBatchReader::try_new_with_row_groups(
        &shared.levels,
        &view,
        batch_rows,
        selection,
    )
    .map_err(|error| malformed("pages", error))?;
    let mut batches = Vec::new();
    let mut num_rows = 0;
    for batch in reader {
        let batch = batch.map_err(|error| malformed("values", error))?;
        num_rows += batch.num_rows();
        if num_rows > len {
            break;
        }
        let columns = shared
            .order
            .iter()
            .map(|idx| Arc::clone(batch.column(*idx)))
            .collect();
        let batch = RecordBatch::try_new(Arc::clone(&shared.schema), columns)
            .map_err(|error| malformed("values", error))?;
        batches.push(batch);
    }
    if num_rows != len {
        return Err(Error::data(format!(
            "the columns do not hold as many rows as announced: rows=`{num_rows}`, \
             expected=`{len}`"
        )));
    }
    Ok(batches)
}

/// One row group, as the decoder wants to see it.
struct GroupView {
    shared: Arc<Shared>,
    group_idx: usize,
    chunks: Arc<Vec<Bytes>>,
}

impl RowGroups for GroupView {
    fn num_rows(&self) -> usize {
        usize::try_from(self.shared.metadata.row_group(self.group_idx).num_rows()).unwrap_or(0)
    }

    fn column_chunks(&self, idx: usize) -> Result<Box<dyn PageIterator>, ParquetError> {
        let group = self.shared.metadata.row_group(self.group_idx);
        let column = group.column(idx);
        let chunk = OffsetBytes {
            start: column.byte_range().0,
            bytes: self.chunks[idx].clone(),
        };
        let inner = SerializedPageReader::new(Arc::new(chunk), column, self.num_rows(), None)?;
        let descr = column.column_descr();
        let reader: Box<dyn PageReader> = Box::new(CheckedPages {
            inner,
            max_rep_level: descr.max_rep_level(),
            max_def_level: descr.max_def_level(),
        });
        Ok(Box::new(OnePageReader(iter::once(reader))))
    }

    fn row_groups(&self) -> Box<dyn Iterator<Item = &RowGroupMetaData> + '_> {
        Box::new(iter::once(self.shared.metadata.row_group(self.group_idx)))
    }

    fn metadata(&self) -> &ParquetMetaData {
        &self.shared.metadata
    }
}

/// A column chunk in memory that answers to its offsets in the file.
struct OffsetBytes {
    start: u64,
    bytes: Bytes,
}

impl OffsetBytes {
    fn position(&self, start: u64) -> Result<usize, ParquetError> {
        start
            .checked_sub(self.start)
            .and_then(|start| usize::try_from(start).ok())
            .filter(|start| *start <= self.bytes.len())
            .ok_or_else(|| ParquetError::EOF(format!("offset {start} is outside the column")))
    }
}

impl Length for OffsetBytes {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for OffsetBytes {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        use bytes::Buf;
        Ok(self.bytes.slice(self.position(start)?..).reader())
    }

    fn get_bytes(&self, start: u64, len: usize) -> Result<Bytes, ParquetError> {
        let start = self.position(start)?;
        let end = start
            .checked_add(len)
            .filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| ParquetError::EOF("a page is cut off".to_owned()))?;
        Ok(self.bytes.slice(start..end))
    }
}

struct OnePageReader(iter::Once<Box<dyn PageReader>>);

impl Iterator for OnePageReader {
    type Item = Result<Box<dyn PageReader>, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(Ok)
    }
}

impl PageIterator for OnePageReader {}

/// Shows each page to [`check_page`] before it is decoded.
struct CheckedPages {
    inner: SerializedPageReader<OffsetBytes>,
    max_rep_level: i16,
    max_def_level: i16,
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        let page = self.inner.get_next_page()?;
        if let Some(page) = &page {
            check_page(page, self.max_rep_level, self.max_def_level)
                .map_err(|error| ParquetError::External(Box::new(error)))?;
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
        self.inner.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<(), ParquetError> {
        self.inner.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool, ParquetError> {
        self.inner.at_record_boundary()
    }
}

impl Iterator for CheckedPages {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}
