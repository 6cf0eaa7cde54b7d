//! What is known of the pages of a table without reading them.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, UInt32Array, UInt64Array, new_empty_array};
use arrow_row::{RowConverter, SortField};
use arrow_schema::DataType;

use super::TableSnapshot;
use crate::page::{ColumnStats, PageKind, PageMeta};

/// The smallest and largest value of a column in each of some pages.
#[derive(Clone, Debug)]
pub struct ColumnBounds {
    /// Null where it is not known, and where the page has no value.
    pub min: ArrayRef,
    /// Null where it is not known, and where the page has no value.
    pub max: ArrayRef,
}

impl TableSnapshot {
    /// The bounds of a column in some pages, as arrays of the column's type, or of its values' type if that is a
    /// dictionary. They hold for all stored rows, also those that do not count any more.
    ///
    /// # Shapes
    /// `pages`: positions in [`pages`](Self::pages). The arrays have one value for each of them.
    /// `None` if there is no such column or its type has no bounds.
    pub fn column_bounds(&self, column: usize, pages: &[usize]) -> Option<ColumnBounds> {
        let value_type = self.value_type(column)?;
        let converter = RowConverter::new(vec![SortField::new(value_type.clone())]).ok()?;
        let parser = converter.parser();
        let stats = pages.iter().map(|page| self.column_stats(*page, column));
        let bounds: Vec<_> = stats
            .map(|stats| stats.and_then(|stats| stats.bounds.as_ref()))
            .collect();
        // Decodes those that are known, and puts them where they belong.
        let known = bounds.iter().flatten();
        let mut places = 0..;
        let indices: UInt32Array = bounds
            .iter()
            .map(|bounds| bounds.and_then(|_| places.next()))
            .collect();
        let spread = |values: Vec<ArrayRef>| {
            let empty = || new_empty_array(&value_type);
            let values = values.into_iter().next().unwrap_or_else(empty);
            arrow_select::take::take(&values, &indices, None).ok()
        };
        let min = converter
            .convert_rows(known.clone().map(|(min, _)| parser.parse(min)))
            .ok()?;
        let max = converter
            .convert_rows(known.map(|(_, max)| parser.parse(max)))
            .ok()?;
        Some(ColumnBounds {
            min: spread(min)?,
            max: spread(max)?,
        })
    }

    /// The smallest and the largest value of a column in all of some pages, as arrays of one row. They hold for all
    /// stored rows, as [`column_bounds`](Self::column_bounds) do.
    ///
    /// `None` if they are not known for a page that has values, or if none has.
    pub fn column_range(&self, column: usize, pages: &[usize]) -> Option<(ArrayRef, ArrayRef)> {
        let value_type = self.value_type(column)?;
        let (mut min, mut max): (Option<&[u8]>, Option<&[u8]>) = (None, None);
        for page in pages {
            let stats = self.column_stats(*page, column)?;
            let Some((page_min, page_max)) = &stats.bounds else {
                if stats.num_nulls == self.table.pages[*page].num_rows {
                    continue;
                }
                return None;
            };
            // They compare as bytes.
            if min.is_none_or(|min| **page_min < *min) {
                min = Some(page_min);
            }
            if max.is_none_or(|max| **page_max > *max) {
                max = Some(page_max);
            }
        }
        let converter = RowConverter::new(vec![SortField::new(value_type)]).ok()?;
        let parser = converter.parser();
        let decode = |bytes: &[u8]| {
            let decoded = converter.convert_rows([parser.parse(bytes)]).ok()?;
            decoded.into_iter().next()
        };
        Some((decode(min?)?, decode(max?)?))
    }

    /// In how many rows of each page a column is null, among all stored rows. Null for a page of deleted keys, unless it
    /// is a key column.
    pub fn null_counts(&self, column: usize, pages: &[usize]) -> UInt64Array {
        let stats = pages.iter().map(|page| self.column_stats(*page, column));
        stats
            .map(|stats| stats.map(|stats| u64::from(stats.num_nulls)))
            .collect()
    }

    /// Whether each of some pages may have one of these values in a column.
    ///
    /// # Shapes
    /// `values`: of the column's type, or of its values' type if that is a dictionary. `None` if they are not, if there is
    /// no such column or if its type has no bounds.
    pub fn may_hold(&self, column: usize, values: &ArrayRef, pages: &[usize]) -> Option<Vec<bool>> {
        let value_type = self.value_type(column)?;
        if *values.data_type() != value_type {
            return None;
        }
        let converter = RowConverter::new(vec![SortField::new(value_type)]).ok()?;
        let encoded = converter.convert_columns(&[Arc::clone(values)]).ok()?;
        let mut sorted: Vec<&[u8]> = (0..values.len())
            .filter(|row| values.is_valid(*row))
            .map(|row| encoded.row(row).data())
            .collect();
        sorted.sort_unstable();
        let may_hold = |page: &usize| {
            let stats = self.column_stats(*page, column);
            match stats.and_then(|stats| stats.bounds.as_ref()) {
                // A page without values has no bounds either, but it is seldom worth a thought.
                None => true,
                Some((min, max)) => {
                    let first = sorted.partition_point(|value| *value < &**min);
                    sorted.get(first).is_some_and(|value| *value <= &**max)
                }
            }
        };
        Some(pages.iter().map(may_hold).collect())
    }

    fn value_type(&self, column: usize) -> Option<DataType> {
        let field = self.schema().fields().get(column)?;
        let value_type = match field.data_type() {
            DataType::Dictionary(_, value) => &**value,
            data_type => data_type,
        };
        let has_bounds = !value_type.is_nested() && *value_type != DataType::Null;
        has_bounds.then(|| value_type.clone())
    }

    fn column_stats(&self, page: usize, column: usize) -> Option<&ColumnStats> {
        let page: &PageMeta = self.table.pages.get(page)?;
        let at = match page.kind {
            PageKind::Upsert => column,
            PageKind::Delete => self
                .spec()
                .key_columns()
                .iter()
                .position(|key_column| *key_column == column)?,
        };
        page.stats.get(at)
    }
}
