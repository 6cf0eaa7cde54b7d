//! Functions over tables of stores: the past as tables, and lookups.
//!
//! | function | gives |
//! |---|---|
//! | `darner_at('t', version or time)` | the table as it was |
//! | `darner_history('t')` | what each commit did to it |
//! | `darner_changes('t', since [, until])` | the rows that were changed, and the keys that were deleted |
//! | `dim_get('t', key..., 'column')` | a column of the row with a key, or null |
//! | `dim_has('t', key...)` | whether there is such a row |
//!
//! Tables are named by literals: by their name alone, or as `catalog.public.table`.

mod lookup;
mod past;
mod rows;

use std::sync::Arc;

use darner_engine::{Error, ErrorKind};
use darner_store::AsOf;
use datafusion::{
    common::{Result, ScalarValue, plan_err},
    logical_expr::{Expr, ScalarUDF},
    prelude::SessionContext,
};

use self::lookup::{Ask, Lookup};
pub(crate) use self::lookup::{looks_into, pin_lookups};
use crate::{catalog::Catalogs, error::to_datafusion};

/// Makes the functions known to a session. They find the catalogs that it has, and those that it will have.
pub(crate) fn register(context: &SessionContext, catalogs: &Arc<Catalogs>) {
    past::register(context, catalogs);
    for ask in [Ask::Get, Ask::Has] {
        let lookup = Lookup::new(ask, Arc::clone(catalogs));
        context.register_udf(ScalarUDF::new_from_impl(lookup));
    }
}

/// The text that an argument must be.
fn text<'e>(function: &str, what: &str, arg: Option<&'e Expr>) -> Result<&'e str> {
    let value = match arg {
        Some(Expr::Literal(value, _)) => value.try_as_str().flatten(),
        _ => None,
    };
    if let Some(value) = value {
        return Ok(value);
    }
    plan_err!("{function} wants {what}, as a text in single quotes")
}

/// The version or time that an argument must be.
fn as_of(function: &str, arg: Option<&Expr>) -> Result<AsOf> {
    let wrong = || {
        plan_err!("{function} wants a version, such as 42, or a time, such as '2026-01-31 12:00'")
    };
    let Some(Expr::Literal(value, _)) = arg else {
        return wrong();
    };
    if let Some(Some(text)) = value.try_as_str() {
        return text
            .parse()
            .map_err(|error: Error| to_datafusion(error.context(function)));
    }
    let microseconds = |ticks: i64, per_second: i64| {
        // A time between two microseconds is after the earlier one.
        let us = i128::from(ticks) * 1_000_000;
        let us = us.div_euclid(i128::from(per_second));
        i64::try_from(us).map(AsOf::Time)
    };
    let time = match value {
        ScalarValue::TimestampSecond(Some(ticks), _) => microseconds(*ticks, 1),
        ScalarValue::TimestampMillisecond(Some(ticks), _) => microseconds(*ticks, 1_000),
        ScalarValue::TimestampMicrosecond(Some(ticks), _) => Ok(AsOf::Time(*ticks)),
        ScalarValue::TimestampNanosecond(Some(ticks), _) => microseconds(*ticks, 1_000_000_000),
        ScalarValue::Date32(Some(days)) => microseconds(i64::from(*days) * 86_400, 1),
        number => {
            let number = match number {
                number if !number.data_type().is_integer() => None,
                number => number
                    .cast_to(&arrow_schema::DataType::UInt64)
                    .ok()
                    .and_then(|number| match number {
                        ScalarValue::UInt64(number) => number,
                        _ => None,
                    }),
            };
            return match number {
                Some(number) => Ok(AsOf::Version(number)),
                None => wrong(),
            };
        }
    };
    time.map_err(|_| {
        to_datafusion(Error::new(
            ErrorKind::Invalid,
            format!("{function}: time is out of range: time=`{value}`"),
        ))
    })
}

/// Fails if there are more arguments than a function takes.
fn check_count(function: &str, args: &[Expr], max: usize, usage: &str) -> Result<()> {
    if args.is_empty() || args.len() > max {
        return plan_err!(
            "{function} is written as {usage}: arguments=`{}`",
            args.len()
        );
    }
    Ok(())
}
