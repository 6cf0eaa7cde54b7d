//! Which rows of a table count: the newest of each key that was not deleted after it.

use std::collections::HashMap;

use arrow_array::{BooleanArray, RecordBatch};
use arrow_buffer::BooleanBufferBuilder;
use arrow_row::{RowConverter, SortField};
use arrow_schema::Schema;

use crate::{
    error::{Error, Result},
    page::PageKind,
    state::TableState,
    table::PageReader,
};

/// The live rows of a table, page by page.
pub(crate) struct LiveRows {
    /// One entry per page, oldest first: which of its rows are live. `None` where all are.
    pub(crate) masks: Vec<Option<BooleanArray>>,
    pub(crate) num_rows: u64,
}

impl LiveRows {
    /// Reads the keys of all pages, unless every stored row is known to be live.
    ///
    /// Costs memory for each distinct key: its encoding and about 40 bytes.
    pub(crate) fn find(table: &TableState) -> Result<Self> {
        if table.is_distinct {
            return Ok(Self {
                masks: vec![None; table.pages.len()],
                num_rows: table
                    .pages
                    .iter()
                    .map(|page| u64::from(page.num_rows))
                    .sum(),
            });
        }
        let converter = key_converter(table.spec.key_schema())?;
        let mut newest: HashMap<Box<[u8]>, (u32, u32)> = HashMap::new();
        for (page_idx, page) in (0..).zip(PageReader::new(table, Some(table.spec.key_columns()))) {
            let page = page?;
            let keys = converter
                .convert_columns(page.rows.columns())
                .map_err(|error| Error::data("keys are not readable").with_source(error))?;
            for (row_idx, key) in (0..).zip(keys.iter()) {
                match page.kind {
                    PageKind::Delete => newest.remove(key.as_ref()),
                    PageKind::Upsert => newest.insert(key.as_ref().into(), (page_idx, row_idx)),
                };
            }
        }
        let mut masks: Vec<BooleanBufferBuilder> = table
            .pages
            .iter()
            .map(|page| {
                let mut mask = BooleanBufferBuilder::new(page.num_rows as usize);
                mask.append_n(page.num_rows as usize, false);
                mask
            })
            .collect();
        let num_rows = newest.len() as u64;
        for (page_idx, row_idx) in newest.into_values() {
            masks[page_idx as usize].set_bit(row_idx as usize, true);
        }
        let masks = masks
            .into_iter()
            .map(|mut mask| Some(BooleanArray::new(mask.finish(), None)));
        Ok(Self {
            masks: masks.collect(),
            num_rows,
        })
    }
}

fn key_converter(key_schema: &Schema) -> Result<RowConverter> {
    let fields = key_schema
        .fields()
        .iter()
        .map(|f| SortField::new(f.data_type().clone()));
    RowConverter::new(fields.collect())
        .map_err(|error| Error::internal("keys cannot be encoded").with_source(error))
}

/// The number of rows that a mask keeps.
pub(crate) fn num_kept(mask: &BooleanArray) -> usize {
    mask.values().count_set_bits()
}

/// Keeps the live rows of a page.
pub(crate) fn filter(rows: &RecordBatch, mask: Option<&BooleanArray>) -> Result<RecordBatch> {
    match mask {
        Some(mask) if num_kept(mask) < mask.len() => {
            arrow_select::filter::filter_record_batch(rows, mask)
                .map_err(|error| Error::internal("rows cannot be filtered").with_source(error))
        }
        _ => Ok(rows.clone()),
    }
}
