//! Rows that are taken back from the states of their groups.
//!
//! Counts and sums of whole numbers and decimals are exact, so what some rows have added to them can be taken away again.
//! Two things are not in DataFusion's states of them: whether a group has any rows left, and whether a sum has any values
//! left, without which it is null and not zero. So views of tables count rows and values, too, in functions that nobody
//! sees. An average keeps its sum as a float, from which nothing can be taken away exactly: one of whole numbers gets an
//! exact sum beside it.

use std::{collections::HashMap, sync::Arc};

use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanArray, PrimitiveArray, RecordBatch, UInt64Array,
    cast::AsArray,
    types::{Decimal128Type, Decimal256Type, Int64Type, UInt64Type},
};
use arrow_schema::DataType;
use datafusion::{
    arrow::{
        array::ArrowNativeTypeOp,
        compute::{cast, filter, filter_record_batch, not, nullif, take},
    },
    common::{Result, internal_err},
    functions_aggregate::expr_fn::{count, sum},
    logical_expr::{
        Aggregate, Cast, Expr, ExprFunctionExt, ExprSchemable, expr::AggregateFunction, lit,
    },
};

use foldhash::fast::RandomState;

use super::aggregation::Aggregation;

/// The digits of an exact sum: those of 64-bit numbers, added up without end.
const SUM_DIGITS: u8 = 38;

/// How rows are taken back from the states of each function that is seen. Functions are known by their places.
#[derive(Clone, Debug)]
pub(crate) struct Retraction {
    ways: Vec<Way>,
    /// The function that counts rows.
    rows: usize,
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Count,
    /// Null without values, which another function counts.
    Sum {
        values: usize,
    },
    /// A count and a sum, which is that of another function if it is a float here.
    Average {
        sum: Option<usize>,
    },
}

/// An aggregate with the functions that are needed to take rows back. The inner error says which function forbids that,
/// in words that follow `because`.
pub(crate) fn retractable(
    aggregate: &Aggregate,
) -> Result<Result<(Aggregate, Retraction), String>> {
    if let [Expr::GroupingSet(_)] = &aggregate.group_expr[..] {
        return Ok(Err("the groups are of several sets of columns".to_owned()));
    }
    let num_seen = aggregate.aggr_expr.len();
    let mut hidden: Vec<Expr> = Vec::new();
    let mut hide = |expr: Expr| {
        let place = num_seen + hidden.len();
        hidden.push(expr.alias(format!("darner.{place}")));
        place
    };
    let rows = hide(count(lit(1_i64)));
    let mut ways = Vec::with_capacity(num_seen);
    for expr in &aggregate.aggr_expr {
        let no = || {
            Ok(Err(format!(
                "`{expr}` of fewer rows is not told by what is stored of it"
            )))
        };
        let Expr::AggregateFunction(AggregateFunction { func, params }) = expr.clone().unalias()
        else {
            return no();
        };
        if params.distinct || !params.order_by.is_empty() {
            return no();
        }
        let filtered = |expr: Expr| match &params.filter {
            None => Ok(expr),
            Some(filter) => expr.filter(Expr::clone(filter)).build(),
        };
        let way = match (func.name(), &params.args[..]) {
            ("count", _) => Way::Count,
            ("sum", [value]) if is_exact(&value.get_type(aggregate.input.schema())?) => Way::Sum {
                values: hide(filtered(count(value.clone()))?),
            },
            ("avg", [value]) => match whole_number(value, aggregate)? {
                Some(number) => {
                    let number = Cast::new(Box::new(number), DataType::Decimal128(SUM_DIGITS, 0));
                    let sum = filtered(sum(Expr::Cast(number)))?;
                    Way::Average {
                        sum: Some(hide(sum)),
                    }
                }
                None if is_exact(&value.get_type(aggregate.input.schema())?) => {
                    Way::Average { sum: None }
                }
                None => return no(),
            },
            _ => return no(),
        };
        ways.push(way);
    }
    let functions = aggregate.aggr_expr.iter().cloned().chain(hidden).collect();
    let input = Arc::clone(&aggregate.input);
    let aggregate = Aggregate::try_new(input, aggregate.group_expr.clone(), functions)?;
    Ok(Ok((aggregate, Retraction { ways, rows })))
}

/// Whether numbers of a type are added up without loss.
fn is_exact(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Int64 | DataType::UInt64 | DataType::Decimal128(..) | DataType::Decimal256(..)
    )
}

/// The whole number that is averaged as a float, if it is one.
fn whole_number(value: &Expr, aggregate: &Aggregate) -> Result<Option<Expr>> {
    let Expr::Cast(cast) = value else {
        return Ok(None);
    };
    let is_float = cast.field.data_type() == &DataType::Float64;
    let number = &cast.expr;
    let is_whole = number.get_type(aggregate.input.schema())?.is_integer();
    Ok((is_float && is_whole).then(|| Expr::clone(number)))
}

impl Retraction {
    /// What is left of states when others are taken from them, each group once in both, and the keys of groups without
    /// rows. `None` if these states have never been a part of those.
    pub(crate) fn take_back(
        &self,
        aggregation: &Aggregation,
        all: &RecordBatch,
        taken: &RecordBatch,
    ) -> Result<Option<(RecordBatch, ArrayRef)>> {
        let Some(places) = places_of(all, taken) else {
            return Ok(None);
        };
        let mut columns = all.columns().to_vec();
        let mut subtract = |column: usize| -> Result<bool> {
            let taken = take(taken.column(column), &places, None)?;
            let Some(left) = subtract(&columns[column], &taken)? else {
                return Ok(false);
            };
            columns[column] = left;
            Ok(true)
        };
        // A function's one state, or the first of two.
        let state =
            |function: usize| -> Result<usize> { Ok(aggregation.state_columns(function)?.start) };
        let rows = state(self.rows)?;
        let mut is_part = subtract(rows)?;
        for (function, way) in self.ways.iter().enumerate() {
            let own = state(function)?;
            is_part &= subtract(own)?;
            is_part &= match way {
                Way::Count => true,
                Way::Sum { values } => subtract(state(*values)?)?,
                Way::Average { sum: None } => subtract(own + 1)?,
                Way::Average { sum: Some(sum) } => subtract(state(*sum)?)?,
            };
        }
        if !is_part {
            return Ok(None);
        }
        for (function, way) in self.ways.iter().enumerate() {
            let own = state(function)?;
            match way {
                Way::Count => {}
                Way::Sum { values } => {
                    let is_empty = is_zero(&columns[state(*values)?])?;
                    columns[own] = nullif(&columns[own], &is_empty)?;
                }
                Way::Average { sum } => {
                    let is_empty = is_zero(&columns[own])?;
                    columns[own] = nullif(&columns[own], &is_empty)?;
                    let exact = match sum {
                        Some(sum) => state(*sum)?,
                        None => own + 1,
                    };
                    let left = nullif(&columns[exact], &is_empty)?;
                    columns[own + 1] = cast(&left, columns[own + 1].data_type())?;
                    columns[exact] = if exact == own + 1 {
                        Arc::clone(&columns[own + 1])
                    } else {
                        left
                    };
                }
            }
        }
        let counted = columns[rows].as_primitive::<Int64Type>();
        if counted.values().iter().any(|count| *count < 0) {
            return Ok(None);
        }
        let is_gone = if aggregation.is_global() {
            BooleanArray::from(vec![false; all.num_rows()])
        } else {
            is_zero(&columns[rows])?
        };
        let gone = filter(&columns[0], &is_gone)?;
        let left = RecordBatch::try_new(all.schema(), columns)?;
        Ok(Some((filter_record_batch(&left, &not(&is_gone)?)?, gone)))
    }
}

/// Where the groups of `all` are in `taken`: null for those that are not. `None` if one of `taken` is not in `all`.
fn places_of(all: &RecordBatch, taken: &RecordBatch) -> Option<UInt64Array> {
    let keys = taken.column(0).as_binary::<i32>().iter().flatten();
    let places: HashMap<&[u8], u64, RandomState> = keys.zip(0..).collect();
    let keys = all.column(0).as_binary::<i32>().iter();
    let found: UInt64Array = keys
        .map(|key| places.get(key.unwrap_or_default()).copied())
        .collect();
    (found.len() - found.null_count() == places.len()).then_some(found)
}

/// States less others, where there are some. `None` if nothing was there to take from.
fn subtract(all: &ArrayRef, taken: &ArrayRef) -> Result<Option<ArrayRef>> {
    match all.data_type() {
        DataType::Int64 => Ok(subtract_as::<Int64Type>(all, taken)),
        DataType::UInt64 => Ok(subtract_as::<UInt64Type>(all, taken)),
        DataType::Decimal128(..) => Ok(subtract_as::<Decimal128Type>(all, taken)),
        DataType::Decimal256(..) => Ok(subtract_as::<Decimal256Type>(all, taken)),
        other => internal_err!("states of type {other} cannot be taken back"),
    }
}

fn subtract_as<T: ArrowPrimitiveType>(all: &ArrayRef, taken: &ArrayRef) -> Option<ArrayRef> {
    let (all, taken) = (all.as_primitive::<T>(), taken.as_primitive::<T>());
    let mut is_part = true;
    let pairs = all.iter().zip(taken.iter());
    let left = pairs.map(|(all, taken)| match (all, taken) {
        // As they were added: sums that are too large come round.
        (Some(all), Some(taken)) => Some(all.sub_wrapping(taken)),
        (all, None) => all,
        (None, Some(_)) => {
            is_part = false;
            None
        }
    });
    let left: PrimitiveArray<T> = left.collect();
    let left = left.with_data_type(all.data_type().clone());
    is_part.then(|| Arc::new(left) as ArrayRef)
}

/// Where a count is zero.
fn is_zero(counts: &ArrayRef) -> Result<BooleanArray> {
    match counts.data_type() {
        DataType::Int64 => Ok(zeros(counts.as_primitive::<Int64Type>())),
        DataType::UInt64 => Ok(zeros(counts.as_primitive::<UInt64Type>())),
        other => internal_err!("counts are of type {other}"),
    }
}

fn zeros<T: ArrowPrimitiveType>(counts: &PrimitiveArray<T>) -> BooleanArray {
    let counts = counts.iter();
    counts
        .map(|count| Some(count.is_none_or(|count| count == T::Native::ZERO)))
        .collect()
}
