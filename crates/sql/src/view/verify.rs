//! A view compared with its sources.

use std::{collections::HashMap, sync::Arc};

use arrow_array::{Array, ArrayRef, RecordBatch, cast::AsArray, types::Float64Type};
use arrow_schema::DataType;
use darner_engine::Error;
use darner_store::AsOf;
use datafusion::{
    arrow::{
        compute::cast,
        util::display::{ArrayFormatter, FormatOptions},
    },
    catalog::TableProvider,
    error::Result,
    physical_expr::aggregate::AggregateFunctionExpr,
    physical_plan::collect,
};

use super::{
    aggregation::Aggregation,
    define::{FactsKind, StoredView},
    lookup::finished,
    prepared::{Planned, Prepared},
    refresh::Views,
    shape,
};
use crate::{blocking::blocking, error::to_datafusion, table::StoreTable};

/// So many problems are told one by one.
const PROBLEMS_MAX: usize = 20;

/// So much of a value two sums of the same floating-point numbers may differ by, for they are rounded in another order.
const TOLERANCE: f64 = 1e-9;

/// Functions whose value depends on the order in which rows come, unless they say in which.
const ORDERED: [&str; 6] = [
    "array_agg",
    "string_agg",
    "first_value",
    "last_value",
    "nth_value",
    "any_value",
];

/// Functions whose value is an estimate that depends on how rows were split up.
const ESTIMATES: [&str; 3] = [
    "approx_percentile_cont",
    "approx_percentile_cont_with_weight",
    "approx_median",
];

/// What a view and its sources say differently.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ViewProblems {
    /// Groups, or rows, that were compared.
    pub num_compared: u64,
    /// How many of them differ, are missing, or should not be there.
    pub num_problems: u64,
    /// The first of them, in words.
    pub problems: Vec<String>,
    /// What was not compared, and what may be the reason for differences.
    pub notes: Vec<String>,
}

impl ViewProblems {
    fn add(&mut self, problem: impl FnOnce() -> String) {
        self.num_problems += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem());
        }
    }
}

impl Views {
    /// Computes a view from its sources again, and compares.
    pub(crate) async fn verify(&self, name: &str) -> Result<ViewProblems> {
        let store = self.handle.store();
        let view = StoredView::get(&store, name).map_err(to_datafusion)?;
        let (mut seen, _) = view.seen(&store).map_err(to_datafusion)?;
        if seen.num_pushed_rows > 0 {
            return Err(to_datafusion(Error::invalid(format!(
                "rows that were pushed cannot be read again, so the view cannot be compared with them: view=`{name}` \
                 pushed_rows=`{}`",
                seen.num_pushed_rows
            ))));
        }
        let Some(facts) = &view.definition.facts else {
            return self.verify_rows(&view).await;
        };
        let rows: Arc<dyn TableProvider> = match facts.kind {
            FactsKind::Table => {
                let table = store.table(&facts.relation.name);
                let version = seen.facts.map_or(0, |facts| facts.version);
                let table = table.and_then(|table| table.at(AsOf::Version(version)));
                Arc::new(StoreTable::past(
                    &self.handle,
                    table.map_err(to_datafusion)?,
                ))
            }
            FactsKind::Files | FactsKind::Pushed => {
                // Each of them is to be what it was.
                let checked = blocking(|| super::sources::check_all(name, &mut seen.files));
                checked.map_err(to_datafusion)?;
                self.table_of(&seen.files, &facts.relation).await?
            }
        };
        let planned =
            Planned::on_facts(&self.handle, &view.definition, rows, self.num_threads).await?;
        let shape = shape::shape_of(&planned.plan)?;
        let shape = shape.map_err(|reason| to_datafusion(Error::internal(reason)))?;
        let prepared = Prepared::of(&self.handle, &view).await?;
        let aggregation = &prepared.aggregation;
        let states = aggregation
            .states_of(&shape.aggregate.input, &planned.state)
            .await?;
        let expected = aggregation.merge(&states.rows, &planned.state).await?;
        let stored = view
            .table
            .rows(None)
            .and_then(Iterator::collect::<darner_store::Result<Vec<_>>>);
        let stored = stored.map_err(to_datafusion)?;
        let mut found = ViewProblems::default();
        let changed = self.changed_dimensions(&seen);
        if !changed.is_empty() {
            found.notes.push(format!(
                "rows were joined with older versions of `{}`: differences may come from there",
                changed.join("`, `")
            ));
        }
        compare_groups(aggregation, &stored, &expected, &mut found)?;
        Ok(found)
    }

    /// Compares the rows of a view that keeps no states.
    async fn verify_rows(&self, view: &StoredView) -> Result<ViewProblems> {
        let query = &view.definition.query;
        let planned = Planned::on_all(&self.handle, query, None, self.num_threads).await?;
        let plan = planned.state.create_physical_plan(&planned.plan).await?;
        let expected = collect(plan, planned.state.task_ctx()).await?;
        let stored = view
            .table
            .rows(None)
            .and_then(Iterator::collect::<darner_store::Result<Vec<_>>>);
        let stored = stored.map_err(to_datafusion)?;
        let mut counts: HashMap<String, i64> = HashMap::new();
        let mut found = ViewProblems::default();
        for rows in &stored {
            for text in row_texts(&rows.columns()[1..], rows.num_rows())? {
                found.num_compared += 1;
                *counts.entry(text).or_default() += 1;
            }
        }
        for rows in &expected {
            for text in row_texts(rows.columns(), rows.num_rows())? {
                *counts.entry(text).or_default() -= 1;
            }
        }
        for (text, count) in counts {
            if count > 0 {
                found.add(|| format!("row is stored, and does not come out of the query: {text}"));
            } else if count < 0 {
                found.add(|| format!("row comes out of the query, and is not stored: {text}"));
            }
        }
        Ok(found)
    }
}

fn compare_groups(
    aggregation: &Aggregation,
    stored: &[RecordBatch],
    expected: &RecordBatch,
    found: &mut ViewProblems,
) -> Result<()> {
    let keys = expected.column(0).as_binary::<i32>();
    let mut places: HashMap<&[u8], usize> = HashMap::with_capacity(keys.len());
    for (row, key) in keys.iter().enumerate() {
        places.insert(key.unwrap_or_default(), row);
    }
    let num_groups = aggregation.num_group_columns();
    let is_compared: Vec<bool> = aggregation
        .functions()
        .iter()
        .map(|f| is_exact(f))
        .collect();
    for function in aggregation.functions().iter().filter(|f| !is_exact(f)) {
        found.notes.push(format!(
            "not compared: `{}` depends on how rows were split up and ordered",
            function.name()
        ));
    }
    let expected = finished(aggregation, expected)?;
    for rows in stored {
        let keys = rows.column(0).as_binary::<i32>();
        let rows = finished(aggregation, rows)?;
        let names = row_texts(&rows.columns()[..num_groups], rows.num_rows())?;
        for (row, key) in keys.iter().enumerate() {
            found.num_compared += 1;
            let Some(place) = places.remove(key.unwrap_or_default()) else {
                found.add(|| format!("group is stored, and has no rows: {}", names[row]));
                continue;
            };
            for (function, is_compared) in is_compared.iter().enumerate() {
                let column = num_groups + function;
                let (left, right) = (rows.column(column), expected.column(column));
                if *is_compared && !is_same(left, row, right, place)? {
                    let name = aggregation.functions()[function].name().to_owned();
                    let (left, right) = (text_of(left, row)?, text_of(right, place)?);
                    found.add(|| {
                        format!(
                            "group differs: {} of {}: stored=`{left}` computed=`{right}`",
                            name, names[row]
                        )
                    });
                    break;
                }
            }
        }
    }
    let mut left: Vec<usize> = places.into_values().collect();
    left.sort_unstable();
    let names = row_texts(&expected.columns()[..num_groups], expected.num_rows())?;
    for row in left {
        found.add(|| format!("group has rows, and is not stored: {}", names[row]));
    }
    Ok(())
}

/// Whether a function gives the same value however its rows come.
pub(crate) fn is_exact(function: &AggregateFunctionExpr) -> bool {
    let name = function.fun().name();
    !ESTIMATES.contains(&name) && (!ORDERED.contains(&name) || !function.order_bys().is_empty())
}

fn is_same(left: &ArrayRef, row: usize, right: &ArrayRef, place: usize) -> Result<bool> {
    let (left, right) = (left.slice(row, 1), right.slice(place, 1));
    if !matches!(
        left.data_type(),
        DataType::Float16 | DataType::Float32 | DataType::Float64
    ) {
        return Ok(left.to_data() == right.to_data() || text_of(&left, 0)? == text_of(&right, 0)?);
    }
    if left.is_null(0) || right.is_null(0) {
        return Ok(left.is_null(0) == right.is_null(0));
    }
    let (left, right) = (
        cast(&left, &DataType::Float64)?,
        cast(&right, &DataType::Float64)?,
    );
    let left = left.as_primitive::<Float64Type>().value(0);
    let right = right.as_primitive::<Float64Type>().value(0);
    let bound = TOLERANCE * left.abs().max(right.abs()).max(1.0);
    Ok(left.to_bits() == right.to_bits()
        || (left.is_nan() && right.is_nan())
        || (left - right).abs() <= bound)
}

fn text_of(column: &ArrayRef, row: usize) -> Result<String> {
    let options = FormatOptions::default().with_null("null");
    let formatter = ArrayFormatter::try_new(column, &options)?;
    Ok(formatter.value(row).to_string())
}

/// Rows as text.
fn row_texts(columns: &[ArrayRef], num_rows: usize) -> Result<Vec<String>> {
    let options = FormatOptions::default().with_null("null");
    let formatters = columns
        .iter()
        .map(|column| ArrayFormatter::try_new(column, &options))
        .collect::<Result<Vec<_>, _>>()?;
    let text = |row: usize| {
        let values = formatters
            .iter()
            .map(|column| column.value(row).to_string());
        format!("({})", values.collect::<Vec<_>>().join(", "))
    };
    Ok((0..num_rows).map(text).collect())
}
