//! What a scan tells the optimizer of its rows.

use std::sync::Arc;

use arrow_schema::DataType;
use darner_store::TableSnapshot;
use datafusion::{
    common::{ColumnStatistics, ScalarValue, Statistics, stats::Precision},
    error::Result,
    physical_expr::{PhysicalExpr, conjunction},
    physical_plan::{
        ExecutionPlan, empty::EmptyExec, filter::FilterExec, statistics::StatisticsArgs,
    },
};

use crate::{
    pushdown::FILTERS_AT_ONCE,
    string_views::{seen, seen_schema},
};

/// The statistics of all columns of a table, over some of its pages.
///
/// They are exact only if every stored row counts and all pages are meant: bounds of a row that was replaced may not be
/// bounds of any row.
///
/// # Shapes
/// `columns`: those that somebody asks for. Nothing is said of the others.
pub(crate) fn of_pages(
    snapshot: &TableSnapshot,
    pages: &[usize],
    is_whole: bool,
    columns: &[usize],
) -> Statistics {
    let is_exact = is_whole && snapshot.is_distinct();
    let metas: Vec<_> = snapshot.pages().collect();
    let num_stored: u64 = pages
        .iter()
        .map(|page| u64::from(metas[*page].num_rows))
        .sum();
    let num_bytes: u64 = pages
        .iter()
        .map(|page| u64::from(metas[*page].num_bytes))
        .sum();
    let num_rows = match snapshot.num_rows_known() {
        Some(num_rows) if is_whole => Precision::Exact(as_usize(num_rows)),
        // Every page of such a table counts with all its rows.
        _ if snapshot.is_distinct() => Precision::Exact(as_usize(num_stored)),
        Some(num_rows) => Precision::Inexact(as_usize(num_rows.min(num_stored))),
        None => Precision::Inexact(as_usize(num_stored)),
    };
    let key_columns = snapshot.spec().key_columns();
    let schema = snapshot.schema();
    let mut statistics = Statistics {
        num_rows,
        total_byte_size: Precision::Inexact(as_usize(num_bytes)),
        column_statistics: Statistics::unknown_column(schema),
    };
    for column in columns {
        let mut found = of_column(snapshot, pages, *column);
        if !is_exact {
            found = found.to_inexact();
        }
        if key_columns == [*column] {
            found.distinct_count = num_rows;
        }
        statistics.column_statistics[*column] = found;
    }
    statistics
}

fn of_column(snapshot: &TableSnapshot, pages: &[usize], column: usize) -> ColumnStatistics {
    let mut statistics = ColumnStatistics::new_unknown();
    let field = snapshot.schema().field(column);
    let nulls = snapshot.null_counts(column, pages);
    let num_nulls = nulls.iter().flatten().sum();
    statistics.null_count = Precision::Exact(as_usize(num_nulls));
    // DataFusion compares literals of a dictionary's own type only with such.
    if matches!(field.data_type(), DataType::Dictionary(..)) {
        return statistics;
    }
    if let Some((min, max)) = snapshot.column_range(column, pages)
        && let (Ok(min), Ok(max)) = (seen(&min), seen(&max))
        && let (Ok(min), Ok(max)) = (
            ScalarValue::try_from_array(&min, 0),
            ScalarValue::try_from_array(&max, 0),
        )
        && is_plain(&min)
        && is_plain(&max)
    {
        statistics.min_value = Precision::Exact(min);
        statistics.max_value = Precision::Exact(max);
    }
    statistics
}

/// Whether all that compare values agree where this one stands: they do not for NaN and for the two zeros.
fn is_plain(value: &ScalarValue) -> bool {
    match value {
        ScalarValue::Float16(Some(value)) => !value.is_nan() && value.to_f32() != 0.0,
        ScalarValue::Float32(Some(value)) => !value.is_nan() && *value != 0.0,
        ScalarValue::Float64(Some(value)) => !value.is_nan() && *value != 0.0,
        _ => true,
    }
}

/// What is left of a table's statistics behind filters: DataFusion's own estimate.
pub(crate) fn behind_filters(
    snapshot: &TableSnapshot,
    statistics: Statistics,
    filters: &[Arc<dyn PhysicalExpr>],
) -> Result<Statistics> {
    if filters.is_empty() {
        return Ok(statistics);
    }
    let input = Arc::new(EmptyExec::new(seen_schema(snapshot.schema())));
    // More make no difference to an estimate.
    let first = filters.iter().take(FILTERS_AT_ONCE).cloned();
    let filter = FilterExec::try_new(conjunction(first), input)?;
    let estimate = filter
        .statistics_from_inputs(&[Arc::new(statistics.to_inexact())], &StatisticsArgs::new())?;
    Ok(Arc::unwrap_or_clone(estimate).to_inexact())
}

fn as_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
