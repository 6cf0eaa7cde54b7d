//! Which filters a scan takes over, and which pages they rule out.
//!
//! A filter goes one of three ways:
//!
//! - *exact*: the scan evaluates it on every row, with DataFusion's own expression for it, so nobody else has to. Only
//!   expressions that cannot fail are taken: an error must not depend on where a filter runs;
//! - *inexact*: it is used to rule out pages, and DataFusion evaluates it on the rows that come;
//! - *unsupported*: it stays with DataFusion.
//!
//! Pages are ruled out by DataFusion's [`PruningPredicate`], which turns a filter into one about the smallest and largest
//! values. It trusts that a cast keeps the order of values, which is not so for all casts: [`keeps_order`] says for which.

use std::{collections::HashSet, sync::Arc};

use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanArray, Float16Array, Float32Array, Float64Array,
    UInt64Array,
    cast::AsArray,
    types::{Float16Type, Float32Type, Float64Type},
};
use arrow_schema::{DataType, Schema};
use darner_store::{ColumnBounds, PageKind, TableSnapshot};
use datafusion::{
    arrow::compute::cast,
    common::{
        Column, DFSchema, ScalarValue,
        pruning::PruningStatistics,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    error::Result,
    logical_expr::{Expr, ExprSchemable, Operator, TableProviderFilterPushDown},
    physical_expr::{
        PhysicalExpr, conjunction,
        expressions::{CastExpr, Column as PhysicalColumn, NegativeExpr, TryCastExpr},
        split_conjunction,
    },
    physical_expr_common::physical_expr::snapshot_physical_expr,
    physical_optimizer::pruning::PruningPredicateBuilder,
};

use crate::string_views::{seen_schema, seen_type};

/// Comparisons in one filter that a scan takes over. What evaluates and rewrites them goes down one call for each.
const COMPARISONS_MAX: usize = 500;

/// Filters that are looked at together, for the same reason.
pub(crate) const FILTERS_AT_ONCE: usize = 64;

/// How a filter is taken over.
pub(crate) fn classify(filter: &Expr, schema: &DFSchema) -> TableProviderFilterPushDown {
    let (mut num_comparisons, mut is_plain, mut can_fail) = (0, true, false);
    // DataFusion's walk has room for any depth.
    let walked = filter.apply(|expr| {
        num_comparisons += usize::from(matches!(expr, Expr::BinaryExpr(_)));
        if let Expr::Cast(cast) = expr {
            let from = cast.expr.get_type(schema);
            can_fail |= !from.is_ok_and(|from| never_fails(&from, cast.field.data_type()));
        }
        if is_plain_node(expr) && num_comparisons <= COMPARISONS_MAX {
            return Ok(TreeNodeRecursion::Continue);
        }
        is_plain = false;
        Ok(TreeNodeRecursion::Stop)
    });
    if walked.is_err() || !is_plain {
        TableProviderFilterPushDown::Unsupported
    } else if can_fail {
        TableProviderFilterPushDown::Inexact
    } else {
        TableProviderFilterPushDown::Exact
    }
}

/// Whether an expression is a column, a literal or a comparison, whatever it compares.
fn is_plain_node(expr: &Expr) -> bool {
    let is_literal = |value: &Expr| matches!(value, Expr::Literal(..));
    match expr {
        Expr::Column(_)
        | Expr::Literal(..)
        | Expr::Alias(_)
        | Expr::Not(_)
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotTrue(_)
        | Expr::IsNotFalse(_)
        | Expr::IsNotUnknown(_)
        | Expr::Between(_)
        | Expr::Cast(_)
        | Expr::TryCast(_) => true,
        Expr::BinaryExpr(binary) => matches!(
            binary.op,
            Operator::Eq
                | Operator::NotEq
                | Operator::Lt
                | Operator::LtEq
                | Operator::Gt
                | Operator::GtEq
                | Operator::IsDistinctFrom
                | Operator::IsNotDistinctFrom
                | Operator::And
                | Operator::Or
        ),
        Expr::InList(list) => list.list.iter().all(is_literal),
        Expr::Like(like) => is_literal(&like.pattern),
        _ => false,
    }
}

/// Whether every value of a type can be cast to another.
fn never_fails(from: &DataType, to: &DataType) -> bool {
    use DataType::{
        Float16, Float32, Float64, Int8, Int16, Int32, Int64, LargeUtf8, UInt8, UInt16, UInt32,
        UInt64, Utf8, Utf8View,
    };
    if from != to && matches!(to, DataType::Dictionary(..)) {
        // Its keys may not be enough for the values of a page.
        return false;
    }
    let (from, to) = (value_type(from), value_type(to));
    from == to
        || match from {
            Utf8 | LargeUtf8 | Utf8View => matches!(to, Utf8 | LargeUtf8 | Utf8View),
            Int8 => matches!(to, Int16 | Int32 | Int64 | Float32 | Float64),
            Int16 => matches!(to, Int32 | Int64 | Float32 | Float64),
            Int32 => matches!(to, Int64 | Float32 | Float64),
            Int64 | UInt64 => matches!(to, Float32 | Float64),
            UInt8 => matches!(
                to,
                UInt16 | UInt32 | UInt64 | Int16 | Int32 | Int64 | Float32 | Float64
            ),
            UInt16 => matches!(to, UInt32 | UInt64 | Int32 | Int64 | Float32 | Float64),
            UInt32 => matches!(to, UInt64 | Int64 | Float32 | Float64),
            Float16 => matches!(to, Float32 | Float64),
            Float32 => matches!(to, Float64),
            _ => false,
        }
}

fn value_type(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, value) => value,
        data_type => data_type,
    }
}

/// The upsert pages that may have a row which passes all filters, ascending.
pub(crate) fn wanted_pages(
    snapshot: &TableSnapshot,
    filters: &[Arc<dyn PhysicalExpr>],
) -> Vec<usize> {
    let upserts = snapshot.pages().enumerate();
    let upserts = upserts.filter(|(_, page)| page.kind == PageKind::Upsert);
    let upserts: Vec<usize> = upserts.map(|(page, _)| page).collect();
    rule_out(snapshot, filters, upserts)
}

/// All pages that may have a key which passes the filters on key columns, ascending: the newest row of such a key, and
/// its deletion, are in there. `None` if there are no such filters, or if nothing is known of any row's past anyhow.
pub(crate) fn relevant_pages(
    snapshot: &TableSnapshot,
    filters: &[Arc<dyn PhysicalExpr>],
) -> Option<Vec<usize>> {
    if snapshot.is_distinct() {
        return None;
    }
    let key_columns = snapshot.spec().key_columns();
    let of_keys: Vec<Arc<dyn PhysicalExpr>> = filters
        .iter()
        .flat_map(split_conjunction)
        .filter(|filter| {
            let mut has_columns = false;
            let mut is_of_keys = true;
            let _ = filter.apply(|expr| {
                if let Some(column) = expr.downcast_ref::<PhysicalColumn>() {
                    has_columns = true;
                    is_of_keys &= key_columns.contains(&column.index());
                }
                Ok(TreeNodeRecursion::Continue)
            });
            has_columns && is_of_keys
        })
        .cloned()
        .collect();
    if of_keys.is_empty() {
        return None;
    }
    let all: Vec<usize> = (0..snapshot.pages().len()).collect();
    Some(rule_out(snapshot, &of_keys, all))
}

/// Leaves those pages that may have a row which passes all filters. A page that cannot be judged stays.
pub(crate) fn rule_out(
    snapshot: &TableSnapshot,
    filters: &[Arc<dyn PhysicalExpr>],
    pages: Vec<usize>,
) -> Vec<usize> {
    if pages.is_empty() {
        return pages;
    }
    let schema = &seen_schema(snapshot.schema());
    let usable: Vec<Arc<dyn PhysicalExpr>> = filters
        .iter()
        // What a filter that changes says now.
        .filter_map(|filter| snapshot_physical_expr(Arc::clone(filter)).ok())
        .flat_map(|filter| {
            let conjuncts = split_conjunction(&filter).into_iter();
            conjuncts.map(Arc::clone).collect::<Vec<_>>()
        })
        .filter(|filter| is_usable(filter, schema))
        .collect();
    let mut pages = pages;
    for usable in usable.chunks(FILTERS_AT_ONCE) {
        pages = rule_out_by(snapshot, conjunction(usable.iter().cloned()), pages);
    }
    pages
}

fn rule_out_by(
    snapshot: &TableSnapshot,
    filter: Arc<dyn PhysicalExpr>,
    pages: Vec<usize>,
) -> Vec<usize> {
    let predicate = PruningPredicateBuilder::new()
        .with_file_schema(seen_schema(snapshot.schema()))
        .build(filter);
    let Some(predicate) = predicate else {
        return pages;
    };
    let statistics = PageStatistics {
        snapshot,
        pages: &pages,
    };
    match predicate.prune(&statistics) {
        Ok(kept) => {
            let kept = pages.iter().zip(kept).filter(|(_, is_kept)| *is_kept);
            kept.map(|(page, _)| *page).collect()
        }
        // A bound that cannot be cast, for instance. The rows tell.
        Err(_) => pages,
    }
}

/// Whether what the pruning predicate makes of a filter can be trusted.
fn is_usable(filter: &Arc<dyn PhysicalExpr>, schema: &Schema) -> bool {
    let mut is_usable = true;
    let visited = filter.apply(|expr| {
        if let Some(cast) = expr.downcast_ref::<CastExpr>() {
            is_usable &= keeps_order(&cast.expr().data_type(schema)?, cast.cast_type());
        }
        // It makes nulls of values, and the counts of nulls know nothing of that.
        is_usable &= expr.downcast_ref::<TryCastExpr>().is_none();
        // The smallest integer has no counterpart.
        is_usable &= expr.downcast_ref::<NegativeExpr>().is_none();
        Ok(TreeNodeRecursion::Continue)
    });
    visited.is_ok() && is_usable
}

/// Whether of two values the larger one is never the smaller after a cast.
///
/// So it is not for numbers as text, for times of day from timestamps, and for a timestamp that gets or loses a time zone
/// (one hour of each year comes twice).
fn keeps_order(from: &DataType, to: &DataType) -> bool {
    let (from, to) = (value_type(from), value_type(to));
    let is_number = |data_type: &DataType| data_type.is_numeric();
    let is_day_or_time = |data_type: &DataType| {
        matches!(
            data_type,
            DataType::Date32 | DataType::Date64 | DataType::Timestamp(_, None)
        )
    };
    let has_zone = |data_type: &DataType| matches!(data_type, DataType::Timestamp(_, Some(_)));
    from == to
        || (from.is_string() && to.is_string())
        || (is_number(from) && is_number(to))
        || (is_day_or_time(from) && is_day_or_time(to))
        || (has_zone(from) && has_zone(to))
}

/// What the pruning predicate asks about pages.
struct PageStatistics<'s> {
    snapshot: &'s TableSnapshot,
    pages: &'s [usize],
}

impl PageStatistics<'_> {
    fn column(&self, column: &Column) -> Option<usize> {
        self.snapshot.schema().index_of(&column.name).ok()
    }

    fn bounds(&self, column: &Column) -> Option<ColumnBounds> {
        let column = self.column(column)?;
        self.snapshot.column_bounds(column, self.pages)
    }
}

impl PruningStatistics for PageStatistics<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        Some(widened(&self.bounds(column)?).0)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        Some(widened(&self.bounds(column)?).1)
    }

    fn num_containers(&self) -> usize {
        self.pages.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let num_nulls = self.snapshot.null_counts(self.column(column)?, self.pages);
        Some(Arc::new(num_nulls))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        let pages: Vec<_> = self.snapshot.pages().collect();
        let num_rows = self
            .pages
            .iter()
            .map(|page| u64::from(pages[*page].num_rows));
        Some(Arc::new(UInt64Array::from_iter_values(num_rows)))
    }

    fn contained(&self, column: &Column, values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        let column = self.column(column)?;
        let values = values.iter().map(|value| match value {
            ScalarValue::Dictionary(_, value) => (**value).clone(),
            value => value.clone(),
        });
        let values = ScalarValue::iter_to_array(values).ok()?;
        // Bounds are of the type that is stored.
        let stored = self.snapshot.schema().field(column).data_type();
        let values = if seen_type(stored) == *values.data_type() {
            cast(&values, stored).ok()?
        } else {
            values
        };
        // Two zeros and many NaNs are different values to the bounds.
        if values.data_type().is_floating() {
            return None;
        }
        let may_hold = self.snapshot.may_hold(column, &values, self.pages)?;
        let only_no = may_hold.into_iter().map(|may| (!may).then_some(false));
        Some(only_no.collect())
    }
}

/// Bounds that hold however floats are compared: both zeros are between them if one is, and where there is NaN nothing is
/// known.
fn widened(bounds: &ColumnBounds) -> (ArrayRef, ArrayRef) {
    macro_rules! widen {
        ($type:ty, $array:ty, $zero:expr) => {{
            let (min, max) = (
                bounds.min.as_primitive::<$type>(),
                bounds.max.as_primitive::<$type>(),
            );
            let ends = min.iter().zip(max.iter()).map(|(min, max)| {
                let (min, max) = (min?, max?);
                (!min.is_nan() && !max.is_nan()).then_some((
                    if min == $zero { -$zero } else { min },
                    if max == $zero { $zero } else { max },
                ))
            });
            let ends: Vec<_> = ends.collect();
            let min: $array = ends.iter().map(|ends| ends.map(|(min, _)| min)).collect();
            let max: $array = ends.iter().map(|ends| ends.map(|(_, max)| max)).collect();
            (Arc::new(min) as ArrayRef, Arc::new(max) as ArrayRef)
        }};
    }
    match bounds.min.data_type() {
        DataType::Float16 => {
            widen!(
                Float16Type,
                Float16Array,
                <Float16Type as ArrowPrimitiveType>::Native::default()
            )
        }
        DataType::Float32 => widen!(Float32Type, Float32Array, 0.0_f32),
        DataType::Float64 => widen!(Float64Type, Float64Array, 0.0_f64),
        _ => (Arc::clone(&bounds.min), Arc::clone(&bounds.max)),
    }
}

/// The columns of a table that expressions over its schema use.
pub(crate) fn columns_of(filters: &[Arc<dyn PhysicalExpr>]) -> Result<HashSet<usize>> {
    let mut columns = HashSet::new();
    for filter in filters {
        filter.apply(|expr| {
            if let Some(column) = expr.downcast_ref::<PhysicalColumn>() {
                columns.insert(column.index());
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    Ok(columns)
}
